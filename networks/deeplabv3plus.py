"""DeepLabv3+ in two or three dimensions.

Chen et al., Encoder-Decoder with Atrous Separable Convolution for Semantic Image Segmentation, ECCV 2018,
arXiv:1802.02611.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from networks.backbones import ResidualEncoder, conv_norm
from networks.imagenet import load_imagenet
from networks.layers import check_channels, check_image, initialise, layers, make_norm, resize


class DepthwiseConv3d(nn.Conv3d):
    """A 3x3x3 convolution of each channel by itself, which a CPU trains in float32 whatever autocast says.

    Backward on fine grids bfloat16 takes two to four times as long there; forward it is faster, so inference keeps it.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not torch.jit.is_scripting():  # noqa: SIM102  TorchScript leaves out a branch, not half of a condition
            if self.training and input.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
                with torch.autocast("cpu", enabled=False):
                    exact: Tensor = self._conv_forward(input.float(), self.weight, self.bias)
                    return exact.to(input.dtype)
        found: Tensor = self._conv_forward(input, self.weight, self.bias)
        return found


def separable(spatial_dims: int, in_channels: int, out_channels: int, norm: str, *, dilation: int = 1) -> nn.Sequential:
    """A 3x3(x3) convolution of each channel by itself, then one across channels; normalised and rectified once."""
    dims = layers(spatial_dims)
    each = (nn.Conv2d if spatial_dims == 2 else DepthwiseConv3d)(
        in_channels,
        in_channels,
        kernel_size=3,
        padding=dilation,
        dilation=dilation,
        groups=in_channels,
        bias=False,
    )
    across = dims.conv(in_channels, out_channels, kernel_size=1, bias=False)
    initialise(each)
    initialise(across)
    with torch.no_grad():
        each.weight.div_(2**0.5)  # it is not rectified, and keeps the variance with half of He's
    return nn.Sequential(
        each, across, make_norm(norm, spatial_dims=spatial_dims, channels=out_channels), nn.ReLU(inplace=True)
    )


def pointwise(spatial_dims: int, in_channels: int, out_channels: int, norm: str) -> nn.Sequential:
    """A 1x1(x1) convolution, normalised and rectified."""
    block = nn.Sequential(*conv_norm(spatial_dims, in_channels, out_channels, norm, kernel=1), nn.ReLU(inplace=True))
    return block.apply(initialise)


class AtrousPyramid(nn.Module):
    """Look around each voxel at several distances, and at the image as a whole (ASPP).

    The mean over the image has no norm: one voxel a case leaves nothing to normalise over.
    """

    def __init__(
        self, spatial_dims: int, in_channels: int, out_channels: int, norm: str, rates: Sequence[int], dropout: float
    ) -> None:
        super().__init__()
        dims = layers(spatial_dims)
        self.branches = nn.ModuleList([pointwise(spatial_dims, in_channels, out_channels, norm)])
        for rate in rates:
            self.branches.append(separable(spatial_dims, in_channels, out_channels, norm, dilation=rate))
        self.whole = nn.Sequential(dims.conv(in_channels, out_channels, kernel_size=1), nn.ReLU(inplace=True))
        self.whole.apply(initialise)
        self.join = nn.Sequential(
            *pointwise(spatial_dims, (2 + len(rates)) * out_channels, out_channels, norm),
            *([dims.dropout(dropout)] if dropout else []),
        )

    def forward(self, x: Tensor) -> Tensor:
        seen = [branch(x) for branch in self.branches]
        mean = x.mean(dim=list(range(2, x.dim())), keepdim=True)  # (N, C, 1, 1) or (N, C, 1, 1, 1)
        seen.append(self.whole(mean).expand_as(seen[0]))
        joined: Tensor = self.join(torch.cat(seen, dim=1))
        return joined


