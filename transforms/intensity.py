"""Normalisation: what to measure on a volume, and how to apply it."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from torch import Tensor

FOREGROUND_SHARE = 0.1
PERCENTILES = (1.0, 99.0)


def z_score_scale(image: Tensor) -> Tensor:
    """How to z-score each channel over its voxels that are not exactly zero, as MONAI's ``NormalizeIntensity``.

    Args:
        image: ``(C, *spatial)``.

    Returns:
        ``(C, 4)``: lower bound, upper bound, mean and standard deviation, for :func:`apply_scale`.
    """
    rows = []
    for channel in image:
        values = channel.flatten() if channel.is_contiguous() else channel.contiguous().flatten()
        count = int(torch.count_nonzero(values))
        doubles = values.double()  # zeros add nothing to either sum, so nobody has to pick the others out
        mean = float(doubles.sum()) / max(count, 1)
        variance = float(torch.dot(doubles, doubles)) / max(count, 1) - mean**2
        rows.append([-math.inf, math.inf, mean, math.sqrt(max(variance, 0.0)) or 1.0])
    return torch.tensor(rows)


def apply_scale(image: Tensor, scale: Tensor, *, keep_zeros: bool) -> Tensor:
    """``(clip(image) - mean) / deviation`` in every channel.

    Args:
        image: ``(C, *spatial)``, whole numbers or not.
        scale: ``(C, 4)``.
        keep_zeros: exact zeros stay 0: they are air.
    """
    values = (image.as_tensor() if isinstance(image, MetaTensor) else image).to(torch.float32)
    scaled = torch.empty(values.shape, device=values.device)  # contiguous, whatever the order of the file was
    for channel, (low, high, mean, deviation), into in zip(values, scale.tolist(), scaled, strict=True):
        clipped = channel if math.isinf(low) and math.isinf(high) else channel.clamp(low, high)
        torch.sub(clipped, mean, out=into).div_(deviation)
        if keep_zeros:
            into.masked_fill_(channel == 0, 0.0)
    if isinstance(image, MetaTensor):
        return MetaTensor(scaled, meta=image.meta, applied_operations=image.applied_operations)
    return scaled


def clip_z_score_scale(
    image: Tensor, *, foreground_share: float = FOREGROUND_SHARE, percentiles: tuple[float, float] = PERCENTILES
) -> Tensor:
    """How :func:`clip_z_score` normalises each channel.

    Args:
        image: ``(C, *spatial)``; a volume, so that all slices of a patient share one scale.
        foreground_share: of the channel's maximum, from 0 to 1.
        percentiles: lower and upper, from 0 to 100, of the foreground.

    Returns:
        ``(C, 4)``: lower bound, upper bound, mean and standard deviation; a channel without contrast gets an infinite
        deviation.
    """
    rows = []
    for channel in image.float():
        inside = channel[channel > foreground_share * channel.max()]
        if inside.numel() < 2:
            rows.append([0.0, 0.0, 0.0, math.inf])
            continue
        ordered = inside.sort().values
        low, high = (ordered[round(share / 100 * (len(ordered) - 1))] for share in percentiles)
        clipped = inside.clamp(low, high)
        rows.append([float(low), float(high), float(clipped.mean()), float(clipped.std()) or math.inf])
    return torch.tensor(rows)


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
    scale = clip_z_score_scale(image, foreground_share=foreground_share, percentiles=percentiles)
    return apply_scale(image, scale, keep_zeros=False)


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


class ZScored(MapTransform):
    """Z-score each channel over its voxels that are not exactly zero, which stay zero: :func:`z_score_scale`, applied.

    The values are those of MONAI's ``NormalizeIntensityd(nonzero=True, channel_wise=True)``.

    Args:
        keys: images ``(C, *spatial)``, whole numbers or not; they become float32.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = apply_scale(result[key], z_score_scale(torch.as_tensor(result[key])), keep_zeros=True)
        return result
