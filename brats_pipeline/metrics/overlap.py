"""Overlap of two masks: four counts, and the scores that follow from them."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Counts:
    """Voxels of an image by what prediction and reference say of them.

    Args:
        tp: in both.
        fp: in the prediction only.
        fn: in the reference only.
        tn: in neither.
    """

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def predicted(self) -> int:
        """Voxels of the prediction."""
        return self.tp + self.fp

    @property
    def reference(self) -> int:
        """Voxels of the reference."""
        return self.tp + self.fn


def dice(counts: Counts) -> float:
    """Twice the overlap over the sum of both sizes; NaN when both are empty."""
    return _ratio(2 * counts.tp, counts.predicted + counts.reference)


def iou(counts: Counts) -> float:
    """Overlap over union; NaN when both are empty."""
    return _ratio(counts.tp, counts.tp + counts.fp + counts.fn)


def precision(counts: Counts) -> float:
    """Share of the prediction that is right; NaN when the prediction is empty."""
    return _ratio(counts.tp, counts.predicted)


def recall(counts: Counts) -> float:
    """Share of the reference that was found (sensitivity); NaN when the reference is empty."""
    return _ratio(counts.tp, counts.reference)


def specificity(counts: Counts) -> float:
    """Share of the outside that was left out; NaN when the reference fills the image."""
    return _ratio(counts.tn, counts.tn + counts.fp)


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
