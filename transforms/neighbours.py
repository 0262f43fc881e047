"""Slices with their neighbours as further channels, for 2D networks that look at a slab ("2.5D").

One order everywhere: ``(S * C, x, y)``, the S = 2k + 1 slices from the lowest to the highest, the C modalities of one
slice side by side. Beyond the first and the last slice of a volume that slice is repeated.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.transforms import MapTransform
from torch import Tensor


def neighbouring(slices: Tensor, neighbours: int, depth: int) -> Tensor:
    """The numbers of slices and of their neighbours: ``(N,)`` to ``(N, 2 * neighbours + 1)``.

        slices 0 3, one neighbour on each side, depth 4   =>   0 0 1 | 2 3 3

    Args:
        slices: whole numbers below ``depth``.
        neighbours: on each side.
        depth: slices of the volume.
    """
    offsets = torch.arange(-neighbours, neighbours + 1, device=slices.device)
    return (slices[:, None] + offsets).clamp_(0, depth - 1)


def slab_to_channels(slab: Tensor) -> Tensor:
    """``(C, x, y, S)`` to ``(S * C, x, y)``."""
    return slab.permute(3, 0, 1, 2).flatten(0, 1)


class SlabToChannelsd(MapTransform):
    """:func:`slab_to_channels` on dictionaries; a slab of one slice is that slice.

    Args:
        keys: slabs ``(C, x, y, S)``.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = slab_to_channels(result[key])
        return result
