"""The blocks that the U-Net and its relatives share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from networks.layers import layers, make_activation, make_norm


class ConvBlock(nn.Sequential):
    """Two 3x3(x3) convolutions, each normalised and rectified; the norm's shift replaces the bias."""

    def __init__(
        self, spatial_dims: int, in_channels: int, out_channels: int, norm: str, activation: str, dropout: float
    ) -> None:
        steps: list[nn.Module] = []
        for channels in (in_channels, out_channels):
            steps += [
                layers(spatial_dims).conv(channels, out_channels, kernel_size=3, padding=1, bias=False),
                make_norm(norm, spatial_dims=spatial_dims, channels=out_channels),
                make_activation(activation),
            ]
        if dropout:
            steps.append(layers(spatial_dims).dropout(dropout))
        super().__init__(*steps)


def upsampling(name: str, *, spatial_dims: int, in_channels: int, out_channels: int) -> nn.Module:
    """Double the sides: ``transposed`` convolution, or ``interpolate`` (linear, then 1x1 convolution).

    Raises:
        ValueError: unknown name.
    """
    dims = layers(spatial_dims)
    if name == "transposed":
        return dims.conv_transpose(in_channels, out_channels, kernel_size=2, stride=2)
    if name == "interpolate":
        return nn.Sequential(
            nn.Upsample(scale_factor=2, mode=dims.interpolation, align_corners=False),
            dims.conv(in_channels, out_channels, kernel_size=1),
        )
    raise ValueError(f"upsample is {name!r}; known: transposed, interpolate")


class UpBlock(nn.Module):
    """Double the resolution, join the encoder's features of that level, refine."""

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
        self.block = ConvBlock(spatial_dims, 2 * out_channels, out_channels, norm, activation, dropout)

    def forward(self, deep: Tensor, skip: Tensor) -> Tensor:
        joined: Tensor = self.block(torch.cat([self.up(deep), skip], dim=1))
        return joined
