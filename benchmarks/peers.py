"""Networks of MONAI and segmentation_models_pytorch (smp), each as wide and as deep as the one that it stands beside.

A peer names its own arguments and those given to ours, so that both sides use the same norm: MONAI's AttentionUnet and
all of smp know batch norm only, and MONAI's UNet normalises its logits, too few for groups. SegNet has no counterpart
in either library, DeepLabV3+ and PSPNet none in three dimensions; there the nearest encoder-decoder stands in, and is
marked ``same=False``, as are smp's Unet (a ResNet encoder), MONAI's UNet (halves the image in its first convolution)
and SegResNet (adds its skips).
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

IN_CHANNELS, OUT_CHANNELS = 4, 3
"""Four modalities, three regions."""

FIRST = {2: 32, 3: 16}
"""Width of the finest level of our encoder-decoders, by dimension."""


@dataclass(frozen=True)
class Peer:
    """A network of another library beside one of ours.

    Args:
        of: name of ours in ``networks.NETWORKS``.
        name: library and class.
        dims: the dimensions in which it exists.
        arguments: what its constructor is given, by dimension.
        ours: what our constructor is given beyond its defaults, by dimension.
        same: whether it is the same architecture, or only a relative.
        variant: what sets it apart from another peer of the same name.
        output_stride: dilate smp's encoder to this stride; its PSPNet leaves it at 32, or cuts it short.
    """

    of: str
    name: str
    dims: tuple[int, ...]
    arguments: Callable[[int], dict[str, Any]]
    ours: Callable[[int], dict[str, Any]] = field(default=lambda dims: {})
    same: bool = True
    variant: str = ""
    output_stride: int | None = None

    @property
    def label(self) -> str:
        """How tables call it; ``~`` marks a relative."""
        return self.name + (f" ({self.variant})" if self.variant else "") + ("" if self.same else " ~")

    def library(self) -> Any:
        """The module that offers it.

        Raises:
            ImportError: it is not installed.
        """
        return import_smp() if self.name.startswith("smp ") else importlib.import_module("monai.networks.nets")

    def build(self, dims: int) -> nn.Module:
        """The peer with random weights.

        Raises:
            ImportError: its library is not installed.
        """
        if self.name.startswith("smp "):
            shared = {"in_channels": IN_CHANNELS, "classes": OUT_CHANNELS, "encoder_weights": None}
        else:
            shared = {"spatial_dims": dims, "in_channels": IN_CHANNELS, "out_channels": OUT_CHANNELS}
        made = getattr(self.library(), self.name.partition(" ")[2])(**shared, **self.arguments(dims))
        if self.output_stride:
            made.encoder.make_dilated(output_stride=self.output_stride)
        assert isinstance(made, nn.Module)
        return made


def widths(dims: int) -> tuple[int, ...]:
    """The five widths of our U-Nets: doubling from ``FIRST``."""
    return tuple(FIRST[dims] * 2**level for level in range(5))


GROUP = ("group", {"num_groups": 8})
INSTANCE = ("instance", {"affine": True})


def _basic(dims: int) -> dict[str, Any]:
    return {"features": (*widths(dims), FIRST[dims]), "norm": GROUP}


def _dyn(dims: int) -> dict[str, Any]:
    return {
        "kernel_size": [3] * 5,
        "strides": [1, 2, 2, 2, 2],
        "upsample_kernel_size": [2] * 4,
        "filters": list(widths(dims)),
        "norm_name": GROUP,
    }


def _residual_dyn(dims: int) -> dict[str, Any]:
    return _dyn(dims) | {"res_block": True}


def _monai_unet(dims: int) -> dict[str, Any]:
    return {"channels": widths(dims), "strides": (2,) * 4, "num_res_units": 2, "norm": INSTANCE, "act": "leakyrelu"}


def _attention(dims: int) -> dict[str, Any]:
    return {"channels": widths(dims), "strides": (2,) * 4}


def _segres(dims: int) -> dict[str, Any]:
    return {"init_filters": FIRST[dims], "blocks_down": (1, 2, 2, 4), "blocks_up": (1, 1, 1)}


def _batch(dims: int) -> dict[str, Any]:
    return {"norm": "batch"}


def _instance(dims: int) -> dict[str, Any]:
    return {"norm": "instance"}


def _resnet34(dims: int) -> dict[str, Any]:
    return {"encoder_name": "resnet34"}


def _deeplab(dims: int) -> dict[str, Any]:
    return {
        "encoder_name": "resnet34",
        "encoder_output_stride": 16,
        "decoder_channels": 256,
        "decoder_atrous_rates": (6, 12, 18),
        "decoder_aspp_dropout": 0.1,
    }


def _pspnet(dims: int) -> dict[str, Any]:
    return {
        "encoder_name": "resnet34",
        "encoder_depth": 5,
        "psp_out_channels": 128,
        "psp_dropout": 0.1,
        "upsampling": 8,
    }


PEERS = (
    Peer("unet", "MONAI BasicUNet", (2, 3), _basic),
    Peer("unet", "MONAI DynUNet", (2, 3), _dyn),
    Peer("unet", "smp Unet", (2,), _resnet34, _batch, same=False),
    # DynUNet is residual in its encoder only.
    Peer("residual_unet", "MONAI DynUNet", (2, 3), _residual_dyn, same=False, variant="res_block"),
    Peer("residual_unet", "MONAI SegResNet", (2, 3), _segres, same=False),
    Peer("residual_unet", "MONAI UNet", (2, 3), _monai_unet, _instance, same=False, variant="num_res_units=2"),
    Peer("attention_unet", "MONAI AttentionUnet", (2, 3), _attention, _batch),
    Peer("segnet", "MONAI BasicUNet", (2, 3), _basic, same=False),
    Peer("deeplabv3plus", "smp DeepLabV3Plus", (2,), _deeplab),
    Peer("deeplabv3plus", "MONAI SegResNet", (3,), _segres, same=False),
    Peer("pspnet", "smp PSPNet", (2,), _pspnet, variant="dilated to stride 8", output_stride=8),
    Peer("pspnet", "MONAI SegResNet", (3,), _segres, same=False),
)


def import_smp() -> Any:
    """segmentation_models_pytorch, also beside a torch without CUDA.

    It imports torchvision, and one built for CUDA cannot load its operators there. Nothing here calls them, so their
    names are declared in its place.

    Raises:
        ImportError: it is not installed.
    """
    try:
        importlib.import_module("torchvision")
    except RuntimeError:
        for module in [module for module in sys.modules if module.partition(".")[0] == "torchvision"]:
            del sys.modules[module]
        spec = importlib.util.find_spec("torchvision")
        if spec is None or not spec.submodule_search_locations:
            raise ImportError("torchvision is not a package") from None
        source = Path(spec.submodule_search_locations[0]) / "_meta_registrations.py"
        declarations = torch.library.Library("torchvision", "FRAGMENT")  # type: ignore[no-untyped-call]
        _KEPT.append(declarations)
        for name in re.findall(r'register_fake\("torchvision::(\w+)"', source.read_text("utf-8")):
            declarations.define(f"{name}(Tensor unused) -> Tensor")  # type: ignore[no-untyped-call]
    return importlib.import_module("segmentation_models_pytorch")


_KEPT: list[torch.library.Library] = []
"""Declarations end when their library object does."""
