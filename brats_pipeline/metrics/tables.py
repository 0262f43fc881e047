"""Scores as text: the CSV of all rows, and the headline table that is printed."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence

from brats_pipeline.metrics.calibration import CalibrationRow
from brats_pipeline.metrics.lesions import LesionScore
from brats_pipeline.metrics.rows import RegionScore
from brats_pipeline.metrics.slices import PER_PATIENT, PER_SLICE, PER_TUMOUR_SLICE, POOLED, SliceGroup, SliceScore
from brats_pipeline.metrics.summary import RegionSummary, Spread

HEADLINE = (
    "region",
    "cases",
    "without region",
    "Dice mean ± SD",
    "Dice median",
    "precision",
    "recall",
    "HD95 mean (mm)",
    "HD95 median (mm)",
)
_MEANS = (
    ("dice", "mean", 3),
    ("dice", "median", 3),
    ("precision", "mean", 3),
    ("recall", "mean", 3),
    ("hd95_mm", "mean", 1),
    ("hd95_mm", "median", 1),
)


def _number(spread: Spread | None, kind: str, digits: int) -> str:
    value = getattr(spread, kind) if spread is not None else None
    return "-" if value is None else f"{value:.{digits}f}"


def csv_text(
    rows: Sequence[RegionScore] | Sequence[SliceScore] | Sequence[LesionScore] | Sequence[CalibrationRow],
    columns: Sequence[str],
) -> str:
    """Rows as CSV, six decimals; an empty cell where a value is not defined, ``yes`` or ``no`` for a truth."""

    def cell(value: float | int | str | None) -> str:
        if value is None:
            return ""
        if isinstance(value, bool):
            return "yes" if value else "no"
        if isinstance(value, float):
            return "" if math.isnan(value) else f"{value:.6f}".rstrip("0").rstrip(".")
        return str(value)

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([cell(getattr(row, column)) for column in columns] for row in rows)
    return text.getvalue()


def headline(regions: Sequence[RegionSummary]) -> list[list[str]]:
    """The figures of a cohort for printing: a header, one row per region, and the mean over the regions."""
    rows = [list(HEADLINE)]
    for region in regions:
        dice, hd95 = region.metrics.get("dice"), region.metrics.get("hd95_mm")
        rows.append(
            [
                region.region,
                str(region.n),
                str(region.n_without_reference),
                f"{_number(dice, 'mean', 3)} ± {_number(dice, 'sd', 3)}",
                _number(dice, "median", 3),
                _number(region.metrics.get("precision"), "mean", 3),
                _number(region.metrics.get("recall"), "mean", 3),
                _number(hd95, "mean", 1),
                _number(hd95, "median", 1),
            ]
        )
    mean = ["mean", "", ""]
    for metric, kind, digits in _MEANS:
        spreads = [region.metrics[metric] for region in regions if metric in region.metrics]
        values = [getattr(spread, kind) for spread in spreads]
        mean.append(f"{sum(values) / len(values):.{digits}f}" if values else "-")
    return [*rows, mean]


def slice_headline(groups: Sequence[SliceGroup]) -> list[list[str]]:
    """The figures of a cohort of slices for printing: a header, then one row per way to average."""

    def heading(group: SliceGroup) -> str:
        more = "" if group.volumes == group.patients else f", {group.volumes} volumes"
        return f"{group.name} ({group.patients}{more})"

    def spread_row(name: str, spreads: Sequence[Spread | None]) -> list[str]:
        return [name, *(f"{_number(each, 'mean', 3)} ± {_number(each, 'sd', 3)}" for each in spreads)]

    def interval(group: SliceGroup) -> str:
        return "-" if group.dice_interval_95 is None else "{:.3f} to {:.3f}".format(*group.dice_interval_95)

    def pooled(group: SliceGroup) -> str:
        value = group.pooled["dice"]
        return "-" if value is None else f"{value:.3f}"

    return [
        ["", *map(heading, groups)],
        spread_row(PER_PATIENT, [group.per_patient.get("dice") for group in groups]),
        ["  95 % interval of its mean", *map(interval, groups)],
        ["  its median", *(_number(group.per_patient.get("dice"), "median", 3) for group in groups)],
        spread_row(PER_TUMOUR_SLICE, [group.dice_per_tumour_slice for group in groups]),
        spread_row(PER_SLICE, [group.dice_per_slice for group in groups]),
        [POOLED, *map(pooled, groups)],
        *(
            spread_row(f"{name} per patient volume", [group.per_patient.get(measure) for group in groups])
            for measure, name in (("iou", "IoU"), ("precision", "Precision"), ("recall", "Recall"))
        ),
    ]
