"""Distances between the surfaces of two masks, measured once and reduced often: HD95, ASSD, NSD.

Whole regions and single lesions use the same measurement: a lesion's surface is part of the region's, and where the
nearest entry of the other surface belongs to the lesion's counterpart, the distance is the one measured before. Only
the rest is looked up again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from brats_pipeline.metrics.rules import Definition
from brats_pipeline.metrics.surface import Floats, Mask, Surface, surface_of
from transforms.components import box_around

Indices = npt.NDArray[np.intp]


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances from each surface to the other, each direction sorted, with the areas they stand for.

    Args:
        from_reference_mm: one distance for every entry of the reference's surface; empty when it has none.
        reference_mm2: their areas.
        from_prediction_mm: one distance for every entry of the prediction's surface; empty when it has none.
        prediction_mm2: their areas.
    """

    from_reference_mm: Floats
    reference_mm2: Floats
    from_prediction_mm: Floats
    prediction_mm2: Floats


@dataclass(frozen=True)
class _Way:
    """From every entry of one surface to the nearest entry of the other, -1 where the other has none."""

    surface: Surface
    other: Surface
    spacing_mm: tuple[float, ...]
    nearest: Indices

    @cached_property
    def distances(self) -> Floats:
        """In mm; infinite where there is nothing to measure to."""
        return _lengths(self.surface, np.arange(len(self.surface)), self.other, self.nearest, self.spacing_mm)

    def part(self, own: Indices, other: npt.NDArray[np.bool_]) -> Floats:
        """Distances from some entries to the nearest of some of the other surface's."""
        distances = self.distances[own]
        if not len(own):
            return distances
        chosen = np.flatnonzero(other)
        if not len(chosen):
            return np.full(len(own), math.inf)
        astray = np.flatnonzero(~other[self.nearest[own]])
        if len(astray):
            found = _search(self.surface, own[astray], self.other, chosen, self.spacing_mm)
            distances[astray] = _lengths(self.surface, own[astray], self.other, found, self.spacing_mm)
        return distances


def _search(surface: Surface, own: Indices, other: Surface, chosen: Indices, spacing_mm: tuple[float, ...]) -> Indices:
    """For each of some entries the nearest among some of the other surface's."""
    # A tree and not a distance map: a lone false-positive voxel far away would stretch the map over the whole head,
    # the tree grows with the surfaces only.
    tree = cKDTree(other.places[chosen] * np.array(spacing_mm), balanced_tree=False, compact_nodes=False)
    return chosen[tree.query(surface.places[own] * np.array(spacing_mm))[1]]


def _lengths(surface: Surface, own: Indices, other: Surface, nearest: Indices, spacing_mm: tuple[float, ...]) -> Floats:
    """Distances between pairs of entries, from whole steps on the grid: equal steps give equal numbers."""
    if not len(other):
        return np.full(len(own), math.inf)
    steps = (surface.places[own] - other.places[nearest]) * np.array(spacing_mm)
    lengths: Floats = np.sqrt(np.einsum("ij,ij->i", steps, steps))
    return lengths


def _way(surface: Surface, other: Surface, spacing_mm: tuple[float, ...]) -> _Way:
    nearest = np.full(len(surface), -1, np.intp)
    if len(surface) and len(other):
        # Where the surfaces coincide nothing needs to be searched.
        nearest = np.minimum(np.searchsorted(other.cells, surface.cells), len(other) - 1)
        away = np.flatnonzero(other.cells[nearest] != surface.cells)
        if len(away):
            nearest[away] = _search(surface, away, other, np.arange(len(other)), spacing_mm)
    return _Way(surface, other, spacing_mm, nearest)


