"""Scores of segmentations: overlap, surface distances, rules for empty regions. NumPy and SciPy only.

The door is :func:`score_case`; what it counts and how stands in :class:`Rules`.
"""

from brats_pipeline.metrics.distances import (
    SurfaceDistances,
    assd_mm,
    average_distance_mm,
    hd95_mm,
    normalised_surface_dice,
    nsd,
    robust_hausdorff_mm,
    surface_distances,
)
from brats_pipeline.metrics.empties import EMPTY_RULES, EmptyRule
from brats_pipeline.metrics.lesions import LESION_COLUMNS, LesionScore, lesion_columns
from brats_pipeline.metrics.overlap import Counts, dice, iou, precision, recall, specificity
from brats_pipeline.metrics.rules import RULES, LesionRules, Rules, rules_named, usual_rules
from brats_pipeline.metrics.score import (
    COLUMNS,
    COLUMNS_2024,
    CaseScore,
    RegionScore,
    case_columns,
    measure_case,
    region_masks,
    region_values,
    score_case,
    score_miss,
)
from brats_pipeline.metrics.slices import (
    PER_PATIENT,
    SLICE_COLUMNS,
    SliceGroup,
    SliceScore,
    score_slices,
    summarise_slices,
)
from brats_pipeline.metrics.summary import RegionSummary, Spread, spread, summarise
from brats_pipeline.metrics.tables import csv_text, headline, slice_headline

__all__ = [
    "COLUMNS",
    "COLUMNS_2024",
    "EMPTY_RULES",
    "LESION_COLUMNS",
    "PER_PATIENT",
    "RULES",
    "SLICE_COLUMNS",
    "CaseScore",
    "Counts",
    "EmptyRule",
    "LesionRules",
    "LesionScore",
    "RegionScore",
    "RegionSummary",
    "Rules",
    "SliceGroup",
    "SliceScore",
    "Spread",
    "SurfaceDistances",
    "assd_mm",
    "average_distance_mm",
    "case_columns",
    "csv_text",
    "dice",
    "hd95_mm",
    "headline",
    "iou",
    "lesion_columns",
    "measure_case",
    "normalised_surface_dice",
    "nsd",
    "precision",
    "recall",
    "region_masks",
    "region_values",
    "robust_hausdorff_mm",
    "rules_named",
    "score_case",
    "score_miss",
    "score_slices",
    "slice_headline",
    "specificity",
    "spread",
    "summarise",
    "summarise_slices",
    "surface_distances",
    "usual_rules",
]
