"""A brain mask without a network: thresholds around the brain's own grey value, then erosion, largest part, closing.

The fallback where nothing better is there, made for T1 with or without contrast, where bone is dark and fat is bright.
It leaves out fluid around the brain, may take in dura and sinuses or cut the poles, and cuts a wide enhancing tumour
that reaches the surface.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk
from scipy import ndimage

from brats_pipeline.errors import PipelineError
from brats_pipeline.prepare.grids import isotropic_grid
from brats_pipeline.prepare.heads import head_mask
from brats_pipeline.prepare.images import array_of, like

Array = npt.NDArray[Any]

SIDE_MM = 2.0
HEAD_MM = 170.0
"""A brain ends within this below the top of the head; what lies lower is neck."""
CORE_MM = 45.0
"""Within this around the middle of the head there is hardly anything but brain."""
DARKEST, BRIGHTEST = 0.6, 1.35
"""Brain tissue lies between these shares of the median in the middle; bone and fluid are darker, fat is brighter."""
BRIDGE_MM = 4.5
"""Half the width of the widest bridge from the brain to what is not that is cut: veins, nerves, partial volume."""
GAP_MM = 10.0
"""Half the width of gaps in the mask that are closed: sulci, vessels, enhancing tumour."""


def _gap(mask: Array, *, edge: bool) -> Array:
    """Distance in mm of each voxel inside to the nearest outside; ``edge``: the end of the field of view is outside."""
    padded = np.pad(mask, 1, constant_values=not edge)
    distance: Array = ndimage.distance_transform_edt(padded)[1:-1, 1:-1, 1:-1] * SIDE_MM
    return distance


def _grown(mask: Array, by_mm: float) -> Array:
    """The mask and what lies within a distance of it."""
    if not mask.any():
        return mask
    near: Array = ndimage.distance_transform_edt(~mask) * SIDE_MM <= by_mm
    return near


def _largest(mask: Array) -> Array:
    """The largest connected part of a mask."""
    parts, count = ndimage.label(mask)
    if count == 0:
        return mask
    largest: Array = parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    return largest


def _closed(mask: Array) -> Array:
    """The mask with narrow gaps closed and holes filled."""
    pad = int(GAP_MM / SIDE_MM) + 2
    grown = _grown(np.pad(mask, pad), GAP_MM)
    closed: Array = ndimage.binary_fill_holes((_gap(grown, edge=True) > GAP_MM)[(slice(pad, -pad),) * 3] | mask)
    return closed


def _brain_grey(values: Array, head: Array) -> float:
    """The median grey value in the middle of the head."""
    top = int(np.flatnonzero(head.any(axis=(0, 1)))[-1])
    head = head.copy()
    head[:, :, : max(0, top - round(HEAD_MM / SIDE_MM))] = False
    places = np.argwhere(head)
    near = np.linalg.norm(places - places.mean(axis=0), axis=1) * SIDE_MM < CORE_MM
    return float(np.median(values[head][near]))


def fallback_mask(image: sitk.Image) -> sitk.Image:
    """Estimate where the brain lies in a scan of a whole head.

    Args:
        image: float32.

    Returns:
        uint8 on the grid of ``image``.

    Raises:
        PipelineError: the scan shows no head.
    """
    cubes = isotropic_grid(image, SIDE_MM).resample(image)
    head = array_of(head_mask(cubes)) > 0
    if not head.any():
        raise PipelineError("the scan shows no head; give --brain-mask FILE, or keep it with --no-brain-extraction")
    soft = ndimage.gaussian_filter(array_of(cubes), 0.5)
    brain = _brain_grey(soft, head)
    tissue = (soft > DARKEST * brain) & (soft < BRIGHTEST * brain)
    core = _largest(_gap(tissue, edge=False) > BRIDGE_MM)
    whole = _closed(_grown(core, BRIDGE_MM + SIDE_MM / 2) & tissue)
    on_scan = sitk.Resample(
        like(cubes, whole.astype(np.float32)), image, sitk.Transform(3, sitk.sitkIdentity), sitk.sitkLinear
    )
    mask: sitk.Image = sitk.Cast(on_scan > 0.5, sitk.sitkUInt8)
    return mask
