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

HEAD_MM = (144.0, 178.0, 140.0)
"""Box that holds the brain of every seed: left to right, back to front, bottom to top."""

TISSUES = ("csf", "gm", "wm", "deep", "vessel", "ED", "ET", "NCR")
"""Rows of :attr:`Brain.tissue`: fluid, grey and white matter, deep grey nuclei, vessels, and the tumour's parts."""

NCR, ED, ET = 1, 2, 3
"""Values of :attr:`Brain.tumour`: a coding of its own, which a label convention translates."""

_REACH_MM = 105.0
_FAR = 1000.0  # a cost that no lesion can pay
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


@dataclass(frozen=True)
class Lesion:
    """One lesion as it was drawn.

    Args:
        centre_mm: head coordinates.
        stretch: how much harder it is to grow along x, y and z; about 1 each.
        volume_ml: of the whole lesion with its edema.
        core_share: part of the volume that is tumour core.
        necrosis_share: part of the core that is necrotic, where the lesion enhances.
        enhancing: whether the core has an enhancing rim; without, it is NCR throughout.
    """

    centre_mm: Point
    stretch: tuple[float, float, float]
    volume_ml: float
    core_share: float
    necrosis_share: float
    enhancing: bool


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


def ellipsoid(x: Floats, y: Floats, z: Floats, centre: Point, radii: Point) -> Floats:
    """Approximate distance to the surface of an ellipsoid, positive inside."""
    unit = [(p - np.float32(c)) / np.float32(r) for p, c, r in zip((x, y, z), centre, radii, strict=True)]
    steep = sum((u / np.float32(r)) ** 2 for u, r in zip(unit, radii, strict=True))
    radius = np.sqrt(unit[0] ** 2 + unit[1] ** 2 + unit[2] ** 2)
    distance: Floats = radius * (1 - radius) / np.sqrt(steep + np.float32(1e-12))
    return distance


def tube(x: Floats, y: Floats, z: Floats, start: Point, end: Point, radii: tuple[float, float]) -> Floats:
    """Distance to the surface of a straight tube with round ends and a changing radius, positive inside."""
    way = np.subtract(end, start, dtype=np.float32)
    along = (x - start[0]) * way[0] + (y - start[1]) * way[1] + (z - start[2]) * way[2]
    share = np.clip(along / np.float32(way @ way), 0, 1)
    gap = np.sqrt(sum((p - s - share * w) ** 2 for p, s, w in zip((x, y, z), start, way, strict=True)))
    distance: Floats = np.float32(radii[0]) + share * np.float32(radii[1] - radii[0]) - gap
    return distance


def union(one: Floats, other: Floats, blend_mm: float) -> Floats:
    """Join two shapes; the seam is rounded over ``blend_mm``."""
    share = np.clip(0.5 + 0.5 * (one - other) / blend_mm, 0, 1).astype(np.float32)
    joined: Floats = other + (one - other) * share + np.float32(blend_mm) * share * (1 - share)
    return joined


def ramp(distance: Floats, width_mm: float) -> Floats:
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


def _outlines(box_mm: Sequence[Floats], size: npt.NDArray[np.float64], bumps: Floats) -> tuple[Floats, Floats, Floats]:
    """Signed distances ``(x, y, z)`` to cerebrum, cerebellum and brainstem, for a head of ``size`` along each axis."""
    x, y, z = np.ix_(*(axis / np.float32(factor) for axis, factor in zip(box_mm, size, strict=True)))
    side = np.abs(x)
    cerebrum = ellipsoid(side, y, z, (23, -12, 10), (43, 73, 52))
    cerebrum = union(cerebrum, ellipsoid(side, y, z, (13, 24, 6), (39, 58, 46)), 12)
    base = z + 21 - np.float32(0.1) * y + 2 * bumps  # flat where it lies on the skull
    cerebrum = -union(-cerebrum, -base, 14)
    cerebrum = union(cerebrum, ellipsoid(side, y, z, (42, 4, -20), (21, 42, 20)), 5) + bumps * np.float32(1.2)
    cerebellum = ellipsoid(side, y, z, (21, -48, -37), (31, 29, 22)) + bumps * np.float32(0.6)
    brainstem = tube(x, y, z, (0, -16, -12), (0, -27, -60), (14, 8))
    brainstem = union(brainstem, ellipsoid(x, y, z, (0, -15, -33), (15, 12, 13)), 5)
    return cerebrum, cerebellum, brainstem


