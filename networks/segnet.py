"""SegNet in two or three dimensions.

Badrinarayanan, Kendall and Cipolla, SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image Segmentation,
IEEE TPAMI 2017, arXiv:1511.00561. The layout ``vgg16`` is the paper's; its encoder is that of
Simonyan and Zisserman 2015, arXiv:1409.1556.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from numbers import Integral

import torch
from torch import Tensor, nn

from networks.layers import (
    check_channels,
    check_image,
    check_whole,
    feature_widths,
    initialise,
    layers,
    logit_heads,
    make_activation,
    make_norm,
)

VGG16 = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
"""Width and number of convolutions of each stage."""

MAXIMUM_GAIN = 1.5
"""Mean square of window maxima over that of the features they came from: 1.4 to 3 for He-initialised features of noise
and of smoothed noise, less what zero padding takes at the coarse levels."""


def unpool(x: Tensor, indices: Tensor, size: list[int]) -> Tensor:
    """Put every value back where its maximum was; everything else is 0.

        x  5 7    indices  2 5    size [6]   =>   0 0 5 0 0 7

    One path for training, inference and export: ``MaxUnpool`` has no deterministic form. Windows that do not overlap
    give every value a place of its own, so the scatter never collides.

    Args:
        x: pooled features, ``(N, C, *pooled)``.
        indices: as max pooling returns them, ``(N, C, *pooled)``: positions in the flattened ``size``.
        size: spatial size before the pooling.
    """
    voxels = 1
    for side in size:
        voxels = voxels * side
    flat = x.new_zeros([x.shape[0], x.shape[1], voxels])
    flat.scatter_(2, indices.flatten(2), x.flatten(2))
    return flat.view(list(x.shape[:2]) + size)


class ConvStage(nn.Sequential):
    """3x3(x3) convolutions from width to width, each normalised and rectified; the norm's shift replaces the bias."""

    def __init__(self, spatial_dims: int, widths: Sequence[int], norm: str, activation: str) -> None:
        steps: list[nn.Module] = []
        for narrow, wide in itertools.pairwise(widths):
            steps += [
                layers(spatial_dims).conv(narrow, wide, kernel_size=3, padding=1, bias=False),
                make_norm(norm, spatial_dims=spatial_dims, channels=wide),
                make_activation(activation),
            ]
        super().__init__(*steps)


def stages_of(
    layout: str, *, spatial_dims: int, depth: int | None, features: int | Sequence[int] | None
) -> tuple[tuple[int, int], ...]:
    """Width and number of convolutions of each encoder stage, finest first.

    Raises:
        ValueError: unknown layout, ``vgg16`` with a depth or widths of one's own, or numbers that do not fit together
            or are not whole.
    """
    if layout == "vgg16":
        if depth is not None or features is not None:
            raise ValueError(f"layout 'vgg16' has its own widths; leave out depth ({depth}) and features ({features})")
        return VGG16
    if layout != "doubling":
        raise ValueError(f"layout is {layout!r}; known: doubling, vgg16")
    depth = 4 if depth is None else depth
    features = {2: 32, 3: 16}[spatial_dims] if features is None else features
    if not isinstance(features, Iterable) or not isinstance(depth, Integral) or depth < 1:
        return tuple((width, 2) for width in feature_widths(features, depth)[:-1])  # the last would be a bottleneck's
    check_whole(features)
    if len(features) != depth:
        raise ValueError(f"features has {len(features)} widths; depth {depth} needs {depth} (one per pooling)")
    if min(features) < 1:
        raise ValueError(f"features is {features}; every width must be at least 1")
    return tuple((width, 2) for width in features)


def scale_first(stage: nn.Module, factor: float) -> None:
    """Multiply the variance of the weights of a stage's first convolution."""
    with torch.no_grad():
        stage.get_parameter("0.weight").mul_(factor**0.5)


class SegNet(nn.Module):
    """Remember where each maximum was, and put it back there; nothing else crosses from encoder to decoder.

    The decoder knows where the strongest responses of each level were, not what stood between them.

    Args:
        spatial_dims: 2 or 3.
        in_channels: number of modalities.
        out_channels: number of regions; one logit each.
        layout: ``doubling`` (``depth`` stages of two convolutions) or ``vgg16`` (the paper's: 13 convolutions in five
            stages, and 13 back). Each stage ends in a pooling, and the decoder begins by undoing the last one: there
            is no bottleneck between them.
        depth: number of stages, so of poolings, of ``doubling``. Default 4.
        features: width of the first stage (doubling with each stage), or ``depth`` widths. Default 32 in two
            dimensions, 16 in three.
        norm: ``group`` (8 groups; right for small batches), ``instance`` or ``batch`` (the paper's).
        activation: ``relu`` or ``leaky_relu``.

    Shape:
        ``(N, in_channels, *spatial)`` to ``(N, out_channels, *spatial)``; each side a multiple of ``2 ** depth``
        (32 for ``vgg16``).

    Raises:
        ValueError: an argument outside these choices, or an input that does not fit; the message says what would.
    """

    def __init__(
        self,
        *,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        layout: str = "doubling",
        depth: int | None = None,
        features: int | Sequence[int] | None = None,
        norm: str = "group",
        activation: str = "relu",
    ) -> None:
        super().__init__()
        dims = layers(spatial_dims)
        stages = stages_of(layout, spatial_dims=spatial_dims, depth=depth, features=features)
        widths = tuple(width for width, _ in stages)
        check_channels(in_channels=in_channels, out_channels=out_channels)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.spatial_dims = spatial_dims
        self.stride = 2 ** len(stages)
        self.deep_widths = widths[:-1]

        self.encoder = nn.ModuleList(
            ConvStage(spatial_dims, (before, *(width,) * count), norm, activation)
            for before, (width, count) in zip((in_channels, *widths[:-1]), stages, strict=True)
        )
        self.pool = dims.max_pool(kernel_size=2, return_indices=True)
        # A stage of the decoder works at its encoder's width; its last convolution narrows to the next stage's.
        self.decoder = nn.ModuleList(
            ConvStage(spatial_dims, (*(width,) * count, after), norm, activation)
            for after, (width, count) in reversed(list(zip((widths[0], *widths[:-1]), stages, strict=True)))
        )
        self.head = dims.conv(widths[0], out_channels, kernel_size=1)
        self.apply(initialise)
        # He's rule keeps the mean square through a convolution. Pooling raises it, unpooling divides it by 2 ** dims;
        # the convolution behind makes up for each.
        for stage in self.encoder[1:]:
            scale_first(stage, 1 / MAXIMUM_GAIN)
        for stage in self.decoder:
            scale_first(stage, 2.0**spatial_dims)

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
            norm="",  # every norm stands in front of the last pooling and sees two voxels a side at least
            training=self.training,
        )
        maxima: list[Tensor] = []
        sizes: list[list[int]] = []
        x = image
        for stage in self.encoder:
            x = stage(x)  # (N, width, *spatial / 2 ** level)
            sizes.append(list(x.shape[2:]))
            x, indices = self.pool(x)
            maxima.append(indices)
        decoded: list[Tensor] = []
        for stage in self.decoder:
            x = stage(unpool(x, maxima.pop(), sizes.pop()))
            decoded.insert(0, x)
        return decoded

    def deep_heads(self) -> nn.ModuleList:
        """New heads for the coarser levels of :meth:`decoder_features`, for deep supervision."""
        return logit_heads(self.spatial_dims, self.deep_widths, self.out_channels)
