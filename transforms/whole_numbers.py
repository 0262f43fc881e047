"""The values of label maps: whole numbers, also where a file keeps them scaled. No torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from brats_pipeline.errors import PipelineError

NEAR = 1e-3
"""As far from a whole number lies what the scaling of a header leaves of one; an interpolation leaves more."""


def whole_numbers(labels: npt.NDArray[Any], what: str) -> npt.NDArray[Any]:
    """The values of a label map, rounded where they lie within :data:`NEAR` of whole numbers.

    Args:
        labels: as they were read.
        what: begins the message, such as the path of the file.

    Returns:
        Values of the same type; those of a type without fractions as they are.

    Raises:
        PipelineError: a value is no whole number.
    """
    if labels.dtype.kind in "iub":
        return labels
    if labels.dtype.kind != "f":
        raise PipelineError(f"{what} holds values of type {labels.dtype}; whole numbers are needed")
    rounded: npt.NDArray[Any] = np.rint(labels)
    with np.errstate(invalid="ignore"):
        odd = ~(np.abs(labels - rounded) <= NEAR)  # so is NaN
    if odd.any():
        raise PipelineError(
            f"{what} holds the value {labels[odd][0]}, which is no whole number; resample label maps by nearest "
            "neighbour, and correct scl_slope where the header scales"
        )
    return rounded