def _folds(generator: np.random.Generator, x: Floats, y: Floats, z: Floats) -> Floats:
    """Distance in mm to the nearest sulcus, were sulci endless: sheets that run from the surface to the depth.

    The noise is read where a ray from the middle of the hemisphere meets a sphere, so it hardly changes with depth.
    """
    step, scale_mm, sphere = 2.0, 7.0, np.float32(62)
    axis = np.arange(-_REACH_MM, _REACH_MM + 1, step, dtype=np.float32)
    field = smooth_noise(generator, scale_mm, (axis, axis, axis))
    steep = np.sqrt(sum(g**2 for g in np.gradient(field, np.float32(step))))
    sheet = np.abs(field) / np.maximum(steep, np.float32(0.8 / scale_mm))
    side = np.where(x > 0, np.float32(18), np.float32(-18))
    ray = np.stack([x - side, (y + 4) * np.float32(0.8), z - 2])
    length = np.maximum(np.sqrt((ray**2).sum(axis=0)), np.float32(1))
    ray *= sphere / length
    ray[0] += side
    at = (ray + np.float32(_REACH_MM)) / np.float32(step)
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
    waves: Sequence[Floats],
    edge_mm: float,
) -> _Palette:
    """Lay out the normal tissues at points whose distances to the outlines are given."""
    palette = _Palette(len(x), "csf")
    cistern_mm, ribbon_mm, depth_mm = generator.uniform((1.0, 2.6, 12), (2.4, 3.4, 18))
    wide = float(generator.uniform(0.8, 1.5))  # of the ventricles: they grow with age
    side = np.abs(x + waves[0] * np.float32(0.7))

    # Distance into the tissue from the nearest fluid: the outer surface, a sulcus, the Sylvian or the middle fissure.
    surface = cerebrum - np.float32(cistern_mm)
    wavy = [p + np.float32(3.0) * w for p, w in zip((x, y, z), waves, strict=True)]
    sulcus = np.hypot(_folds(generator, *wavy), np.maximum(surface - np.float32(depth_mm), 0))
    sulcus += np.maximum(32 - side, 0) * np.clip(-z / 40, 0, 1) * np.float32(0.5)  # few folds on the skull base
    sylvian = np.hypot(z + 5 + np.float32(0.3) * y + waves[2] * 2, np.maximum(40 - side, 0))
    sylvian = np.hypot(sylvian, np.maximum(np.abs(y - 2) - 36, 0))
    bridge = ellipsoid(x, y, z, (0, -6, 0), (60, 36, 25))  # callosum, thalami, midbrain: no fissure here
    into = np.minimum(surface, sulcus - np.float32(0.45 * cistern_mm))
    into = np.minimum(into, sylvian - np.float32(1.4))
    into = np.minimum(into, np.maximum(side - 1, bridge))
    palette.paint("gm", ramp(into, edge_mm))
    palette.paint("wm", ramp(into - np.float32(ribbon_mm), 1.5 * edge_mm))

    # Two sheets of noise meet in lines: vessels, where the lines run through fluid or along the cortex.
    vessel = np.float32(1.1) - np.hypot(waves[0], waves[1]) * 8
    palette.paint("vessel", ramp(np.minimum(vessel, 1 - into), edge_mm))

    for centre, radii in (((11, -14, 3), (9, 14, 9)), ((13, 17, 9), (5, 12, 9)), ((26, 3, 1), (6, 15, 10))):
        palette.paint("deep", ramp(ellipsoid(side, y, z, centre, radii), 2 * edge_mm))

    low = z * np.float32(0.65)  # tubes drawn in a flattened space are taller than wide
    ventricle = np.full_like(x, -99)
    for start, end, (first, last) in (
        ((7, 32, 5), (10, 8, 10.5), (3.5, 4.5)),
        ((10, 8, 10.5), (13, -22, 12), (4.5, 4.5)),
        ((13, -22, 12), (24, -40, 6), (4.5, 6.0)),
        ((24, -40, 6), (21, -60, 4), (5.0, 1.5)),
        ((25, -38, 4), (34, -14, -12), (4.5, 1.5)),
    ):
        horn = tube(side, y, low, start, end, (first * wide, last * wide))
        ventricle = union(ventricle, horn, 3)
    caps = ramp(ventricle + 2, 6) * np.float32(generator.uniform(0, 0.5))
    palette.paint("ED", caps * ramp(np.abs(y + 5) - 25, 10))  # bright caps around the horns, no tumour
    ventricle = np.minimum(ventricle, side - np.float32(1.0))  # the septum stays
    third = np.minimum(ellipsoid(x, y, z, (0, -8, 0), (2.2 * wide, 17, 11)), 20 - np.abs(y))
    palette.paint("csf", ramp(np.maximum(ventricle, third), edge_mm))
    choroid = tube(side, y, z, (20, -36, 10), (13, -20, 16), (2.2, 0.8))
    palette.paint("vessel", ramp(np.minimum(choroid, ventricle), edge_mm) * np.float32(0.6))

    # Folia: thin leaves that fan out from the roof of the fourth ventricle.
    leaf = np.cos(np.arctan2(z + 34 + waves[2], -y - 22 + waves[1]) * np.float32(17)) * np.float32(0.9)
    palette.paint("csf", ramp(np.maximum(cerebellum + 2, np.minimum(brainstem + 2, -14 - z)), edge_mm))
    brainstem = np.minimum(brainstem, -12 - z)
    palette.paint("gm", ramp(np.minimum(cerebellum - 1, cerebellum - np.float32(1.9) + leaf), 2 * edge_mm))
    palette.paint("wm", ramp(cerebellum - 10 + leaf * 5, 3 * edge_mm) * np.float32(0.8))
    palette.paint("wm", ramp(brainstem, edge_mm))
    palette.paint("deep", ramp(brainstem - 1, edge_mm) * np.float32(0.45))
    palette.paint("csf", ramp(ellipsoid(x, y, z, (0, -37, -34), (5, 4, 9)), edge_mm))
    return palette


