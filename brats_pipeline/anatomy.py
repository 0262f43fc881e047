"""A made-up brain with a made-up glioma: which tissue lies where, in millimetres. No files, no intensities.

Everything is a function of head coordinates (x to the right, y to the front, z upwards, origin in the middle of the
head), so the same seed gives the same head on every voxel grid. Shapes are signed distances (positive inside) of
ellipsoids and tubes; what makes them irregular is cubic B-spline noise on lattices fixed in the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

Floats = npt.NDArray[np.float32]
Point = tuple[float, float, float]

HEAD_MM = (150.0, 184.0, 142.0)
"""Box that holds the brain of every seed: left to right, back to front, bottom to top."""

TISSUES = ("csf", "gm", "wm", "deep", "vessel", "ED", "ET", "NCR")
"""Rows of :attr:`Brain.tissue`: fluid, grey and white matter, deep grey nuclei, vessels, and the tumour's parts."""

NCR, ED, ET = 1, 2, 3
"""Values of :attr:`Brain.tumour`: a coding of its own, which a label convention translates."""

_REACH_MM = 105.0
_NOISE_SD = (151 / 315) ** 1.5  # of a cubic B-spline field whose knots are standard normal, averaged over a cell


@dataclass(frozen=True)
class Brain:
    """One head on one voxel grid; every array but ``inside`` lists the voxels inside the brain, in order.

    Args:
        inside: mask of the brain, ``(x, y, z)``.
        tissue: share of each of :data:`TISSUES` in each voxel, ``(8, voxels)``; the shares add up to 1.
        tumour: 0, :data:`NCR`, :data:`ED` or :data:`ET`, ``(voxels,)``.
    """

    inside: npt.NDArray[np.bool_]
    tissue: Floats
    tumour: npt.NDArray[np.uint8]


