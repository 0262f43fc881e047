"""DICOM in and out: which series of a folder is which scan, its voxels in place, and segmentations beside it.

Needs pydicom, and for writing highdicom: ``pip install "brats-pipeline[dicom]"``. No torch, no MONAI.
"""

from __future__ import annotations
