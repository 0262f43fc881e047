"""A study against what is installed: bundles, networks, configuration ids, losses, scoring rules, columns."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import fields
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from brats_pipeline.bundles import WHOLE_CONFIGS, bundle_path, network_overlay
from brats_pipeline.errors import PipelineError
from brats_pipeline.files import file_sha256
from brats_pipeline.metrics import COUNTED, RULES, RegionScore, filled_columns, rules_named
from brats_pipeline.metrics.comparison import lower_is_better
from brats_pipeline.studies.plan import Arm, Plan

SET_BY_STUDY = frozenset(["fold", "folds", "seed", "data_list_file_path", "dataset_dir", "resume", "output_dir"])
"""Ids that belong to the study itself: its folds, its seeds, its folders."""
COLUMNS = tuple(field.name for field in fields(RegionScore) if field.name not in ("case_id", "region"))


def check_plan(plan: Plan) -> None:
    """Refuse what no training could follow, before the first one starts.

    Raises:
        PipelineError: an unknown bundle, network, configuration id, loss, column or set of rules; all are named.
    """
    if mistakes := list(dict.fromkeys(_mistakes(plan))):
        raise PipelineError("\n  ".join([f"{plan.path} is no study that can be run:", *mistakes]))


def _mistakes(plan: Plan) -> Iterator[str]:
    if plan.rules is not None and plan.rules not in RULES:
        yield f"evaluation.rules: unknown rules {plan.rules!r}; known: {', '.join(RULES)}"
    filled = filled_columns(rules_named(plan.rules)) if plan.rules is not None and plan.rules in RULES else COLUMNS
    for key, names in (("metrics", plan.metrics), ("compare", plan.compare), ("ranking", plan.ranking)):
        for name in names:
            if name not in COLUMNS:
                yield f"evaluation.{key}: unknown column {name!r}; known: {', '.join(COLUMNS)}"
            elif key != "metrics":
                try:
                    lower_is_better(name)
                except ValueError as error:
                    yield f"evaluation.{key}: {error}"
            if name in COUNTED and any(len(arm.seeds) > 1 for arm in plan.arms):
                yield f"evaluation.{key}: {name} is a count, which has no mean over the seeds of an arm; leave it out"
            elif name in COLUMNS and name not in filled:
                yield f"evaluation.{key}: the rules {plan.rules} give no {name}"
    found: dict[str, list[str]] = {}
    for arm in plan.arms:
        for mistake in _arm_mistakes(arm):
            found.setdefault(mistake, []).append(arm.name)
    for mistake, arms in found.items():
        yield f"arm {', '.join(arms)}: {mistake}"


def _arm_mistakes(arm: Arm) -> Iterator[str]:
    try:
        bundle = bundle_path(arm.bundle)
        overlay = {} if arm.network is None else network_overlay(bundle, arm.network)
    except PipelineError as error:
        yield str(error)
        return
    for key in arm.settings:
        if key in SET_BY_STUDY:
            yield f"set: {key} belongs to the study; give folds and seeds there"
    config = configuration(bundle)
    unknown = [key for key in arm.settings if not _holds({**config, **overlay}, key)]
    for key in unknown:
        near = get_close_matches(key, config, n=3)
        meant = f"; near to it: {', '.join(near)}" if near else ""
        yield f"set: no configuration of {arm.bundle} has the id {key}{meant}; see {bundle}/configs/train.yaml"
    loss = arm.settings.get("loss_name")
    if loss is not None and loss not in loss_names():
        yield f"set: unknown loss_name {loss!r}; known: {', '.join(loss_names())}"


def loss_names() -> tuple[str, ...]:
    """The losses that ``loss_name`` may call."""
    from brats_pipeline.training.losses import LOSSES

    return tuple(sorted([*LOSSES, "weighted_bce"]))


@cache
def configuration(bundle: Path) -> dict[str, Any]:
    """What training and inference of a bundle are configured by, one laid over the other, as it stands in the files."""
    import yaml

    content: dict[str, Any] = {}
    for name in reversed(WHOLE_CONFIGS):
        content |= yaml.safe_load((bundle / "configs" / name).read_text(encoding="utf-8"))
    return content


def configuration_sha256(bundle: Path, network: str | None) -> str:
    """Of the files that decide what a bundle trains and how it segments."""
    names = [*WHOLE_CONFIGS, *([f"networks/{network}.yaml"] if network else [])]
    return json.dumps([file_sha256(bundle / "configs" / name) for name in names])


def _holds(config: Mapping[str, Any], key: str) -> bool:
    """Whether the configuration has a place for this id: it exists, or its parent is made from a class."""
    *above, last = key.replace("#", "::").split("::")
    place: Any = config
    for step in above:
        if isinstance(place, list) and step.isdigit() and int(step) < len(place):
            place = place[int(step)]
        elif isinstance(place, Mapping) and step in place:
            place = place[step]
        else:
            return False
    if isinstance(place, list):
        return last.isdigit() and int(last) < len(place)
    return isinstance(place, Mapping) and (last in place or "_target_" in place)
