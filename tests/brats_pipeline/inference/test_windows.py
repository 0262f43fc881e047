"""Sliding windows: MONAI's logits, without its memory, its padding, and its work on air."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from monai.inferers import SlidingWindowInferer
from torch import Tensor, nn

import networks
from brats_pipeline.inference.inferers import WindowInferer
from brats_pipeline.inference.windows import NOTHING, blend_windows, lay_windows
from transforms.presence import flag_presence


def volume(*size: int, channels: int = 2) -> Tensor:
    return torch.randn(1, channels, *size, generator=torch.Generator().manual_seed(0))


def small_network(dims: int) -> nn.Module:
    torch.manual_seed(0)
    return networks.UNet(spatial_dims=dims, in_channels=2, out_channels=3, depth=2, features=8).eval()


class Count(nn.Module):
    """Gives back its input and notes the windows it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []

    def forward(self, windows: Tensor) -> Tensor:
        self.seen.append(tuple(windows.shape))
        return windows


@pytest.mark.parametrize("mode", ["gaussian", "constant"])
@pytest.mark.parametrize(
    ("size", "roi", "overlap"),
    [
        ((16, 16, 16), (16, 16, 16), 0.5),
        ((17, 33, 20), (16, 16, 16), 0.5),
        ((40, 16, 23), (16, 8, 20), 0.25),
        ((31, 24, 16), (16, 24, 8), 0.625),
        ((33, 20), (16, 12), 0.5),
    ],
)
def test_logits_equal_those_of_monai(size: tuple[int, ...], roi: tuple[int, ...], overlap: float, mode: str) -> None:
    network, image = small_network(len(size)), volume(*size)
    with torch.no_grad():
        expected = SlidingWindowInferer(roi, sw_batch_size=1, overlap=overlap, mode=mode)(image, network)
        for batch in (1, 3):
            ours = WindowInferer(roi, sw_batch_size=batch, overlap=overlap, mode=mode, precision="float32")
            torch.testing.assert_close(ours(image, network), expected, atol=1e-4, rtol=0)


def test_a_batch_of_images_is_a_batch_of_answers() -> None:
    network, images = small_network(3), torch.cat([volume(20, 16, 16), 2 * volume(20, 16, 16)])
    inferer = WindowInferer([16, 16, 16], precision="float32")
    with torch.no_grad():
        both = inferer(images, network)
        torch.testing.assert_close(both[1:], inferer(images[1:], network))
    assert both.shape == (2, 3, 20, 16, 16)


def test_windows_cover_every_voxel_and_stay_inside() -> None:
    for size, roi, overlap in itertools.product((5, 16, 17, 40), (8, 16), (0.0, 0.5, 0.9)):
        grid = lay_windows([size], [roi], overlap=overlap, stride=4)
        (starts,), (side,) = grid.starts, grid.sides
        covered = {voxel for start in starts for voxel in range(start, start + side)}
        assert covered == set(range(size + sum(grid.padding[0])))
        assert side % 4 == 0 or side == roi


def test_a_small_image_is_padded_to_the_stride_and_not_to_the_window() -> None:
    grid = lay_windows([155, 20, 64], [160, 64, 64], overlap=0.5, stride=8)
    assert grid.sides == (160, 24, 64)
    assert grid.padding == ((2, 3), (2, 2), (0, 0))
    network = Count()
    network.stride = 8  # type: ignore[assignment]
    WindowInferer([160, 64, 64], precision="float32")(volume(155, 20, 64), network)
    assert network.seen == [(1, 2, 160, 24, 64)]


def test_windows_of_air_are_not_run_and_hold_no_region() -> None:
    image, network = torch.zeros(1, 2, 64, 16, 16), Count()
    image[:, :, 40:44] = 1
    logits = WindowInferer([16, 16, 16], overlap=0.5, precision="float32")(image, network)
    assert len(network.seen) == 2  # those that start at 32 and 40, of seven
    assert (logits[:, :, :32] == NOTHING).all()
    torch.testing.assert_close(logits[:, :, 32:56], image[:, :, 32:56])
    everything = Count()
    WindowInferer([16, 16, 16], overlap=0.5, precision="float32", skip_air=False)(image, everything)
    assert len(everything.seen) == 7


def test_a_window_is_air_only_where_every_modality_is() -> None:
    image, network = torch.zeros(1, 2, 64, 16, 16), Count()
    image[:, 0, :4] = image[:, 1, 40:44] = 1
    logits = WindowInferer([16, 16, 16], overlap=0.5, precision="float32")(image, network)
    assert len(network.seen) == 3  # those that start at 0, 32 and 40
    for head in (slice(0, 4), slice(40, 44)):
        torch.testing.assert_close(logits[:, :, head], image[:, :, head])


def test_flags_of_presence_do_not_make_air_worth_running() -> None:
    scan = torch.zeros(2, 64, 16, 16)
    scan[:, 40:44] = 1
    image, network = flag_presence(scan, torch.tensor([1, 0]))[None], Count()
    logits = WindowInferer([16, 16, 16], overlap=0.5, precision="float32", flags=2)(image, network)
    assert len(network.seen) == 2  # as without flags
    torch.testing.assert_close(logits[:, :, 32:56], image[:, :, 32:56])
    everything = Count()
    empty = flag_presence(torch.zeros(2, 32, 16, 16), torch.tensor([1, 1]))[None]
    assert torch.equal(WindowInferer([16, 16, 16], precision="float32", flags=2)(empty, everything), empty)


def test_an_image_of_nothing_but_air_is_run_all_the_same() -> None:
    image = torch.zeros(1, 2, 32, 16, 16)
    assert torch.equal(WindowInferer([16, 16, 16], precision="float32")(image, Count()), image)


def test_memory_holds_one_row_of_windows_whatever_the_length_of_the_volume() -> None:
    largest = []
    for length in (32, 128):
        image = volume(length, 16, 16)
        slabs = list(blend_windows(image, nn.Identity(), lay_windows(image.shape[2:], [16] * 3, overlap=0.5)))
        assert [rows.start for rows, _ in slabs] == list(range(0, length - 8, 8))
        largest.append(max(logits.numel() for _, logits in slabs if logits is not None))
        torch.testing.assert_close(torch.cat([logits for _, logits in slabs if logits is not None], dim=1), image[0])
    assert largest[0] == largest[1] == 2 * 16**3


def test_logits_may_be_kept_in_half_the_memory() -> None:
    image = volume(40, 16, 16)
    half: Any = WindowInferer([16] * 3, precision="float32", keep="float16")(image, nn.Identity())
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), image, atol=2e-3, rtol=0)


def test_what_cannot_be_laid_is_refused() -> None:
    with pytest.raises(ValueError, match="window of 2 axes for an image of 3"):
        lay_windows([8, 8, 8], [4, 4], overlap=0.5)
    with pytest.raises(ValueError, match="overlap is 1"):
        lay_windows([8], [4], overlap=1.0)
    with pytest.raises(ValueError, match="keep is 'int8'; known: float32, float16"):
        WindowInferer([8], keep="int8")
    with pytest.raises(ValueError, match="sw_batch_size is 0"):
        WindowInferer([8], sw_batch_size=0)
    with pytest.raises(ValueError, match=r"roi_size is \[-1, 8\]; give one side of at least 1 voxel for each axis"):
        WindowInferer([-1, 8])
    with pytest.raises(ValueError, match="flags is -1"):
        WindowInferer([8], flags=-1)
