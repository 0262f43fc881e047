"""A bundle's configuration with some of its values changed, as a bundle of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from brats_pipeline.bundles.cards import unmeasured
from brats_pipeline.bundles.declaring import declared
from brats_pipeline.bundles.installed import WEIGHTS, read_metadata
from brats_pipeline.bundles.workflow import holds, refuse_unknown_ids
from brats_pipeline.files import write_atomically
from brats_pipeline.overlays import TUNED

WHOLE_CONFIGS = ("train.yaml", "inference.yaml")
"""Configurations that a run has in its own version."""
METADATA = "metadata.json"
SCORING = "evaluate.yaml"
"""The overlay that has the settings of post-processing too; copied as it is unless one of them changes."""


def freeze_bundle(bundle: Path, out: Path, overrides: Mapping[str, Any]) -> None:
    """Copy a bundle's configuration to ``out`` with some values changed, so that ``out`` is a bundle of its own.

    Args:
        bundle: the bundle to copy.
        out: folder of the run.
        overrides: id to value; applied to every configuration that has the id.

    Raises:
        PipelineError: no configuration has one of the ids, and then nothing is written; or the folder cannot be
            written.
    """
    import yaml
    from monai.bundle import ConfigParser

    changed: dict[str, str] = {}
    content_of: dict[str, dict[str, Any]] = {}
    applied: set[str] = set()
    for name in WHOLE_CONFIGS:
        parser = ConfigParser()
        parser.read_config(str(bundle / "configs" / name))
        fitting = {key: value for key, value in overrides.items() if holds(parser, key)}
        applied |= set(fitting)
        parser.update(fitting)
        content_of[name] = {key: value for key, value in parser.get().items() if key != "_meta_"}
        changed[name] = yaml.safe_dump(content_of[name], sort_keys=False, default_flow_style=None, width=120)
    if (bundle / "configs" / SCORING).is_file():
        content = yaml.safe_load((bundle / "configs" / SCORING).read_text(encoding="utf-8"))
        if fitting := {key: value for key, value in overrides.items() if key in content}:
            changed[SCORING] = yaml.safe_dump(content | fitting, sort_keys=False, default_flow_style=None, width=120)
    refuse_unknown_ids(bundle, set(overrides) - applied)
    metadata = read_metadata(bundle)
    told = declared(metadata, content_of["inference.yaml"])
    other_weights = WEIGHTS in metadata and bundle.resolve() != out.resolve()
    if other_weights:
        told = {key: value for key, value in told.items() if key != WEIGHTS} | {"eval_metrics": {}}
    if told != metadata:
        changed[METADATA] = json.dumps(told, indent=2, ensure_ascii=False) + "\n"
    for name, text in changed.items():
        write_atomically(out / "configs" / name, text)
    if bundle.resolve() == out.resolve():
        return
    for folder in ("configs", "docs"):
        for source in sorted((bundle / folder).rglob("*")):
            # What suits the weights of a bundle says nothing of those that the run is going to have.
            if source.is_file() and source.name not in changed and source.name not in TUNED:
                write_atomically(out / source.relative_to(bundle), source.read_bytes())
    if other_weights:
        card = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
        write_atomically(out / "docs" / "README.md", unmeasured(card))
    if (bundle / "LICENSE").is_file():
        write_atomically(out / "LICENSE", (bundle / "LICENSE").read_bytes())
