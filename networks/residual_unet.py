"""Residual U-Net in two or three dimensions.

Zhang et al., Road Extraction by Deep Residual U-Net, IEEE GRSL 2018, arXiv:1711.10684.
He et al., Identity Mappings in Deep Residual Networks, ECCV 2016, arXiv:1603.05027.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from networks.blocks import upsampling
from networks.layers import (
    check_channels,
    check_image,
    feature_widths,
    halve_variance,
    initialise,
    layers,
    logit_heads,
    make_activation,
    make_norm,
)


class ResidualUnit(nn.Module):
    """Add to the input what two convolutions find in it, each normalised and rectified in front (He 2016, figure 4e).

    Where stride or width changes, the shortcut is a 1x1(x1) convolution with that stride, else the identity. ``raw``
    leaves out the first norm and activation, as Zhang 2018 does where the unit reads the image.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        norm: str,
        activation: str,
        dropout: float,
        *,
        stride: int = 1,
        raw: bool = False,
    ) -> None:
        super().__init__()
        dims = layers(spatial_dims)
        before: list[nn.Module] = []
        if not raw:
            before = [make_norm(norm, spatial_dims=spatial_dims, channels=in_channels), make_activation(activation)]
        self.first = nn.Sequential(
            *before, dims.conv(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)
        )
        self.second = nn.Sequential(
            make_norm(norm, spatial_dims=spatial_dims, channels=out_channels),
            make_activation(activation),
            dims.conv(out_channels, out_channels, kernel_size=3, padding=1, bias=False),
            *([dims.dropout(dropout)] if dropout else []),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = dims.conv(in_channels, out_channels, kernel_size=1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = self.shortcut(x) + self.second(self.first(x))
        return total

    @torch.no_grad()
    def start_small(self, units: int) -> None:
        """Rescale He's initialisation for one of ``units`` in a row.

        A branch adds 1 / units of its input's variance, so that all of them together multiply it by less than e.
        """
        self.second[2].get_parameter("weight").div_(units**0.5)
        halve_variance(self.shortcut)


class ResidualUpBlock(nn.Module):
    """Double the resolution, join the encoder's features of that level, refine by a residual unit."""

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        norm: str,
        activation: str,
        dropout: float,
        upsample: str,
    ) -> None:
        super().__init__()
        self.up = upsampling(upsample, spatial_dims=spatial_dims, in_channels=in_channels, out_channels=out_channels)
        self.unit = ResidualUnit(spatial_dims, 2 * out_channels, out_channels, norm, activation, dropout)

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        joined: Tensor = self.unit(torch.cat([self.up(deep), skip], dim=1))
        return joined


class ResidualUNet(nn.Module):
    """A U-Net whose blocks correct what they are given, so that a deep one is as easy to start as a shallow one.

    As in Zhang 2018, strided residual units take the place of pooling and no norm stands in front of the head.

    Args:
        spatial_dims: 2 or 3.
        in_channels: number of modalities.
        out_channels: number of regions; one logit each.
        depth: number of strided units.
        features: width of the first level (doubling with each strided unit), or ``depth + 1`` widths. Default 32 in
            two dimensions, 16 in three.
        norm: ``group`` (8 groups; right for small batches), ``instance`` or ``batch``.
        activation: ``relu`` or ``leaky_relu``.
        dropout: probability that a feature map of a residual branch is zeroed; what is carried on is never dropped.
        upsample: ``transposed`` convolution or ``interpolate`` (linear, then 1x1 convolution).

    Shape:
        ``(N, in_channels, *spatial)`` to ``(N, out_channels, *spatial)``; each side a multiple of ``2 ** depth``.

    Raises:
        ValueError: an argument outside these choices, or an input that does not fit; the message says what would.
    """

    def __init__(
        self,
        *,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        depth: int = 4,
        features: int | Sequence[int] | None = None,
        norm: str = "group",
        activation: str = "leaky_relu",
        dropout: float = 0.0,
        upsample: str = "transposed",
    ) -> None:
        super().__init__()
        check_channels(in_channels=in_channels, out_channels=out_channels)
        dims = layers(spatial_dims)
        first = features if features is not None else {2: 32, 3: 16}[spatial_dims]
        widths = feature_widths(first, depth)
        self.norm = norm
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.spatial_dims = spatial_dims
        self.stride = 2**depth
        self.deep_widths = widths[1:-1]

        entry = ResidualUnit(spatial_dims, in_channels, widths[0], norm, activation, dropout, raw=True)
        strided = [
            ResidualUnit(spatial_dims, narrow, wide, norm, activation, dropout, stride=2)
            for narrow, wide in itertools.pairwise(widths)
        ]
        self.encoder = nn.ModuleList([entry, *strided[:-1]])
        self.bottleneck = strided[-1]
        self.decoder = nn.ModuleList(
            ResidualUpBlock(spatial_dims, wide, narrow, norm, activation, dropout, upsample)
            for wide, narrow in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.head = dims.conv(widths[0], out_channels, kernel_size=1)

        self.apply(initialise)
        for module in self.modules():
            if isinstance(module, ResidualUnit):
                module.start_small(2 * depth + 1)
            elif isinstance(module, ResidualUpBlock):
                halve_variance(module.up)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.head(self.decoder_features(image)[0])
        return logits

    def decoder_features(self, image: Tensor) -> list[Tensor]:
        """What the decoder makes of each level, finest first: ``(N, width, *spatial / 2 ** level)``."""
        check_image(
            image,
            channels=self.in_channels,
            spatial_dims=self.spatial_dims,
            stride=self.stride,
            norm=self.norm,
            training=self.training,
        )
        skips: list[Tensor] = []
        x = image
        for unit in self.encoder:
            x = unit(x)  # (N, width, *spatial / 2 ** level)
            skips.append(x)
        x = self.bottleneck(x)
        decoded: list[Tensor] = []
        for level, up in enumerate(self.decoder):
            x = up(x, skips[-1 - level])
            decoded.insert(0, x)
        return decoded

    def deep_heads(self) -> nn.ModuleList:
        """New heads for the coarser levels of :meth:`decoder_features`, for deep supervision."""
        return logit_heads(self.spatial_dims, self.deep_widths, self.out_channels)
