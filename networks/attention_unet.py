"""Attention U-Net in two or three dimensions.

Oktay et al., Attention U-Net: Learning Where to Look for the Pancreas, MIDL 2018, arXiv:1804.03999.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from networks.layers import check_image, feature_widths, initialise, layers, resize
from networks.unet import UNet


class AttentionGate(nn.Module):
    """How much of a skip connection to let through, voxel by voxel (Oktay 2018, equations 1 and 2).

    ``sigmoid(psi(relu(theta(skip) + phi(gating))))``, computed on the coarse grid of the gating signal: ``theta``
    brings the skip there with kernel = stride, the coefficients go back by linear interpolation. No norm inside: one
    coefficient per voxel leaves nothing to normalise, and the paper's equations have none.

    Args:
        spatial_dims: 2 or 3.
        skip_channels: width of the skip connection.
        gating_channels: width of the gating signal.
        inner_channels: width in which the two are added.
        stride: how many voxels of the skip lie along one voxel of the gating signal.
    """

    def __init__(
        self, *, spatial_dims: int, skip_channels: int, gating_channels: int, inner_channels: int, stride: int = 2
    ) -> None:
        super().__init__()
        conv = layers(spatial_dims).conv
        self.theta = conv(skip_channels, inner_channels, kernel_size=stride, stride=stride, bias=False)
        self.phi = conv(gating_channels, inner_channels, kernel_size=1)
        self.relu = nn.ReLU(inplace=True)
        self.psi = conv(inner_channels, 1, kernel_size=1)
        self.apply(initialise)
        # Gates start open (0.88): the decoder sees the skips at almost their own size, and the sigmoid can still learn.
        nn.init.constant_(self.psi.get_parameter("bias"), 2.0)

    def forward(self, skip: Tensor, gating: Tensor) -> Tensor:
        """Coefficients between 0 and 1: ``(N, 1, *spatial of skip)``."""
        scores: Tensor = self.psi(self.relu(self.theta(skip) + self.phi(gating)))  # (N, 1, *spatial of gating)
        return resize(scores.sigmoid(), list(skip.shape[2:]))


class AttentionUNet(UNet):
    """A U-Net that uses what it knows on the coarser level to choose what each skip connection hands across.

    As in the paper, the finest skip carries no gate: its features are still too close to the image. The gating signal
    is what the decoder made of the next coarser level, before it is up-sampled.

    Args:
        spatial_dims: 2 or 3.
        in_channels: number of modalities.
        out_channels: number of regions; one logit each.
        depth: number of poolings, at least 2.
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
        if depth == 1:
            raise ValueError("depth is 1; the finest skip carries no gate, so gates need a depth of at least 2")
        super().__init__(
            spatial_dims=spatial_dims,
            in_channels=in_channels,
            out_channels=out_channels,
            depth=depth,
            features=features,
            norm=norm,
            activation=activation,
            dropout=dropout,
            upsample=upsample,
        )
        widths = feature_widths(features if features is not None else {2: 32, 3: 16}[spatial_dims], depth)
        self.gates = nn.ModuleList(  # in the decoder's order, coarsest first
            AttentionGate(
                spatial_dims=spatial_dims, skip_channels=fine, gating_channels=coarse, inner_channels=max(1, fine // 2)
            )
            for coarse, fine in zip(widths[:1:-1], widths[-2:0:-1], strict=True)
        )

    def decoder_features(self, image: Tensor) -> list[Tensor]:
        """What the decoder makes of each level, finest first: ``(N, width, *spatial / 2 ** level)``."""
        return self._decode(image)[0]

    def attention_maps(self, image: Tensor) -> list[Tensor]:
        """The coefficients of each gate, finest first: ``(N, 1, *spatial / 2 ** level)`` from level 1 on."""
        return self._decode(image)[1]

    def _decode(self, image: Tensor) -> tuple[list[Tensor], list[Tensor]]:
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
        maps: list[Tensor] = []
        for level, (up, gate) in enumerate(zip(self.decoder, self.gates, strict=False)):  # without the finest
            skip = skips[-1 - level]
            maps.insert(0, gate(skip, x))
            x = up(x, skip * maps[0])
            decoded.insert(0, x)
        decoded.insert(0, self.decoder[-1](x, skips[0]))
        return decoded, maps