class DeepLabV3Plus(nn.Module):
    """Decide on a coarse grid with a wide view, then draw the outline from the encoder's finer features.

    Widths follow the encoder's: the decoder has four times the stem's, and the fine features 48 parts of 256 of that,
    as in the paper, rounded up to whole groups of 8.

    Args:
        spatial_dims: 2 or 3.
        in_channels: number of modalities.
        out_channels: number of regions; one logit each.
        backbone: ``resnet18``, ``resnet34`` or ``resnet50``.
        features: width of the encoder's stem. Default 64 in two dimensions, as the ImageNet weights have, 16 in three.
        norm: ``batch``, ``group`` (8 groups) or ``instance``. Default batch in two dimensions, as the ImageNet weights
            have, group in three, where batches are small.
        output_stride: 8 or 16, between the image's grid and the coarse one. Default 16 in two dimensions, 8 in three.
        rates: dilations at output stride 16; doubled at 8. Default 6, 12 and 18 in two dimensions, as in the paper,
            1, 2 and 3 in three: a patch of 64 voxels a side is a coarse grid of 8, where wider ones reach only padding.
        dropout: probability that a feature map of the joined pyramid, or of the decoder, is zeroed.
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
        output_stride: int | None = None,
        rates: Sequence[int] | None = None,
        dropout: float = 0.1,
        encoder_weights: str | Path | None = None,
    ) -> None:
        super().__init__()
        dims = layers(spatial_dims)
        first = features if features is not None else {2: 64, 3: 16}[spatial_dims]
        norm = norm if norm is not None else {2: "batch", 3: "group"}[spatial_dims]
        self.stride = output_stride if output_stride is not None else {2: 16, 3: 8}[spatial_dims]
        check_channels(in_channels=in_channels, out_channels=out_channels)
        self.norm = norm
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.spatial_dims = spatial_dims

        self.encoder = ResidualEncoder(
            spatial_dims=spatial_dims,
            in_channels=in_channels,
            layout=backbone,
            features=first,
            norm=norm,
            output_stride=self.stride,
        )
        at_16 = tuple(rates) if rates is not None else {2: (6, 12, 18), 3: (1, 2, 3)}[spatial_dims]
        if not at_16 or min(at_16) < 1:
            raise ValueError(f"rates is {at_16}; give one dilation or more, each at least 1, such as (6, 12, 18)")
        width = 4 * first
        narrow = -(-48 * width // 256 // 8) * 8
        self.pyramid = AtrousPyramid(
            spatial_dims, self.encoder.widths[-1], width, norm, [rate * 16 // self.stride for rate in at_16], dropout
        )
        self.detail = pointwise(spatial_dims, self.encoder.widths[0], narrow, norm)
        self.refine = nn.Sequential(
            *separable(spatial_dims, width + narrow, width, norm),
            *separable(spatial_dims, width, width, norm),
            *([dims.dropout(dropout)] if dropout else []),
        )
        self.head = dims.conv(width, out_channels, kernel_size=1)
        self.head.apply(initialise)
        if encoder_weights is not None:
            load_imagenet(self.encoder, encoder_weights)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.head(self.decoder_features(image)[0])
        return resize(logits.contiguous(), list(image.shape[2:]))  # few channels: not the layout for many

    def decoder_features(self, image: Tensor) -> list[Tensor]:
        """The refined features, alone in the list: ``(N, 4 * features, *spatial / 4)``."""
        check_image(
            image,
            channels=self.in_channels,
            spatial_dims=self.spatial_dims,
            stride=self.stride,
            norm=self.norm,
            training=self.training,
        )
        found = self.encoder(image)
        detail = self.detail(found[0])  # (N, narrow, *spatial / 4)
        scene = resize(self.pyramid(found[-1]), list(detail.shape[2:]))  # from *spatial / output_stride
        return [self.refine(torch.cat([scene, detail], dim=1))]

    def deep_heads(self) -> nn.ModuleList:
        """None: there are no coarser features than those of the one decoder stage."""
        return nn.ModuleList()
