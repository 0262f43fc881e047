"""The figures of a cohort as rows of a table, and which cases stand for it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from brats_pipeline.metrics import RegionScore
from brats_pipeline.metrics.statistics import RESAMPLES, smallest_p, t_half_width
from brats_pipeline.metrics.subgroups import (
    LEAST_ET_ML,
    AtLeast,
    CaseFacts,
    Everyone,
    Group,
    GroupFigures,
    case_facts,
    summarise_groups,
    usual_groups,
)

METRICS = ("dice", "hd95_mm", "precision", "recall", "lesionwise_dice", "lesionwise_hd95_mm")
"""Columns of the headline table."""
LEAST_CASES = 6
"""With fewer, no outcome of Wilcoxon's two-sided signed-rank test reaches p < 0.05."""


@dataclass(frozen=True)
class HeadlineRow:
    """One line of the table.

    Args:
        name: the region, and the part of the cohort where it is not the whole.
        n: cases.
        without: cases among them whose reference has no such region.
        figures: metric to its figures.
    """

    name: str
    n: int
    without: int
    figures: Mapping[str, GroupFigures]


def _row(
    scores: Sequence[RegionScore],
    name: str,
    region: str,
    group: Group,
    *,
    cohort: Sequence[CaseFacts],
    patients: Mapping[str, str] | None,
    resamples: int,
) -> HeadlineRow:
    members = group.members(cohort)
    figures = {
        metric: summarise_groups(
            scores, [group], cohort=cohort, region=region, metric=metric, patients=patients, resamples=resamples
        )[0]
        for metric in METRICS
    }
    without = sum(row.region == region and row.case_id in members and row.tp + row.fn == 0 for row in scores)
    return HeadlineRow(name, len(members), without, figures)


def headline_rows(
    scores: Sequence[RegionScore],
    regions: Sequence[str],
    *,
    patients: Mapping[str, str] | None = None,
    resamples: int = RESAMPLES,
) -> list[HeadlineRow]:
    """One line per region; ET a second time over the cases that have at least 0.1 ml of it.

    Args:
        scores: one row per case and region.
        regions: in the order of the table.
        patients: case id to patient, whose cases are drawn together; None where every case is another patient.
        resamples: of the bootstrap.
    """
    row = partial(_row, cohort=case_facts(scores), patients=patients, resamples=resamples)
    rows = []
    for region in regions:
        rows.append(row(scores, region, region, Everyone()))
        if region == "ET":
            rows.append(row(scores, f"ET, cases with ≥ {LEAST_ET_ML:g} ml", region, AtLeast()))
    return rows


@dataclass(frozen=True)
class PartRow:
    """One part of the cohort: its definition, its cases, and region to the figures of Dice."""

    name: str
    n: int
    dice: Mapping[str, GroupFigures]


def part_rows(
    scores: Sequence[RegionScore],
    regions: Sequence[str],
    *,
    lacking: Mapping[str, Collection[str]] | None = None,
    patients: Mapping[str, str] | None = None,
    resamples: int = RESAMPLES,
) -> list[PartRow]:
    """Dice in the parts of a cohort that differ from the whole, such as cases without ET or with a small tumour.

    Args:
        scores: one row per case and region.
        regions: in the order of the table.
        lacking: case id to the modalities it lacks.
        patients: case id to patient, whose cases are drawn together; None where every case is another patient.
        resamples: of the bootstrap.
    """
    cohort = case_facts(scores, lacking=lacking)
    parts = []
    for group in usual_groups(cohort):
        members = group.members(cohort)
        if len(members) == len(cohort):
            continue
        dice = {
            region: summarise_groups(
                scores, [group], cohort=cohort, region=region, metric="dice", patients=patients, resamples=resamples
            )[0]
            for region in regions
        }
        parts.append(PartRow(group.name, len(members), dice))
    return parts


def smallest_differences(
    scores: Sequence[RegionScore], regions: Sequence[str], *, patients: Mapping[str, str] | None = None
) -> dict[str, float]:
    """The smallest mean difference in Dice that this many cases could show, if differences spread as the scores do.

    Half of the 95 % t interval of the mean; time points of one patient are averaged first. Regions of which fewer than
    two patients have a score are left out.
    """
    found = {}
    for region in regions:
        own: dict[str, list[float]] = {}
        for row in scores:
            if row.region == region:
                own.setdefault((patients or {}).get(row.case_id, row.case_id), []).append(row.dice)
        if (half := t_half_width([float(np.mean(values)) for values in own.values()])) is not None:
            found[region] = half
    return found


def too_few(n: int, *, noun: str = "case", differences: Mapping[str, float] | None = None) -> str | None:
    """What a cohort of this size cannot show; None where it is large enough.

    Args:
        n: cases, or patients where some have several.
        noun: which of the two.
        differences: from :func:`smallest_differences`; None where the differences of runs stand elsewhere.
    """
    if n >= LEAST_CASES or n < 1:
        return None
    sentence = (
        f"n = {n}: with fewer than {LEAST_CASES} {noun}s no test can decide whether this run and another "
        f"differ (the smallest p that Wilcoxon's signed-rank test can give is {smallest_p(n):g})."
    )
    if differences:
        listed = ", ".join(f"{region} {value:.3f}" for region, value in differences.items())
        sentence += (
            " If the differences between two runs spread as these scores do, the smallest mean difference in Dice "
            f"that this n could show is {listed} (half of the t interval, t · SD / √n)."
        )
    elif differences is not None:
        sentence += f" One {noun} has no spread, so what it could show is not known."
    return sentence


def notable_cases(scores: Sequence[RegionScore], among: Collection[str] | None = None) -> dict[str, str]:
    """The worst, the median and the best case by mean Dice over the regions: case id to what it is.

    Two cases are worst and best, one is the only one. Of an even number the median is the lower of the middle two.

    Args:
        scores: one row per case and region.
        among: case ids to choose from; None for all.
    """
    dice: dict[str, list[float]] = {}
    for row in scores:
        if among is None or row.case_id in among:
            dice.setdefault(row.case_id, []).append(row.dice)
    ranked = sorted(dice, key=lambda case_id: (float(np.mean(dice[case_id])), case_id))
    if len(ranked) == 1:
        return {ranked[0]: "The only case"}
    if not ranked:
        return {}
    notable = {ranked[0]: "Worst case"}
    if len(ranked) > 2:
        notable[ranked[(len(ranked) - 1) // 2]] = "Median case"
    notable[ranked[-1]] = "Best case"
    return notable
