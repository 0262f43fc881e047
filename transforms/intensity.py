"""Normalisation of scans that have no brain mask."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor

FOREGROUND_SHARE = 0.1
PERCENTILES = (1.0, 99.0)


def clip_z_score(
    image: Tensor, *, foreground_share: float = FOREGROUND_SHARE, percentiles: tuple[float, float] = PERCENTILES
) -> Tensor:
    """Clip each channel to percentiles of its foreground, then scale that foreground to mean 0 and deviation 1.

    The foreground of a channel are its voxels above a share of its maximum: exact zeros do not mark the head in slices
    that were saved as pictures, so "voxels that are not zero" would measure air.

    Args:
        image: ``(C, *spatial)``; a volume, so that all slices of a patient share one scale.
        foreground_share: of the channel's maximum, from 0 to 1.
        percentiles: lower and upper, from 0 to 100, of the foreground.

    Returns:
        ``(C, *spatial)`` float32; a channel without contrast becomes 0.
    """
    result = torch.zeros_like(image, dtype=torch.float32)
    for number, channel in enumerate(image.float()):
        inside = channel[channel > foreground_share * channel.max()]
        if inside.numel() < 2:
            continue
        ordered = inside.sort().values
        low, high = (ordered[round(share / 100 * (len(ordered) - 1))] for share in percentiles)
        clipped = inside.clamp(low, high)
        deviation = clipped.std()
        if deviation > 0:
            result[number] = (channel.clamp(low, high) - clipped.mean()) / deviation
    return result


class ClipZScored(MapTransform):
    """:func:`clip_z_score` on dictionaries.

    Args:
        keys: images ``(C, *spatial)``.
        foreground_share: of the channel's maximum.
        percentiles: lower and upper.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        foreground_share: float = FOREGROUND_SHARE,
        percentiles: tuple[float, float] = PERCENTILES,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.foreground_share = foreground_share
        self.percentiles = (percentiles[0], percentiles[1])

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = clip_z_score(
                result[key], foreground_share=self.foreground_share, percentiles=self.percentiles
            )
        return result
