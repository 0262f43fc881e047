"""The report of an evaluation: one HTML file with tables, plots and pictures, readable offline and on paper."""

from __future__ import annotations

from brats_pipeline.report.page import CasePage, write_report

__all__ = ["CasePage", "write_report"]
