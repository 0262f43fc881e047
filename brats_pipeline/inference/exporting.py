"""A network as ONNX, and the hash of what it computes with."""

from __future__ import annotations

import hashlib
import importlib.util
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.export import Dim

from brats_pipeline.errors import PipelineError
from brats_pipeline.inference.inferers import stride_of


def network_hash(network: nn.Module) -> str:
    """A hash of everything a network computes with: its layers and their weights."""
    digest = hashlib.sha256(f"{type(network).__qualname__} {network} {torch.__version__}".encode())
    for name, value in network.state_dict().items():
        array = value.detach().cpu().contiguous()
        digest.update(f"{name} {array.dtype} {tuple(array.shape)}".encode())
        digest.update(array.view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def export_onnx(network: nn.Module, shape: Sequence[int], *, any_size: bool) -> bytes:
    """A network as ONNX.

    Args:
        network: in torch.
        shape: of an input ``(N, C, *spatial)``.
        any_size: for batches and spatial sides of any size, multiples of the network's stride; else for ``shape``.

    Raises:
        PipelineError: what torch exports with is not installed.
    """
    if absent := [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]:
        raise PipelineError(
            f"to export a network {' and '.join(absent)} must be installed; run `pip install 'brats-pipeline[onnx]'`, "
            "or choose backend torch"
        )
    stride, dims = stride_of(network), len(shape) - 2
    device = next((weight.device for weight in network.parameters()), torch.device("cpu"))
    axes: Any = None
    if any_size:
        # Twice the stride and more, two in a batch: torch would fix a side of one for good.
        shape = [2, shape[1], *(stride * multiple for multiple in (2, 3, 4)[:dims])]
        axes = ({0: Dim("batch", min=1), **{axis + 2: stride * Dim(f"steps_{axis}", min=1) for axis in range(dims)}},)
    with warnings.catch_warnings(), torch.no_grad(), torch.autocast(device.type, enabled=False):
        warnings.simplefilter("ignore")  # torch's exporter comments on torch
        program = torch.onnx.export(
            network.eval(),
            (torch.zeros(*shape, device=device),),
            dynamo=True,
            dynamic_shapes=axes,
            input_names=["image"],
            output_names=["logits"],
            external_data=False,
            verbose=False,
        )
    assert program is not None  # dynamo
    content: bytes = program.model_proto.SerializeToString()
    return content
