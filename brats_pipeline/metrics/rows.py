"""The rows of ``cases.csv``: what is stated of a region of a case."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from brats_pipeline.metrics.lesions import LesionScore
from brats_pipeline.metrics.rules import Rules


@dataclass(frozen=True, slots=True)
class RegionScore:
    """One row of ``cases.csv``: a region of a case. NaN or None where a value is not defined.

    Counts are in voxels, volumes in millilitres. Dice, IoU, precision, recall, NSD, HD95 and ASSD follow the rule for
    empty regions; specificity is that of the whole volume, whatever is empty. The columns from ``lesionwise_nsd...`` on
    exist under the rules of 2024 only; ``legacy`` ones are taken after small predicted lesions were removed.
    """

    case_id: str
    region: str
    dice: float
    iou: float
    precision: float
    recall: float
    specificity: float
    hd95_mm: float
    reference_ml: float
    predicted_ml: float
    tp: int
    fp: int
    fn: int
    tn: int
    assd_mm: float = math.nan
    nsd_0p5mm: float = math.nan
    nsd_1mm: float = math.nan
    nsd_2mm: float = math.nan
    lesionwise_dice: float = math.nan
    lesionwise_hd95_mm: float = math.nan
    lesions_tp: int | None = None
    lesions_fp: int | None = None
    lesions_fn: int | None = None
    lesionwise_nsd_voxel_0p5mm: float | None = None
    lesionwise_nsd_voxel_1mm: float | None = None
    legacy_dice: float | None = None
    legacy_hd95_mm: float | None = None
    legacy_nsd_voxel_0p5mm: float | None = None
    legacy_nsd_voxel_1mm: float | None = None


COLUMNS = (
    *("case_id", "region", "dice", "iou", "precision", "recall", "specificity", "hd95_mm", "assd_mm"),
    *("nsd_0p5mm", "nsd_1mm", "nsd_2mm", "reference_ml", "predicted_ml", "tp", "fp", "fn", "tn"),
    *("lesionwise_dice", "lesionwise_hd95_mm", "lesions_tp", "lesions_fp", "lesions_fn"),
)
"""Columns of ``cases.csv``."""

COUNTED = ("tp", "fp", "fn", "tn", "lesions_tp", "lesions_fp", "lesions_fn")
"""Those that are whole numbers; they have no mean over seeds."""

COLUMNS_2024 = (
    *("lesionwise_nsd_voxel_0p5mm", "lesionwise_nsd_voxel_1mm"),
    *("legacy_dice", "legacy_hd95_mm", "legacy_nsd_voxel_0p5mm", "legacy_nsd_voxel_1mm"),
)
"""Columns that follow under the rules of 2024."""


def case_columns(rules: Rules) -> tuple[str, ...]:
    """Columns of ``cases.csv`` under these rules."""
    return (*COLUMNS, *COLUMNS_2024) if rules.lesions and rules.lesions.nsd_voxel_mm else COLUMNS


def filled_columns(rules: Rules) -> tuple[str, ...]:
    """Those of :func:`case_columns` that these rules give a value: no lesions without rules for them, no distances of
    slices."""
    lesions, distances = ("lesion",), ("hd95", "assd", "nsd")
    empty = (() if rules.lesions else lesions) + (distances if rules.slices else ())
    return tuple(name for name in case_columns(rules) if not name.startswith(empty))


@dataclass(frozen=True)
class CaseScore:
    """What a case comes to.

    Args:
        regions: one row per region of the rules, in their order.
        lesions: one row per lesion, region by region; empty under rules that score none.
    """

    regions: list[RegionScore]
    lesions: list[LesionScore]


def missed_row(row: RegionScore, *, rules: Rules) -> RegionScore:
    """The row of a run that lacks a case, made from another run's row of it: a miss by the rules.

    Args:
        row: of a run by the same rules, against the same reference.
        rules: of scoring.

    Raises:
        ValueError: a miss costs the diagonal of the array, which no row tells.
    """
    if rules.empties.one_is_diagonal:
        raise ValueError(
            f"by {rules.name} a miss costs the diagonal of the array, which a row does not tell; evaluate the run "
            "against all references, which counts what it lacks as a miss"
        )
    reference = row.tp + row.fn
    worst, far = rules.empties.one_overlap, rules.empties.penalty(())
    values: dict[str, Any] = dict.fromkeys(_SHARES, worst) | dict.fromkeys(_DISTANCES, far)
    for name in (*_SHARES, *_DISTANCES):
        if (held := getattr(row, name)) is None or math.isnan(held):
            values[name] = held
    if row.lesions_tp is not None and row.lesions_fn is not None:
        values |= {"lesions_tp": 0, "lesions_fp": 0, "lesions_fn": row.lesions_tp + row.lesions_fn}
    values |= {"tp": 0, "fp": 0, "fn": reference, "tn": row.tp + row.fp + row.fn + row.tn - reference}
    return replace(row, **values, specificity=math.nan, predicted_ml=math.nan)


_SHARES = (
    *("dice", "iou", "precision", "recall", "nsd_0p5mm", "nsd_1mm", "nsd_2mm", "lesionwise_dice"),
    *("lesionwise_nsd_voxel_0p5mm", "lesionwise_nsd_voxel_1mm"),
    *("legacy_dice", "legacy_nsd_voxel_0p5mm", "legacy_nsd_voxel_1mm"),
)
_DISTANCES = ("hd95_mm", "assd_mm", "lesionwise_hd95_mm", "legacy_hd95_mm")