@dataclass(frozen=True)
class SurfacePair:
    """Two surfaces and the distances between them.

    Args:
        reference: from the reference's surface to the prediction's.
        prediction: from the prediction's surface to the reference's.
    """

    reference: _Way
    prediction: _Way

    def whole(self) -> SurfaceDistances:
        """Between the whole surfaces."""
        return SurfaceDistances(
            *_sorted(self.reference.distances, self.reference.surface.areas),
            *_sorted(self.prediction.distances, self.prediction.surface.areas),
        )

    def between(self, reference: npt.NDArray[np.bool_], prediction: npt.NDArray[np.bool_]) -> SurfaceDistances:
        """Between parts of the surfaces as if the rest were not there.

        Args:
            reference: whether a component of the reference belongs to the part, by its number.
            prediction: likewise for the prediction.
        """
        on_reference = reference[self.reference.surface.labels]
        on_prediction = prediction[self.prediction.surface.labels]
        of_reference, of_prediction = np.flatnonzero(on_reference), np.flatnonzero(on_prediction)
        return SurfaceDistances(
            *_sorted(self.reference.part(of_reference, on_prediction), self.reference.surface.areas[of_reference]),
            *_sorted(self.prediction.part(of_prediction, on_reference), self.prediction.surface.areas[of_prediction]),
        )


def _sorted(distances: Floats, areas: Floats) -> tuple[Floats, Floats]:
    order = np.lexsort((areas, distances))
    return distances[order], areas[order]


def surface_pair(
    prediction: Mask,
    reference: Mask,
    *,
    spacing_mm: tuple[float, ...],
    definition: Definition,
    prediction_labels: npt.NDArray[np.int32] | None = None,
    reference_labels: npt.NDArray[np.int32] | None = None,
) -> SurfacePair:
    """Measure once between two masks on one grid; see :func:`brats_pipeline.metrics.surface.surface_of`."""
    of_reference = surface_of(reference, spacing_mm=spacing_mm, definition=definition, labels=reference_labels)
    of_prediction = surface_of(prediction, spacing_mm=spacing_mm, definition=definition, labels=prediction_labels)
    return SurfacePair(
        reference=_way(of_reference, of_prediction, spacing_mm),
        prediction=_way(of_prediction, of_reference, spacing_mm),
    )


def surface_distances(
    prediction: Mask, reference: Mask, *, spacing_mm: Sequence[float], definition: Definition = "elements"
) -> SurfaceDistances:
    """Measure from each surface to the nearest entry of the other.

    Args:
        prediction: ``(x, y, z)``, boolean.
        reference: ``(x, y, z)``, boolean.
        spacing_mm: voxel side along each axis.
        definition: surface elements or border voxels.

    Returns:
        The distances of both directions; infinite where the other mask is empty.

    Raises:
        ValueError: the masks are not boolean, not 3D or differ in shape, or a spacing is missing or not positive.
    """
    if prediction.shape != reference.shape or prediction.ndim != 3:
        raise ValueError(f"masks must be 3D and of one shape, got {prediction.shape} and {reference.shape}")
    if prediction.dtype != bool or reference.dtype != bool:
        raise ValueError(f"masks must be boolean, got {prediction.dtype} and {reference.dtype}")
    spacing = checked_spacing(spacing_mm)
    box = box_around(prediction | reference)
    return surface_pair(prediction[box], reference[box], spacing_mm=spacing, definition=definition).whole()


def checked_spacing(spacing_mm: Sequence[float]) -> tuple[float, ...]:
    """The spacing as three positive numbers.

    Raises:
        ValueError: it is something else.
    """
    spacing = tuple(float(side) for side in spacing_mm)
    if len(spacing) != 3 or not all(0 < side < math.inf for side in spacing):
        raise ValueError(f"spacing_mm must be three positive numbers, got {spacing}")
    return spacing


