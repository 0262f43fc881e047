"""Sliding windows: where they lie, and how what the network says in each becomes one volume.

The grid and the Gaussian weights are MONAI's (``sliding_window_inference``; as nnU-Net, Isensee et al. 2021), so that
both give the same logits. Different is what costs memory and time: the windows are blended slab by slab along the first
axis, windows that hold nothing but air are left out, and an image that is smaller than a window is padded to the next
size that the network takes, not to the whole window.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import EllipsisType

import torch
from monai.data.utils import compute_importance_map, dense_patch_slices
from torch import Tensor
from torch.nn import functional as F

NOTHING = -1e4
"""The logit where no window was run: no region, in float16 too."""


@dataclass(frozen=True)
class WindowGrid:
    """Windows over an image.

    Args:
        sides: of every window, in voxels.
        padding: zeros before and behind each axis of the image.
        starts: where windows start on each axis of the padded image.
    """

    sides: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    starts: tuple[tuple[int, ...], ...]

    def pad(self, image: Tensor) -> Tensor:
        """``(N, C, *spatial)`` with the zeros around it; the image itself where none are needed."""
        if not any(itertools.chain(*self.padding)):
            return image
        return F.pad(image, [side for pair in reversed(self.padding) for side in pair])

    @property
    def single(self) -> bool:
        """Whether one window holds the whole image."""
        return all(len(axis) == 1 for axis in self.starts)


def crop(tensor: Tensor, box: Sequence[slice]) -> Tensor:
    """A view of the box that the last axes are cut to."""
    index: tuple[slice | EllipsisType, ...] = (..., *box)
    return tensor[index]


def lay_windows(size: Sequence[int], roi_size: Sequence[int], *, overlap: float, stride: int = 1) -> WindowGrid:
    """Cover an image with windows, in the order and with the overlap of MONAI.

    Args:
        size: of the image, in voxels.
        roi_size: of a window; where the image is smaller, the window is as large as it, rounded up to ``stride``.
        overlap: share of a window that the next one covers again, from 0 up to but not 1.
        stride: the network takes multiples of it.

    Raises:
        ValueError: the window has another number of axes, or the overlap is out of range.
    """
    if len(roi_size) != len(size):
        raise ValueError(
            f"a window of {len(roi_size)} axes for an image of {len(size)}; give roi_size one side per axis"
        )
    if not 0 <= overlap < 1:
        raise ValueError(f"overlap is {overlap}; it must lie between 0 and 1, below 1")
    sides = tuple(min(roi, -(-length // stride) * stride) for length, roi in zip(size, roi_size, strict=True))
    missing = [max(side - length, 0) for length, side in zip(size, sides, strict=True)]
    padded = [length + lack for length, lack in zip(size, missing, strict=True)]
    steps = [
        side if side == length else max(1, int(side * (1 - overlap)))
        for length, side in zip(padded, sides, strict=True)
    ]
    windows = dense_patch_slices(padded, sides, steps)
    starts = tuple(tuple(dict.fromkeys(window[axis].start for window in windows)) for axis in range(len(size)))
    return WindowGrid(sides, tuple((lack // 2, lack - lack // 2) for lack in missing), starts)


def blend_windows(
    image: Tensor,
    run: Callable[[Tensor], Tensor],
    grid: WindowGrid,
    *,
    mode: str = "gaussian",
    batch: int = 1,
    air_in: Tensor | None = None,
    sums: torch.dtype = torch.float32,
    place: torch.device | None = None,
) -> Iterator[tuple[slice, Tensor | None]]:
    """Logits of a padded image, slab by slab: memory holds the logits of one row of windows, not of the volume.

    Args:
        image: ``(1, C, *spatial)``, padded by ``grid``.
        run: windows ``(B, C, *sides)`` to logits ``(B, R, *sides)``, float32.
        grid: from :func:`lay_windows`.
        mode: ``gaussian`` or ``constant`` weights within a window.
        batch: windows that are run at a time.
        air_in: as large as the image; windows in which it is 0 everywhere are left out, and there the logits are
            :data:`NOTHING`. By default none is.
        sums: number format of the weighted sums, float32 or float16.
        place: where the sums are made; by default on the device of the image.

    Yields:
        The rows of a slab and its logits ``(R, rows, *rest)``, float32, in order, without gaps; None instead of logits
        before the first window was run.
    """
    place = image.device if place is None else place
    weight = compute_importance_map(grid.sides, mode=mode, device=place, dtype=torch.float32)
    scale = weight.to(sums)
    rest = image.shape[3:]
    total: Tensor | None = None
    weights = torch.zeros(grid.sides[0], *rest, device=place)
    for row, first in enumerate(grid.starts[0]):
        boxes = [
            tuple(slice(start, start + side) for start, side in zip(place, grid.sides[1:], strict=True))
            for place in itertools.product(*grid.starts[1:])
        ]
        slab = image[:, :, first : first + grid.sides[0]]
        if air_in is not None:
            seen = air_in[:, :, first : first + grid.sides[0]]
            boxes = [box for box in boxes if bool(crop(seen, box).any())]
        for number in range(0, len(boxes), batch):
            chosen = boxes[number : number + batch]
            logits = run(torch.cat([crop(slab, box) for box in chosen])).to(place, sums)
            if total is None:
                total = torch.zeros(logits.shape[1], grid.sides[0], *rest, device=place, dtype=sums)
            for box, said in zip(chosen, logits, strict=True):
                crop(total, box).addcmul_(said, scale)
                crop(weights, box).add_(weight)
        last = row + 1 == len(grid.starts[0])
        done = grid.sides[0] if last else grid.starts[0][row + 1] - first
        yield slice(first, first + done), None if total is None else _finish(total[:, :done], weights[:done])
        if not last:
            if total is not None:
                _advance(total, 1, done)
            _advance(weights, 0, done)


def _finish(total: Tensor, weights: Tensor) -> Tensor:
    """The weighted mean, and :data:`NOTHING` where there is no weight."""
    mean = total / weights.clamp_min(torch.finfo(torch.float32).tiny)  # float32, even of sums in half of it
    return mean.masked_fill_(weights == 0, NOTHING)


def _advance(buffer: Tensor, axis: int, rows: int) -> None:
    """Move the rows that are not finished to the front, and clear the others."""
    kept = buffer.shape[axis] - rows
    unfinished = buffer.narrow(axis, rows, kept)
    buffer.narrow(axis, 0, kept).copy_(unfinished if kept <= rows else unfinished.clone())
    buffer.narrow(axis, kept, rows).zero_()
