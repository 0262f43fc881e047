"""Weights: state dicts on disk and in networks, loaded without running anything that a file brings along."""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from brats_pipeline.errors import PipelineError
from brats_pipeline.files import write_atomically

MISFITS_NAMED = 3


def unpacks_to_more(path: Path) -> bool:
    """Whether a file of weights declares more bytes than it has: PyTorch packs none of them, and reads them all."""
    try:
        with zipfile.ZipFile(path) as archive:
            return sum(member.file_size for member in archive.infolist()) > path.stat().st_size
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return False


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a file of tensors and plain values; anything else in it is refused, never executed.

    Raises:
        PipelineError: the file is absent, damaged, or holds other objects.
    """
    path = Path(path)
    if not path.is_file():
        raise PipelineError(f"{path}: there are no weights; train the bundle first, or give --bundle a trained run")
    if unpacks_to_more(path):
        raise PipelineError(
            f"{path}: unpacks to more bytes than it has, which could fill the memory; PyTorch writes no such file. "
            "Copy or train it again"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch comments on files that are refused anyway
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # many kinds, and torch's texts advise to load the file unsafely
        raise PipelineError(
            f"{path}: this is no state dict that can be read; the file is damaged, or it holds more than tensors and "
            "plain values, which is never loaded. Copy or train it again"
        ) from error
    if not isinstance(content, dict):
        raise PipelineError(f"{path}: holds a {type(content).__name__}, not a state dict; save network.state_dict()")
    return content


def write_checkpoint(path: str | Path, content: dict[str, Any]) -> None:
    """Write a state dict or checkpoint atomically.

    Raises:
        PipelineError: the folder cannot be written, or the disk is full; an older file stays as it was.
    """
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getvalue())


def load_weights(network: nn.Module, path: str | Path) -> nn.Module:
    """Put the weights of a file into a network and return it.

    The file holds a state dict, or one under ``model`` as MONAI's ``CheckpointSaver`` writes it beside an optimizer.

    Raises:
        PipelineError: the weights do not fit; the message names the first layers that differ.
    """
    given = read_checkpoint(path)
    if isinstance(given.get("model"), dict):
        given = given["model"]
    if differing := misfits(network, given):
        raise PipelineError(
            f"{path}: the weights do not fit the network, {differing}. "
            "Use the network definition that they were trained with"
        )
    network.load_state_dict(given)
    return network


def misfits(network: nn.Module, given: Mapping[str, Any]) -> str:
    """How many layers of a state dict do not fit a network, and the first of them; empty where all fit."""
    wanted = network.state_dict()
    found = [f"{name} is missing in the file" for name in wanted if name not in given]
    found += [f"{name} is unknown to the network" for name in given if name not in wanted]
    found += [f"{name} is no tensor" for name in wanted if not isinstance(given.get(name, Tensor()), Tensor)]
    found += [
        f"{name} has shape {tuple(given[name].shape)}, the network needs {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if isinstance(given.get(name), Tensor) and given[name].shape != tensor.shape
    ]
    listed = "; ".join(found[:MISFITS_NAMED])
    return f"{len(found)} layers differ: {listed}" if found else ""
