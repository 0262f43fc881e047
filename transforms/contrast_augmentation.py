"""Random brightness, contrast and gamma of z-scored images (the set of nnU-Net; Isensee et al. 2021, Suppl. 4).

Exact zeros stay (:mod:`transforms.channels`), and what needs a mean or a deviation takes it over the other voxels.
"""

from __future__ import annotations

from typing import Any

import torch
from monai.config import KeysCollection
from torch import Tensor

from transforms.channels import RandChannelsd, measured

SMALL = 1e-6


def moments(image: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the voxels inside, as tensors on the image's device; 0 where there is none.

    Args:
        image: 0 outside.
        inside: 1 or 0 for each voxel.
    """
    count = inside.sum().clamp_min(1)
    mean = image.sum() / count
    return mean, (image.square().sum() / count - mean.square()).clamp_min(0).sqrt()


def change_contrast(image: Tensor, factor: float) -> Tensor:
    """Stretch the distance of each voxel from the mean, within the range that the image has.

    Args:
        image: any shape.
        factor: above 1 for more contrast.
    """
    inside = measured(image)
    mean, _ = moments(image, inside)
    low, high = image.aminmax()
    stretched = (image * factor).add_(mean * (1 - factor))
    return torch.minimum(torch.maximum(stretched, low), high) * inside


def change_gamma(image: Tensor, exponent: float) -> Tensor:
    """Bend the range of the image by a power, then give it back its mean and deviation.

    The image is scaled to 0...1 first, so that values of either sign have a power; mean and deviation stay, so that
    only the shape of the histogram changes.

    Args:
        image: any shape, of either sign.
        exponent: above 1 widens the bright end, below 1 the dark one; positive.
    """
    inside = measured(image)
    low, high = image.aminmax()
    bent = (image - low).mul_(1 / (high - low).clamp_min(SMALL)).pow_(exponent).mul_(inside)
    (mean, deviation), (bent_mean, bent_deviation) = moments(image, inside), moments(bent, inside)
    factor = deviation / bent_deviation.clamp_min(SMALL)
    return bent.sub_(bent_mean).mul_(factor).add_(mean).mul_(inside)


class RandScaled(RandChannelsd):
    """Multiply each modality by a random factor between ``low`` and ``high``."""

    def apply(self, modality: Tensor, value: Any) -> Tensor:
        return torch.mul(modality, value)


class RandShiftd(RandChannelsd):
    """Add a random number between ``low`` and ``high`` to each modality, in units of its standard deviation."""

    def apply(self, modality: Tensor, value: Any) -> Tensor:
        return measured(modality).mul_(value).add_(modality)


class RandContrastd(RandChannelsd):
    """Stretch the contrast of each modality (:func:`change_contrast`) by a factor between ``low`` and ``high``."""

    def apply(self, modality: Tensor, value: Any) -> Tensor:
        return change_contrast(modality, value)


class RandGammad(RandChannelsd):
    """Bend the histogram of each modality (:func:`change_gamma`) by an exponent between ``low`` and ``high``.

    Args:
        keys: as all others, see :class:`transforms.channels.RandChannelsd`.
        inverted: bend the negative of the image, so that ``low`` and ``high`` act on the other end of the histogram.
    """

    def __init__(self, keys: KeysCollection, *, inverted: bool = False, **arguments: Any) -> None:
        super().__init__(keys, **arguments)
        if self.low <= 0:
            raise ValueError(f"low is {self.low}; an exponent must be above 0")
        self.inverted = inverted

    def apply(self, modality: Tensor, value: Any) -> Tensor:
        return change_gamma(-modality, value).neg_() if self.inverted else change_gamma(modality, value)
