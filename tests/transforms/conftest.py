"""Tiny cases on disk for the tests of the transforms."""

import nibabel as nib
import numpy as np
import pytest

from transforms.labels import MODALITIES
from transforms.nifti import write_nifti

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def tiny_head(shape=(9, 8, 7), *, margin=1, seed=0):
    """Four scans ``(4, x, y, z)`` int16, zero in the margin, and a label map of 0, 1, 2, 4 inside the brain."""
    generator = np.random.default_rng(seed)
    inside = tuple(slice(margin, side - margin) for side in shape)
    brain = np.zeros(shape, dtype=bool)
    brain[inside] = True
    images = generator.integers(1, 2000, size=(4, *shape)) * (1 + np.arange(4)[:, None, None, None])
    labels = generator.choice([0, 1, 2, 4], size=shape)
    return (images * brain).astype(np.int16), (labels * brain).astype(np.uint8)


@pytest.fixture
def head():
    return tiny_head


@pytest.fixture
def write_case(tmp_path):
    """Write a case and return its datalist item."""

    def write(images, labels=None, affine=LPS, *, case_id="case", convention="brats2017", make=nib.Nifti1Image):
        paths = [tmp_path / case_id / f"{case_id}_{modality}.nii.gz" for modality in MODALITIES[: len(images)]]
        for path, voxels in zip(paths, images, strict=True):
            write_nifti(path, make(voxels, affine))
        item = {"case_id": case_id, "convention": convention, "image": list(map(str, paths))}
        if labels is not None:
            item["label"] = str(tmp_path / case_id / f"{case_id}_seg.nii.gz")
            write_nifti(item["label"], make(labels, affine))
        return item

    return write
