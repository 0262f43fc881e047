"""Residual encoder in two or three dimensions, for networks that need a fine grid and a wide view at once.

He et al., Deep Residual Learning for Image Recognition, CVPR 2016, arXiv:1512.03385.
Yu and Koltun, Multi-Scale Context Aggregation by Dilated Convolutions, ICLR 2016, arXiv:1511.07122.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from networks.layers import feature_widths, initialise, layers, make_norm


class Layout(NamedTuple):
    """Blocks in each of the four stages, and whether a block is a bottleneck, four times as wide at its ends."""

    blocks: tuple[int, int, int, int]
    bottleneck: bool


LAYOUTS = {
    "resnet18": Layout((2, 2, 2, 2), bottleneck=False),
    "resnet34": Layout((3, 4, 6, 3), bottleneck=False),
    "resnet50": Layout((3, 4, 6, 3), bottleneck=True),
}
EXPANSION = 4
OUTPUT_STRIDES = (8, 16)


def conv_norm(
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    norm: str,
    *,
    kernel: int,
    stride: int = 1,
    dilation: int = 1,
) -> list[nn.Module]:
    """A convolution that keeps the sides (but for its stride), and its norm, whose shift replaces the bias."""
    conv = layers(spatial_dims).conv(
        in_channels,
        out_channels,
        kernel_size=kernel,
        stride=stride,
        dilation=dilation,
        padding=kernel // 2 * dilation,
        bias=False,
    )
    return [conv, make_norm(norm, spatial_dims=spatial_dims, channels=out_channels)]


class ResidualBlock(nn.Module):
    """Add to the input what two 3x3(x3) convolutions find in it, or one 3x3(x3) between two 1x1(x1) (bottleneck).

    A stride lies in the first 3x3(x3) convolution, as does ``entry_dilation``; a second one has ``dilation``.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        width: int,
        norm: str,
        *,
        bottleneck: bool,
        stride: int,
        entry_dilation: int,
        dilation: int,
    ) -> None:
        super().__init__()
        out_channels = width * EXPANSION if bottleneck else width
        narrow = width if bottleneck else in_channels
        entry = conv_norm(spatial_dims, narrow, width, norm, kernel=3, stride=stride, dilation=entry_dilation)
        if bottleneck:
            steps = [
                *conv_norm(spatial_dims, in_channels, width, norm, kernel=1),
                nn.ReLU(inplace=True),
                *entry,
                nn.ReLU(inplace=True),
                *conv_norm(spatial_dims, width, out_channels, norm, kernel=1),
            ]
        else:
            last = conv_norm(spatial_dims, width, width, norm, kernel=3, dilation=dilation)
            steps = [*entry, nn.ReLU(inplace=True), *last]
        self.residual = nn.Sequential(*steps)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(
                *conv_norm(spatial_dims, in_channels, out_channels, norm, kernel=1, stride=stride)
            )
        self.activation = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.activation(self.shortcut(x) + self.residual(x))
        return added

    @torch.no_grad()
    def start_small(self, blocks: int) -> None:
        """Rescale He's initialisation for one of ``blocks`` in a row, which add to the variance block by block.

        Without norms each adds half of 1 / blocks of it, by its last convolution; a norm makes up for that and adds
        1 / blocks. Neither starts at zero.
        """
        conv, norm = list(self.residual)[-2:]
        for weight, share in ((conv.weight, 4 * blocks), (norm.weight, blocks)):
            assert isinstance(weight, nn.Parameter)
            weight.div_(share**0.5)


class ResidualEncoder(nn.Module):
    """See the image at a quarter of its resolution, then an eighth, and from there on look further, not coarser.

    A stage that would exceed the output stride keeps the grid, and its convolutions are dilated in place of it. As in
    the a trous algorithm each block is dilated by what was left out in front of it, so the voxels that a strided
    encoder computes have the same values here, whatever the weights.

    Args:
        spatial_dims: 2 or 3.
        in_channels: number of modalities.
        layout: ``resnet18``, ``resnet34`` or ``resnet50``.
        features: width of the stem; the stages have 1, 2, 4 and 8 times that (``resnet50``: 4 times as much).
        norm: ``batch`` (needed for ImageNet weights), ``group`` (8 groups) or ``instance``.
        output_stride: 8 or 16, the stride of the last stage.

    Shape:
        ``(N, in_channels, *spatial)`` to a list of four: ``(N, widths[stage], *spatial / strides[stage])``.

    Raises:
        ValueError: an argument outside these choices; the message says what would do.
    """

    def __init__(
        self, *, spatial_dims: int, in_channels: int, layout: str, features: int, norm: str, output_stride: int
    ) -> None:
        super().__init__()
        if layout not in LAYOUTS:
            raise ValueError(f"backbone is {layout!r}; known: {', '.join(LAYOUTS)}")
        if output_stride not in OUTPUT_STRIDES:
            raise ValueError(f"output_stride is {output_stride}; it must be 8 (finer, more memory) or 16")
        blocks, bottleneck = LAYOUTS[layout]
        widths = feature_widths(features, depth=3)
        self.spatial_dims = spatial_dims
        self.layout = layout
        self.norm = norm
        self.features = features

        dims = layers(spatial_dims)
        self.stem = nn.Sequential(
            *conv_norm(spatial_dims, in_channels, features, norm, kernel=7, stride=2),
            nn.ReLU(inplace=True),
            dims.max_pool(kernel_size=3, stride=2, padding=1),
        )
        self.stages = nn.ModuleList()
        self.strides: list[int] = []
        self.widths: list[int] = []
        channels, grid, dilation = features, 4, 1
        for number, (count, width) in enumerate(zip(blocks, widths, strict=True)):
            stride = 1 if number == 0 else 2
            entry_dilation = dilation
            if grid * stride > output_stride:
                dilation, stride = dilation * stride, 1
            stage: list[nn.Module] = []
            for _ in range(count):
                stage.append(
                    ResidualBlock(
                        spatial_dims,
                        channels,
                        width,
                        norm,
                        bottleneck=bottleneck,
                        stride=stride,
                        entry_dilation=entry_dilation,
                        dilation=dilation,
                    )
                )
                grid, stride, entry_dilation = grid * stride, 1, dilation
                channels = width * EXPANSION if bottleneck else width
            self.stages.append(nn.Sequential(*stage))
            self.strides.append(grid)
            self.widths.append(channels)
        self._start()

    def forward(self, image: Tensor) -> list[Tensor]:
        x = self.stem(image)  # (N, features, *spatial / 4)
        found: list[Tensor] = []
        for stage in self.stages:
            x = stage(x)  # (N, widths[stage], *spatial / strides[stage])
            found.append(x)
        return found

    @torch.no_grad()
    def _start(self) -> None:
        self.apply(initialise)
        blocks = [module for module in self.modules() if isinstance(module, ResidualBlock)]
        for block in blocks:
            block.start_small(len(blocks))
        # The largest of a window's 9 or 27 voxels is about twice as far from zero as any: the stem starts at half.
        for module in (self.stem[0], self.stem[1]):
            assert isinstance(module.weight, nn.Parameter)
            module.weight.div_(2)