def robust_hausdorff_mm(
    distances: SurfaceDistances, *, percentile: float, definition: Definition = "elements"
) -> float:
    """Distance within which ``percentile`` percent of the surfaces lie from each other.

    Surface elements: of each surface's area, the larger of the two directions. Border voxels: of both directions
    pooled, with linear interpolation between the two neighbouring distances.

    Returns:
        Millimetres; infinite when exactly one mask is empty, NaN when both are.
    """
    if definition == "voxels":
        pooled = np.concatenate((distances.from_reference_mm, distances.from_prediction_mm))
        if not len(pooled):
            return math.nan
        return float(np.percentile(pooled, percentile)) if np.isfinite(pooled).all() else math.inf
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


def average_distance_mm(distances: SurfaceDistances) -> float:
    """Mean distance over both surfaces together, weighted by area (ASSD).

    Returns:
        Millimetres; infinite when exactly one mask is empty, NaN when both are.
    """
    pooled = np.concatenate((distances.from_reference_mm, distances.from_prediction_mm))
    areas = np.concatenate((distances.reference_mm2, distances.prediction_mm2))
    return float(np.average(pooled, weights=areas)) if len(pooled) else math.nan


def normalised_surface_dice(
    distances: SurfaceDistances, *, tolerance_mm: float, definition: Definition = "elements"
) -> float:
    """Share of the surfaces that lies within a tolerance of the other (NSD, surface Dice).

    Surface elements: of both surfaces' area together. Border voxels: the mean of the shares of the two directions, as
    nnU-Net v1 and the BraTS scripts of 2024 have it.

    Returns:
        0 when exactly one mask is empty, NaN when both are.
    """
    ways = (
        (distances.from_reference_mm, distances.reference_mm2),
        (distances.from_prediction_mm, distances.prediction_mm2),
    )
    if all(len(way) == 0 for way, _ in ways):
        return math.nan
    if any(len(way) == 0 for way, _ in ways):
        return 0.0
    near = [float(areas[: np.searchsorted(way, tolerance_mm, side="right")].sum()) for way, areas in ways]
    areas = [float(area.sum()) for _, area in ways]
    if definition == "elements":
        return sum(near) / sum(areas)
    # The scripts add 1e-8 to a denominator that is 2 in all cases; it shows in the ninth digit.
    return sum(part / whole for part, whole in zip(near, areas, strict=True)) / (2 + 1e-8)


def hd95_mm(
    prediction: Mask, reference: Mask, *, spacing_mm: Sequence[float], definition: Definition = "elements"
) -> float:
    """95th percentile of the distance between two surfaces, in millimetres.

    Both empty: NaN. One empty: infinite. An :class:`~brats_pipeline.metrics.empties.EmptyRule` says what that scores.

    Args:
        prediction: ``(x, y, z)``, boolean.
        reference: ``(x, y, z)``, boolean.
        spacing_mm: voxel side along each axis.
        definition: surface elements (surface-distance, BraTS since 2023) or border voxels (MedPy, BraTS before).

    Raises:
        ValueError: the masks are not boolean, not 3D or differ in shape, or a spacing is missing or not positive.
    """
    distances = surface_distances(prediction, reference, spacing_mm=spacing_mm, definition=definition)
    return robust_hausdorff_mm(distances, percentile=95, definition=definition)


def assd_mm(
    prediction: Mask, reference: Mask, *, spacing_mm: Sequence[float], definition: Definition = "elements"
) -> float:
    """Average symmetric surface distance in millimetres; arguments, empties and errors as for :func:`hd95_mm`."""
    distances = surface_distances(prediction, reference, spacing_mm=spacing_mm, definition=definition)
    return average_distance_mm(distances)


def nsd(
    prediction: Mask,
    reference: Mask,
    *,
    spacing_mm: Sequence[float],
    tolerance_mm: float,
    definition: Definition = "elements",
) -> float:
    """Normalised surface Dice at a tolerance; arguments and errors as for :func:`hd95_mm`.

    Both empty: NaN. One empty: 0.
    """
    distances = surface_distances(prediction, reference, spacing_mm=spacing_mm, definition=definition)
    return normalised_surface_dice(distances, tolerance_mm=tolerance_mm, definition=definition)
