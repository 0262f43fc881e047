"""The overlay that decides what becomes of probabilities: ``configs/postprocessing.yaml`` of a bundle or a run.

Everything it may set is off in ``inference.yaml``, which is complete without it. The commands lay it over every
configuration that makes label maps; with MONAI's own command it is named behind the others in ``--config_file``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from brats_pipeline.errors import PipelineError
from brats_pipeline.files import file_sha256

POST_PROCESSING = "postprocessing.yaml"
TUNED = (POST_PROCESSING, "expected_dice.json", "fingerprint.json")
"""Files below ``configs/`` that were made for one file of weights."""
LABEL_MAP_CONFIGS = ("inference.yaml", "evaluate.yaml")
"""Configurations that make label maps."""
CLEANING = ("nesting", "fill_holes", "smallest_component", "keep_largest", "smallest_et")
"""Ids of what happens behind the threshold."""


def post_processing(bundle: Path) -> Path | None:
    """The overlay of a bundle, where it has one."""
    path = bundle / "configs" / POST_PROCESSING
    return path if path.is_file() else None


def read_post_processing(path: Path) -> dict[str, Any]:
    """The ids that an overlay sets, with their values.

    Raises:
        PipelineError: the file cannot be read, or sets nothing.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PipelineError(f"{path}: cannot be read as YAML ({error}); correct or remove it") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise PipelineError(f"{path}: holds no ids with values, such as `threshold: 0.4`; correct or remove it")
    return content


def check_post_processing(path: Path, content: Mapping[str, Any], regions: Sequence[str]) -> None:
    """Refuse values that no label map can be made with.

    Args:
        path: of the overlay.
        content: its ids and values.
        regions: of the network's channels.

    Raises:
        PipelineError: names the file and what is wrong.
    """
    from transforms.cleaning import CleanRegionsd

    thresholds = content.get("threshold", 0.5)
    listed = thresholds if isinstance(thresholds, list) else [thresholds]
    try:
        CleanRegionsd("pred", regions=regions, **{name: content[name] for name in CLEANING if name in content})
        if len(listed) not in (1, len(regions)) or not all(isinstance(one, float) and 0 < one < 1 for one in listed):
            raise ValueError(f"threshold is {thresholds!r}; give a number between 0 and 1, or one for each region")
    except ValueError as error:
        raise PipelineError(f"{path}: {error}; correct or remove it") from error


def configuration_sha256(bundle: Path) -> str:
    """The hash of what decides a bundle's label maps beside its weights: ``inference.yaml`` and the overlay."""
    own, more = file_sha256(bundle / "configs" / "inference.yaml"), post_processing(bundle)
    return own if more is None else hashlib.sha256(f"{own} {file_sha256(more)}".encode()).hexdigest()