def _threshold(cost: Floats, count: float) -> np.float32:
    """The cost up to which the ``count`` cheapest voxels reach."""
    rank = int(np.clip(round(count), 1, len(cost)))
    return np.float32(np.partition(cost, rank - 1)[rank - 1])


def _way(points: Sequence[Floats], lesion: Lesion) -> Floats:
    """Length of the way from a lesion's centre; the other hemisphere is reached through the callosum only."""
    centre = lesion.centre_mm
    straight = np.sqrt(
        sum(((p - np.float32(c)) * np.float32(s)) ** 2 for p, c, s in zip(points, centre, lesion.stretch, strict=True))
    )
    gate = (0.0, float(np.clip(centre[1], -32, 24)), 22.0)
    around = np.sqrt(sum((p - np.float32(g)) ** 2 for p, g in zip(points, gate, strict=True)))
    around += np.float32(np.linalg.norm(np.subtract(gate, centre)) * 1.1)
    way: Floats = np.where(points[0] * np.float32(centre[0]) >= 0, straight, np.maximum(around, straight))
    return way


def _push_aside(points: Sequence[Floats], lesions: Sequence[Lesion]) -> list[Floats]:
    """Where the tissue at each point would lie, had the lesions not pushed it away."""
    pushed = list(points)
    for lesion in lesions:
        radius = np.float32((lesion.volume_ml * 1000 * lesion.core_share * 0.24) ** (1 / 3))
        gap = np.sqrt(sum((p - np.float32(c)) ** 2 for p, c in zip(points, lesion.centre_mm, strict=True)))
        pull = np.float32(0.35) * np.exp(-((gap / (radius * 2 + 8)) ** 2)) * np.minimum(radius / (gap + 4), 1)
        pushed = [p - (p - np.float32(c)) * pull for p, c in zip(pushed, lesion.centre_mm, strict=True)]
    return pushed


