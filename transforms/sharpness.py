"""Random noise, blur and low resolution (the set of nnU-Net; Isensee et al. 2021, Suppl. 4).

Exact zeros stay (:mod:`transforms.channels`). Noise is drawn in float32 on the image's device, from a generator with a
drawn seed: the same seed gives other numbers on a GPU than on a CPU.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from transforms.channels import RandChannelsd, measured

REACH = 4.0
"""Sigmas after which a Gaussian is taken for 0; what is left of it there would be slow denormal numbers."""
LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def add_noise(image: Tensor, deviation: float, seed: int) -> Tensor:
    """Add normal noise.

    Args:
        image: any shape.
        deviation: of the noise.
        seed: of the noise.
    """
    generator = torch.Generator(image.device).manual_seed(seed)
    noise = torch.empty_like(image).normal_(0, deviation, generator=generator)
    return noise.mul_(measured(image)).add_(image)


def blur(image: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of each slice or volume, one matrix product per axis; at a border the weights inside count alone.

    Args:
        image: ``(S, *spatial)``.
        sigma: of the Gaussian, in voxels.
    """
    result = image
    for axis in range(1, image.dim()):
        place = torch.arange(image.shape[axis], device=image.device, dtype=image.dtype)
        distance = (place[:, None] - place) / sigma
        weights = torch.exp(distance.square() / -2) * (distance.abs() <= REACH)
        weights /= weights.sum(dim=1, keepdim=True)
        if axis == image.dim() - 1:
            result = result @ weights.T
        else:
            rows = result.reshape(-1, image.shape[axis], image.shape[axis + 1 :].numel())
            result = (weights @ rows).reshape(image.shape)
    return result.mul_(measured(image))


def lower_resolution(image: Tensor, zoom: float) -> Tensor:
    """Keep every so many-th voxel and interpolate linearly back to the old grid.

    Args:
        image: ``(S, *spatial)``.
        zoom: sides of the coarse grid as a share of the old ones, above 0.
    """
    sides = image.shape[1:]
    coarse = [max(1, round(zoom * side)) for side in sides]
    small = F.interpolate(image[None], size=coarse, mode="nearest-exact")
    return F.interpolate(small, size=list(sides), mode=LINEAR[len(sides)])[0].mul_(measured(image))


class RandNoised(RandChannelsd):
    """Add noise to each modality, its deviation drawn between ``low`` and ``high``."""

    def draw(self) -> Any:
        return super().draw(), int(self.R.randint(2**31))

    def apply(self, modality: Tensor, value: Any) -> Tensor:
        return add_noise(modality, *value)


class RandBlurd(RandChannelsd):
    """Blur modalities, sigma drawn between ``low`` and ``high`` voxels."""

    def apply(self, modality: Tensor, value: Any) -> Tensor:
        return blur(modality, value)


class RandLowResolutiond(RandChannelsd):
    """Show modalities as if scanned at ``low`` to ``high`` times their resolution."""

    def apply(self, modality: Tensor, value: Any) -> Tensor:
        return lower_resolution(modality, value)
