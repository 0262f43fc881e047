"""The units of a study: one arm, one seed, one tested fold. Each is trained, then segments the fold it never saw."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brats_pipeline.data.datalist import Item, item_case
from brats_pipeline.files import write_atomically
from brats_pipeline.inference.inputs import states_of
from brats_pipeline.studies.checks import configuration_sha256
from brats_pipeline.studies.leaving import still_to_leave_out
from brats_pipeline.studies.plan import Arm, Plan

SCHEMA_VERSION = 1
STATES = ("waiting", "training", "trained", "done", "failed")
"""``trained``: has weights, but not yet every prediction."""


@dataclass(frozen=True)
class Unit:
    """One training of a study.

    Args:
        arm: what is trained.
        seed: of weights and patches.
        fold: tested; no part of it is trained or validated on.
        folder: of everything that comes of it.
    """

    arm: Arm
    seed: int
    fold: int
    folder: Path

    @property
    def name(self) -> str:
        """As it is printed."""
        return f"{self.arm.name}, seed {self.seed}, fold {self.fold}"

    @property
    def run(self) -> Path:
        """The run, a bundle with weights once it is trained."""
        return self.folder / "run"

    @property
    def predictions(self) -> Path:
        """Label maps of the tested fold."""
        return self.folder / "predictions"

    def predictions_without(self, name: str) -> Path:
        """Label maps of the tested fold, made as if this modality, or those of ``t1c+t2``, had not been acquired."""
        return self.folder / "missing" / name

    @property
    def marker(self) -> Path:
        """What is known of the unit; its state is ``done`` once nothing is left to do."""
        return self.folder / "unit.json"

    def read(self) -> dict[str, Any]:
        """What is known of the unit; nothing where it has not begun or its marker cannot be read."""
        try:
            content: dict[str, Any] = json.loads(self.marker.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return content

    def write(self, **told: Any) -> None:
        """Add to what is known of the unit."""
        content = {"schema_version": SCHEMA_VERSION, "unit": self.name, **self.read(), **told}
        write_atomically(self.marker, json.dumps(content, indent=2) + "\n")

    @property
    def state(self) -> str:
        """One of :data:`STATES`."""
        return str(self.read().get("state", STATES[0]))

    def lacks(self, plan: Plan) -> bool:
        """Whether something that the study asks for is still to be done."""
        told = self.read()
        return (
            self.state != "done"
            or (plan.test_loss and told.get("test_loss") is None)
            or still_to_leave_out(told.get("missing"), plan.missing)
        )


def units_of(plan: Plan, out: Path) -> list[Unit]:
    """All units of a study: arm by arm, within it seed by seed, within it fold by fold."""
    return [
        Unit(arm, seed, fold, out / "units" / arm.name / f"seed{seed}-fold{fold}")
        for arm in plan.arms
        for seed in arm.seeds
        for fold in plan.folds.test
    ]


def own_bundle(out: Path, arm: Arm) -> Path:
    """Where a study keeps its own copy of an arm's bundle, so that a later version of it changes nothing."""
    return out / "bundles" / Path(arm.bundle).name


def tested(listing: Mapping[str, Any], fold: int) -> list[Item]:
    """The cases of a fold."""
    return [item for item in listing["training"] if item["fold"] == fold]


def without_fold(listing: Mapping[str, Any], fold: int) -> dict[str, Any]:
    """A datalist that holds nothing of a tested fold; the others keep their numbers."""
    return {**listing, "training": [item for item in listing["training"] if item["fold"] != fold], "testing": []}


def data_sha256(listing: Mapping[str, Any]) -> str:
    """Of the cases of a study, what their labels mean, their folds and the state of their files."""
    states = states_of([item_case(item) for item in listing["training"]])
    told = {
        item["case_id"]: [item["patient_id"], item["fold"], item["convention"], item["modalities"]]
        for item in listing["training"]
    }
    return hashlib.sha256(json.dumps([states, told], sort_keys=True).encode()).hexdigest()


def identity(unit: Unit, plan: Plan, out: Path, data: str) -> str:
    """What decides the result of a unit, in one hash: its bundle, settings, seed, fold, time and data."""
    arm = unit.arm
    told = {
        "bundle": Path(arm.bundle).name,
        "configuration": configuration_sha256(own_bundle(out, arm), arm.network),
        "network": arm.network,
        "settings": dict(arm.settings),
        "seed": unit.seed,
        "fold": unit.fold,
        "validation": plan.folds.validating(unit.fold),
        "minutes": plan.minutes,
        "data": data,
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()


def listed(units: list[Unit]) -> Iterator[list[str]]:
    """Rows for printing: arm number and name, seed, fold, state, what is to be said of it."""
    numbers = {name: number for number, name in enumerate(dict.fromkeys(unit.arm.name for unit in units))}
    for unit in units:
        told = unit.read()
        state = str(told.get("state", STATES[0]))
        note = str(told.get("reason", ""))
        if state == "done":
            note = f"{told.get('cases', 0)} cases, {told.get('training_seconds', 0) / 60:.1f} min of training"
        yield [str(numbers[unit.arm.name]), unit.arm.name, str(unit.seed), str(unit.fold), state, note]
