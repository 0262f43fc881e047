"""How well two scans match: mutual information over the head, whatever their contrasts.

Maes et al., Multimodality image registration by maximization of mutual information, IEEE TMI 16 (1997).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from brats_pipeline.prepare.grids import Grid

BINS = 32


@dataclass(frozen=True)
class Similarity:
    """How well two scans match under a transform.

    Args:
        information: mutual information in nats; 0 where they do not overlap.
        covered: share of the reference's head that the other scan covers.
    """

    information: float
    covered: float


def _levels(values: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
    """Grey values in :data:`BINS` levels between the 0.5th and the 99.5th percentile."""
    low, high = np.percentile(values, (0.5, 99.5))
    share = (values - low) / max(float(high - low), 1e-12)
    levels: npt.NDArray[np.intp] = np.clip((share * BINS).astype(np.intp), 0, BINS - 1)
    return levels


def mutual_information(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> float:
    """Mutual information of paired grey values in nats, from their histogram of 32 x 32 bins."""
    joint = np.bincount(_levels(one) * BINS + _levels(other), minlength=BINS * BINS).reshape(BINS, BINS) / one.size
    apart = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0, keepdims=True)
    seen = joint > 0
    return float((joint[seen] * np.log(joint[seen] / apart[seen])).sum())


def similarity(fixed: sitk.Image, moving: sitk.Image, mask: sitk.Image, transform: sitk.Transform) -> Similarity:
    """Compare two scans under a transform.

    Args:
        fixed: the reference.
        moving: the other scan.
        mask: nonzero where to compare, on the grid of ``fixed``.
        transform: takes points of ``fixed`` to points of ``moving``.
    """
    inside = sitk.GetArrayViewFromImage(mask) != 0
    sampled = Grid.of(fixed).resample(moving, transform, outside=float("nan"))
    values = sitk.GetArrayViewFromImage(sampled)[inside]
    seen = np.isfinite(values)
    if seen.sum() < BINS:
        return Similarity(0.0, 0.0)
    information = mutual_information(sitk.GetArrayViewFromImage(fixed)[inside][seen], values[seen])
    return Similarity(information, float(seen.mean()))
