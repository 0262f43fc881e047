"""The model zoo's own `ci/verify_bundle.py` on every bundle, where the variable MODEL_ZOO names a checkout of the zoo.

    MODEL_ZOO=~/model-zoo pytest -m slow tests/bundles/test_model_zoo.py

It puts the bundle's folder and the current folder on Python's path; this distribution must be installed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from brats_pipeline.bundles import list_bundles, read_metadata
from brats_pipeline.bundles.paper_checks import SCHEMAS
from brats_pipeline.bundles.subject import subject_of

ZOO = os.environ.get("MODEL_ZOO")
pytestmark = [pytest.mark.slow, pytest.mark.skipif(ZOO is None, reason="MODEL_ZOO names no checkout of the model zoo")]


def contribution(bundle: Path, models: Path) -> Path:
    """A copy of a bundle as a contribution to the zoo: weights in it, and what the zoo would download in place."""
    copy = shutil.copytree(bundle, models / bundle.name)
    weights = copy / "models" / "model.pt"
    if not weights.is_file():
        weights.parent.mkdir()
        with subject_of(bundle) as subject:
            torch.save(subject.network().state_dict(), weights)
    (copy / "eval").mkdir()
    shutil.copy(SCHEMAS / read_metadata(bundle)["schema"].rpartition("/")[2], copy / "eval" / "schema.json")
    (models / "model_info.json").write_text("{}")
    return copy


@pytest.mark.parametrize("mode", ["regular", "min", "full"])
@pytest.mark.parametrize("bundle", list_bundles(), ids=lambda path: path.name)
def test_the_zoo_takes_the_bundle(bundle: Path, mode: str, python: Callable[..., Any], tmp_path: Path) -> None:
    assert ZOO is not None
    copy = contribution(bundle, tmp_path / "models")
    script = Path(ZOO).resolve() / "ci" / "verify_bundle.py"
    done = python([script, "-b", bundle.name, "-p", copy.parent, "-m", mode], cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = {"regular": "metadata format is", "min": "version and changelog are", "full": "data shape is"}[mode]
    assert f"{passed} verified correctly." in done.stdout
    assert (copy / "models" / "verify_model.ts").is_file() == (mode == "full")
