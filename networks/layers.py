"""The layers that exist once per dimension, looked up by the number of spatial dimensions; and the choice of norms."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from numbers import Integral
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Layers(NamedTuple):
    """The classes of one dimension."""

    conv: type[nn.Conv2d] | type[nn.Conv3d]
    conv_transpose: type[nn.ConvTranspose2d] | type[nn.ConvTranspose3d]
    max_pool: type[nn.MaxPool2d] | type[nn.MaxPool3d]
    batch_norm: type[nn.BatchNorm2d] | type[nn.BatchNorm3d]
    instance_norm: type[nn.InstanceNorm2d] | type[nn.InstanceNorm3d]
    dropout: type[nn.Dropout2d] | type[nn.Dropout3d]
    interpolation: str


LAYERS = {
    2: Layers(nn.Conv2d, nn.ConvTranspose2d, nn.MaxPool2d, nn.BatchNorm2d, nn.InstanceNorm2d, nn.Dropout2d, "bilinear"),
    3: Layers(
        nn.Conv3d, nn.ConvTranspose3d, nn.MaxPool3d, nn.BatchNorm3d, nn.InstanceNorm3d, nn.Dropout3d, "trilinear"
    ),
}

NORMS = ("group", "instance", "batch")
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "leaky_relu": nn.LeakyReLU}


def layers(spatial_dims: int) -> Layers:
    """The layer classes for 2 or 3 dimensions.

    Raises:
        ValueError: any other number.
    """
    if spatial_dims not in LAYERS:
        raise ValueError(f"spatial_dims is {spatial_dims}; it must be 2 (slices) or 3 (volumes)")
    return LAYERS[spatial_dims]


class HalvingMaxPool3d(nn.MaxPool3d):
    """The largest of every 2 x 2 x 2 voxels: ``(N, C, *spatial)``, even sides, to half of each side.

    Where nothing is learned the axes are halved one by one: torch's own pooling copies a volume in ``channels_last_3d``
    on a CPU, a tenth of a U-Net's time. Where gradients flow, its indices are cheaper to keep than the halves.
    """

    def __init__(self) -> None:
        super().__init__(kernel_size=2)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            return F.max_pool3d(x, 2)
        x = torch.maximum(x[:, :, 0::2], x[:, :, 1::2])
        x = torch.maximum(x[:, :, :, 0::2], x[:, :, :, 1::2])
        return torch.maximum(x[:, :, :, :, 0::2], x[:, :, :, :, 1::2])


def halving_max_pool(spatial_dims: int) -> nn.Module:
    """The pooling of the U-Nets: the largest of 2 x 2 pixels, or of 2 x 2 x 2 voxels."""
    return nn.MaxPool2d(kernel_size=2) if spatial_dims == 2 else HalvingMaxPool3d()


def make_norm(name: str, *, spatial_dims: int, channels: int, groups: int = 8) -> nn.Module:
    """A normalisation layer by name: ``group`` (Wu 2018), ``instance`` (Ulyanov 2016) or ``batch`` (Ioffe 2015).

    Raises:
        ValueError: unknown name, or ``channels`` not divisible by ``groups`` for group norm.
    """
    if name == "batch":
        return layers(spatial_dims).batch_norm(channels)
    if name == "instance":
        return layers(spatial_dims).instance_norm(channels, affine=True)
    if name == "group":
        if channels % groups:
            raise ValueError(
                f"{channels} features cannot be split into {groups} groups; choose widths divisible by {groups}, "
                "or norm='instance' or 'batch'"
            )
        return nn.GroupNorm(groups, channels)
    raise ValueError(f"norm is {name!r}; known: {', '.join(NORMS)}")


def make_activation(name: str) -> nn.Module:
    """An activation by name, in place.

    Raises:
        ValueError: unknown name.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"activation is {name!r}; known: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name](inplace=True)


def initialise(module: nn.Module) -> None:
    """He initialisation (He et al. 2015, arXiv:1502.01852) for rectified convolutions; use with ``Module.apply``.

    Normal with variance 2 / fan-in, biases zero, so that the variance of activations stays level through the depth.
    """
    if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.ConvTranspose3d):
        # A transposed convolution with kernel = stride gives each output voxel one tap per input channel.
        transposed = isinstance(module, nn.ConvTranspose2d | nn.ConvTranspose3d)
        taps = 1 if transposed else module.weight[0, 0].numel()
        fan_in = module.in_channels // module.groups * taps
        gain = 1.0 if transposed else 2.0
        nn.init.normal_(module.weight, std=(gain / fan_in) ** 0.5)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


