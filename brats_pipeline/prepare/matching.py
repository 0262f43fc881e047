"""Rigid and affine co-registration of two scans of one head, whatever their contrasts.

Mattes mutual information (Mattes et al., IEEE TMI 22, 2003) from coarse voxels to fine ones, of seeded points inside
the head of the reference, in one thread: the same scans and seed give the same transform on any number of cores.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import SimpleITK as sitk

from brats_pipeline.prepare.heads import coarser, head_mask, one_thread, shrink_factors
from brats_pipeline.prepare.similarity import Similarity, similarity

Model = Literal["rigid", "affine"]
Level = tuple[sitk.Image, sitk.Image, int, int]
"""Both scans with voxels of one size, points to compare, and most steps."""

LEVELS = ((6.0, 12_000, 100), (3.0, 25_000, 60), (1.5, 40_000, 40))
"""Voxel side in mm, points of the head, and most steps of each level."""
START_POINTS, START_STEPS = 6_000, 30
"""Points and steps by which the starts are told apart."""
START_MM = 3.0
"""Starts closer to each other than this are one."""
JUDGED_MM = 2.0
"""Voxel side at which a match is judged."""
MARGIN_MM = 6.0
BARELY = 0.25
"""Scans that share less of the head than this by their headers did not lie in one place of the scanner."""


@dataclass(frozen=True)
class Match:
    """How one scan was brought to another.

    Args:
        transform: takes points of the reference to points of the scan, in LPS millimetres.
        before: how well they matched by their headers.
        after: how well they match under ``transform``.
        moved_mm: mean displacement over the head, against the headers.
        rotated_degrees: angle between the two, against the headers.
        kept: True where registration found nothing better than the headers, which were kept.
    """

    transform: sitk.Transform
    before: Similarity
    after: Similarity
    moved_mm: float
    rotated_degrees: float
    kept: bool


def _middle(image: sitk.Image) -> np.ndarray:
    """The middle of the field of view."""
    return np.array(image.TransformContinuousIndexToPhysicalPoint([(count - 1) / 2 for count in image.GetSize()]))


def _centroid(mask: sitk.Image) -> np.ndarray:
    """The centre of a mask's voxels."""
    inside = np.argwhere(sitk.GetArrayViewFromImage(mask) != 0)
    if not len(inside):
        return _middle(mask)
    return np.array(mask.TransformContinuousIndexToPhysicalPoint(inside.mean(axis=0)[::-1].tolist()))


def _starts(fixed: sitk.Image, moving: sitk.Image, mask: sitk.Image) -> list[sitk.Euler3DTransform]:
    """Where to begin: as the headers say, heads on each other, fields of view on each other."""
    centre = _centroid(mask)
    ways = ([0, 0, 0], _centroid(head_mask(moving)) - centre, _middle(moving) - _middle(fixed))
    starts: list[sitk.Euler3DTransform] = []
    for way in ways:
        if any(np.linalg.norm(np.subtract(way, other.GetTranslation())) < START_MM for other in starts):
            continue
        start = sitk.Euler3DTransform()
        start.SetCenter(centre.tolist())
        start.SetTranslation([float(step) for step in way])
        starts.append(start)
    return starts


def _refine(
    fixed: sitk.Image,
    moving: sitk.Image,
    mask: sitk.Image,
    start: sitk.Transform,
    *,
    points: int,
    steps: int,
    seed: int,
) -> sitk.Transform:
    """Follow the gradient from a start; returns where it ended."""
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricFixedMask(mask)
    inside = int(np.count_nonzero(sitk.GetArrayViewFromImage(mask)))
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(min(1.0, points / max(inside, 1)), seed + 1)  # 0 would be the clock
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=min(fixed.GetSpacing()),
        minStep=0.005,
        numberOfIterations=steps,
        relaxationFactor=0.6,
        gradientMagnitudeTolerance=1e-6,
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetInitialTransform(start, inPlace=False)
    try:
        return _plain(method.Execute(fixed, moving))
    except RuntimeError:  # ITK gives up where the points leave the other scan; what was found is judged later
        return start


def _plain(transform: sitk.Transform) -> sitk.Transform:
    """The one transform inside what ITK wraps it in."""
    composite = sitk.CompositeTransform(transform) if transform.GetName() == "CompositeTransform" else None
    return composite.GetBackTransform() if composite is not None else transform


def as_affine(transform: sitk.Transform) -> np.ndarray:
    """``(4, 4)`` of any linear transform, in LPS millimetres."""
    matrix = np.eye(4)
    matrix[:3, 3] = transform.TransformPoint((0.0, 0.0, 0.0))
    for axis in range(3):
        unit = [0.0, 0.0, 0.0]
        unit[axis] = 1.0
        matrix[:3, axis] = np.subtract(transform.TransformPoint(unit), matrix[:3, 3])
    return matrix


