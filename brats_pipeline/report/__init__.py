"""The report of an evaluation: one HTML file with tables, plots, pictures and slices, readable offline and on paper."""

from __future__ import annotations

from brats_pipeline.report.casepage import CasePage
from brats_pipeline.report.confusion import tissue_confusion
from brats_pipeline.report.faces import shows_head
from brats_pipeline.report.headline import PartRow, notable_cases, part_rows
from brats_pipeline.report.page import write_report
from brats_pipeline.report.volumes import CaseVolume, case_volume

__all__ = [
    "CasePage",
    "CaseVolume",
    "PartRow",
    "case_volume",
    "notable_cases",
    "part_rows",
    "shows_head",
    "tissue_confusion",
    "write_report",
]
