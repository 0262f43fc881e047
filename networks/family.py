"""The networks of this package by name, and what makes one of them from settings in YAML."""

from __future__ import annotations

from typing import Any

from torch import nn

from networks.attention_unet import AttentionUNet
from networks.deeplabv3plus import DeepLabV3Plus
from networks.downscaled import Downscaled
from networks.pspnet import PSPNet
from networks.residual_unet import ResidualUNet
from networks.segnet import SegNet
from networks.unet import UNet

NETWORKS: dict[str, type[nn.Module]] = {
    "attention_unet": AttentionUNet,
    "deeplabv3plus": DeepLabV3Plus,
    "pspnet": PSPNet,
    "residual_unet": ResidualUNet,
    "segnet": SegNet,
    "unet": UNet,
}
"""Name on the command line and in studies to class; all take ``spatial_dims, in_channels, out_channels`` by keyword."""


def make_downscaled(*, network: str, factor: int = 2, **settings: Any) -> Downscaled:
    """A network of :data:`NETWORKS` by its name, at a coarser grid; made to be named in a bundle's YAML.

    Args:
        network: its name.
        factor: see :class:`Downscaled`.
        settings: of the network.

    Raises:
        ValueError: there is no network of that name.
    """
    if network not in NETWORKS:
        raise ValueError(f"there is no network {network!r}; known: {', '.join(NETWORKS)}")
    return Downscaled(NETWORKS[network](**settings), factor=factor)
