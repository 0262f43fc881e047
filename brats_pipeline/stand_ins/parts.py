"""In place of ``cc3d``: the parts of a volume that hang together, by numpy alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt


def connected_components(
    volume: npt.NDArray[np.uint8], *, connectivity: int, out_dtype: type[np.unsignedinteger[Any]]
) -> npt.NDArray[Any]:
    """Number the parts of a volume from 1, in the order of their first voxels; 0 outside.

    Every voxel points at one of its part, at first itself. It turns to the lowest that a neighbour points at, and then
    to where that one points: the steps double, as in Shiloach and Vishkin (An O(log n) parallel connectivity algorithm,
    Journal of Algorithms 3, 1982). In the end all of a part point at its first voxel.

    Args:
        volume: ``(x, y, z)``, nonzero inside.
        connectivity: 26 (faces, edges and corners) or 6 (faces).
        out_dtype: of the numbers.
    """
    if connectivity not in (6, 26):
        raise ValueError(f"connectivity is 6 or 26, not {connectivity}")
    inside = volume != 0
    outside = volume.size
    target = np.where(inside, np.arange(volume.size).reshape(volume.shape), outside)
    while True:
        lowest = target
        for axis in range(target.ndim):
            nearest = _lowest_along(lowest if connectivity == 26 else target, axis)
            lowest = np.minimum(lowest, nearest)
        turned = np.append(np.where(inside, lowest, outside), outside)
        turned = turned[turned][:-1].reshape(volume.shape)
        if np.array_equal(turned, target):
            break
        target = turned
    numbers = np.zeros(volume.shape, out_dtype)
    numbers[inside] = np.unique(target[inside], return_inverse=True)[1] + 1
    return numbers


def _lowest_along(values: npt.NDArray[np.int64], axis: int) -> npt.NDArray[np.int64]:
    """The lowest of each value and of the two beside it along an axis."""
    line = np.moveaxis(values, axis, 0)
    result = line.copy()
    np.minimum(result[:-1], line[1:], out=result[:-1])
    np.minimum(result[1:], line[:-1], out=result[1:])
    return np.moveaxis(result, 0, axis)
