"""The parts of a mask that hang together, labelled once: count them, keep some, fill what they enclose. No torch.

Voxels that share a face, an edge or a corner are one part (26 neighbours; 8 within a single slice), as in the scores.
What is outside hangs together by faces alone (6 or 4 neighbours), so that a wall without a gap encloses a hole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cc3d
import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
Kept = npt.NDArray[np.bool_]
"""For each number of a part whether it is kept; the first entry, of what is outside, is False."""

_WHOLE: Literal[26] = 26
_FACES: Literal[6] = 6


@dataclass(frozen=True)
class Components:
    """The parts of one mask.

    Args:
        shape: of the mask.
        box: the part of the array that holds all of them.
        numbers: of the part of each voxel of the box, from 1 in the order of their first voxels; 0 outside.
        sizes: voxels of each part, by number; 0 for 0.
    """

    shape: tuple[int, ...]
    box: tuple[slice, ...]
    numbers: npt.NDArray[np.uint32]
    sizes: npt.NDArray[np.int64]

    def kept(self, *, smallest: int = 0, largest: bool = False) -> Kept:
        """Which parts have at least ``smallest`` voxels; with ``largest`` the first of the largest of them alone."""
        keep = self.sizes >= max(smallest, 1)
        if largest and keep.any():
            only = int(self.sizes.argmax())
            keep = np.arange(len(keep)) == only
        return keep

    def mask(self, kept: Kept) -> Mask:
        """The parts that are kept, in an array of the whole shape."""
        mask = np.zeros(self.shape, bool)
        mask[self.box] = kept[self.numbers]
        return mask


def find_components(mask: Mask) -> Components:
    """Label the parts of a mask ``(x, y)`` or ``(x, y, z)``."""
    box = box_around(mask)
    numbers = _numbered(mask[box], _WHOLE)
    sizes = np.bincount(numbers.ravel(), minlength=1).astype(np.int64)
    sizes[0] = 0
    return Components(mask.shape, box, numbers, sizes)


def filled(mask: Mask) -> Mask:
    """The mask with its holes: what is outside and has no way to the border of the array.

        1 1 1 0        1 1 1 0
        1 0 1 0   =>   1 1 1 0
        1 1 1 0        1 1 1 0

    An axis with a single slice has no border: a lone slice is filled as a picture.
    """
    if not mask.any():
        return mask.copy()
    box = box_around(mask)
    # A rim of outside around the box is all there is to reach: beyond it nothing belongs to the mask.
    outside = ~np.pad(mask[box], [(0, 0) if side == 1 else (1, 1) for side in mask.shape])
    numbers = _numbered(outside, _FACES)
    rim = numbers.flat[0]
    inner = tuple(slice(None) if side == 1 else slice(1, -1) for side in mask.shape)
    whole = np.zeros_like(mask)
    whole[box] = mask[box] | (numbers != rim)[inner]
    return whole


def box_around(mask: Mask) -> tuple[slice, ...]:
    """The smallest box that holds the mask; of no voxels where it is empty."""
    box = [slice(None)] * mask.ndim
    # From the slowest axis on: the first step runs along memory, and each leaves less to look at.
    for axis in sorted(range(mask.ndim), key=lambda axis: -abs(mask.strides[axis])):
        line = mask[tuple(box)].any(axis=tuple(other for other in range(mask.ndim) if other != axis))
        inside = np.flatnonzero(line)
        box[axis] = slice(int(inside[0]), int(inside[-1]) + 1) if inside.size else slice(0, 0)
    return tuple(box)


def _numbered(mask: Mask, connectivity: Literal[6, 26]) -> npt.NDArray[np.uint32]:
    if not mask.size:
        return np.zeros(mask.shape, np.uint32)
    sides = mask.shape
    volume = np.ascontiguousarray(mask.reshape(*sides, *(1,) * (3 - mask.ndim)))
    # 2026-11: of truth values cc3d 4.1 at times reserves too little room, and fails; of bytes it never did.
    found = cc3d.connected_components(volume.view(np.uint8), connectivity=connectivity, out_dtype=np.uint32)
    return found.astype(np.uint32, copy=False).reshape(sides)
