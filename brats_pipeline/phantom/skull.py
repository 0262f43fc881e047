"""What surrounds a made-up brain: skull, scalp, face and neck, for scans from which nothing was stripped.

Head coordinates as in :mod:`brats_pipeline.phantom.anatomy`. Drawn to look like a head to a network and to a person who
glances at it; no part of it is anatomy to learn from.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from brats_pipeline.phantom.anatomy import Floats, Point, ellipsoid, ramp, smooth_noise, tube, union

MATERIALS = ("air", "fat", "muscle", "bone", "marrow", "mucosa", "fluid")
"""First axis of what :func:`surround` returns."""

_FLUID_MM, _BONE_MM, _SCALP_MM = 2.0, 8.0, 14.0  # how far from the brain each layer reaches


def _mirrored(side: Floats, y: Floats, z: Floats, centre: Point, radius: float) -> Floats:
    """A ball on either side of the head."""
    return ellipsoid(side, y, z, centre, (radius, radius, radius))


def surround(
    generator: np.random.Generator,
    inside: npt.NDArray[np.bool_],
    *,
    axes_mm: Sequence[Floats],
    spacing_mm: Sequence[float],
    edge_mm: float,
) -> Floats:
    """Build the head around a brain.

    Args:
        generator: draws the head; what it draws does not depend on the grid.
        inside: mask of the brain, ``(x, y, z)``.
        axes_mm: head coordinates of the voxels along x, y and z.
        spacing_mm: voxel sides.
        edge_mm: width of the border between two materials.

    Returns:
        Share of each of :data:`MATERIALS` in each voxel, ``(7, x, y, z)``; they add up to 1. Within the brain they
        mean nothing.
    """
    fat_mm, nose_mm, jaw = (float(value) for value in generator.uniform((4, 9, 0.9), (8, 13, 1.08)))
    lumps, grain = (smooth_noise(generator, scale_mm, axes_mm) for scale_mm in (25, 6))
    x, y, z = np.ix_(*axes_mm)
    side = np.abs(x)
    gap = ndimage.distance_transform_edt(~inside, sampling=spacing_mm).astype(np.float32)
    gap = np.maximum(ndimage.gaussian_filter(gap, [2.5 / step for step in spacing_mm]), 0)

    skin = _SCALP_MM - gap
    face = ellipsoid(x, y, z, (0, 38, -52), (60 * jaw, 56, 62))
    neck = tube(x, y, z, (0, -22, -50), (0, -34, -130), (60, 54))
    nose = tube(x, y, z, (0, 80, -36), (0, 94, -60), (0.5 * nose_mm, nose_mm))
    for part, blend_mm in ((neck, 20), (face, 18), (nose, 8)):
        skin = union(skin, part, blend_mm)
    skin = skin + lumps

    shares = np.zeros((len(MATERIALS), *inside.shape), np.float32)
    shares[MATERIALS.index("air")] = 1

    def paint(material: str, distance: Floats) -> None:
        nonlocal shares
        share = ramp(distance, edge_mm)
        shares *= 1 - share
        shares[MATERIALS.index(material)] += share

    paint("fat", skin)
    paint("muscle", np.minimum(skin - np.float32(fat_mm), 3 + 4 * grain))  # fat runs between the muscles
    paint("bone", _BONE_MM - gap)
    paint("marrow", np.minimum(gap - 4, 6.2 - gap) + np.minimum(grain, 0))
    for centre, radii in (((24, 52, -62), (13, 16, 16)), ((5, 50, -50), (6, 34, 22)), ((48, -22, -42), (8, 11, 12))):
        hollow = np.minimum(ellipsoid(side, y, z, centre, radii), skin - 4)  # maxillary, nasal, mastoid
        paint("mucosa", hollow + 2)
        paint("air", hollow - 1 - np.maximum(2 * grain, 0))
    paint("air", np.minimum(tube(x, y, z, (0, 16, -62), (0, 8, -130), (7, 6)), skin - 4))
    paint("fat", np.minimum(_mirrored(side, y, z, (32, 58, -34), 20), skin - 2))
    paint("fluid", _mirrored(side, y, z, (32, 68, -34), 12))
    paint("fluid", _FLUID_MM - gap)
    return shares
