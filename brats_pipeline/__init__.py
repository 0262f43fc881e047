"""Brain-tumour segmentation in MRI: find cases, train, segment, evaluate and report.

Research software, not a medical device. The names below are the Python form of the commands; each is imported when it
is first used, so that ``import brats_pipeline`` costs nothing.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import Any

from brats_pipeline.errors import CaseError, PipelineError

__version__ = "0.1.0"

_HOMES = {
    "Case": "cases",
    "Source": "cases",
    "bundle_path": "bundles",
    "decide_conventions": "cases",
    "evaluate": "evaluation.evaluate",
    "copied_modalities": "cases.volumes",
    "find_cases": "cases",
    "find_shared": "cases.identity",
    "inspect_cases": "data.fingerprint",
    "read_patients": "cases.patients",
    "prepare_case": "prepare",
    "rehearse_training": "training.train",
    "segment": "inference.segment",
    "split_cases": "data.datalist",
    "study": "studies.study",
    "to_native": "prepare",
    "train": "training.train",
    "tune": "tuning.tune",
    "with_patients": "cases.patients",
    "write_cohort": "phantom",
}

__all__ = ["CaseError", "PipelineError", "__version__", "require_own_packages", *_HOMES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"brats_pipeline.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'brats_pipeline' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


def require_own_packages() -> None:
    """Refuse to run when ``transforms`` or ``networks`` would come from somebody else's package.

    Raises:
        PipelineError: names the foreign folder and the expected one.
    """
    home = Path(__file__).resolve().parent.parent
    for name in ("transforms", "networks"):
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            raise PipelineError(f"package {name!r} is missing beside {home / 'brats_pipeline'}; install it again")
        found = Path(spec.origin).resolve().parent
        if found != home / name:
            raise PipelineError(
                f"package {name!r} comes from {found}, not from {home / name}; another distribution or folder of that "
                "name stands first on the Python path: remove it, or run from another folder"
            )
