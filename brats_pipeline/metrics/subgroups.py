"""Parts of a cohort that deserve figures of their own: what belongs to them, and their figures.

Groups are made from the references and the scans alone, never from predictions, so every run has the same ones.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from brats_pipeline.metrics.joining import Row, by_case
from brats_pipeline.metrics.statistics import RESAMPLES, bootstrap_interval
from brats_pipeline.metrics.summary import Spread, patients_of, spread

LEAST_ET_ML = 0.1
"""Enhancing tumour of this volume is worth a score without any rule for empty regions."""

_INSTITUTION = re.compile(
    r"TCGA[-_](?P<tcga>\w\w)[-_][^\W_]{4}([-_]\d+)?|brats1[789]_(?P<site>[^\W_]+)_\w+", re.IGNORECASE
)


def institution(case_id: str) -> str | None:
    """Where a case comes from, as far as its name tells: ``"TCGA_CS_4942_19970222"`` to ``"CS"``,
    ``"Brats18_CBICA_AAB_1"`` to ``"CBICA"``; None in other names."""
    match = _INSTITUTION.fullmatch(case_id)
    return match and (match["tcga"] or match["site"]).upper()


@dataclass(frozen=True)
class CaseFacts:
    """What decides on groups.

    Args:
        case_id: of the case.
        voxels: region to its voxels in the reference.
        ml: region to its volume in the reference; NaN for slices.
        lacking: modalities that the case lacks, or whose channel is a copy of another.
    """

    case_id: str
    voxels: Mapping[str, int]
    ml: Mapping[str, float]
    lacking: frozenset[str] = frozenset()


def case_facts(rows: Sequence[Row], *, lacking: Mapping[str, Collection[str]] | None = None) -> list[CaseFacts]:
    """What the rows of a run tell of the references.

    Args:
        rows: one per case and region; of any run, since references are the same.
        lacking: case id to the modalities it lacks.
    """
    voxels: dict[str, dict[str, int]] = {}
    ml: dict[str, dict[str, float]] = {}
    for row in rows:
        voxels.setdefault(row.case_id, {})[row.region] = row.tp + row.fn
        ml.setdefault(row.case_id, {})[row.region] = row.reference_ml
    lacking = lacking or {}
    return [
        CaseFacts(case_id, voxels[case_id], ml[case_id], lacking=frozenset(lacking.get(case_id, ())))
        for case_id in voxels
    ]


class Group(Protocol):
    """A definition of a part of a cohort."""

    @property
    def name(self) -> str:
        """The definition in words."""

    def members(self, cohort: Sequence[CaseFacts]) -> frozenset[str]:
        """Ids of the cases that belong."""


@dataclass(frozen=True)
class Everyone:
    """All cases."""

    name: str = field(default="all cases", init=False)

    def members(self, cohort: Sequence[CaseFacts]) -> frozenset[str]:
        """Ids of the cases that belong."""
        return frozenset(case.case_id for case in cohort)


@dataclass(frozen=True)
class Without:
    """Cases whose reference has no such region."""

    region: str = "ET"

    @property
    def name(self) -> str:
        """The definition in words."""
        return f"no {self.region} in the reference"

    def members(self, cohort: Sequence[CaseFacts]) -> frozenset[str]:
        """Ids of the cases that belong."""
        return frozenset(case.case_id for case in cohort if case.voxels.get(self.region) == 0)


@dataclass(frozen=True)
class AtLeast:
    """Cases whose reference has at least so much of a region; none where volumes are not known."""

    ml: float = LEAST_ET_ML
    region: str = "ET"

    @property
    def name(self) -> str:
        """The definition in words."""
        return f"at least {self.ml:g} ml of {self.region} in the reference"

    def members(self, cohort: Sequence[CaseFacts]) -> frozenset[str]:
        """Ids of the cases that belong."""
        # A volume is a product of voxel sides, which header precision makes a little smaller or larger.
        least = self.ml * (1 - 1e-6)
        return frozenset(case.case_id for case in cohort if case.ml.get(self.region, math.nan) >= least)


@dataclass(frozen=True)
class Small:
    """Cases with a small tumour: below the lower tertile of the cohort's tumours, or below a stated volume.

    Cases without tumour do not belong. Slices, whose volume is not known, are compared by their voxels.
    """

    below_ml: float | None = None
    region: str = "WT"

    @property
    def name(self) -> str:
        """The definition in words."""
        if self.below_ml is None:
            return f"small tumours ({self.region} below the cohort's lower tertile)"
        return f"small tumours ({self.region} below {self.below_ml:g} ml)"

    def members(self, cohort: Sequence[CaseFacts]) -> frozenset[str]:
        """Ids of the cases that belong."""
        tumours = [case for case in cohort if case.voxels.get(self.region, 0) > 0]
        sizes = [case.ml[self.region] for case in tumours]
        limit = self.below_ml
        if limit is None:
            if any(math.isnan(size) for size in sizes):
                sizes = [float(case.voxels[self.region]) for case in tumours]
            limit = float(np.quantile(sizes, 1 / 3)) if sizes else 0.0
        return frozenset(case.case_id for case, size in zip(tumours, sizes, strict=True) if size < limit)


@dataclass(frozen=True)
class From:
    """Cases of one institution, read from their names."""

    institution: str

    @property
    def name(self) -> str:
        """The definition in words."""
        return f"institution {self.institution}"

    def members(self, cohort: Sequence[CaseFacts]) -> frozenset[str]:
        """Ids of the cases that belong."""
        return frozenset(case.case_id for case in cohort if institution(case.case_id) == self.institution)


@dataclass(frozen=True)
class Lacking:
    """Cases that lack a sequence, or one of them by name."""

    modality: str | None = None

    @property
    def name(self) -> str:
        """The definition in words."""
        return "a sequence is missing" if self.modality is None else f"{self.modality} is missing"

    def members(self, cohort: Sequence[CaseFacts]) -> frozenset[str]:
        """Ids of the cases that belong."""
        return frozenset(
            case.case_id
            for case in cohort
            if (bool(case.lacking) if self.modality is None else self.modality in case.lacking)
        )


def usual_groups(cohort: Sequence[CaseFacts]) -> list[Group]:
    """The groups that this cohort has: no ET, small tumours, each institution, a missing sequence; no empty ones."""
    sites = sorted({site for case in cohort if (site := institution(case.case_id)) is not None})
    groups: list[Group] = [Without("ET"), Small(), *map(From, sites), Lacking()]
    return [group for group in groups if group.members(cohort)]


@dataclass(frozen=True)
class GroupFigures:
    """One metric of one region in one group.

    Args:
        name: the group's definition in words.
        region: the region scored.
        metric: the column.
        n: cases of the group.
        spread: where the values lie; its own ``n`` counts the cases that define the metric; None where none does.
        interval_95: of the mean, by the BCa bootstrap; None for fewer than two values or patients.
    """

    name: str
    region: str
    metric: str
    n: int
    spread: Spread | None
    interval_95: tuple[float, float] | None


def summarise_groups(
    rows: Sequence[Row],
    groups: Sequence[Group],
    *,
    cohort: Sequence[CaseFacts],
    region: str,
    metric: str,
    patients: Mapping[str, str] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[GroupFigures]:
    """Summarise one metric of one region in each group.

    Args:
        rows: of one run.
        groups: definitions.
        cohort: what decides on them, from :func:`case_facts`.
        region: the region scored.
        metric: the column.
        patients: case id to patient, whose cases are drawn together; None where every case is another patient.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    values = by_case(rows, region=region, metric=metric)
    found = []
    for group in groups:
        members = group.members(cohort)
        case_ids = [case_id for case_id in values if case_id in members]
        own = [values[case_id] for case_id in case_ids]
        owners = patients_of(case_ids, patients)
        found.append(
            GroupFigures(
                name=group.name,
                region=region,
                metric=metric,
                n=len(own),
                spread=spread(own),
                interval_95=bootstrap_interval(own, patients=owners, resamples=resamples, seed=seed),
            )
        )
    return found


def enhancing_twice(
    rows: Sequence[Row],
    *,
    metric: str = "dice",
    patients: Mapping[str, str] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[GroupFigures]:
    """ET over all cases, empty ones by the rule, and ET over the cases that have at least 0.1 ml of it."""
    return summarise_groups(
        rows,
        [Everyone(), AtLeast()],
        cohort=case_facts(rows),
        region="ET",
        metric=metric,
        patients=patients,
        resamples=resamples,
        seed=seed,
    )
