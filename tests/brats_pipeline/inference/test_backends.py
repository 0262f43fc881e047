"""Backends: whatever computes the network, the logits are the same."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from brats_pipeline.errors import PipelineError
from brats_pipeline.inference import backends
from brats_pipeline.inference.averaging import CheckpointEnsemble
from brats_pipeline.inference.backends import run_by
from brats_pipeline.inference.exporting import network_hash
from brats_pipeline.inference.inferers import SliceInferer, WindowInferer, run_network
from networks import NETWORKS

IN_CHANNELS = 2


class Small(nn.Module):
    """Two convolutions and a norm over the window: exported in a second."""

    stride = 4

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv3d(IN_CHANNELS, 8, 3, padding=1), nn.GroupNorm(2, 8), nn.Conv3d(8, 3, 1))

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.layers(image)
        return logits


def image(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def largest_difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())


@pytest.mark.slow
@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("name", sorted(NETWORKS))
@torch.no_grad()
def test_every_network_has_the_same_logits_at_every_size(
    name: str, spatial_dims: int, engine: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name](spatial_dims=spatial_dims, in_channels=IN_CHANNELS, out_channels=3, features=8).eval()
    cache = tmp_path_factory.getbasetemp() / "exported"  # one export for all engines
    theirs: Any = run_by(engine, network, cache_dir=cache)
    stride: Any = network.stride
    assert theirs.stride == stride
    for batch, multiples in ((1, (3, 1, 2)), (3, (1, 2, 1))):
        windows = image(batch, IN_CHANNELS, *(stride * multiple for multiple in multiples[:spatial_dims]))
        expected = run_network(windows, network, "float32")
        found = run_network(windows, theirs, "float32")
        assert largest_difference(found, expected) <= 1e-3


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which :class:`Small` was kept by a call under autocast."""
    folder = tmp_path_factory.mktemp("exported")
    with torch.no_grad():
        run_network(image(1, IN_CHANNELS, 8, 8, 8), run_by("onnxruntime", Small(), cache_dir=folder), "bfloat16")
    return folder


