"""PSPNet in two or three dimensions.

Zhao et al., Pyramid Scene Parsing Network, CVPR 2017, arXiv:1612.01105.
"""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from pathlib import Path

import torch
from torch import Tensor, nn

from networks.backbones import ResidualEncoder, conv_norm
from networks.imagenet import load_imagenet
from networks.layers import check_channels, check_image, initialise, layers, resize

BINS = (1, 2, 3, 6)


def bin_shares(length: int, bins: int, like: Tensor) -> Tensor:
    """What each voxel of an axis gives to the mean of each of ``bins`` equal parts: ``(bins, length)``.

    Bin ``i`` holds the voxels that touch ``[i / bins, (i + 1) / bins]`` of the axis, as adaptive average pooling does,
    so parts overlap in the voxels that they share. Device and type are those of ``like``.

        4 voxels, 3 bins   =>   1/2 1/2  0   0
                                 0  1/2 1/2  0
                                 0   0  1/2 1/2
    """
    voxel = torch.arange(length, device=like.device)
    number = torch.arange(bins, device=like.device).unsqueeze(1)
    inside = ((voxel + 1) * bins > number * length) & (voxel * bins < (number + 1) * length)
    share = inside.to(like.dtype)
    return share / share.sum(dim=1, keepdim=True)


def axis_means(x: Tensor, axis: int, share: Tensor) -> Tensor:
    """Weighted sums along one axis, neither the first nor the last, by shares ``(bins, length)``."""
    rows = x.flatten(0, axis - 1).flatten(2)  # (before, length, behind)
    summed = torch.bmm(share.expand(rows.shape[0], -1, -1), rows)
    return summed.view(list(x.shape[:axis]) + list(share.shape[:1]) + list(x.shape[axis + 1 :]))


def bin_means(x: Tensor, bins: list[int]) -> list[Tensor]:
    """Means over ``bins`` equal parts of every axis, for several numbers of bins at once.

    Products with :func:`bin_shares`, because those can be exported for any size and are summed in one order on every
    device. The voxels are read once, for all bins together, and as ``channels_last`` has them, so that such features
    need no copy.

    Args:
        x: ``(N, C, *spatial)``.
        bins: numbers of parts.

    Returns:
        One ``(N, C, count, ...)`` for each count in ``bins``, in ``channels_last``.
    """
    voxels = x.movedim(1, -1)  # (N, *spatial, C)
    slabs = axis_means(voxels, 1, torch.cat([bin_shares(x.shape[2], count, x) for count in bins]))
    found: list[Tensor] = []
    for count, slab in zip(bins, torch.split(slabs, bins, dim=1)):  # noqa: B905  TorchScript knows no strict
        means = slab  # (N, count, *spatial[1:], C)
        for axis in range(2, x.dim() - 1):
            means = axis_means(means, axis, bin_shares(x.shape[axis + 1], count, x))
        found.append(means.movedim(-1, 1))
    return found


class PooledBranch(nn.Module):
    """The scene at one scale: a 1x1(x1) convolution of the means over parts of every axis, and back to the grid.

    It has no norm: a single bin a case leaves nothing to normalise over.
    """

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = layers(spatial_dims).conv(in_channels, out_channels, kernel_size=1)
        self.activation = nn.ReLU(inplace=True)

    def forward(self, means: Tensor, size: list[int]) -> Tensor:
        return resize(self.activation(self.conv(means)), size)


class PyramidPooling(nn.Module):
    """Each voxel's features, joined by what surrounds them at several scales.

    Raises:
        ValueError: more scales than channels, which are shared out among them.
    """

    def __init__(self, spatial_dims: int, channels: int, bins: Sequence[int]) -> None:
        super().__init__()
        if len(bins) > channels:
            raise ValueError(
                f"bins has {len(bins)} scales, and the encoder {channels} features to share out among them; give at "
                f"most {channels} scales, or more features"
            )
        self.bins = list(bins)
        self.branches = nn.ModuleList(PooledBranch(spatial_dims, channels, channels // len(bins)) for _ in bins)

    def forward(self, x: Tensor) -> Tensor:
        means = bin_means(x, self.bins)
        joined = [x]
        for number, branch in enumerate(self.branches):
            joined.append(branch(means[number], list(x.shape[2:])))
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
        if not bins or not all(isinstance(count, Integral) and count >= 1 for count in bins):
            raise ValueError(
                f"bins is {tuple(bins)}; give one number of parts or more, each at least 1 and whole, such as {BINS}"
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
        """A new head for the third stage, the paper's auxiliary classifier; its loss is for training only.

        The paper weighs that loss 0.4 and always has it; the bundles weigh it 1/2, as the second level of every network
        (:class:`networks.DeepSupervision`), and leave it out unless ``deep_supervision`` is true.
        """
        width = self.encoder.widths[2]
        head = nn.Sequential(
            *classifying(self.spatial_dims, width, width // 4, self.norm, self.dropout),
            layers(self.spatial_dims).conv(width // 4, self.out_channels, kernel_size=1),
        )
        return nn.ModuleList([head.apply(initialise)])
