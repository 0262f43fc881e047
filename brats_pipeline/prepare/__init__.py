"""From a raw exam to a case like those of BraTS: one grid, co-registered, brain alone. No torch, no MONAI.

:func:`prepare_case` does it, :func:`to_native` carries a label map back to the grid of the original scan, and
:func:`source_series` names the DICOM files of that scan.
"""

from __future__ import annotations

from brats_pipeline.prepare.native import is_prepared, to_native
from brats_pipeline.prepare.origins import source_series
from brats_pipeline.prepare.preparing import Prepared, prepare_case

__all__ = ["Prepared", "is_prepared", "prepare_case", "source_series", "to_native"]
