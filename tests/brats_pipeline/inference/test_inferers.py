"""Running a network: windows that agree with the whole, and precision by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import SpatialPad
from torch import nn

from brats_pipeline.inference.inferers import (
    AutocastInferer,
    SliceInferer,
    WindowInferer,
    choose_precision,
    run_network,
)
from transforms.presence import flag_presence

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["float32", "bfloat16", "float16"])
def test_a_precision_is_taken_by_its_name(name: str) -> None:
    assert choose_precision(name, CPU) == getattr(torch, name)


def test_automatic_precision_is_bfloat16_only_where_the_processor_computes_in_it() -> None:
    info = Path("/proc/cpuinfo")
    fast = info.is_file() and "avx512_bf16" in info.read_text()
    assert choose_precision("auto", CPU) == (torch.bfloat16 if fast else torch.float32)


@pytest.mark.parametrize(
    ("ampere", "segments", "trains"), [(True, "bfloat16", "bfloat16"), (False, "float16", "float32")]
)
def test_an_older_gpu_segments_in_float16_and_trains_in_float32(
    monkeypatch: pytest.MonkeyPatch, ampere: bool, segments: str, trains: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: ampere)
    gpu = torch.device("cuda")
    assert choose_precision("auto", gpu) == getattr(torch, segments)
    assert choose_precision("auto", gpu, gradients=True) == getattr(torch, trains)


def test_training_in_float16_is_refused() -> None:
    with pytest.raises(ValueError, match="float16 loses small gradients"):
        run_network(image(4, 4, 4), Probe(), "float16")


def test_an_unknown_precision_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"float8.*auto, float32, bfloat16, float16"):
        choose_precision("float8", CPU)


class Probe(nn.Module):
    """A 1x1x1 convolution that notes what it is given and in which precision it computes."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv3d(2, 3, kernel_size=1)
        self.inputs: list[torch.Tensor] = []
        self.dtypes: set[torch.dtype] = set()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.inputs.append(image)
        result: torch.Tensor = self.layer(image)
        self.dtypes.add(result.dtype)
        return result


def image(*spatial: int) -> torch.Tensor:
    return torch.randn(1, 2, *spatial, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_network_computes_in_the_chosen_precision_and_answers_in_float32(precision: str) -> None:
    network = Probe()
    with torch.no_grad():
        logits = run_network(image(4, 5, 6), network, precision)
    assert network.dtypes == {getattr(torch, precision)}
    assert logits.dtype == torch.float32
    assert logits.shape == (1, 3, 4, 5, 6)


def test_metadata_stays_outside_the_network() -> None:
    network = Probe()
    with torch.no_grad():
        AutocastInferer("float32")(MetaTensor(image(4, 4, 4)), network)
    assert type(network.inputs[0]) is torch.Tensor


@pytest.mark.parametrize("spatial", [(16, 16, 16), (17, 23, 9), (40, 8, 31), (3, 3, 3)])
@pytest.mark.parametrize("overlap", [0.0, 0.5])
def test_windows_of_a_network_that_looks_at_one_voxel_agree_with_the_whole(
    spatial: tuple[int, int, int], overlap: float
) -> None:
    network = Probe().eval()
    with torch.no_grad():
        whole = AutocastInferer("float32")(image(*spatial), network)
        windows = WindowInferer([16, 16, 16], overlap=overlap, precision="float32")(image(*spatial), network)
    assert torch.allclose(whole, windows, atol=1e-5)


def test_window_results_keep_the_metadata_of_the_input() -> None:
    affine = torch.diag(torch.tensor([2.0, 2.0, 3.0, 1.0], dtype=torch.float64))
    with torch.no_grad():
        result: Any = WindowInferer([8, 8, 8], precision="float32")(MetaTensor(image(9, 9, 9), affine=affine), Probe())
    assert torch.equal(result.affine, affine)


class Doubler(nn.Module):
    """Twice the first channel; takes nothing but slices whose sides are multiples of its stride."""

    stride = 4

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def forward(self, slices: torch.Tensor) -> torch.Tensor:
        assert slices.dim() == 4
        assert all(side % self.stride == 0 for side in slices.shape[2:])
        self.seen.append(tuple(slices.shape))
        return 2 * slices[:, :1]


def test_slices_of_any_size_pass_in_batches_and_come_back_in_their_places() -> None:
    volume = MetaTensor(torch.rand(2, 3, 6, 9, 5), affine=torch.diag(torch.tensor([1.0, 2.0, 3.0, 1.0])))
    network = Doubler()
    logits = SliceInferer(slice_batch_size=4, precision="float32")(volume, network)
    torch.testing.assert_close(logits.as_tensor(), 2 * volume.as_tensor()[:, :1])
    assert logits.affine.diagonal().tolist() == [1, 2, 3, 1]
    assert network.seen == [(4, 3, 8, 12), (4, 3, 8, 12), (2, 3, 8, 12)]


def test_a_network_without_a_stride_gets_the_slices_as_they_are() -> None:
    seen = []
    SliceInferer(precision="float32")(torch.rand(1, 3, 7, 5, 2), lambda slices: seen.append(slices.shape[2:]) or slices)
    assert seen == [(7, 5)]


@pytest.mark.parametrize("present", [(1, 1), (1, 0)])
@pytest.mark.parametrize("slices", [False, True])
def test_a_network_sees_flags_over_all_of_a_padded_input_as_in_training(present: tuple[int, int], slices: bool) -> None:
    seen = []

    def network(image: torch.Tensor) -> torch.Tensor:
        seen.append(image.clone())
        return image[:, :1]

    scan, told = 1 + torch.rand(2, 5, 6, 7), torch.tensor(present)
    shape = (8, 8, -1) if slices else (8, 8, 8)
    trained = flag_presence(SpatialPad(shape, method="end" if slices else "symmetric")(scan).as_tensor(), told)
    inferer: Any = SliceInferer(flags=2) if slices else WindowInferer((8, 8, 8), flags=2)
    network.stride = 8  # type: ignore[attr-defined]
    answer = inferer(flag_presence(scan, told)[None], network)
    (inside,) = seen
    assert torch.equal(inside.permute(1, 2, 3, 0) if slices else inside[0], trained)
    assert torch.equal(answer[0, 0], scan[0] * present[0])
