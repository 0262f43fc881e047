"""What can be wrong with the voxels of a scan; the one rule for all who look at them. No torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

STEP = 61
"""A look at every so many voxels usually shows two values of tissue."""


def has_contrast(values: npt.NDArray[Any]) -> bool:
    """Whether a short look shows that :func:`image_defects` will find nothing; False means: look closely.

    Args:
        values: of one image, of any shape.
    """
    if values.dtype.kind not in "iuf" or not values.size:
        return False
    if values.dtype.kind == "f" and not np.isfinite([values.min(), values.max()]).all():  # either is NaN where one is
        return False
    few = values.ravel(order="K")[::STEP]
    tissue = few[few != 0]
    return bool(tissue.size and tissue.min() != tissue.max())


def image_defects(name: str, values: npt.NDArray[Any]) -> tuple[list[str], npt.NDArray[Any]]:
    """Defects of one image, and its finite nonzero voxels.

    NaN or infinite voxels, nothing but zeros, and tissue of one value (a mask in the place of a scan), which has no
    contrast to segment by. Zero is the background of skull-stripped scans.

    Args:
        name: of the image, for the message.
        values: of any shape.

    Returns:
        One sentence per defect, none for a sound image, and the voxels as one row.
    """
    defects = []
    if values.dtype.kind not in "biuf":
        return [f"{name} holds values of type {values.dtype}; plain numbers are needed"], np.empty(0)
    if values.dtype.kind == "f" and not (finite := np.isfinite(values)).all():
        defects.append(f"{name} holds {finite.size - int(finite.sum())} voxels that are NaN or infinite")
        values = values[finite]
    tissue = values[values != 0]
    if not tissue.size:
        defects.append(f"{name} is empty: every voxel is 0")
    elif tissue.min() == tissue.max():
        which = "" if tissue.size == values.size else "nonzero "
        defects.append(f"{name} is constant: every {which}voxel is {float(tissue[0]):g}")
    return defects, tissue
