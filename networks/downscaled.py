"""A network that works on a coarser grid than its image: the same receptive field for a fraction of the time."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor, nn
from torch.nn import functional as F

from networks.layers import check_image, resize


class Downscaled(nn.Module):
    """A network of this package between mean pooling of the image and linear interpolation of the logits.

    Halving both sides of a slice leaves a quarter of the pixels, and pixels are what a convolution's time goes by.
    Structures thinner than ``factor`` pixels are lost.

    Args:
        network: one of this package; its own docstring says what images it takes.
        factor: pixels of the image, along each axis, to one of the network.

    Shape:
        ``(N, in_channels, *spatial)`` to ``(N, out_channels, *spatial)``; each side a multiple of
        ``factor * network.stride``.

    Raises:
        ValueError: ``factor`` below 2, or a side that is no multiple; the message names the next good size.
    """

    __jit_unused_properties__: ClassVar[list[str]] = ["head"]

    def __init__(self, network: nn.Module, *, factor: int = 2) -> None:
        super().__init__()
        if factor < 2:
            raise ValueError(f"factor is {factor}; at least 2 is needed, the network alone is factor 1")
        self.network = network
        self.spatial_dims: int = network.spatial_dims  # type: ignore[assignment]
        self.in_channels: int = network.in_channels  # type: ignore[assignment]
        self.out_channels: int = network.out_channels  # type: ignore[assignment]
        self.stride: int = factor * network.stride  # type: ignore[assignment,operator]
        self.norm: str = getattr(network, "norm", "")  # SegNet names none: its norms never see the coarsest grid
        self.factor = factor

    def forward(self, image: Tensor) -> Tensor:
        return resize(self.network(self._pool(image)), list(image.shape[2:]))

    def decoder_features(self, image: Tensor) -> list[Tensor]:
        """The network's own, on its coarser grid."""
        features: list[Tensor] = self.network.decoder_features(self._pool(image))  # type: ignore[operator]
        return features

    def deep_heads(self) -> nn.ModuleList:
        """The network's own heads for the coarser levels of :meth:`decoder_features`."""
        heads: nn.ModuleList = self.network.deep_heads()  # type: ignore[operator]
        return heads

    @property
    def head(self) -> nn.Module:
        """The network's own last layer."""
        head: nn.Module = self.network.head  # type: ignore[assignment]
        return head

    def _pool(self, image: Tensor) -> Tensor:
        check_image(
            image,
            channels=self.in_channels,
            spatial_dims=self.spatial_dims,
            stride=self.stride,
            norm=self.norm,
            training=self.training,
        )
        if self.spatial_dims == 2:
            return F.avg_pool2d(image, self.factor)
        return F.avg_pool3d(image, self.factor)
