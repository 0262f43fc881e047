"""Cases: what a folder of scans holds, whose it is, and which label convention it follows. No torch, no MONAI."""

from __future__ import annotations

from brats_pipeline.cases.case import Case, Source, case_list_sha256, missing_modalities, without_labels
from brats_pipeline.cases.deciding import (
    count_label,
    count_labels,
    decide_conventions,
    listing_defects,
    settle_conventions,
)
from brats_pipeline.cases.discovery import find_cases
from brats_pipeline.cases.stacks import is_stack

__all__ = [
    "Case",
    "Source",
    "case_list_sha256",
    "count_label",
    "count_labels",
    "decide_conventions",
    "find_cases",
    "is_stack",
    "listing_defects",
    "missing_modalities",
    "settle_conventions",
    "without_labels",
]
