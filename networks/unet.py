"""U-Net in two or three dimensions.

Ronneberger et al., U-Net: Convolutional Networks for Biomedical Image Segmentation, MICCAI 2015, arXiv:1505.04597.
Cicek et al., 3D U-Net: Learning Dense Volumetric Segmentation from Sparse Annotation, MICCAI 2016, arXiv:1606.06650.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from networks.blocks import ConvBlock, UpBlock
from networks.layers import (
    check_channels,
    check_image,
    feature_widths,
    halve_variance,
    halving_max_pool,
    initialise,
    layers,
    logit_heads,
)


class UNet(nn.Module):
    """Contract to see what, expand to see where, and hand each level's detail across.

    Args:
        spatial_dims: 2 or 3.
        in_channels: number of modalities.
        out_channels: number of regions; one logit each.
        depth: number of poolings.
        features: width of the first level (doubling with each pooling), or ``depth + 1`` widths. Default 32 in two
            dimensions, 16 in three.
        norm: ``group`` (8 groups; right for small batches), ``instance`` or ``batch``.
        activation: ``relu`` or ``leaky_relu``.
        dropout: probability that a feature map is zeroed after each block.
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

        self.encoder = nn.ModuleList(
            ConvBlock(spatial_dims, narrow, wide, norm, activation, dropout)
            for narrow, wide in zip((in_channels, *widths[:-2]), widths[:-1], strict=True)
        )
        self.pool = halving_max_pool(spatial_dims)
        self.bottleneck = ConvBlock(spatial_dims, widths[-2], widths[-1], norm, activation, dropout)
        self.decoder = nn.ModuleList(
            UpBlock(spatial_dims, wide, narrow, norm, activation, dropout, upsample)
            for wide, narrow in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.head = dims.conv(widths[0], out_channels, kernel_size=1)
        self.apply(initialise)
        for module in self.modules():
            if isinstance(module, UpBlock):
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
        for block in self.encoder:
            x = block(x)  # (N, width, *spatial / 2 ** level)
            skips.append(x)
            x = self.pool(x)
        x = self.bottleneck(x)
        decoded: list[Tensor] = []
        for level, up in enumerate(self.decoder):
            x = up(x, skips[-1 - level])
            decoded.insert(0, x)
        return decoded

    def deep_heads(self) -> nn.ModuleList:
        """New heads for the coarser levels of :meth:`decoder_features`, for deep supervision."""
        return logit_heads(self.spatial_dims, self.deep_widths, self.out_channels)
