"""The surface of a mask, as area-weighted surface elements or as border voxels.

A surface element sits wherever the eight voxels around a lattice corner are neither all inside nor all outside. Its
area is that of the triangles which marching cubes (Lorensen and Cline, SIGGRAPH 1987) would put there, and it counts
in a percentile by this area. This is the definition of Nikolov et al., arXiv:1809.04430 (DeepMind's surface-distance),
which BraTS uses since 2023. A border voxel is a voxel of the mask one of whose six neighbours is outside, all of them
of one weight: the definition of MedPy, which BraTS used before, and the one of nsd_voxel. The image ends in emptiness.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from brats_pipeline.metrics.rules import Definition

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]

# Corners of a cube; the bit of a corner in a code is its place here, x in the lowest bit.
_CORNERS = tuple((bit & 1, bit >> 1 & 1, bit >> 2 & 1) for bit in range(8))

# One row per way to colour the corners of a cube, up to rotation, mirroring and exchange of inside and outside: the
# corners inside, and the normals of the triangles between inside and outside. A normal is as long as its triangle's
# area in eighths of a face of the unit cube, signs dropped.
_TRIANGLES: tuple[tuple[tuple[str, ...], tuple[tuple[int, int, int], ...]], ...] = (
    (("000",), ((1, 1, 1),)),
    (("000", "001"), ((4, 4, 0),)),
    (("000", "011"), ((2, 2, 2),)),
    (("000", "111"), ((2, 2, 2),)),
    (("000", "001", "010"), ((4, 0, 0), (3, 3, 3))),
    (("000", "001", "111"), ((4, 4, 0), (1, 1, 1))),
    (("000", "011", "101"), ((3, 3, 3),)),
    (("000", "001", "010", "011"), ((8, 0, 0),)),
    (("000", "001", "010", "100"), ((6, 6, 6),)),
    (("000", "001", "010", "111"), ((4, 0, 0), (4, 4, 4))),
    (("000", "001", "011", "111"), ((2, 2, 0), (0, 2, 2), (4, 4, 4))),
    (("000", "001", "110", "111"), ((8, 8, 0),)),
    (("000", "011", "101", "110"), ((4, 4, 4),)),
)


def _code(corners: set[tuple[int, ...]]) -> int:
    """One bit for each corner that is inside."""
    return sum(1 << bit for bit, corner in enumerate(_CORNERS) if corner in corners)


@lru_cache
def _normals() -> dict[int, tuple[tuple[int, ...], ...]]:
    """Normals for each of the 254 mixed codes: every rotation, mirror image and complement of the table's rows."""
    found = {}
    for inside, normals in _TRIANGLES:
        corners = [tuple(map(int, corner)) for corner in inside]
        for axes in itertools.permutations(range(3)):
            turned = tuple(tuple(normal[axis] for axis in axes) for normal in normals)
            for mirror in _CORNERS:
                moved = {
                    tuple(corner[axis] ^ flip for axis, flip in zip(axes, mirror, strict=True)) for corner in corners
                }
                code = _code(moved)
                found[code] = found[255 - code] = turned
    return found


@lru_cache(maxsize=32)
def _areas_mm2(spacing_mm: tuple[float, ...]) -> Floats:
    """Area of the surface element of each code on a grid of this spacing."""
    across = [math.prod(spacing_mm) / side for side in spacing_mm]
    areas = np.zeros(256)
    for code, normals in _normals().items():
        areas[code] = sum(
            math.hypot(*(part * face for part, face in zip(normal, across, strict=True))) / 8 for normal in normals
        )
    return areas


def _codes(mask: Mask) -> npt.NDArray[np.uint8]:
    """Code of every lattice corner: ``(a, b, c)`` to ``(a + 1, b + 1, c + 1)``; outside the array is outside."""
    codes = np.pad(mask, 1).view(np.uint8)
    codes = codes[:-1] | codes[1:] << np.uint8(1)
    codes = codes[:, :-1] | codes[:, 1:] << np.uint8(2)
    return codes[:, :, :-1] | codes[:, :, 1:] << np.uint8(4)


@dataclass(frozen=True)
class Surface:
    """The surface of a mask; one entry for every element or border voxel, in raster order.

    Args:
        places: ``(n, 3)``, positions on the grid of lattice corners or of voxels.
        cells: ``(n,)``, the same positions as one number each, ascending.
        areas: ``(n,)``, what each entry weighs.
        labels: ``(n,)``, number of the component that the entry belongs to; zeros where there are no components.
    """

    places: npt.NDArray[np.int32]
    cells: npt.NDArray[np.int64]
    areas: Floats
    labels: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.cells)


def surface_of(
    mask: Mask, *, spacing_mm: tuple[float, ...], definition: Definition, labels: npt.NDArray[np.int32] | None = None
) -> Surface:
    """The surface of a mask.

    Args:
        mask: ``(x, y, z)``.
        spacing_mm: voxel side along each axis.
        definition: surface elements or border voxels.
        labels: ``(x, y, z)``, number of each voxel's component, 0 outside the mask; components of different numbers do
            not touch, so that every entry of the surface has one owner.
    """
    if definition == "elements":
        codes = _codes(mask)
        # One comparison for "neither 0 nor 255": subtracting 1 wraps 0 round to 255.
        cells = np.flatnonzero(codes - np.uint8(1) < 254)
        areas = _areas_mm2(spacing_mm)[codes.ravel()[cells]]
        shape = codes.shape
    else:
        padded = np.pad(mask, 1)
        inner = mask.copy()
        for axis in range(3):
            for step in (slice(None, -2), slice(2, None)):
                inner &= padded[tuple(step if other == axis else slice(1, -1) for other in range(3))]
        cells = np.flatnonzero(mask & ~inner)
        areas = np.ones(len(cells))
        shape = mask.shape
    places = np.stack(np.unravel_index(cells, shape), axis=1).astype(np.int32)
    owners = np.zeros(len(cells), np.int32)
    if labels is not None and len(cells):
        if definition == "elements":
            around = np.pad(labels, 1)
            x, y, z = places.T
            for i, j, k in _CORNERS:
                np.maximum(owners, around[x + i, y + j, z + k], out=owners)
        else:
            owners = labels.ravel()[cells]
    return Surface(places, cells, areas, owners)
