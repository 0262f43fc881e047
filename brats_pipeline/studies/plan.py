"""A study as it was meant, with one budget chosen: what is compared, on which folds, by which figures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from brats_pipeline.errors import PipelineError

FULL = "full"
"""The budget that the study means; every other one is a reduced one, and says so."""


@dataclass(frozen=True)
class Phantom:
    """A synthetic cohort that takes the place of data.

    Args:
        layout: of :func:`brats_pipeline.write_cohort`.
        cases: how many.
        size: voxels a side, or along each axis; None for the layout's own.
        spacing: voxel side in mm; None for 1, or for slices.
        seed: of the cohort.
    """

    layout: str
    cases: int
    size: int | tuple[int, int, int] | None = None
    spacing: float | None = None
    seed: int = 0

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """Voxels along each axis; None for the layout's own."""
        return (self.size, self.size, self.size) if isinstance(self.size, int) else self.size


@dataclass(frozen=True)
class Folds:
    """How the cohort is cut.

    Args:
        k: number of patient-grouped folds.
        seed: of the split.
        test: the folds that are tested, each by a network that saw nothing of it.
        validation: ``next``: the fold behind the tested one chooses the epoch and the others train; ``none``: all
            others train and the last epoch is kept.
    """

    k: int = 5
    seed: int = 0
    test: tuple[int, ...] = (0,)
    validation: str = "next"

    def validating(self, tested: int) -> int | None:
        """The fold that chooses the epoch while ``tested`` is held out."""
        return None if self.validation == "none" else (tested + 1) % self.k


@dataclass(frozen=True)
class Arm:
    """One of the things compared.

    Args:
        name: of its folders and its rows.
        title: what it is in a few words.
        bundle: what is trained.
        network: of the family; None for the bundle's own.
        settings: configuration id to value: of the study, the arm and the budget, later ones over earlier ones.
        seeds: one training each.
    """

    name: str
    title: str
    bundle: str
    network: str | None
    settings: Mapping[str, Any]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Plan:
    """A study with one budget.

    Args:
        name: of the study.
        title: heading of the report.
        about: what it asks, in a paragraph.
        notes: what a reader of its report must know, a sentence or more each.
        arms: in the order of tables.
        reference: name of the arm that the others are compared with.
        folds: how the cohort is cut.
        rules: of scoring; None for those that suit the data.
        metrics: columns of the headline table.
        compare: columns that arms are compared by.
        ranking: columns that arms are ranked by.
        test_loss: whether the loss on the tested cases is reported.
        missing: how many modalities at most the tested cases are also segmented without; 0: that is not asked for.
        budget: its name.
        minutes: wall time of a training; None where epochs decide.
        reduction: what the budget changes, in words; empty for the full one.
        phantom: the cohort that takes the place of data; None: data are needed.
        content: of the file, with the chosen budget alone.
        path: of the file.
    """

    name: str
    title: str
    about: str
    notes: tuple[str, ...]
    arms: tuple[Arm, ...]
    reference: str
    folds: Folds
    rules: str | None
    metrics: tuple[str, ...]
    compare: tuple[str, ...]
    ranking: tuple[str, ...]
    test_loss: bool
    missing: int
    budget: str
    minutes: float | None
    reduction: tuple[str, ...]
    phantom: Phantom | None
    content: Mapping[str, Any] = field(repr=False)
    path: Path = field(repr=False)

    @property
    def budget_in_words(self) -> str:
        """``full budget``, or ``reduced budget`` with its numbers."""
        if self.budget == FULL:
            return "full budget"
        return f"reduced budget “{self.budget}”: {'; '.join(self.reduction) or 'as the full one'}"

    @property
    def sha256(self) -> str:
        """Of what the study asks for; comments and the order of keys do not count."""
        told = json.dumps({**self.content, "budget": self.budget}, sort_keys=True, default=str)
        return hashlib.sha256(told.encode()).hexdigest()

    def arm(self, name: str) -> Arm:
        """The arm of this name.

        Raises:
            PipelineError: there is none.
        """
        for number, arm in enumerate(self.arms):
            if name in (arm.name, str(number)):
                return arm
        known = ", ".join(f"{number} {arm.name}" for number, arm in enumerate(self.arms))
        raise PipelineError(f"{self.name} has no arm {name!r}; known: {known}")


def as_json(plan: Plan) -> dict[str, Any]:
    """What is kept of a plan in JSON files."""
    kept = asdict(plan)
    for name in ("content", "path"):
        del kept[name]
    return {**kept, "sha256": plan.sha256, "budget_in_words": plan.budget_in_words, "file": plan.path.name}
