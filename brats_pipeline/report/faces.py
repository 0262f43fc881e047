"""Whether a scan shows the head outside the brain: then a face can be drawn from it, and a report must say so."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

BRAIN_ML = 2200.0
"""More foreground than this is no brain alone; a large one with its fluid has 1,900 ml."""
BORDER = 0.1
"""More of the outermost voxels than this share are background in a stripped brain: air measured as noise is not."""


def shows_head(image: npt.NDArray[Any], *, voxel_ml: float) -> bool:
    """Judge whether skull, scalp and face were left in a scan.

    The background is the grey value of the first corner. The scan shows a head where the foreground exceeds 2.2 litres,
    or where more than a tenth of the outermost voxels differ from the background (air that was measured is noise). A
    few thick slices of a head on a background of zeros have less than that and pass as a brain.

    Args:
        image: ``(x, y, z)``, any unit.
        voxel_ml: volume of a voxel.
    """
    foreground = image != image.flat[0]
    sides = [np.take(foreground, end, axis=axis) for axis in range(3) for end in (0, -1)]
    border = sum(int(side.sum()) for side in sides) / sum(side.size for side in sides)
    return border > BORDER or int(foreground.sum()) * voxel_ml > BRAIN_ML
