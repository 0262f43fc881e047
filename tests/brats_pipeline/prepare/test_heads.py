"""Coarser images: what a voxel says is said of the place where it lies."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import SimpleITK as sitk

from brats_pipeline.prepare.heads import coarser

SLOPE = np.array([3.0, -2.0, 1.5])
"""Of the values, per mm along each axis of the patient."""


def ramp(flipped: tuple[int, ...]) -> sitk.Image:
    """Values that are a linear function of the patient's coordinates, with some axes stored backwards."""
    image = sitk.Image([41, 38, 30], sitk.sitkFloat32)
    image.SetSpacing([0.9, 0.9, 1.1])
    image.SetDirection(np.diag([-1.0 if axis in flipped else 1.0 for axis in range(3)]).ravel().tolist())
    image.SetOrigin([30.0 if axis in flipped else -5.0 for axis in range(3)])
    for index in itertools.product(*map(range, image.GetSize())):
        image[index] = float(SLOPE @ image.TransformIndexToPhysicalPoint(index))
    return image


@pytest.mark.parametrize("flipped", [(), (0,), (0, 1, 2)])
def test_the_value_of_a_coarse_voxel_is_that_of_its_place(flipped: tuple[int, ...]) -> None:
    coarse = coarser(ramp(flipped), 3.6)
    assert min(coarse.GetSpacing()) > 3
    inside = [range(2, side - 2) for side in coarse.GetSize()]  # smoothing bends the ramp at its ends
    errors = [
        coarse[index] - float(SLOPE @ coarse.TransformIndexToPhysicalPoint(index))
        for index in itertools.product(*inside)
    ]
    assert len(errors) > 20
    assert np.abs(errors).max() < 0.1