@torch.no_grad()
def halve_variance(linear: nn.Module) -> None:
    """Undo the factor 2 of He's initialisation, which makes up for a rectifier that these convolutions do not have."""
    for module in linear.modules():
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            module.weight.div_(2**0.5)


def feature_widths(features: int | Sequence[int], depth: int) -> tuple[int, ...]:
    """Widths of the ``depth + 1`` levels: given as they are, or doubling from the first.

    Raises:
        ValueError: depth below 1, a sequence whose length is not ``depth + 1``, or a number that is not whole.
    """
    if not isinstance(depth, Integral):
        raise ValueError(f"depth is {depth}; it counts the poolings and must be a whole number")
    check_whole(features)
    if depth < 1:
        raise ValueError(f"depth is {depth}; it counts the poolings and must be at least 1")
    if isinstance(features, Iterable):
        widths = tuple(features)
    else:
        widths = tuple(features * 2**level for level in range(depth + 1))
    if len(widths) != depth + 1:
        raise ValueError(f"features has {len(widths)} widths; depth {depth} needs {depth + 1} (one more than poolings)")
    if min(widths) < 1:
        raise ValueError(f"features is {features}; every width must be at least 1")
    return widths


def check_whole(features: int | Sequence[int]) -> None:
    """Refuse a width, or one of several, that counts no channels.

    Raises:
        ValueError: it is not a whole number.
    """
    if isinstance(features, Iterable):
        if not all(isinstance(width, Integral) for width in features):
            raise ValueError(f"features is {features}; every width must be a whole number")
    elif not isinstance(features, Integral):
        raise ValueError(f"features is {features}; it must be a whole number of channels, or one for each level")


def check_channels(**channels: int) -> None:
    """Refuse a number of channels that is none.

    Raises:
        ValueError: it is below 1 or not whole; the message names the argument.
    """
    for name, number in channels.items():
        if not isinstance(number, Integral):
            raise ValueError(f"{name} is {number}; it must be a whole number")
        if number < 1:
            raise ValueError(f"{name} is {number}; it must be at least 1")


def check_image(image: Tensor, *, channels: int, spatial_dims: int, stride: int, norm: str, training: bool) -> None:
    """Refuse an input that the network cannot take.

    Args:
        image: what came.
        channels: of the network's input.
        spatial_dims: of the network.
        stride: between the image's grid and the coarsest one.
        norm: on the coarsest grid, where instance norm needs more than one voxel, and batch norm more than one in the
            batch while ``training``.
        training: whether the network is in train mode.

    Raises:
        ValueError: wrong number of axes or channels, or a side that is no multiple of ``stride``, or too small for the
            norm; the message names the next good size.
    """
    if not torch.jit.is_scripting():  # TorchScript and ONNX leave it out
        _check_image(image, channels, spatial_dims, stride, norm, training)


def _check_image(image: Tensor, channels: int, spatial_dims: int, stride: int, norm: str, training: bool) -> None:
    if torch.compiler.is_exporting():
        return
    if image.dim() != spatial_dims + 2:
        raise ValueError(
            f"input of shape {tuple(image.shape)} has {image.dim()} axes; needed: (N, C, *spatial) with {spatial_dims} "
            "spatial axes"
        )
    if image.shape[1] != channels:
        raise ValueError(f"input has {image.shape[1]} channels; this network was built for {channels}")
    sides = tuple(image.shape[2:])
    alone = norm == "instance" or (norm == "batch" and training and image.shape[0] == 1)
    if any(side % stride or side < stride for side in sides):
        good = tuple(max(stride, -(-side // stride) * stride) for side in sides)
        if alone and all(side == stride for side in good):
            good = (2 * stride,) * spatial_dims
        raise ValueError(f"spatial size {sides} must be a multiple of {stride} in every axis; pad to {good}")
    if alone and all(side == stride for side in sides):
        raise ValueError(
            f"spatial size {sides} leaves {norm} norm a single voxel on the coarsest level; pad to "
            f"{(2 * stride,) * spatial_dims}, or use norm='group'"
        )


def resize(x: Tensor, size: list[int]) -> Tensor:
    """Linear interpolation of ``(N, C, *spatial)`` to ``(N, C, *size)``, voxel centres aligned with voxel centres."""
    mode = "bilinear" if x.dim() == 4 else "trilinear"
    return F.interpolate(x, size=size, mode=mode, align_corners=False)


def logit_heads(spatial_dims: int, widths: Sequence[int], out_channels: int) -> nn.ModuleList:
    """One 1x1(x1) convolution per width, to ``out_channels`` logits."""
    heads = nn.ModuleList(layers(spatial_dims).conv(width, out_channels, kernel_size=1) for width in widths)
    heads.apply(initialise)
    return heads
