"""Segmentation networks in two and three dimensions, torch only; each returns one tensor of logits."""

from __future__ import annotations

from torch import nn

from networks.unet import UNet

NETWORKS: dict[str, type[nn.Module]] = {"unet": UNet}
"""Name on the command line and in studies to class; all take ``spatial_dims, in_channels, out_channels`` by keyword."""

__all__ = ["NETWORKS", "UNet"]