@pytest.fixture
def cache(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, and no other export: what is asked for would be the one that is there."""
    (kept,) = exported.iterdir()
    whole = kept.read_bytes()
    monkeypatch.setattr(backends, "export_onnx", lambda *_, **__: whole)
    shutil.copytree(exported, tmp_path / "cache")
    return tmp_path / "cache"


@torch.no_grad()
def test_inferers_run_an_engine_as_they_run_a_network(engine: str, cache: Path) -> None:
    network, volume = Small().eval(), image(1, IN_CHANNELS, 21, 9, 6)
    theirs = run_by(engine, network, cache_dir=cache)
    for inferer in (
        WindowInferer([8] * 3, precision="float32", sw_batch_size=3),
        WindowInferer([32] * 3, precision="float32"),
    ):
        torch.testing.assert_close(inferer(volume, theirs), inferer(volume, network), atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@torch.no_grad()
def test_slices_run_by_an_engine_and_a_network_without_a_stride_is_exported_for_each_size(tmp_path: Path) -> None:
    network = nn.Conv2d(IN_CHANNELS, 3, 3, padding=1)
    theirs = run_by("onnxruntime", network, cache_dir=tmp_path)
    volume, inferer = image(1, IN_CHANNELS, 8, 6, 5), SliceInferer(slice_batch_size=2, precision="float32")
    torch.testing.assert_close(inferer(volume, theirs), inferer(volume, network))
    assert {path.name.split(".")[2] for path in tmp_path.iterdir()} == {"2x2x8x6", "1x2x8x6"}


@torch.no_grad()
def test_autocast_is_for_the_engine_and_not_for_what_is_exported(exported: Path) -> None:
    network, windows = Small().eval(), image(1, IN_CHANNELS, 8, 8, 8)
    in_half = run_network(windows, run_by("onnxruntime", network, cache_dir=exported), "bfloat16")
    assert largest_difference(in_half, run_network(windows, network, "float32")) <= 1e-5


@torch.no_grad()
def test_an_export_is_used_again_for_the_same_weights_and_only_for_them(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network, windows = Small().eval(), image(1, IN_CHANNELS, 8, 8, 8)
    (kept,) = cache.iterdir()
    exports = []
    monkeypatch.setattr(backends, "export_onnx", lambda *given, **_: exports.append(given) or kept.read_bytes())
    run_by("onnxruntime", network, cache_dir=cache)(windows)
    assert not exports
    network.layers[2].bias.add_(1)
    run_by("onnxruntime", network, cache_dir=cache)(windows)
    assert len(exports) == 1
    assert len(list(cache.iterdir())) == 2


@torch.no_grad()
def test_a_damaged_export_is_made_again(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    network, windows = Small().eval(), image(1, IN_CHANNELS, 8, 8, 8)
    (kept,) = cache.iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(whole[: len(whole) // 2])
    assert largest_difference(run_by("onnxruntime", network, cache_dir=cache)(windows), network(windows)) < 1e-5
    assert "cannot be used and is made again" in caplog.text
    assert kept.read_bytes() == whole


@torch.no_grad()
def test_where_nothing_can_be_kept_the_engine_runs_all_the_same(cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    (cache / "file").write_text("no folder")
    network, windows = Small().eval(), image(1, IN_CHANNELS, 8, 8, 8)
    theirs = run_by("onnxruntime", network, cache_dir=cache / "file")
    assert largest_difference(theirs(windows), network(windows)) < 1e-5
    assert "the exported network is not kept" in caplog.text


def test_a_hash_tells_weights_and_layers_apart() -> None:
    network = Small()
    hashes = [network_hash(network), network_hash(Small())]
    network.layers[0].stride = (2, 1, 1)
    hashes.append(network_hash(network))
    network.layers[2].weight.data[0] += 1
    hashes.append(network_hash(network))
    assert hashes[0] == hashes[1]
    assert len(set(hashes)) == 3


@torch.no_grad()
def test_an_ensemble_is_run_member_by_member(cache: Path) -> None:
    members = [Small().eval(), Small().eval()]
    ensemble = CheckpointEnsemble(members)
    theirs: Any = run_by("onnxruntime", ensemble, cache_dir=cache)
    windows = image(1, IN_CHANNELS, 8, 8, 8)
    assert isinstance(theirs, CheckpointEnsemble)
    assert all(isinstance(member, backends.OnnxNetwork) for member in theirs.members)
    assert list(ensemble.members) == members
    assert largest_difference(theirs(windows), ensemble(windows)) < 1e-4


def test_torch_alone_is_the_network_itself() -> None:
    network = Small()
    assert run_by("torch", network, channels_last=False) is network


@pytest.mark.parametrize(("half", "last"), [(True, True), (False, False)])
@torch.no_grad()
def test_by_default_the_channels_are_last_where_a_cpu_computes_in_half_precision(half: bool, last: bool) -> None:
    network, windows = Small().eval(), image(1, IN_CHANNELS, 8, 8, 8)
    seen = []
    network.layers[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        run_by("torch", network)(windows)
    assert seen[0].is_contiguous(memory_format=torch.channels_last_3d) == last
    assert seen[0].is_contiguous() != last


@torch.no_grad()
def test_channels_last_changes_the_layout_and_not_the_answer() -> None:
    network, windows = Small().eval(), image(1, IN_CHANNELS, 8, 8, 8)
    expected = network(windows)
    theirs: Any = run_by("torch", network, channels_last=True)
    seen = []
    network.layers[0].register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    assert theirs.stride == Small.stride
    theirs(windows)
    assert seen[0].is_contiguous(memory_format=torch.channels_last_3d)
    assert network.layers[0].weight.is_contiguous(memory_format=torch.channels_last_3d)
    assert largest_difference(theirs(windows), expected) < 1e-5


@pytest.mark.parametrize(("compile_as", "mode"), [(True, None), ("reduce-overhead", "reduce-overhead")])
def test_compilation_is_handed_to_torch(compile_as: Any, mode: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    given = []

    def compiled(network: nn.Module, *, mode: str | None) -> Any:
        given.append(mode)
        return network

    monkeypatch.setattr(torch, "compile", compiled)
    network, windows = Small().eval(), image(1, IN_CHANNELS, 8, 8, 8)
    theirs: Any = run_by("torch", network, compile=compile_as)
    assert given == [mode]
    assert torch.equal(theirs(windows), network(windows))
    assert theirs.state_dict().keys() == {f"followed.{name}" for name in network.state_dict()}


@pytest.mark.slow
@torch.no_grad()
def test_a_compiled_network_has_the_same_logits() -> None:
    network, windows = Small().eval(), image(1, IN_CHANNELS, 8, 8, 8)
    assert largest_difference(run_by("torch", network, compile=True)(windows), network(windows)) < 1e-4


@pytest.mark.gpu
@torch.no_grad()
def test_cuda_graphs_give_every_window_an_answer_of_its_own() -> None:
    network, windows = Small().eval().cuda(), image(2, IN_CHANNELS, 8, 8, 8).cuda()
    theirs = run_by("torch", network, compile="reduce-overhead")
    answers = [theirs(window[None]) for window in windows for _ in range(3)]
    assert largest_difference(answers[0], network(windows[:1])) < 1e-3
    assert largest_difference(answers[-1], network(windows[1:])) < 1e-3


def test_what_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="backend is 'caffe'; known: torch, onnxruntime, openvino, tensorrt"):
        run_by("caffe", Small())
    with pytest.raises(ValueError, match="channels_last is 'yes'; known: auto, true, false"):
        run_by("torch", Small(), channels_last="yes")
    with pytest.raises(ValueError, match="compile and channels_last are torch's"):
        run_by("onnxruntime", Small(), compile=True)
    if not torch.cuda.is_available():
        with pytest.raises(PipelineError, match="backend tensorrt needs an onnxruntime with TensorRT"):
            run_by("tensorrt", Small())
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    for name, extra in (("openvino", "openvino"), ("onnxruntime", "onnx"), ("tensorrt", "onnx")):
        with pytest.raises(PipelineError, match=rf"backend {name} needs .*brats-pipeline\[{extra}\]"):
            run_by(name, Small())
