"""Weights trained on ImageNet, for the two-dimensional residual encoder, from the files that torchvision uses."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import torch
from torch import Tensor, nn

from networks.backbones import ResidualEncoder
from networks.downscaled import Downscaled

UNREADABLE = (OSError, EOFError, RuntimeError, ValueError, LookupError, pickle.UnpicklingError)
"""What ``torch.load`` raises for files of other kinds."""


def load_imagenet(network: nn.Module, path: str | Path) -> None:
    """Give a network's encoder the weights of torchvision's network of its layout; the classifier is left out.

    The first convolution was made for red, green and blue. From three channels on the colours are handed out in turn,
    and a colour that several channels get is shared equally among them; one or two channels share the sum of all three.
    So an image that is the same in every channel gives the response that a grey picture gave.

    Args:
        network: a residual encoder with ``spatial_dims=2``, ``norm="batch"`` and ``features=64``, or a network whose
            ``encoder`` is one.
        path: a state dict saved by ``torch.save``.

    Raises:
        ValueError: the encoder is not one that such weights fit, or the file does not hold them.
    """
    if isinstance(network, Downscaled):
        network = network.network
    encoder = network if isinstance(network, ResidualEncoder) else getattr(network, "encoder", None)
    if not isinstance(encoder, ResidualEncoder):
        raise ValueError(
            f"encoder_weights: {type(network).__name__} has no residual encoder that such weights fit; choose "
            "deeplabv3plus or pspnet, or leave encoder_weights out"
        )
    kind = (encoder.spatial_dims, encoder.norm, encoder.features)
    if kind != (2, "batch", 64):
        raise ValueError(
            "encoder_weights with spatial_dims={}, norm={!r} and features={}; ImageNet weights fit spatial_dims=2, "
            "norm='batch' and features=64 only: choose these, or leave encoder_weights out".format(*kind)
        )
    needed = f"needed: the state dict of torchvision's {encoder.layout}, saved by torch.save"
    own = encoder.state_dict()
    weights = {_own_name(name): value for name, value in _read(path, needed).items() if not name.startswith("fc.")}
    first = "stem.0.weight"
    if first in weights and weights[first].dim() == 4 and weights[first].shape[1] == 3:
        weights[first] = _for_channels(weights[first], own[first].shape[1])
    for name, value in own.items():
        if name.endswith("num_batches_tracked"):  # older files have none
            weights.setdefault(name, value)
    wrong = sorted(own.keys() ^ weights.keys())
    wrong += [name for name in own if name in weights and weights[name].shape != own[name].shape]
    if wrong:
        raise ValueError(
            f"encoder_weights: {path} fits no {encoder.layout}; {len(wrong)} tensors are missing, unknown or of "
            f"another shape, the first is {wrong[0]}; {needed}, or another backbone"
        )
    encoder.load_state_dict(weights)


def _read(path: str | Path, needed: str) -> dict[str, Tensor]:
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"encoder_weights: no file {path}; {needed}") from None
    except UNREADABLE:
        raise ValueError(f"encoder_weights: {path} cannot be read as weights; {needed}") from None
    if not isinstance(saved, dict) or not all(isinstance(value, Tensor) for value in saved.values()):
        raise ValueError(f"encoder_weights: {path} holds no table of tensors; {needed}")
    return saved


def _own_name(name: str) -> str:
    """A name in torchvision's network to the name here: ``layer2.0.conv1`` to ``stages.1.0.residual.0``."""
    name = re.sub(r"^(conv|bn)1\.", lambda found: f"stem.{int(found[1] == 'bn')}.", name)
    name = re.sub(r"^layer(\d)\.", lambda found: f"stages.{int(found[1]) - 1}.", name)
    name = re.sub(
        r"\.(conv|bn)(\d)\.", lambda found: f".residual.{3 * (int(found[2]) - 1) + (found[1] == 'bn')}.", name
    )
    return name.replace(".downsample.", ".shortcut.")


def _for_channels(colours: Tensor, channels: int) -> Tensor:
    """``(out, 3, *kernel)`` to ``(out, channels, *kernel)`` with the same sum over the inputs."""
    if channels < 3:
        return colours.sum(dim=1, keepdim=True).div(channels).repeat(1, channels, 1, 1)
    turns = torch.arange(channels) % 3
    return colours[:, turns] / torch.bincount(turns)[turns].view(-1, 1, 1)
