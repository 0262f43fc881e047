"""PSPNet in two or three dimensions.

Zhao et al., Pyramid Scene Parsing Network, CVPR 2017, arXiv:1612.01105.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from networks.backbones import ResidualEncoder, conv_norm
from networks.imagenet import load_imagenet
from networks.layers import check_channels, check_image, initialise, layers, resize

BINS = (1, 2, 3, 6)


def bin_means(x: Tensor, axis: int, bins: int) -> Tensor:
    """Means along one axis over ``bins`` equal parts, which overlap in the voxels that they share.

    Bin ``i`` holds the voxels that touch ``[i / bins, (i + 1) / bins]`` of the axis, as adaptive average pooling does;
    a product, because that can be exported for any size and summed in one order on every device.

        4 voxels, 3 bins   =>   1/2 1/2  0   0
                                 0  1/2 1/2  0
                                 0   0  1/2 1/2
    """
    length = x.shape[axis]
    voxel = torch.arange(length, device=x.device).unsqueeze(1)
    number = torch.arange(bins, device=x.device)
    inside = ((voxel + 1) * bins > number * length) & (voxel * bins < (number + 1) * length)
    share = inside.to(x.dtype)
    return torch.matmul(x.transpose(axis, -1), share / share.sum(dim=0)).transpose(axis, -1)


class PooledBranch(nn.Module):
    """The scene at one scale: means over ``bins`` parts of every axis, a 1x1(x1) convolution, and back to the grid.

    It has no norm: a single bin a case leaves nothing to normalise over.
    """

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int, bins: int) -> None:
        super().__init__()
        self.bins = bins
        self.conv = layers(spatial_dims).conv(in_channels, out_channels, kernel_size=1)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x
        for axis in range(2, x.dim()):
            pooled = bin_means(pooled, axis, self.bins)
        scene: Tensor = self.activation(self.conv(pooled))  # bins along every axis
        if self.bins == 1:
            return scene.expand(list(scene.shape[:2]) + list(x.shape[2:]))  # nothing to interpolate
        return resize(scene, list(x.shape[2:]))


class PyramidPooling(nn.Module):
    """Each voxel's features, joined by what surrounds them at several scales."""

    def __init__(self, spatial_dims: int, channels: int, bins: Sequence[int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            PooledBranch(spatial_dims, channels, channels // len(bins), count) for count in bins
        )

    def forward(self, x: Tensor) -> Tensor:
        joined = [branch(x) for branch in self.branches]
        joined.insert(0, x)
        return torch.cat(joined, dim=1)  # (N, 2 * channels, *)


def classifying(spatial_dims: int, in_channels: int, out_channels: int, norm: str, dropout: float) -> nn.Sequential:
    """What stands in front of a head: a 3x3(x3) convolution, normalised and rectified, and dropout."""
    return nn.Sequential(
        *conv_norm(spatial_dims, in_channels, out_channels, norm, kernel=3),
        nn.ReLU(inplace=True),
        *([layers(spatial_dims).dropout(dropout)] if dropout else []),
    )


class PSPNet(nn.Module):
    """Read the scene at several scales before naming each voxel.

    Args:
        spatial_dims: 2 or 3.
        in_channels: number of modalities.
        out_channels: number of regions; one logit each.
        backbone: ``resnet18``, ``resnet34`` or ``resnet50``.
        features: width of the encoder's stem. Default 64 in two dimensions, as the ImageNet weights have, 16 in three.
        norm: ``batch``, ``group`` (8 groups) or ``instance``. Default batch in two dimensions, as the ImageNet weights
            have, group in three, where batches are small.
        output_stride: 8, as in the paper, or 16, between the image's grid and the one that is classified.
        bins: parts of an axis at each scale.
        dropout: probability that a feature map in front of the head is zeroed.
        encoder_weights: file with ImageNet weights (two dimensions only), see :func:`networks.imagenet.load_imagenet`.

    Shape:
        ``(N, in_channels, *spatial)`` to ``(N, out_channels, *spatial)``; each side a multiple of ``output_stride``.

    Raises:
        ValueError: an argument outside these choices, or an input that does not fit; the message says what would.
    """

    def __init__(
        self,
        *,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        backbone: str = "resnet34",
        features: int | None = None,
        norm: str | None = None,
        output_stride: int = 8,
        bins: Sequence[int] = BINS,
        dropout: float = 0.1,
        encoder_weights: str | Path | None = None,
    ) -> None:
        super().__init__()
        dims = layers(spatial_dims)
        if not bins or min(bins) < 1:
            raise ValueError(
                f"bins is {tuple(bins)}; give one number of parts or more, each at least 1, such as {BINS}"
            )
        check_channels(in_channels=in_channels, out_channels=out_channels)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.spatial_dims = spatial_dims
        self.stride = output_stride
        self.norm = norm if norm is not None else {2: "batch", 3: "group"}[spatial_dims]
        self.dropout = dropout

        self.encoder = ResidualEncoder(
            spatial_dims=spatial_dims,
            in_channels=in_channels,
            layout=backbone,
            features=features if features is not None else {2: 64, 3: 16}[spatial_dims],
            norm=self.norm,
            output_stride=output_stride,
        )
        width = self.encoder.widths[-1]
        self.pyramid = PyramidPooling(spatial_dims, width, bins)
        self.join = classifying(spatial_dims, width + len(bins) * (width // len(bins)), width // 4, self.norm, dropout)
        self.head = dims.conv(width // 4, out_channels, kernel_size=1)
        for module in (self.pyramid, self.join, self.head):
            module.apply(initialise)
        if encoder_weights is not None:
            load_imagenet(self.encoder, encoder_weights)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.head(self.decoder_features(image)[0])
        return resize(logits.contiguous(), list(image.shape[2:]))  # few channels: not the layout for many

    def decoder_features(self, image: Tensor) -> list[Tensor]:
        """The joined scales, and the encoder's third stage: both ``(N, width, *spatial / output_stride)``."""
        check_image(
            image,
            channels=self.in_channels,
            spatial_dims=self.spatial_dims,
            stride=self.stride,
            norm=self.norm,
            training=self.training,
        )
        found = self.encoder(image)
        return [self.join(self.pyramid(found[3])), found[2]]

    def deep_heads(self) -> nn.ModuleList:
        """A new head for the third stage, the paper's auxiliary classifier; its loss is for training only."""
        width = self.encoder.widths[2]
        head = nn.Sequential(
            *classifying(self.spatial_dims, width, width // 4, self.norm, self.dropout),
            layers(self.spatial_dims).conv(width // 4, self.out_channels, kernel_size=1),
        )
        return nn.ModuleList([head.apply(initialise)])