def _paint_lesions(
    palette: _Palette,
    lesions: Sequence[Lesion],
    points: Sequence[Floats],
    *,
    inside: npt.NDArray[np.bool_],
    cerebrum: Floats,
    ragged: Floats,
    lumpy: Floats,
    voxel_ml: float,
    edge_mm: float,
) -> npt.NDArray[np.uint8]:
    """Grow every lesion to its volume, paint it, and return its parts."""
    fluid, grey = palette.shares[TISSUES.index("csf")], palette.shares[TISSUES.index("gm")]
    slow = (1 + np.float32(0.2) * lumpy + np.float32(0.1) * ragged) * (1 + np.float32(0.9) * grey)
    barred = (cerebrum < 0.5) | (fluid > 0.6)
    tumour = np.zeros(len(fluid), dtype=np.uint8)
    soft = {name: np.zeros(len(fluid), dtype=np.float32) for name in ("ED", "ET", "NCR")}
    reached = np.zeros(inside.shape, dtype=bool)
    for lesion in lesions:
        way = _way(points, lesion)
        core = way * (1 + np.float32(0.16) * lumpy + np.float32(0.06) * ragged) + np.where(cerebrum < 2, _FAR, 0)
        core_edge = _threshold(core, lesion.volume_ml * lesion.core_share / voxel_ml)
        in_core = core <= core_edge

        # Edema runs along white matter, hardly into cortex and never into fluid; islands apart from the core go.
        spread = np.where(in_core, np.float32(0), np.where(barred, np.float32(_FAR), way * slow))
        spread_edge = _threshold(spread, lesion.volume_ml / voxel_ml)
        reached[inside] = spread <= spread_edge
        part = ndimage.label(reached)[0][inside]
        spread[(part > 0) & ~np.isin(part, np.unique(part[in_core]))] = _FAR

        tumour[(spread <= spread_edge) & (tumour == 0)] = ED
        soft["ED"] = np.maximum(soft["ED"], ramp(spread_edge - spread, 3 + edge_mm))
        if lesion.enhancing:
            # The rim is closed towards the surface of the brain, too.
            dead = core * (1 + np.float32(0.12) * ragged) + np.maximum(6 - cerebrum, 0) * 3
            dead_edge = _threshold(dead, lesion.volume_ml * lesion.core_share * lesion.necrosis_share / voxel_ml)
            tumour[in_core] = np.where(dead <= dead_edge, NCR, ET)[in_core]
            soft["ET"] = np.maximum(soft["ET"], ramp(core_edge - core, edge_mm))
            soft["NCR"] = np.maximum(soft["NCR"], ramp(dead_edge - dead, 1.5 * edge_mm))
        else:
            tumour[in_core] = NCR
            soft["NCR"] = np.maximum(soft["NCR"], ramp(core_edge - core, 3 * edge_mm))
    for name, share in soft.items():
        palette.paint(name, share)
    return tumour


def make_brain(
    generator: np.random.Generator,
    lesions: Sequence[Lesion],
    *,
    axes_mm: Sequence[Floats],
    spacing_mm: Sequence[float],
    edge_mm: float | None = None,
) -> Brain:
    """Build one brain with its tumour.

    Args:
        generator: draws the head; what it draws does not depend on the grid.
        lesions: the tumour; the largest first.
        axes_mm: head coordinates of the voxels along x, y and z, in any direction.
        spacing_mm: voxel sides.
        edge_mm: width of the border between two tissues; by default what the longest voxel side can show.
    """
    near = [np.flatnonzero(np.abs(axis) <= side / 2) for axis, side in zip(axes_mm, HEAD_MM, strict=True)]
    box_mm = [axis[index] for axis, index in zip(axes_mm, near, strict=True)]
    bumps = smooth_noise(generator, 28, box_mm)
    cerebrum, cerebellum, brainstem = outlines = _outlines(box_mm, generator.uniform(0.93, 1.0, size=3), bumps)
    hull = union(union(cerebrum, cerebellum, 8), brainstem, 8)
    inside: npt.NDArray[np.bool_] = ndimage.binary_fill_holes(hull > 0)
    waves = [smooth_noise(generator, 10, box_mm)[inside] for _ in range(3)]
    ragged, lumpy = (smooth_noise(generator, scale_mm, box_mm)[inside] for scale_mm in (7, 12))
    cerebrum, cerebellum, brainstem = (outline[inside] for outline in outlines)
    points = [np.broadcast_to(axis, inside.shape)[inside] for axis in np.ix_(*box_mm)]
    if edge_mm is None:
        edge_mm = max(1.0, 0.7 * float(np.max(spacing_mm)))

    palette = _paint_brain(
        generator,
        *_push_aside(points, lesions),
        cerebrum=cerebrum,
        cerebellum=cerebellum,
        brainstem=brainstem,
        waves=waves,
        edge_mm=edge_mm,
    )
    tumour = _paint_lesions(
        palette,
        lesions,
        points,
        inside=inside,
        cerebrum=np.minimum(cerebrum, -1 - np.maximum(cerebellum, np.minimum(brainstem, -14 - points[2]))),
        ragged=ragged,
        lumpy=lumpy,
        voxel_ml=float(np.prod(spacing_mm)) / 1000,
        edge_mm=edge_mm,
    )
    whole = np.zeros([len(axis) for axis in axes_mm], dtype=bool)
    whole[np.ix_(*near)] = inside
    return Brain(inside=whole, tissue=palette.shares, tumour=tumour)