def displacement(transform: sitk.Transform, mask: sitk.Image) -> tuple[float, float]:
    """Mean length in mm by which a transform moves the points of a mask, and the angle in degrees it turns them by."""
    inside = np.argwhere(sitk.GetArrayViewFromImage(mask) != 0)[:, ::-1]
    axes = np.reshape(mask.GetDirection(), (3, 3)) * mask.GetSpacing()
    points = inside @ axes.T + mask.GetOrigin()
    matrix = as_affine(transform)
    away = points @ (matrix[:3, :3] - np.eye(3)).T + matrix[:3, 3]
    left, _, right = np.linalg.svd(matrix[:3, :3])
    cosine = (np.trace(left @ right) - 1) / 2
    return float(np.linalg.norm(away, axis=1).mean()), float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def _pyramid(fixed: sitk.Image, moving: sitk.Image) -> Sequence[Level]:
    """Coarse and fine pairs of both scans with points and steps; levels of equal voxels only once."""
    pairs = {}
    for side_mm, points, steps in LEVELS:
        factors = (*shrink_factors(fixed, side_mm), *shrink_factors(moving, side_mm))
        if factors not in pairs:
            pairs[factors] = coarser(fixed, side_mm), coarser(moving, side_mm), points, steps
    return list(pairs.values())


def _on(mask: sitk.Image, image: sitk.Image) -> sitk.Image:
    """A mask on the grid of an image."""
    return sitk.Resample(mask, image, sitk.Transform(3, sitk.sitkIdentity), sitk.sitkNearestNeighbor)


def match(
    fixed: sitk.Image, moving: sitk.Image, *, mask: sitk.Image | None = None, model: Model = "rigid", seed: int = 0
) -> Match:
    """Find the transform under which two scans of one head match best.

    Args:
        fixed: the reference, float32.
        moving: the other scan, float32.
        mask: on the grid of ``fixed``; nonzero where to look. By default the head and a margin.
        model: ``"rigid"`` (6 parameters) or ``"affine"`` (12).
        seed: of the points that are compared.

    Returns:
        The transform, and how well the scans match before and after. Where registration found nothing better than the
        headers, the identity. Nothing is raised where the scans do not overlap afterwards: look at ``after``.
    """
    with one_thread():
        if mask is None:
            mask = head_mask(fixed, margin_mm=MARGIN_MM)
        pyramid = _pyramid(fixed, moving)
        ends = _from_starts(*pyramid[0][:2], _on(mask, pyramid[0][0]), seed=seed)
        if not ends:
            return _judge(fixed, moving, mask, None)
        best = _follow(max(ends, key=lambda end: end[1].information)[0], pyramid, mask, seed)
        if model == "affine":
            best = _follow(_loosened(best, _centroid(mask)), pyramid, mask, seed)
        return _judge(fixed, moving, mask, best)


def _follow(start: sitk.Transform, pyramid: Sequence[Level], mask: sitk.Image, seed: int) -> sitk.Transform:
    """Go from the coarse level to the fine ones."""
    best = start
    for level, (still, other, points, steps) in enumerate(pyramid):
        best = _refine(still, other, _on(mask, still), best, points=points, steps=steps, seed=seed + level)
    return best


def _from_starts(
    fixed: sitk.Image, moving: sitk.Image, mask: sitk.Image, *, seed: int
) -> list[tuple[sitk.Transform, Similarity]]:
    """Where a few coarse steps end from each start that lets the scans overlap."""
    ends: list[tuple[sitk.Transform, Similarity]] = []
    for start in _starts(fixed, moving, mask):
        if similarity(fixed, moving, mask, start).covered < BARELY:
            continue
        end = _refine(fixed, moving, mask, start, points=START_POINTS, steps=START_STEPS, seed=seed)
        found = similarity(fixed, moving, mask, end)
        if found.covered >= BARELY:
            ends.append((end, found))
    return ends


def _loosened(transform: sitk.Transform, centre: np.ndarray) -> sitk.Transform:
    """A rigid transform as one that may stretch and shear, too."""
    matrix = as_affine(transform)
    affine = sitk.AffineTransform(3)
    affine.SetCenter(centre.tolist())
    affine.SetMatrix(matrix[:3, :3].ravel().tolist())
    affine.SetTranslation((matrix[:3, :3] @ centre + matrix[:3, 3] - centre).tolist())
    return affine


def _judge(fixed: sitk.Image, moving: sitk.Image, mask: sitk.Image, found: sitk.Transform | None) -> Match:
    """Compare what was found with what the headers say, and keep the better of the two."""
    still, other = coarser(fixed, JUDGED_MM), coarser(moving, JUDGED_MM)
    here = _on(mask, still)
    identity = sitk.Euler3DTransform()
    before = similarity(still, other, here, identity)
    after = similarity(still, other, here, found) if found is not None else before
    usable = before.covered >= BARELY
    if found is None or (usable and after.information <= before.information):
        return Match(identity, before, before, 0.0, 0.0, True)
    return Match(found, before, after, *displacement(found, here), False)
