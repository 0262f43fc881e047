"""Synthetic cohorts: scans of made-up brains with made-up gliomas, for tests, demos and teaching.

They hold what a pipeline meets in real scans (several contrasts of one head, scanner-dependent intensities, bias field,
Rician noise, nested regions, cases without ET or with several lesions, sequences that were never taken) and belong to
no patient. How they come about stands in :mod:`brats_pipeline.phantom.synthesis`;
:mod:`brats_pipeline.phantom.cohort` writes them as datasets name them.
"""

from __future__ import annotations

from brats_pipeline.phantom.cohort import LAYOUTS, to_convention, write_cohort
from brats_pipeline.phantom.synthesis import PhantomCase, PhantomSlices, make_case, make_slices

__all__ = ["LAYOUTS", "PhantomCase", "PhantomSlices", "make_case", "make_slices", "to_convention", "write_cohort"]
