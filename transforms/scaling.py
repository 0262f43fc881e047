"""Normalisation in two halves: measured once on the whole volume, applied to every patch of it.

Between the halves a volume is what the scanner's file says, mostly whole numbers. It can be cached as int16, in half
the space of float32, and a patch is normalised in milliseconds.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform
from torch import Tensor

from transforms.intensity import FOREGROUND_SHARE, PERCENTILES, apply_scale, clip_z_score_scale, z_score_scale


class MeasureScaled(MapTransform):
    """Write down how an image is to be normalised; the image itself stays.

    Args:
        keys: images ``(C, *spatial)``; each gives ``<key>_scale``, a tensor ``(C, 4)`` for :class:`ApplyScaled`.
        method: ``z_score`` (:func:`transforms.intensity.z_score_scale`) or ``clip_z_score``
            (:func:`transforms.intensity.clip_z_score_scale`).
        foreground_share: of ``clip_z_score``.
        percentiles: of ``clip_z_score``.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        method: str = "z_score",
        foreground_share: float = FOREGROUND_SHARE,
        percentiles: tuple[float, float] = PERCENTILES,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if method not in ("z_score", "clip_z_score"):
            raise ValueError(f"method is {method!r}; known: z_score, clip_z_score")
        self.method = method
        self.foreground_share = foreground_share
        self.percentiles = (percentiles[0], percentiles[1])

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            image = torch.as_tensor(item[key])
            item[f"{key}_scale"] = (
                z_score_scale(image)
                if self.method == "z_score"
                else clip_z_score_scale(image, foreground_share=self.foreground_share, percentiles=self.percentiles)
            )
        return item


class ApplyScaled(MapTransform):
    """:func:`transforms.intensity.apply_scale` by what :class:`MeasureScaled` wrote down.

    Args:
        keys: images, or patches of them.
        keep_zeros: see :func:`apply_scale`; true after ``z_score``.
    """

    def __init__(self, keys: KeysCollection, *, keep_zeros: bool, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.keep_zeros = keep_zeros

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = apply_scale(item[key], item[f"{key}_scale"], keep_zeros=self.keep_zeros)
        return item


class Compactd(MapTransform):
    """Store whole numbers as uint8 or int16 where they fit; anything else stays. Values and layout do not change.

    Args:
        keys: tensors.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = _compact(item[key])
        return item


def _compact(values: Tensor) -> Tensor:
    if values.numel() == 0 or not torch.equal(values, values.round()):
        return values
    low, high = float(values.min()), float(values.max())
    for dtype in (torch.uint8, torch.int16):
        bounds = torch.iinfo(dtype)
        if bounds.min <= low and high <= bounds.max:
            return values.to(dtype)
    return values
