"""From tensors to looks: how a prepared case, on its way to a network, differs from what the training saw."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from torch import Tensor

from brats_pipeline.data.differences import differences
from brats_pipeline.data.familiar import read_familiar
from brats_pipeline.data.looks import Look, look_at, sampled

logger = logging.getLogger(__name__)


def look_of(image: Tensor, modalities: Sequence[str], *, sized: bool) -> Look | None:
    """Describe a prepared case.

    Args:
        image: ``(C, x, y, z)`` in LPS, normalised; channels behind the modalities are not looked at.
        modalities: of the first channels.
        sized: whether voxels have a size; those of slices have none.

    Returns:
        None where everything is zero, or the tensor is none of a volume.
    """
    if image.ndim != 4 or image.shape[0] < len(modalities):
        return None
    samples, steps = sampled(image.detach().as_subclass(Tensor)[: len(modalities)])
    meta = getattr(image, "meta", {})
    affine = np.asarray(getattr(image, "affine", np.eye(4)), dtype=np.float64)
    original = np.asarray(meta.get("original_affine", affine), dtype=np.float64)
    return look_at(
        np.asarray(samples.cpu().float()),
        steps,
        modalities=modalities,
        voxel_mm=_sides(affine) if sized else None,
        file_spacing_mm=_sides(original) if sized else (),
    )


def _sides(affine: npt.NDArray[np.float64]) -> list[float]:
    """Voxel sides towards left, posterior, superior, whatever the order of the array's axes."""
    axes = np.asarray(nib.orientations.io_orientation(affine))[:, 0]
    sides = np.ones(3)
    for axis, length in zip(axes, np.linalg.norm(affine[:3, :3], axis=0), strict=True):
        if np.isfinite(axis):
            sides[int(axis)] = length
    return [float(side) for side in sides]


class Observer:
    """Says of each case in what it differs from the training of a bundle; nothing where the bundle does not know.

    Args:
        fingerprint: path of what the training saw; None or no such file: nothing is said.

    Raises:
        PipelineError: the file is damaged.
    """

    def __init__(self, fingerprint: str | Path | None) -> None:
        self.seen = None if fingerprint is None else read_familiar(fingerprint)

    def __call__(self, case: Mapping[str, Any]) -> list[str]:
        """One sentence for each difference of a prepared case. No case fails for being looked at."""
        if self.seen is None:
            return []
        try:
            look = look_of(case["image"], self.seen.modalities, sized=case.get("layout") != "lgg")
            return [] if look is None else differences(look, self.seen)
        except Exception:
            logger.exception("%s cannot be compared with the training", case.get("case_id"))
            return []
