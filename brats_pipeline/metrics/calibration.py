"""Whether probabilities mean what they say: of the voxels given 0.8, eight in ten should belong to the region.

Voxels are put into bins by their probability; in each, the mean probability stands against the observed frequency of
the region. The expected calibration error is their mean absolute difference weighted by voxels, the maximum calibration
error the largest (Naeini et al., AAAI 2015; 15 bins of equal width as Guo et al., ICML 2017), the Brier score the mean
squared difference of each voxel's probability and truth (Brier 1950).

Most of a head is far from any tumour, and every network is sure of it. Voxels count that lie at most :data:`MARGIN`
voxels along every axis from the region as the reference or the prediction has it; a missed tumour and a false one are
among them, background that flatters is not. Choosing single voxels by their probability and truth, such as p > 0.01 or
inside, would bias the lowest bin. Networks that are calibrated over a cohort may be far from it in single cases (Jungo
et al., Frontiers in Neuroscience 2020), so both are given.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from brats_pipeline.metrics.summary import Spread, patients_of, spread

Mask = npt.NDArray[np.bool_]

BINS = 15
"""Bins of equal width; each holds its upper edge, the first its lower one too."""
MARGIN = 5
"""Voxels along every axis around a region that count."""

CALIBRATION_COLUMNS = ("case_id", "region", "voxels", "ece", "mce", "brier")

VOXELS_IN_WORDS = (
    f"Voxels at most {MARGIN} voxels along every axis from the region in the reference or the prediction; a case where "
    "neither has it takes no part."
)


@dataclass(frozen=True, slots=True)
class Reliability:
    """Voxels by their probability, in sums, so that cases can be added up.

    Args:
        voxels: per bin.
        inside: voxels among them that belong to the region.
        probability: sum of the probabilities per bin.
        squared_error: sum over all voxels of the squared difference of probability and truth.
    """

    voxels: tuple[int, ...]
    inside: tuple[int, ...]
    probability: tuple[float, ...]
    squared_error: float

    @property
    def n(self) -> int:
        """Voxels in all bins."""
        return sum(self.voxels)

    def _gaps(self) -> list[tuple[int, float]]:
        """Voxels and absolute difference of mean probability and frequency, of each bin that is not empty."""
        bins = zip(self.voxels, self.inside, self.probability, strict=True)
        return [(voxels, abs(probability - inside) / voxels) for voxels, inside, probability in bins if voxels]

    @property
    def ece(self) -> float | None:
        """Expected calibration error, from 0 to 1; None without voxels."""
        return sum(voxels * gap for voxels, gap in self._gaps()) / self.n if self.n else None

    @property
    def mce(self) -> float | None:
        """Maximum calibration error, from 0 to 1; None without voxels."""
        return max(gap for _, gap in self._gaps()) if self.n else None

    @property
    def brier(self) -> float | None:
        """Brier score, from 0 to 1; None without voxels."""
        return self.squared_error / self.n if self.n else None


@dataclass(frozen=True, slots=True)
class Bin:
    """One bin of a reliability diagram.

    Args:
        low: its lower edge.
        high: its upper edge.
        voxels: that lie in it.
        mean_probability: of them; None where there are none.
        observed: share of them that belongs to the region; None where there are none.
    """

    low: float
    high: float
    voxels: int
    mean_probability: float | None
    observed: float | None


@dataclass(frozen=True, slots=True)
class CalibrationRow:
    """One case and region; figures are None where neither side has the region."""

    case_id: str
    region: str
    voxels: int
    ece: float | None
    mce: float | None
    brier: float | None


@dataclass(frozen=True)
class RegionCalibration:
    """One region over a cohort.

    Args:
        n: cases with voxels that count.
        voxels: of all of them.
        ece: of all voxels pooled.
        mce: of all voxels pooled.
        brier: of all voxels pooled.
        ece_per_case: the expected calibration errors of single cases.
        bins: of all voxels pooled.
    """

    n: int
    voxels: int
    ece: float | None
    mce: float | None
    brier: float | None
    ece_per_case: Spread | None
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class Calibration:
    """A cohort.

    Args:
        regions: region to its figures; regions that no file of probabilities holds are left out.
        rows: one per case and region.
        without: case to the reason why it takes no part.
    """

    regions: Mapping[str, RegionCalibration]
    rows: tuple[CalibrationRow, ...]
    without: Mapping[str, str]


def around(mask: Mask, margin: int = MARGIN) -> tuple[tuple[slice, ...], Mask]:
    """The voxels at most ``margin`` voxels along every axis from a mask.

        mask  0 0 1 0 0 0   margin 1   =>   box from the second to the fourth, 1 1 1

    Args:
        mask: any number of axes, not empty.
        margin: voxels.

    Returns:
        A box of the array that holds them all, and the voxels in it.
    """
    box = []
    for axis in range(mask.ndim):
        line = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(max(0, int(line[0]) - margin), int(line[-1]) + margin + 1))
    grown = mask[tuple(box)].copy()
    for axis in range(mask.ndim):
        planes = np.moveaxis(grown, axis, 0)
        for _ in range(margin):
            before = planes.copy()
            planes[1:] |= before[:-1]
            planes[:-1] |= before[1:]
    return tuple(box), grown


def reliability(probability: npt.NDArray[np.floating[Any]], inside: Mask, *, bins: int = BINS) -> Reliability:
    """Put voxels into bins.

    Args:
        probability: of each voxel, any shape, from 0 to 1.
        inside: whether the voxel belongs to the region, same shape.
        bins: of equal width.

    Raises:
        ValueError: the shapes differ, or a value is no probability.
    """
    if probability.shape != inside.shape:
        raise ValueError(f"probabilities of shape {probability.shape} for a mask of shape {inside.shape}")
    values = probability.ravel().astype(np.float64)
    truth = inside.ravel()
    if values.size and not (values.min() >= 0 and values.max() <= 1):
        raise ValueError(f"values from {values.min():g} to {values.max():g}; probabilities lie from 0 to 1")
    place = np.searchsorted(np.linspace(0, 1, bins + 1)[1:-1], values)
    return Reliability(
        voxels=tuple(np.bincount(place, minlength=bins).tolist()),
        inside=tuple(np.bincount(place[truth], minlength=bins).tolist()),
        probability=tuple(np.bincount(place, weights=values, minlength=bins).tolist()),
        squared_error=float(((values - truth) ** 2).sum()),
    )


def case_reliability(
    probability: npt.NDArray[np.floating[Any]], *, reference: Mask, prediction: Mask, margin: int = MARGIN
) -> Reliability:
    """One region of one case; without a voxel where neither side has the region.

    Args:
        probability: ``(x, y, z)`` from 0 to 1.
        reference: ``(x, y, z)``.
        prediction: ``(x, y, z)``, as it is scored.
        margin: voxels around the region that count.

    Raises:
        ValueError: the shapes differ, or a value is no probability.
    """
    if not probability.shape == reference.shape == prediction.shape:
        raise ValueError(
            f"shapes differ: probability {probability.shape}, reference {reference.shape}, prediction "
            f"{prediction.shape}"
        )
    marked = reference | prediction
    if not marked.any():
        return Reliability((0,) * BINS, (0,) * BINS, (0.0,) * BINS, 0.0)
    box, near = around(marked, margin)
    return reliability(probability[box][near], reference[box][near])


def pooled(cases: Iterable[Reliability], *, bins: int = BINS) -> Reliability:
    """Add up cases, every voxel alike."""
    voxels, inside, probability = [0] * bins, [0] * bins, [0.0] * bins
    squared_error = 0.0
    for case in cases:
        voxels = [a + b for a, b in zip(voxels, case.voxels, strict=True)]
        inside = [a + b for a, b in zip(inside, case.inside, strict=True)]
        probability = [a + b for a, b in zip(probability, case.probability, strict=True)]
        squared_error += case.squared_error
    return Reliability(tuple(voxels), tuple(inside), tuple(probability), squared_error)


def bins_of(found: Reliability) -> tuple[Bin, ...]:
    """The bins as a diagram shows them."""
    edges = np.linspace(0, 1, len(found.voxels) + 1).tolist()
    rows = zip(edges, edges[1:], found.voxels, found.probability, found.inside, strict=False)
    return tuple(
        Bin(low, high, voxels, probability / voxels if voxels else None, inside / voxels if voxels else None)
        for low, high, voxels, probability, inside in rows
    )


def summarise_calibration(
    cases: Mapping[str, Mapping[str, Reliability]],
    regions: Sequence[str],
    *,
    without: Mapping[str, str],
    patients: Mapping[str, str] | None = None,
) -> Calibration:
    """From cases to a cohort.

    Args:
        cases: case id to region to what was counted.
        regions: in the order of tables.
        without: case to the reason why it takes no part.
        patients: case id to patient, for the intervals; None where every case is another patient.
    """
    rows, found = [], {}
    for case_id, by_region in sorted(cases.items()):
        for region in regions:
            if (one := by_region.get(region)) is not None:
                rows += [CalibrationRow(case_id, region, one.n, one.ece, one.mce, one.brier)]
    for region in regions:
        own = {case_id: by_region[region] for case_id, by_region in sorted(cases.items()) if region in by_region}
        if own:
            whole = pooled(own.values())
            found[region] = RegionCalibration(
                n=sum(case.n > 0 for case in own.values()),
                voxels=whole.n,
                ece=whole.ece,
                mce=whole.mce,
                brier=whole.brier,
                ece_per_case=spread(
                    [case.ece for case in own.values()], interval=True, patients=patients_of(list(own), patients)
                ),
                bins=bins_of(whole),
            )
    return Calibration(found, tuple(rows), dict(sorted(without.items())))
