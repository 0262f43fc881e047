"""What can be wrong with the voxels of a scan; the one rule for all who look at them. No torch."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


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
