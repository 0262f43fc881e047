"""Which tissue was taken for which: the reference's tissues against the prediction's, by volume."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from transforms.labels import Convention

ONE_TISSUE = {"NCR/NET": "NCR", "NETC": "NCR", "SNFH": "ED"}
"""Names that the years gave to one tissue, so that cohorts of several conventions share a table."""

OF_REGIONS = {"NETC": "NCR", "SNFH": "ED"}
"""Regions of a single tissue to its usual name."""

OUTSIDE = "none"
"""Name of what carries no label."""

Shares = Mapping[tuple[str, str], float]
"""Tissue of the reference and of the prediction to their common volume."""


def tissue_confusion(
    reference: npt.NDArray[np.uint8],
    prediction: npt.NDArray[np.uint8],
    *,
    expected: Convention,
    predicted: Convention,
    voxel_ml: float,
) -> dict[tuple[str, str], float]:
    """Volume of each pair of tissues in one case, in ml; what neither side labels is left out.

    Args:
        reference: ``(x, y, z)`` label values.
        prediction: ``(x, y, z)`` label values, on the same grid.
        expected: what the reference's values mean.
        predicted: what the prediction's values mean.
        voxel_ml: volume of a voxel.
    """

    def name(convention: Convention, value: int) -> str:
        tissue = convention.tissues.get(value, OUTSIDE)
        return ONE_TISSUE.get(tissue, tissue)

    labelled = (reference > 0) | (prediction > 0)
    pairs = reference[labelled].astype(np.int64) * 256 + prediction[labelled]
    found, counts = np.unique(pairs, return_counts=True)
    return {
        (name(expected, pair // 256), name(predicted, pair % 256)): count * voxel_ml
        for pair, count in zip(found.tolist(), counts.tolist(), strict=True)
    }


@dataclass(frozen=True)
class Confusion:
    """The confusion of a cohort.

    Args:
        rows: tissues of the reference, none last.
        columns: tissues of the prediction, none last.
        ml: ``(rows, columns)`` volumes, summed over the cases.
        n: cases.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    ml: npt.NDArray[np.float64]
    n: int

    @property
    def share(self) -> npt.NDArray[np.float64]:
        """Each row as shares of its sum; NaN for a row without volume."""
        total = self.ml.sum(axis=1, keepdims=True)
        shares: npt.NDArray[np.float64] = np.full(self.ml.shape, np.nan)
        np.divide(self.ml, total, out=shares, where=total > 0)
        return shares


def joined(cases: Sequence[Shares], regions: Collection[str] = ()) -> Confusion | None:
    """Add up the cases; None where nothing is labelled.

    Args:
        cases: one each.
        regions: that are scored; a tissue that is one of them goes by its name.
    """
    names = {OF_REGIONS[region]: region for region in regions if region in OF_REGIONS}
    total: dict[tuple[str, str], float] = {}
    for case in cases:
        for (expected, predicted), ml in case.items():
            pair = names.get(expected, expected), names.get(predicted, predicted)
            total[pair] = total.get(pair, 0.0) + ml
    rows, columns = (_names([pair[side] for pair in total]) for side in (0, 1))
    if not total:
        return None
    table = np.array([[total.get((row, column), 0.0) for column in columns] for row in rows])
    return Confusion(rows, columns, table, n=len(cases))


def _names(found: Sequence[str]) -> tuple[str, ...]:
    return (*sorted(set(found) - {OUTSIDE}), OUTSIDE)
