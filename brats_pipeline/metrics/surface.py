"""Distances between the surfaces of two masks, in millimetres, by surface elements.

A surface element sits wherever the eight voxels around a lattice corner are neither all inside nor all outside. Its
area is that of the triangles which marching cubes (Lorensen and Cline, SIGGRAPH 1987) would put there, and it counts
in a percentile by this area. This is the definition of Nikolov et al., arXiv:1809.04430 (DeepMind's surface-distance),
which BraTS uses since 2023. It differs from MedPy's HD95 (boundary voxels, pooled) and from MONAI's.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

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
class SurfaceDistances:
    """Distances from each surface to the other, each direction sorted, with the areas they stand for.

    Args:
        from_reference_mm: one distance for every surface element of the reference; empty when it has none.
        reference_mm2: their areas.
        from_prediction_mm: one distance for every surface element of the prediction; empty when it has none.
        prediction_mm2: their areas.
    """

    from_reference_mm: Floats
    reference_mm2: Floats
    from_prediction_mm: Floats
    prediction_mm2: Floats


def _directed(points: Floats, inside: Mask, others: Floats, areas: Floats) -> tuple[Floats, Floats]:
    """Sorted distances from points to the nearest of the others; ``inside`` marks points that are among the others."""
    distances = np.zeros(len(points))
    if len(others) == 0:
        distances[:] = math.inf
    else:
        away = ~inside
        distances[away] = cKDTree(others, balanced_tree=False, compact_nodes=False).query(points[away])[0]
    order = np.lexsort((areas, distances))
    return distances[order], areas[order]


def box_of(mask: Mask) -> tuple[slice, ...]:
    """Smallest box that holds every true voxel; an empty box when there is none."""
    box = []
    for axis in range(mask.ndim):
        line = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(int(line[0]), int(line[-1]) + 1) if line.size else slice(0, 0))
    return tuple(box)


def surface_distances(prediction: Mask, reference: Mask, *, spacing_mm: Sequence[float]) -> SurfaceDistances:
    """Measure from each surface to the nearest element of the other.

    Args:
        prediction: ``(x, y, z)``, boolean.
        reference: ``(x, y, z)``, boolean.
        spacing_mm: voxel side along each axis.

    Returns:
        The distances of both directions; infinite where the other mask is empty.

    Raises:
        ValueError: the masks are not boolean, not 3D or differ in shape, or a spacing is missing or not positive.
    """
    spacing = tuple(float(side) for side in spacing_mm)
    if prediction.shape != reference.shape or prediction.ndim != 3:
        raise ValueError(f"masks must be 3D and of one shape, got {prediction.shape} and {reference.shape}")
    if prediction.dtype != bool or reference.dtype != bool:
        raise ValueError(f"masks must be boolean, got {prediction.dtype} and {reference.dtype}")
    if len(spacing) != 3 or not all(0 < side < math.inf for side in spacing):
        raise ValueError(f"spacing_mm must be three positive numbers, got {spacing}")
    # The nearest element is looked up in a tree and not in a distance map: a lone false-positive voxel far away would
    # stretch the map over the whole head, the tree grows with the surfaces only.
    box = box_of(prediction | reference)
    codes = {"prediction": _codes(prediction[box]), "reference": _codes(reference[box])}
    # One comparison for "neither 0 nor 255": subtracting 1 wraps 0 round to 255.
    surface = {side: code - np.uint8(1) < 254 for side, code in codes.items()}
    points = {side: np.argwhere(elements) * np.array(spacing) for side, elements in surface.items()}
    table = _areas_mm2(spacing)
    directed = {}
    for side, other in (("reference", "prediction"), ("prediction", "reference")):
        elements = surface[side]
        directed[side] = _directed(points[side], surface[other][elements], points[other], table[codes[side][elements]])
    return SurfaceDistances(*directed["reference"], *directed["prediction"])


def robust_hausdorff_mm(distances: SurfaceDistances, *, percentile: float) -> float:
    """Distance within which ``percentile`` percent of each surface's area lies from the other, the larger of the two.

    Returns:
        Millimetres; infinite when exactly one mask is empty, NaN when both are.
    """
    directed = [
        _percentile(distances.from_reference_mm, distances.reference_mm2, percentile),
        _percentile(distances.from_prediction_mm, distances.prediction_mm2, percentile),
    ]
    if all(math.isnan(value) for value in directed):
        return math.nan
    return max(value for value in directed if not math.isnan(value))


def _percentile(distances: Floats, areas: Floats, percentile: float) -> float:
    """First distance at which the share of area reached is at least the percentile; NaN without a surface."""
    if len(distances) == 0:
        return math.nan
    share = np.cumsum(areas) / areas.sum()
    place = int(np.searchsorted(share, percentile / 100))
    return float(distances[min(place, len(distances) - 1)])


def hd95_mm(prediction: Mask, reference: Mask, *, spacing_mm: Sequence[float]) -> float:
    """95th percentile of the distance between two surfaces, in millimetres.

    Both empty: NaN. One empty: infinite. An :class:`~brats_pipeline.metrics.empties.EmptyRule` says what that scores.

    Args:
        prediction: ``(x, y, z)``, boolean.
        reference: ``(x, y, z)``, boolean.
        spacing_mm: voxel side along each axis.

    Raises:
        ValueError: the masks are not boolean, not 3D or differ in shape, or a spacing is missing or not positive.
    """
    return robust_hausdorff_mm(surface_distances(prediction, reference, spacing_mm=spacing_mm), percentile=95)
