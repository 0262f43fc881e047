"""Segmentation networks in two and three dimensions, torch only; each returns one tensor of logits."""

from __future__ import annotations

from networks.attention_unet import AttentionUNet
from networks.deep_supervision import DeepSupervision
from networks.deeplabv3plus import DeepLabV3Plus
from networks.downscaled import Downscaled
from networks.family import NETWORKS, make_downscaled
from networks.imagenet import load_imagenet
from networks.pspnet import PSPNet
from networks.residual_unet import ResidualUNet
from networks.segnet import SegNet
from networks.unet import UNet

__all__ = [
    "NETWORKS",
    "AttentionUNet",
    "DeepLabV3Plus",
    "DeepSupervision",
    "Downscaled",
    "PSPNet",
    "ResidualUNet",
    "SegNet",
    "UNet",
    "load_imagenet",
    "make_downscaled",
]
