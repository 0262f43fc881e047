"""One interpolation from the scanner's voxels to those of the prepared case."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from brats_pipeline.prepare.grids import Grid
from brats_pipeline.prepare.heads import smooth_along
from brats_pipeline.prepare.images import array_of

INTERPOLATORS = {"bspline": sitk.sitkBSpline, "linear": sitk.sitkLinear}
FINER = 1.2
"""A scan whose voxels are smaller than the grid's by more than this factor is smoothed before it is sampled."""


def chained(transforms: Sequence[sitk.Transform]) -> sitk.Transform:
    """One transform that applies several; the first of them first."""
    composite = sitk.CompositeTransform(3)
    for transform in reversed(transforms):  # ITK applies the last that was added first
        composite.AddTransform(transform)
    return composite


def sample(image: sitk.Image, grid: Grid, transform: sitk.Transform, interpolation: str) -> npt.NDArray[np.float32]:
    """Sample a scan on a grid: ``(x, y, z)`` float32, 0 where the scan does not reach, within its own range elsewhere.

    Args:
        image: float32.
        grid: where to sample.
        transform: takes points of the grid to points of the scan.
        interpolation: a key of :data:`INTERPOLATORS`; cubic B-splines are kept from overshooting.
    """
    target_mm = min(grid.spacing_mm)
    values = sitk.GetArrayViewFromImage(image)
    low, high = float(values.min()), float(values.max())
    for axis, step in enumerate(image.GetSpacing()):
        if target_mm > FINER * step:
            # Half the width of the coarse voxel beyond that of the fine one, as a Gaussian (Cardoso et al. 2015).
            sigma_mm = math.sqrt((target_mm**2 - step**2) / (8 * math.log(2)))
            image = smooth_along(image, sigma_mm, axis)
    outside = min(low, 0.0) - 1.0 - (high - low)  # told apart from whatever a spline makes of the scan
    sampled = array_of(grid.resample(image, transform, interpolator=INTERPOLATORS[interpolation], outside=outside))
    beyond = sampled == np.float32(outside)
    sampled = np.clip(sampled, low, high)
    sampled[beyond] = 0
    return sampled


def sample_mask(mask: sitk.Image, grid: Grid, transform: sitk.Transform) -> npt.NDArray[np.bool_]:
    """Sample a mask: a voxel is inside where at least half of it is."""
    share = grid.resample(sitk.Cast(mask, sitk.sitkFloat32), transform)
    inside: npt.NDArray[np.bool_] = array_of(share) >= 0.5
    return inside
