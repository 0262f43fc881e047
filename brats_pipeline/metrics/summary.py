"""From rows to figures: what a cohort's scores are in one line per region."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from brats_pipeline.metrics.rows import COLUMNS_2024, RegionScore
from brats_pipeline.metrics.statistics import bootstrap_interval

METRICS = (
    *("dice", "iou", "precision", "recall", "specificity", "hd95_mm", "assd_mm", "nsd_0p5mm", "nsd_1mm", "nsd_2mm"),
    *("lesionwise_dice", "lesionwise_hd95_mm", *COLUMNS_2024),
)
"""The columns that are summarised."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Where the values of one metric lie over the cases.

    Args:
        n: cases in which the metric is defined.
        mean: arithmetic mean.
        sd: standard deviation with n - 1 in the denominator; None for one case.
        median: half of the cases lie below.
        q1: a quarter of the cases lies below.
        q3: three quarters of the cases lie below.
        mean_interval_95: of the mean by the BCa bootstrap; None where it was not asked for, and for one case.
    """

    n: int
    mean: float
    sd: float | None
    median: float
    q1: float
    q3: float
    mean_interval_95: tuple[float, float] | None = None


@dataclass(frozen=True)
class RegionSummary:
    """One region over a cohort.

    Args:
        region: its name.
        n: cases scored.
        n_without_reference: cases among them whose reference has no such region.
        metrics: metric name to its spread; a metric that no case defines is left out.
    """

    region: str
    n: int
    n_without_reference: int
    metrics: dict[str, Spread]


def spread(
    values: Sequence[float | None], *, interval: bool = False, patients: Sequence[Hashable] | None = None
) -> Spread | None:
    """Summarise one metric; values that are not defined are left out, None when no value is left.

    Args:
        values: one per case.
        interval: whether to find an interval of the mean.
        patients: whose value each is, for the interval; None where the values are independent of each other.
    """
    given = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    defined = given[~np.isnan(given)]
    if defined.size == 0:
        return None
    q1, median, q3 = (float(value) for value in np.quantile(defined, (0.25, 0.5, 0.75)))
    return Spread(
        n=int(defined.size),
        mean=float(defined.mean()),
        sd=float(defined.std(ddof=1)) if defined.size > 1 else None,
        median=median,
        q1=q1,
        q3=q3,
        mean_interval_95=bootstrap_interval(given.tolist(), patients=patients) if interval else None,
    )


def patients_of(case_ids: Sequence[str], patients: Mapping[str, str] | None) -> list[str] | None:
    """Whose case each is; a case that is not listed is a patient of its own. None where nothing is listed."""
    return None if patients is None else [patients.get(case_id, case_id) for case_id in case_ids]


def summarise(
    rows: Sequence[RegionScore], regions: Sequence[str], *, patients: Mapping[str, str] | None = None
) -> list[RegionSummary]:
    """Summarise the rows of a cohort.

    Args:
        rows: one per case and region.
        regions: the regions wanted, in the order wanted.
        patients: case id to patient, for the intervals; None where every case is another patient.
    """
    summaries = []
    for region in regions:
        own = [row for row in rows if row.region == region]
        owners = patients_of([row.case_id for row in own], patients)
        spreads = {
            metric: spread([getattr(row, metric) for row in own], interval=True, patients=owners) for metric in METRICS
        }
        summaries.append(
            RegionSummary(
                region=region,
                n=len(own),
                n_without_reference=sum(row.tp + row.fn == 0 for row in own),
                metrics={metric: value for metric, value in spreads.items() if value is not None},
            )
        )
    return summaries