def _weights(at_mm: Floats, scale_mm: float) -> Floats:
    """Cubic B-spline weights ``(points, knots)`` of knots every ``scale_mm`` over the reach of the head."""
    position = (np.clip(at_mm, -_REACH_MM, _REACH_MM) + _REACH_MM) / scale_mm
    first = np.floor(position).astype(int)
    t = position - first
    taps = ((1 - t) ** 3 / 6, (3 * t**3 - 6 * t**2 + 4) / 6, (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6, t**3 / 6)
    weights = np.zeros((len(position), _knots(scale_mm)), dtype=np.float32)
    for offset, tap in enumerate(taps):
        weights[np.arange(len(position)), first + offset] = tap
    return weights


def _knots(scale_mm: float) -> int:
    return int(np.floor(2 * _REACH_MM / scale_mm)) + 4


def smooth_noise(generator: np.random.Generator, scale_mm: float, axes_mm: Sequence[Floats]) -> Floats:
    """Smooth noise of mean 0 and variance 1 that belongs to the head, not to the grid it is sampled on.

    Args:
        generator: draws the knots; what it draws does not depend on ``axes_mm``.
        scale_mm: distance of the knots; structures are about twice as large.
        axes_mm: coordinates along x, y and z.

    Returns:
        The field on the grid that the axes span, ``(x, y, z)``.
    """
    field = generator.standard_normal((_knots(scale_mm),) * 3, dtype=np.float32) / np.float32(_NOISE_SD)
    for axis_mm in axes_mm:  # each product takes the first axis away and puts the sampled one last
        field = np.tensordot(field, _weights(axis_mm, scale_mm), axes=(0, 1))
    return np.ascontiguousarray(field)


def _ellipsoid(x: Floats, y: Floats, z: Floats, centre: Point, radii: Point) -> Floats:
    """Approximate distance to the surface of an ellipsoid, positive inside."""
    unit = [(p - np.float32(c)) / np.float32(r) for p, c, r in zip((x, y, z), centre, radii, strict=True)]
    steep = sum((u / np.float32(r)) ** 2 for u, r in zip(unit, radii, strict=True))
    radius = np.sqrt(unit[0] ** 2 + unit[1] ** 2 + unit[2] ** 2)
    distance: Floats = radius * (1 - radius) / np.sqrt(steep + np.float32(1e-12))
    return distance


def _tube(x: Floats, y: Floats, z: Floats, start: Point, end: Point, radii: tuple[float, float]) -> Floats:
    """Distance to the surface of a straight tube with round ends and a changing radius, positive inside."""
    way = np.subtract(end, start, dtype=np.float32)
    along = (x - start[0]) * way[0] + (y - start[1]) * way[1] + (z - start[2]) * way[2]
    share = np.clip(along / np.float32(way @ way), 0, 1)
    gap = np.sqrt(sum((p - s - share * w) ** 2 for p, s, w in zip((x, y, z), start, way, strict=True)))
    distance: Floats = np.float32(radii[0]) + share * np.float32(radii[1] - radii[0]) - gap
    return distance


def _union(one: Floats, other: Floats, blend_mm: float) -> Floats:
    """Join two shapes; the seam is rounded over ``blend_mm``."""
    share = np.clip(0.5 + 0.5 * (one - other) / blend_mm, 0, 1).astype(np.float32)
    joined: Floats = other + (one - other) * share + np.float32(blend_mm) * share * (1 - share)
    return joined


def _ramp(distance: Floats, width_mm: float) -> Floats:
    """Share of a voxel that lies inside a surface, from its distance: 0 outside, 1 inside, a ramp between."""
    share: Floats = np.clip(distance / np.float32(width_mm) + np.float32(0.5), 0, 1)
    return share


class _Palette:
    """Paints tissues over each other; what is painted later hides what lies below."""

    def __init__(self, voxels: int, ground: str) -> None:
        self.shares = np.zeros((len(TISSUES), voxels), dtype=np.float32)
        self.shares[TISSUES.index(ground)] = 1

    def paint(self, tissue: str, share: Floats) -> None:
        self.shares *= 1 - share
        self.shares[TISSUES.index(tissue)] += share


def _folds(generator: np.random.Generator, x: Floats, y: Floats, z: Floats) -> Floats:
    """Distance in mm to the nearest sulcus, were sulci endless: sheets that run from the surface to the depth.

    The noise is read where a ray from the middle of the hemisphere meets a sphere, so it hardly changes with depth.
    """
    step = np.float32(2.0)
    axis = np.arange(-_REACH_MM, _REACH_MM + 1, step, dtype=np.float32)
    field = smooth_noise(generator, 9.5, (axis, axis, axis))
    steep = np.sqrt(sum(g**2 for g in np.gradient(field, step)))
    sheet = np.abs(field) / np.maximum(steep, 0.05)
    sphere = np.float32(62.0)
    side = np.where(x > 0, np.float32(20), np.float32(-20))
    ray = np.stack([x - side, (y + 4) * np.float32(0.8), z - 2])
    length = np.maximum(np.sqrt((ray**2).sum(axis=0)), np.float32(1))
    ray *= sphere / length
    ray[0] += side
    at = (ray + np.float32(_REACH_MM)) / step
    distance: Floats = ndimage.map_coordinates(sheet, at, order=1, mode="nearest") * np.minimum(length / sphere, 1.2)
    return distance


def _paint_brain(
    generator: np.random.Generator,
    x: Floats,
    y: Floats,
    z: Floats,
    *,
    cerebrum: Floats,
    cerebellum: Floats,
    brainstem: Floats,
    bumps: Floats,
    edge_mm: float,
) -> _Palette:
    """Lay out the normal tissues at points whose distances to the outlines are given."""
    palette = _Palette(len(x), "csf")
    cistern_mm, ribbon_mm, depth_mm = generator.uniform((1.0, 2.6, 12), (2.4, 3.4, 18))
    wide = np.float32(generator.uniform(0.7, 1.5))  # of the ventricles: they grow with age
    side = np.abs(x + bumps * np.float32(0.8))

    # Distance into the tissue from the nearest fluid: the outer surface, a sulcus, the Sylvian or the middle fissure.
    surface = cerebrum - np.float32(cistern_mm)
    sulcus = np.hypot(_folds(generator, x, y, z), np.maximum(surface - np.float32(depth_mm), 0))
    sylvian = np.hypot(z + 5 + np.float32(0.3) * y + bumps * 2, np.maximum(40 - side, 0))
    sylvian = np.hypot(sylvian, np.maximum(np.abs(y - 2) - 36, 0))
    bridge = _ellipsoid(x, y, z, (0, -6, -6), (60, 40, 30))  # callosum, thalami, midbrain: no fissure here
    into = np.minimum(surface, sulcus - np.float32(0.9))
    into = np.minimum(into, sylvian - np.float32(1.4))
    into = np.minimum(into, np.maximum(side - 1, bridge))
    palette.paint("gm", _ramp(into, edge_mm))
    palette.paint("wm", _ramp(np.maximum(into - np.float32(ribbon_mm), np.minimum(bridge, 3 - side)), 1.5 * edge_mm))

    for centre, radii in (((11, -14, 3), (9, 14, 9)), ((13, 17, 9), (5, 12, 9)), ((26, 3, 1), (6, 15, 10))):
        palette.paint("deep", _ramp(_ellipsoid(side, y, z, centre, radii), 2 * edge_mm))

    ventricle = _tube(side, y, z, (7, 30, 8), (9, 8, 17), (3.5 * wide, 4.5 * wide))
    for start, end, radii in (
        ((9.0, 8.0, 17.0), (12.0, -22.0, 19.0), (4.5, 4.5)),
        ((12.0, -22.0, 19.0), (23.0, -40.0, 8.0), (4.5, 6.0)),
        ((23.0, -40.0, 8.0), (21.0, -60.0, 6.0), (5.0, 1.5)),
        ((24.0, -38.0, 6.0), (34.0, -14.0, -17.0), (4.5, 1.5)),
    ):
        ventricle = _union(ventricle, _tube(side, y, z, start, end, (radii[0] * wide, radii[1] * wide)), 3)
    ventricle = np.minimum(ventricle, side - np.float32(1.0))  # the septum stays
    third = np.minimum(_ellipsoid(x, y, z, (0, -8, 0), (2.2 * wide, 17, 11)), 20 - np.abs(y))
    palette.paint("csf", _ramp(np.maximum(ventricle, third), edge_mm))
    choroid = _tube(side, y, z, (20, -36, 10), (13, -20, 16), (2.2, 0.8))
    palette.paint("vessel", _ramp(np.minimum(choroid, ventricle), edge_mm) * np.float32(0.6))

    # Folia: thin leaves, stacked along arcs around the middle of the cerebellum.
    leaf = np.cos(np.hypot(y + 20, z + 34) * np.float32(1.25) + bumps * 2) * np.float32(1.2)
    palette.paint("csf", _ramp(np.maximum(cerebellum + 2, brainstem + 2), edge_mm))
    palette.paint("gm", _ramp(np.minimum(cerebellum - 1, cerebellum - np.float32(2.2) + leaf), edge_mm))
    palette.paint("wm", _ramp(cerebellum - 11 + leaf * 4, 3 * edge_mm))
    palette.paint("wm", _ramp(brainstem, edge_mm))
    palette.paint("deep", _ramp(brainstem - 1, edge_mm) * np.float32(0.45))
    palette.paint("csf", _ramp(_ellipsoid(x, y, z, (0, -37, -34), (5, 4, 9)), edge_mm))
    return palette


def _grow(cost: Floats, volume: float) -> float:
    """The threshold below which ``volume`` voxels lie."""
    count = int(np.clip(round(volume), 1, len(cost) - 1))
    return float(np.partition(cost, count)[count])


def _way(x: Floats, y: Floats, z: Floats, centre: Point, stretch: Floats) -> Floats:
    """Length of the way from a tumour's centre; the other hemisphere is reached through the callosum only."""
    points = (x, y, z)
    straight = np.sqrt(sum(((p - np.float32(c)) * s) ** 2 for p, c, s in zip(points, centre, stretch, strict=True)))
    gate = (0.0, float(np.clip(centre[1], -32, 24)), 22.0)
    around = np.sqrt(sum((p - np.float32(g)) ** 2 for p, g in zip(points, gate, strict=True)))
    around += np.float32(np.linalg.norm(np.subtract(gate, centre)) * 1.1)
    way: Floats = np.where(x * np.float32(centre[0]) >= 0, straight, np.maximum(around, straight)).astype(np.float32)
    return way


@dataclass(frozen=True)
class _Lesion:
    """What is drawn of one lesion: where, how large, and how its volume is shared out."""

    centre: Point
    stretch: Floats
    volume_ml: float
    core_share: float
    necrosis_share: float


def _draw_lesions(generator: np.random.Generator) -> tuple[list[_Lesion], bool]:
    """Draw the lesions of one head, the largest first, and whether they enhance."""
    enhancing = bool(generator.random() < 0.8)
    count = int(generator.integers(2, 5)) if generator.random() < 0.2 else 1
    total_ml = float(np.exp(generator.uniform(np.log(6), np.log(140))))
    shares = np.array([1.0, *generator.uniform(0.08, 0.5, size=count - 1)])
    lesions: list[_Lesion] = []
    for share in shares / shares.sum():
        for _ in range(50):
            direction = generator.standard_normal(3)
            direction /= np.linalg.norm(direction)
            offset = direction * generator.random() ** (1 / 3) * (26, 58, 36)
            centre = (float(offset[0] + np.sign(offset[0]) * 18), float(offset[1] - 4), float(offset[2] + 14))
            if all(np.linalg.norm(np.subtract(centre, other.centre)) > 38 for other in lesions):
                break
        core = generator.uniform(0.25, 0.65) if enhancing else generator.uniform(0.4, 0.8)
        lesions.append(
            _Lesion(
                centre=centre,
                stretch=generator.uniform(0.8, 1.25, size=3).astype(np.float32),
                volume_ml=float(share * total_ml),
                core_share=float(core),
                necrosis_share=float(generator.uniform(0.15, 0.6)) if enhancing else 1.0,
            )
        )
    return lesions, enhancing


def make_brain(seed: int | Sequence[int], *, axes_mm: Sequence[Floats], spacing_mm: Sequence[float]) -> Brain:
    """Build one brain with its tumour.

    Args:
        seed: the head; two grids with one seed show the same one.
        axes_mm: head coordinates of the voxels along x, y and z, in any direction.
        spacing_mm: voxel sides, which set how sharp an edge can be.
    """
    shape_rng, tissue_rng, tumour_rng, noise_rng = map(np.random.default_rng, np.random.SeedSequence(seed).spawn(4))
    near = [np.flatnonzero(np.abs(axis) <= side / 2) for axis, side in zip(axes_mm, HEAD_MM, strict=True)]
    box_mm = [np.asarray(axis, dtype=np.float32)[index] for axis, index in zip(axes_mm, near, strict=True)]
    bumps = smooth_noise(shape_rng, 28, box_mm)
    size = shape_rng.uniform(0.95, 1.03, size=3)
    scaled = [axis / np.float32(factor) for axis, factor in zip(box_mm, size, strict=True)]
    x, y, z = (axis.reshape(shape) for axis, shape in zip(scaled, ((-1, 1, 1), (1, -1, 1), (1, 1, -1)), strict=True))
    side = np.abs(x)
    cerebrum = _ellipsoid(side, y, z, (25, -1, 10), (43, 84, 53)) + bumps
    cerebrum = _union(cerebrum, _ellipsoid(side, y, z, (43, 8, -20), (21, 44, 20)), 6)
    cerebellum = _ellipsoid(side, y, z, (22, -50, -38), (31, 29, 22))
    brainstem = _tube(x, y, z, (0, -16, -12), (0, -28, -58), (15, 9))
    inside = _union(_union(cerebrum, cerebellum, 8), brainstem, 8) > 0

    gridded = [np.broadcast_to(p, inside.shape)[inside] for p in (x, y, z)]
    bumps, cerebrum, cerebellum, brainstem = (
        np.broadcast_to(f, inside.shape)[inside] for f in (bumps, cerebrum, cerebellum, brainstem)
    )
    lesions, enhancing = _draw_lesions(tumour_rng)
    pushed = list(gridded)
    for lesion in lesions:
        radius = np.float32((lesion.volume_ml * 1000 * lesion.core_share * 0.24) ** (1 / 3))
        gap = np.sqrt(sum((p - np.float32(c)) ** 2 for p, c in zip(gridded, lesion.centre, strict=True)))
        pull = np.float32(0.35) * np.exp(-((gap / (radius * 2 + 8)) ** 2)) * np.minimum(radius / (gap + 4), 1)
        pushed = [p - (p - np.float32(c)) * pull for p, c in zip(pushed, lesion.centre, strict=True)]
    edge_mm = max(1.0, 0.7 * float(np.max(spacing_mm)))
    palette = _paint_brain(
        tissue_rng, *pushed, cerebrum=cerebrum, cerebellum=cerebellum, brainstem=brainstem, bumps=bumps, edge_mm=edge_mm
    )

    voxel_ml = float(np.prod(spacing_mm)) / 1000
    ragged = smooth_noise(noise_rng, 7, box_mm)[inside]
    lumpy = smooth_noise(noise_rng, 12, box_mm)[inside]
    fluid, grey, white = palette.shares[0], palette.shares[1], palette.shares[2]
    banned = (cerebrum < 0.5) | (fluid > 0.6)
    tumour = np.zeros(len(fluid), dtype=np.uint8)
    soft = {name: np.zeros(len(fluid), dtype=np.float32) for name in ("ED", "ET", "NCR")}
    for lesion in lesions:
        way = _way(*gridded, lesion.centre, lesion.stretch)
        core = way * (1 + np.float32(0.16) * lumpy + np.float32(0.06) * ragged) + np.where(cerebrum < 2, 30, 0)
        core_voxels = lesion.volume_ml * lesion.core_share / voxel_ml
        core_edge = _grow(core, core_voxels)
        rot = core * (1 + np.float32(0.12) * ragged)
        rot_edge = _grow(rot, core_voxels * lesion.necrosis_share) if enhancing else np.inf
        spread = way * (1 + np.float32(0.2) * lumpy + np.float32(0.1) * ragged) * (1 + np.float32(0.9) * grey)
        spread = np.where(banned, np.float32(1e3), np.minimum(spread, core / np.float32(core_edge) * 0.5))
        edge = _grow(spread, lesion.volume_ml / voxel_ml)
        in_core = core <= core_edge
        tumour[(spread <= edge) & (tumour == 0)] = ED
        tumour[in_core] = ET
        tumour[in_core & (rot <= rot_edge)] = NCR
        soft["ED"] = np.maximum(soft["ED"], _ramp(np.float32(edge) - spread, 3 + edge_mm))
        if enhancing:
            soft["ET"] = np.maximum(soft["ET"], _ramp(np.float32(core_edge) - core, edge_mm))
            soft["NCR"] = np.maximum(soft["NCR"], _ramp(np.float32(rot_edge) - rot, 1.5 * edge_mm))
        else:
            soft["NCR"] = np.maximum(soft["NCR"], _ramp(np.float32(core_edge) - core, 3 * edge_mm))
    for name in ("ED", "ET", "NCR"):
        palette.paint(name, soft[name])
    whole = np.zeros([len(axis) for axis in axes_mm], dtype=bool)
    whole[np.ix_(*near)] = inside
    return Brain(inside=whole, tissue=palette.shares, tumour=tumour)
