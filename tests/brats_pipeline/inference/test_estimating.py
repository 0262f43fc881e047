"""Estimates of memory: what tensors take, counted without making them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from brats_pipeline.inference import estimating
from brats_pipeline.inference.averaging import CheckpointEnsemble, EnsembleInferer
from brats_pipeline.inference.estimating import BESIDE_TENSORS, bytes_needed, follow
from brats_pipeline.inference.inferers import SliceInferer, WindowInferer
from brats_pipeline.inference.memory import changed

CPU = torch.device("cpu")
VOXELS = 16**3


class Known(nn.Module):
    """Holds 8 channels and then 8 and 3: the middle is where most is alive."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv3d(2, 8, 1), nn.Conv3d(8, 3, 1)

    def forward(self, image: Tensor) -> Tensor:
        wide = self.first(image)
        doubled = wide + wide
        del wide
        logits: Tensor = self.last(doubled)
        return logits


def test_a_pass_takes_what_is_alive_at_the_same_time() -> None:
    whole, regions = follow(Known(), (1, 2, 16, 16, 16), CPU, "float32")
    assert regions == 3
    assert whole == int(4 * VOXELS * (8 + 8) * BESIDE_TENSORS)
    in_half, _ = follow(Known(), (1, 2, 16, 16, 16), CPU, "bfloat16")
    image, weights = 2 * 2 * VOXELS, 2 * (2 * 8 + 8 + 8 * 3 + 3)
    assert whole / 2 < in_half <= int((whole / BESIDE_TENSORS / 2 + image + weights) * BESIDE_TENSORS)


def test_nothing_is_made_however_large_the_image() -> None:
    assert follow(Known(), (1, 2, 4096, 4096, 4096), CPU, "float32")[0] > 2**40


def test_the_network_is_as_it_was_afterwards() -> None:
    network = nn.Sequential(nn.Conv3d(2, 3, 1), nn.BatchNorm3d(3))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    follow(network, (1, 2, 8, 8, 8), CPU, "bfloat16")
    assert network.training
    assert all(type(value) in (Tensor, nn.Parameter) for value in network.state_dict().values())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def needed(inferer: Any, network: Any, *, channels: int = 2, size: tuple[int, ...] = (64, 16, 16)) -> int:
    found = bytes_needed(inferer, torch.zeros(1, channels, *size), network)
    assert found is not None
    return found


def test_every_rung_of_the_ladder_needs_less() -> None:
    windows = WindowInferer([16] * 3, sw_batch_size=4, precision="float32", overlap=0.5)
    rungs = [{"sw_batch_size": 1}, {"accumulate": "float16"}, {"keep": "float16"}, {"reduce": "regions"}]
    last = needed(windows, network := Known())
    for rung in [*rungs, {"roi_size": (8, 8, 8)}]:
        windows = changed(windows, **rung)
        assert needed(windows, network) < last
        last = needed(windows, network)
    slices = SliceInferer(slice_batch_size=4, precision="float32")
    flat = nn.Conv2d(2, 3, 1)
    assert needed(changed(slices, slice_batch_size=1), flat) < needed(slices, flat)


def test_what_is_kept_does_not_grow_with_the_regions_but_by_a_byte_each() -> None:
    size, few, many = (256, 16, 16), nn.Conv3d(2, 3, 1), nn.Conv3d(2, 11, 1)
    rest = [  # what grows with the length of the volume alone
        needed(WindowInferer([16] * 3, precision="float32", reduce="regions"), network, size=size)
        - needed(WindowInferer([16] * 3, precision="float32", reduce="regions"), network, size=(128, 16, 16))
        for network in (few, many)
    ]
    assert rest == [3 * 128 * 256, 11 * 128 * 256]


def test_averaging_needs_more_only_where_there_is_something_to_average() -> None:
    windows = WindowInferer([16] * 3, precision="float32", reduce="regions")
    network = Known()
    alone = needed(windows, network)
    assert needed(EnsembleInferer(windows), network) == alone
    together = CheckpointEnsemble([network, Known()])
    assert needed(EnsembleInferer(windows), together) > alone
    mirrored = EnsembleInferer(windows, flips=[0])
    assert alone < needed(mirrored, network) < needed(changed(mirrored, batch=2), network)


def test_mirror_images_that_fit_into_a_window_are_counted_as_they_go_through_together() -> None:
    network, passes = Known(), []
    network.register_forward_pre_hook(lambda _, given: passes.append(len(given[0])))
    windows = WindowInferer([16] * 3, sw_batch_size=4, precision="float32")
    one_by_one = EnsembleInferer(changed(windows, sw_batch_size=1), flips="all", batch=8)
    several = EnsembleInferer(windows, flips="all", batch=8)
    with torch.no_grad():
        several(torch.zeros(1, 2, 16, 16, 16), network)
    assert passes == [4, 4]
    more = needed(several, network, size=(16,) * 3) - needed(one_by_one, network, size=(16,) * 3)
    running = follow(network, (1, 2, 16, 16, 16), CPU, "float32")[0] + 4 * 2 * VOXELS
    assert more == pytest.approx(3 * running, rel=1e-3)


def test_neighbours_and_flags_are_channels_of_a_slice(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(estimating, "per_voxel", lambda network, shape, *_: seen.append(shape))
    inferer = SliceInferer(slice_batch_size=5, neighbours=1, flags=2)
    network = Known()
    network.stride = 8  # type: ignore[assignment]
    assert bytes_needed(inferer, torch.zeros(1, 4, 13, 16, 9), network) is None
    assert seen == [(5, 2 * 3 + 2, 16, 16)]
