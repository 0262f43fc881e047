"""Scores of segmentations: overlap, surface distances, rules for empty regions. NumPy and SciPy only.

The door for one case is :func:`score_case`; what it counts and how stands in :class:`Rules`. From tables to
statements lead :func:`summarise` and :func:`summarise_groups` for one run; for several :func:`join_runs`,
:func:`compare_paired`, :func:`verdict` and :func:`rank_runs`.
"""

from brats_pipeline.metrics.calibration import (
    CALIBRATION_COLUMNS,
    Calibration,
    Reliability,
    case_reliability,
    summarise_calibration,
)
from brats_pipeline.metrics.comparison import Comparison, compare_paired, lower_is_better, verdict
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
from brats_pipeline.metrics.joining import Joined, by_case, join_runs
from brats_pipeline.metrics.lesions import LESION_COLUMNS, LesionScore, lesion_columns
from brats_pipeline.metrics.overlap import Counts, dice, iou, precision, recall, specificity
from brats_pipeline.metrics.ranking import RankedRun, Ranking, rank_runs
from brats_pipeline.metrics.regions import region_masks, region_values
from brats_pipeline.metrics.rows import (
    COLUMNS,
    COLUMNS_2024,
    COUNTED,
    CaseScore,
    RegionScore,
    case_columns,
    filled_columns,
    missed_row,
)
from brats_pipeline.metrics.rules import RULES, LesionRules, Rules, rules_named, usual_rules
from brats_pipeline.metrics.score import measure_case, regions_needed, score_case, score_miss
from brats_pipeline.metrics.slices import (
    PER_PATIENT,
    SLICE_COLUMNS,
    SliceGroup,
    SliceScore,
    score_slices,
    summarise_slices,
)
from brats_pipeline.metrics.statistics import RESAMPLES, bootstrap_interval, holm, wilcoxon_p
from brats_pipeline.metrics.subgroups import (
    CaseFacts,
    Group,
    GroupFigures,
    case_facts,
    enhancing_twice,
    institution,
    summarise_groups,
    usual_groups,
)
from brats_pipeline.metrics.summary import RegionSummary, Spread, spread, summarise
from brats_pipeline.metrics.tables import csv_text, headline, slice_headline

__all__ = [
    "CALIBRATION_COLUMNS",
    "COLUMNS",
    "COLUMNS_2024",
    "COUNTED",
    "EMPTY_RULES",
    "LESION_COLUMNS",
    "PER_PATIENT",
    "RESAMPLES",
    "RULES",
    "SLICE_COLUMNS",
    "Calibration",
    "CaseFacts",
    "CaseScore",
    "Comparison",
    "Counts",
    "EmptyRule",
    "Group",
    "GroupFigures",
    "Joined",
    "LesionRules",
    "LesionScore",
    "RankedRun",
    "Ranking",
    "RegionScore",
    "RegionSummary",
    "Reliability",
    "Rules",
    "SliceGroup",
    "SliceScore",
    "Spread",
    "SurfaceDistances",
    "assd_mm",
    "average_distance_mm",
    "bootstrap_interval",
    "by_case",
    "case_columns",
    "case_facts",
    "case_reliability",
    "compare_paired",
    "csv_text",
    "dice",
    "enhancing_twice",
    "filled_columns",
    "hd95_mm",
    "headline",
    "holm",
    "institution",
    "iou",
    "join_runs",
    "lesion_columns",
    "lower_is_better",
    "measure_case",
    "missed_row",
    "normalised_surface_dice",
    "nsd",
    "precision",
    "rank_runs",
    "recall",
    "region_masks",
    "region_values",
    "regions_needed",
    "robust_hausdorff_mm",
    "rules_named",
    "score_case",
    "score_miss",
    "score_slices",
    "slice_headline",
    "specificity",
    "spread",
    "summarise",
    "summarise_calibration",
    "summarise_groups",
    "summarise_slices",
    "surface_distances",
    "usual_groups",
    "usual_rules",
    "verdict",
    "wilcoxon_p",
]
