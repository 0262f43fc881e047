"""A real exam, oblique as it was scanned, written as DICOM and read again; BRATS_PIPELINE_DATA names where it lies."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

pytest.importorskip("pydicom")

from brats_pipeline.dicom.reading import read_only_series, read_series
from brats_pipeline.prepare.images import array_of, read_image

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif("BRATS_PIPELINE_DATA" not in os.environ, reason="BRATS_PIPELINE_DATA names no folder"),
]


@pytest.mark.parametrize("name", ["t1ce", "t1", "t2", "flair"])
def test_the_series_holds_at_each_place_what_the_nifti_file_holds_there(
    scanner: Any, tmp_path: Path, name: str
) -> None:
    path = Path(os.environ["BRATS_PIPELINE_DATA"]) / "raw" / "TCGA-FG-6692" / f"{name}.nii.gz"
    nifti = nib.load(path)
    lps = np.diag([-1.0, -1, 1, 1]) @ nifti.affine
    sides = np.linalg.norm(lps[:3, :3], axis=0)
    scan = scanner.Scan(size=nifti.shape, spacing_mm=tuple(sides.tolist()))
    slices = scan.slices(np.asanyarray(nifti.dataobj))
    for index, each in enumerate(slices):
        each.ImageOrientationPatient = [f"{value:.9f}" for value in (lps[:3, :2] / sides[:2]).T.ravel()]
        each.ImagePositionPatient = [f"{value:.6f}" for value in lps[:3, 3] + index * lps[:3, 2]]
    found, expected = read_series(read_only_series(scanner.save(slices, tmp_path / "series"))), read_image(path)
    places = np.random.default_rng(0).integers(0, found.GetSize(), (4000, 3)).tolist()
    points = [found.TransformIndexToPhysicalPoint(place) for place in places]
    there = np.array([expected.TransformPhysicalPointToContinuousIndex(point) for point in points])
    assert np.abs(there - np.rint(there)).max() < 1e-4
    ours, theirs = array_of(found), array_of(expected)
    assert np.array_equal(ours[tuple(np.transpose(places))], theirs[tuple(np.rint(there).astype(int).T)])
