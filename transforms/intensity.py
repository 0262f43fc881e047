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
PIECE = 2**16
"""Voxels that a CPU works on at a time, so that what it makes of them is still in its cache for the next step."""


def pieces(values: Tensor) -> tuple[Tensor, ...]:
    """The flat values, piece by piece on a CPU, at once on a GPU."""
    size = PIECE if values.device.type == "cpu" else max(1, values.numel())
    return torch.split(values, size)


def in_order(image: Tensor) -> Tensor:
    """``(C, *spatial)`` with its last axis contiguous; a copy where it is not.

    NIfTI files hold the first axis contiguous. Torch turns a plane in blocks that suit the cache, but a volume voxel by
    voxel, so volumes on a CPU are turned plane by plane, in half the time.
    """
    if image.is_contiguous() or image.dim() != 4 or image.device.type != "cpu" or isinstance(image, MetaTensor):
        return image.contiguous()
    turned = torch.empty(image.shape, dtype=image.dtype)
    for channel, into in zip(image, turned, strict=True):
        for plane in range(channel.shape[1]):
            into[:, plane].copy_(channel[:, plane])
    return turned


def z_score_scale(image: Tensor) -> Tensor:
    """How to z-score each channel over its voxels that are not exactly zero, as MONAI's ``NormalizeIntensity``.

    Args:
        image: ``(C, *spatial)``.

    Returns:
        ``(C, 4)``: lower bound, upper bound, mean and standard deviation, for :func:`apply_scale`.
    """
    rows = []
    for channel in in_order(image):
        values = channel.flatten()
        count = max(1, int(torch.count_nonzero(values)))
        sums = torch.zeros(2, dtype=torch.float64, device=values.device)
        for piece in pieces(values):
            doubles = piece.double()  # zeros add nothing to either sum, so nobody has to pick the others out
            sums += torch.stack([doubles.sum(), torch.dot(doubles, doubles)])
        mean, square = (sums / count).tolist()
        variance = square - mean**2
        rows.append([-math.inf, math.inf, mean, math.sqrt(max(variance, 0.0)) or 1.0])
    return torch.tensor(rows)


def apply_scale(image: Tensor, scale: Tensor, *, keep_zeros: bool) -> Tensor:
    """``(clip(image) - mean) / deviation`` in every channel.

    Args:
        image: ``(C, *spatial)``, whole numbers or not.
        scale: ``(C, 4)``.
        keep_zeros: exact zeros stay 0: they are air.
    """
    values = in_order(image.as_tensor() if isinstance(image, MetaTensor) else image)
    scaled = torch.empty(values.shape, device=values.device)
    for channel, (low, high, mean, deviation), into in zip(values, scale.tolist(), scaled, strict=True):
        clipped = math.isfinite(low) or math.isfinite(high)
        for given, part in zip(pieces(channel.flatten()), pieces(into.view(-1)), strict=True):
            torch.sub(given.float().clamp(low, high) if clipped else given, mean, out=part).div_(deviation)
            if keep_zeros:
                part.mul_(given != 0)
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
            image = result[key]
            values = in_order(image.as_tensor() if isinstance(image, MetaTensor) else image)
            scaled = apply_scale(values, z_score_scale(values), keep_zeros=True)
            if isinstance(image, MetaTensor):
                scaled = MetaTensor(scaled, meta=image.meta, applied_operations=image.applied_operations)
            result[key] = scaled
        return result
