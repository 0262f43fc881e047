"""Every network leaves Python: as ONNX of any size, run by onnxruntime."""

import onnxruntime
import pytest
import torch
from torch.export import Dim

from tests.networks.test_contract import EVERY_NETWORK, IN_CHANNELS, build


def export(network, file):
    """Write ONNX whose spatial sides are any multiples of the stride."""
    # Twice the stride and more: at a side of one voxel torch would fix that side for good.
    sides = [network.stride * multiple for multiple in (2, 3, 4)[: network.spatial_dims]]
    any_sides = {axis + 2: network.stride * Dim(f"steps_{axis}", min=1) for axis in range(network.spatial_dims)}
    program = torch.onnx.export(
        network,
        (torch.zeros(1, IN_CHANNELS, *sides),),
        dynamo=True,
        dynamic_shapes=(any_sides,),
        input_names=["image"],
        output_names=["logits"],
        external_data=False,
        verbose=False,
    )
    program.save(file)


# 2026-11: torch 2.13 copies its own deprecated LeafSpec while it exports.
@pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated:FutureWarning")
@EVERY_NETWORK
def test_onnx_gives_the_same_logits_at_other_sizes(name, spatial_dims, tmp_path):
    network = build(name, spatial_dims).eval()
    export(network, tmp_path / "network.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "network.onnx", providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(1)
    for multiples in [(3, 5, 2), (1, 1, 1)]:
        sides = [network.stride * multiple for multiple in multiples[:spatial_dims]]
        image = torch.randn(1, IN_CHANNELS, *sides, generator=generator)
        (logits,) = session.run(["logits"], {"image": image.numpy()})
        with torch.no_grad():
            expected = network(image)
        assert logits.shape == expected.shape
        error = (torch.from_numpy(logits) - expected).abs().max() / expected.abs().max()
        assert error <= 1e-4, f"{sides}: {error:.1e}"
