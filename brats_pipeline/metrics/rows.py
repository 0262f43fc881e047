"""The rows of ``cases.csv``: what is stated of a region of a case."""

from __future__ import annotations

import math
from dataclasses import dataclass

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

COLUMNS_2024 = (
    *("lesionwise_nsd_voxel_0p5mm", "lesionwise_nsd_voxel_1mm"),
    *("legacy_dice", "legacy_hd95_mm", "legacy_nsd_voxel_0p5mm", "legacy_nsd_voxel_1mm"),
)
"""Columns that follow under the rules of 2024."""


def case_columns(rules: Rules) -> tuple[str, ...]:
    """Columns of ``cases.csv`` under these rules."""
    return (*COLUMNS, *COLUMNS_2024) if rules.lesions and rules.lesions.nsd_voxel_mm else COLUMNS


@dataclass(frozen=True)
class CaseScore:
    """What a case comes to.

    Args:
        regions: one row per region of the rules, in their order.
        lesions: one row per lesion, region by region; empty under rules that score none.
    """

    regions: list[RegionScore]
    lesions: list[LesionScore]
