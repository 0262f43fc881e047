"""The ladder: one rung at a time where memory runs out, and never a step that was not needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import networks
from brats_pipeline.errors import PipelineError
from brats_pipeline.inference import memory
from brats_pipeline.inference.averaging import EnsembleInferer
from brats_pipeline.inference.inferers import SliceInferer, WindowInferer
from brats_pipeline.inference.memory import LadderInferer, changed, parse_bytes, ran_out, setting


def volume(*size: int) -> Tensor:
    return torch.randn(1, 2, *size, generator=torch.Generator().manual_seed(0))


class Narrow(nn.Module):
    """Gives back its input, where it has room for it."""

    stride = 8

    def __init__(self, voxels: int, error: Callable[[str], Exception] = torch.OutOfMemoryError) -> None:
        super().__init__()
        self.voxels = voxels
        self.error = error
        self.tried: list[int] = []

    def forward(self, windows: Tensor) -> Tensor:
        size = windows[:, 0].numel()
        self.tried.append(size)
        if size > self.voxels:
            raise self.error("CUDA out of memory. Tried to allocate 2.00 GiB")
        return windows.clone()


@pytest.fixture
def unknown_need(monkeypatch: pytest.MonkeyPatch) -> None:
    """No estimate, so that memory has to run out."""
    monkeypatch.setattr(memory, "bytes_needed", lambda *_: None)


running_out = pytest.mark.usefixtures("unknown_need")


@running_out
@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError, RuntimeError])
def test_windows_go_in_smaller_batches_until_there_is_room_and_the_answer_stays(
    error: Callable[[str], Exception], caplog: pytest.LogCaptureFixture
) -> None:
    image, network = volume(48, 48, 16), Narrow(2 * 16**3, error)
    inferer = WindowInferer([16] * 3, sw_batch_size=8, precision="float32")
    ladder = LadderInferer(inferer)
    torch.testing.assert_close(ladder(image, network), image)
    assert [message.partition(": ")[2] for message in caplog.messages] == [
        "windows per pass: 4 instead of 8",
        "windows per pass: 2 instead of 4",
    ]
    assert inferer.sw_batch_size == 8
    network.tried.clear()
    ladder(image, network)  # it stays where it found room
    assert max(network.tried) == 2 * 16**3


@running_out
def test_slices_go_in_smaller_batches_too() -> None:
    image = volume(8, 8, 10)
    inferer = SliceInferer(slice_batch_size=16, precision="float32")
    torch.testing.assert_close(LadderInferer(inferer)(image, Narrow(3 * 64)), image)


@running_out
def test_a_smaller_window_is_taken_only_where_that_is_allowed(caplog: pytest.LogCaptureFixture) -> None:
    image = volume(72, 40, 40)
    inferer = WindowInferer([64, 40, 40], precision="float32")
    with pytest.raises(PipelineError, match=r"memory ran out with the smallest steps; .*allow_smaller_window: true"):
        LadderInferer(inferer)(image, Narrow(40**3))
    caplog.clear()
    logits = LadderInferer(inferer, allow_smaller_window=True)(image, Narrow(40**3))
    torch.testing.assert_close(logits.float(), image, atol=0.02, rtol=0.01)
    assert caplog.messages == [
        "memory ran out: logits put together in float16",
        "memory ran out: windows of 32 x 40 x 40 instead of 64 x 40 x 40, which changes the answer",
    ]


@running_out
def test_every_rung_is_tried_once_and_then_it_ends() -> None:
    network = Narrow(0)
    ladder = LadderInferer(WindowInferer([128] * 3, sw_batch_size=2, precision="float32"), allow_smaller_window=True)
    with pytest.raises(PipelineError, match="memory ran out"):
        ladder(volume(136, 8, 8), network)
    assert setting(ladder.inferer, "roi_size") == (32, 32, 32)
    assert len(network.tried) == 5  # as it was; one by one; in half precision; two smaller windows


def test_an_error_that_is_not_about_memory_is_not_swallowed() -> None:
    with pytest.raises(RuntimeError, match="size mismatch"):
        LadderInferer(WindowInferer([8] * 3))(volume(8, 8, 8), Narrow(0, lambda _: RuntimeError("size mismatch")))


def test_errors_about_memory_are_known_from_every_library() -> None:
    def caused(error: Exception, by: Exception) -> Exception:
        error.__cause__ = by
        return error

    assert ran_out(MemoryError())
    assert ran_out(RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"))
    assert ran_out(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"))
    assert ran_out(RuntimeError("BFCArena::AllocateRawInternal Failed to allocate memory for requested buffer"))
    assert ran_out(caused(ValueError("a layer failed"), MemoryError()))
    assert not ran_out(ValueError("out of memory"))
    assert not ran_out(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("8GiB", 8 * 2**30),
        ("8 gib", 8 * 2**30),
        ("800MB", 800 * 10**6),
        ("1.5G", 15 * 10**8),
        (4096, 4096),
        (None, None),
    ],
)
def test_a_size_is_read(text: Any, size: int | None) -> None:
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "much", "-1GiB", "0", "8 GiBit"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="give a size such as 8GiB"):
        parse_bytes(text)


def test_attributes_are_changed_wherever_they_belong_and_in_a_copy() -> None:
    inner = WindowInferer([8] * 3)
    outer = EnsembleInferer(inner, flips="all", batch=4)
    other: Any = changed(outer, batch=1, sw_batch_size=3, reduce="regions", nothing_of_the_kind=1)
    assert (other.batch, other.inferer.sw_batch_size, other.inferer.reduce) == (1, 3, "regions")
    assert (outer.batch, inner.sw_batch_size, inner.reduce) == (4, 1, "logits")
    assert not hasattr(other.inferer, "nothing_of_the_kind")


@running_out
def test_mirror_images_go_one_at_a_time_first(caplog: pytest.LogCaptureFixture) -> None:
    image = volume(8, 8, 8)
    inferer = EnsembleInferer(SliceInferer(slice_batch_size=8, precision="float32"), flips=[0], batch=2)
    torch.testing.assert_close(LadderInferer(inferer)(image, Narrow(2 * 64)), image, atol=1e-4, rtol=1e-4)
    assert [message.partition(": ")[2] for message in caplog.messages] == [
        "one mirror image at a time",
        "slices per pass: 4 instead of 8",
        "slices per pass: 2 instead of 4",
    ]


def unet() -> nn.Module:
    return networks.UNet(spatial_dims=3, in_channels=2, out_channels=3, depth=2, features=8).eval()


def test_a_cap_is_kept_by_going_down_before_anything_runs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(memory, "used_bytes", lambda _: 10**9)
    monkeypatch.setattr(memory, "peak_bytes", lambda _: 10**9)
    monkeypatch.setattr(memory, "available_bytes", lambda _: 10**12)
    image, network = volume(40, 32, 32), unet()
    inferer = WindowInferer([32] * 3, sw_batch_size=4, precision="float32", overlap=0.75)
    one = memory.bytes_needed(changed(inferer, sw_batch_size=1), image, network)
    four = memory.bytes_needed(inferer, image, network)
    assert one is not None
    assert four is not None
    assert 2 < four / one < 4
    roomy = LadderInferer(inferer, max_memory=10**9 + four)
    with torch.no_grad():
        expected = roomy(image, network)
        assert not caplog.messages
        ladder = LadderInferer(inferer, max_memory=10**9 + one)
        torch.testing.assert_close(ladder(image, network), expected, atol=1e-4, rtol=1e-4)
    assert setting(ladder.inferer, "sw_batch_size") == 1
    assert caplog.messages[0].startswith("40 x 32 x 32 voxels need")
    assert caplog.messages[0].endswith("windows per pass: 2 instead of 4")
    with pytest.raises(PipelineError, match=r"of max_memory 0\.9 GiB; use more memory, or allow_smaller_window"):
        LadderInferer(inferer, max_memory=10**9 + one // 4)(image, network)


def test_a_cap_that_was_passed_before_the_network_ran_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(memory, "used_bytes", lambda _: 2**20)
    monkeypatch.setattr(memory, "peak_bytes", lambda _: 3 * 2**30)
    inferer = WindowInferer([16] * 3, precision="float32")
    with torch.no_grad():
        for cap, said in (("4GiB", 0), ("2GiB", 1)):
            ladder = LadderInferer(inferer, max_memory=cap)
            for _ in range(2):
                ladder(volume(16, 16, 16), unet())
            assert len(caplog.messages) == said
    assert caplog.messages[0].startswith("3.0 GiB were taken at most so far, more than max_memory 2.0 GiB")


def test_the_most_that_was_held_is_at_least_what_is_held() -> None:
    from brats_pipeline.inference.estimating import peak_bytes, used_bytes

    device = torch.device("cpu")
    held = torch.ones(2**24)
    most = used_bytes(device)
    del held
    assert peak_bytes(device) >= 0.98 * most > 4 * 2**24  # the kernel adds up what each thread holds now and then


def test_without_a_cap_a_tight_machine_is_tried_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda _: 1000)
    ladder = LadderInferer(WindowInferer([16] * 3, sw_batch_size=4, precision="float32"))
    with torch.no_grad():
        assert ladder(volume(24, 16, 16), unet()).shape == (1, 3, 24, 16, 16)
    assert setting(ladder.inferer, "sw_batch_size") == 1


def test_a_network_that_cannot_be_followed_runs_without_an_estimate(caplog: pytest.LogCaptureFixture) -> None:
    class Foreign(nn.Module):
        def forward(self, windows: Tensor) -> Tensor:
            return torch.from_numpy(windows.numpy().copy())

    image = volume(24, 16, 16)
    torch.testing.assert_close(LadderInferer(WindowInferer([16] * 3, precision="float32"))(image, Foreign()), image)
    assert not caplog.messages


def test_memory_of_a_cpu_is_what_is_free_and_what_the_process_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    from brats_pipeline.inference import estimating

    monkeypatch.setattr(estimating, "kept_bytes", lambda: 500)  # can be taken again without asking
    monkeypatch.setattr(estimating, "free_bytes", lambda: 7000)
    assert estimating.available_bytes(torch.device("cpu")) == 7500
    monkeypatch.setattr(estimating, "free_bytes", lambda: None)
    assert estimating.available_bytes(torch.device("cpu")) is None


@pytest.mark.parametrize(
    ("times", "cap", "kept"), [(2.5, None, True), (1.5, None, False), (0.5, None, False), (2.5, "1000GiB", False)]
)
def test_freed_memory_is_kept_where_there_is_room_and_no_cap(
    times: float, cap: str | None, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(memory, "bytes_needed", lambda *_: 10**6)
    monkeypatch.setattr(memory, "available_bytes", lambda _: int(times * 10**6))
    monkeypatch.setattr(memory, "keep_freed_memory", asked.append)
    ladder = LadderInferer(WindowInferer([16] * 3, precision="float32", accumulate="float16"), max_memory=cap)
    ladder(volume(16, 16, 16), nn.Identity())
    ladder(volume(16, 16, 16), nn.Identity())
    assert asked == [kept, kept]
