"""Scores of segmentations: overlap, surface distances, rules for empty regions. NumPy and SciPy only.

The door is :func:`score_case`; what it counts and how stands in :class:`Rules`.
"""

from brats_pipeline.metrics.empties import EMPTY_RULES, EmptyRule
from brats_pipeline.metrics.overlap import Counts, dice, iou, precision, recall, specificity
from brats_pipeline.metrics.rules import RULES, Rules, rules_named, usual_rules
from brats_pipeline.metrics.score import COLUMNS, RegionScore, region_masks, score_case, score_miss
from brats_pipeline.metrics.slices import (
    PER_PATIENT,
    SLICE_COLUMNS,
    SliceGroup,
    SliceScore,
    score_slices,
    summarise_slices,
)
from brats_pipeline.metrics.summary import RegionSummary, Spread, spread, summarise
from brats_pipeline.metrics.surface import SurfaceDistances, hd95_mm, robust_hausdorff_mm, surface_distances
from brats_pipeline.metrics.tables import csv_text, headline, slice_headline

__all__ = [
    "COLUMNS",
    "EMPTY_RULES",
    "PER_PATIENT",
    "RULES",
    "SLICE_COLUMNS",
    "Counts",
    "EmptyRule",
    "RegionScore",
    "RegionSummary",
    "Rules",
    "SliceGroup",
    "SliceScore",
    "Spread",
    "SurfaceDistances",
    "csv_text",
    "dice",
    "hd95_mm",
    "headline",
    "iou",
    "precision",
    "recall",
    "region_masks",
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
