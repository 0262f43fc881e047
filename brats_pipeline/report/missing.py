"""What a missing modality costs: one arm with and without it, over the same cases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from brats_pipeline.metrics.comparison import Comparison
from brats_pipeline.report.words import decimal


@dataclass(frozen=True)
class WithoutModality:
    """One metric of an arm whose cases were segmented without one modality.

    Args:
        arm: its name.
        modality: left out of every case; of a pair both, as ``t1c+t2``.
        region: the region.
        metric: the column.
        mean: over the cases without it; None where it is not defined.
        comparison: differences are those without the modality less those of the whole case.
        adjusted_p: p by Holm over all arms, modalities and regions of this metric.
    """

    arm: str
    modality: str
    region: str
    metric: str
    mean: float | None
    comparison: Comparison
    adjusted_p: float | None


def missing_rows(
    found: Sequence[WithoutModality], *, titles: Mapping[str, str], regions: Sequence[str], metric: str
) -> Iterator[list[str]]:
    """Rows of one metric for a table: arm, modality, and for each region the mean and what the modality is worth.

    Args:
        found: of every arm.
        titles: arm to how it is called in the table.
        regions: in the order of the columns.
        metric: the column.
    """
    digits = 1 if metric.endswith("_mm") else 3
    cells = {(each.arm, each.modality, each.region): each for each in found if each.metric == metric}
    for arm, modality in dict.fromkeys((arm, modality) for arm, modality, _ in cells):
        told = [cells.get((arm, modality, region)) for region in regions]
        yield [titles.get(arm, arm), modality, *("-" if each is None else _cell(each, digits) for each in told)]


def _cell(each: WithoutModality, digits: int) -> str:
    cost = each.comparison.mean_difference
    if cost is None:
        return decimal(each.mean, digits)
    interval = each.comparison.interval_95
    around = "" if interval is None else f" [{interval[0]:+.{digits}f}, {interval[1]:+.{digits}f}]"
    return f"{decimal(each.mean, digits)} ({cost:+.{digits}f}{around})"
