"""Deep supervision: logits from several levels of a decoder, so that the loss reaches each of them directly.

Lee et al., Deeply-Supervised Nets, AISTATS 2015, arXiv:1409.5185.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from networks.layers import resize


class Decoding(Protocol):
    """What a network must offer: the features in front of its head, finest first, and heads for the coarser ones."""

    @property
    def head(self) -> nn.Module: ...

    def decoder_features(self, image: Tensor) -> list[Tensor]: ...

    def deep_heads(self) -> nn.ModuleList: ...


class DeepSupervision(nn.Module):
    """A network that is also asked for logits at the coarser levels of its decoder; for training only.

    The network is not changed: its weights keep their names, and once trained it is used alone, as ``.network``.
    The bundles add the losses of the levels with weights 1, 1/2, 1/4, ... 1/16, finest first and not normalised
    (``monai.losses.DeepSupervisionLoss``).

    Args:
        network: one of this package. Where its decoder has no coarser levels the list holds its own logits only.

    Shape:
        ``(N, in_channels, *spatial)`` to a list of ``(N, out_channels, *)``: the network's own logits at ``*spatial``,
        then those of the coarser levels at their own sizes, finest first.
    """

    def __init__(self, network: Decoding) -> None:
        super().__init__()
        self.network = network
        self.factor: int = getattr(network, "factor", 1)
        self.heads = network.deep_heads().to(next(network.head.parameters()))  # its device and dtype

    def forward(self, image: Tensor) -> list[Tensor]:
        finest, *coarser = self.network.decoder_features(image)
        logits = self.network.head(finest)
        size = list(image.shape[2:])
        # By the steps of the network itself: a head coarser than the grid that it works on, then that grid.
        for step in ([side // self.factor for side in size], size):
            if list(logits.shape[2:]) != step:
                logits = resize(logits, step)
        return [logits, *(head(features) for head, features in zip(self.heads, coarser, strict=True))]
