"""Where the head lies in a scan, and scans made coarser for what does not need every voxel."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import SimpleITK as sitk


@contextmanager
def one_thread() -> Iterator[None]:
    """Let ITK add up in one order: how many threads a sum is shared by changes its last bits."""
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def shrink_factors(image: sitk.Image, side_mm: float) -> list[int]:
    """Along each axis, how many voxels become one so that it is about ``side_mm`` long; thick slices stay."""
    return [
        max(1, min(round(side_mm / step), count // 8))
        for step, count in zip(image.GetSpacing(), image.GetSize(), strict=True)
    ]


def smooth_along(image: sitk.Image, sigma_mm: float, axis: int) -> sitk.Image:
    """Smooth along one axis; fewer than four voxels there stay as they are."""
    if image.GetSize()[axis] < 4:
        return image
    smooth: sitk.Image = sitk.RecursiveGaussian(
        image, sigma_mm, False, sitk.RecursiveGaussianImageFilter.ZeroOrder, axis
    )
    return smooth


def coarser(image: sitk.Image, side_mm: float) -> sitk.Image:
    """An image of voxels of about ``side_mm``, smoothed before; axes that are as coarse already stay as they are."""
    factors = shrink_factors(image, side_mm)
    for axis, (factor, step) in enumerate(zip(factors, image.GetSpacing(), strict=True)):
        if factor > 1:
            image = smooth_along(image, 0.5 * factor * step, axis)
    return sitk.BinShrink(image, factors) if max(factors) > 1 else image  # Shrink moves the voxels off their places


def head_mask(image: sitk.Image, *, margin_mm: float = 0.0) -> sitk.Image:
    """The head: what is brighter than air by Otsu's threshold, gaps closed, and a margin around it."""
    values = sitk.GetArrayViewFromImage(image)
    low, high = (float(value) for value in np.percentile(values, (0.5, 98)))
    if high <= low:
        high = float(values.max())
    otsu = sitk.OtsuThresholdImageFilter()
    otsu.Execute(sitk.Clamp(image, lowerBound=low, upperBound=high))
    # Otsu parts air from tissue, or bright tissue from the rest: half the threshold takes dark tissue in.
    threshold = low + 0.5 * (otsu.GetThreshold() - low)
    mask: sitk.Image = sitk.BinaryThreshold(image, threshold, float(values.max()))
    steps = image.GetSpacing()
    mask = sitk.BinaryMorphologicalClosing(mask, [max(1, round(6 / step)) for step in steps])
    if margin_mm > 0:
        mask = sitk.BinaryDilate(mask, [max(1, round(margin_mm / step)) for step in steps])
    return mask
