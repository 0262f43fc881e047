"""A scan in a few numbers, each against what was drawn by hand or is known of it."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import mutual_info_score

from brats_pipeline.data.looks import Look, look_at, sampled

SIDE = 48


def blobs(seed: int, side: int = SIDE) -> np.ndarray:
    """Smooth structure within a ball, 0 outside; the same structure for the same seed."""
    from scipy.ndimage import gaussian_filter

    noise = gaussian_filter(np.random.default_rng(seed).standard_normal((side,) * 3), 2.5)
    noise = 1 + (noise - noise.min()) / np.ptp(noise)
    place = np.indices(noise.shape) - (side - 1) / 2
    noise[(place**2).sum(axis=0) > (0.42 * side) ** 2] = 0
    return noise


def look(image: Any, names: tuple[str, ...], voxel_mm: tuple[float, ...] | None = (1.0, 1.0, 1.0)) -> Look:
    samples, steps = sampled(image)
    found = look_at(samples, steps, modalities=names, voxel_mm=voxel_mm)
    assert found is not None
    return found


def test_the_extent_is_that_of_the_box_around_everything_in_millimetres() -> None:
    image = np.zeros((2, 30, 30, 30))
    image[0, 5:25, 10:20, 3:28] = 1
    image[1, 8:26, 12:14, 3:28] = 2
    assert look(image, ("t1c", "t1"), (1.0, 2.0, 0.5)).extent_mm == (21.0, 20.0, 12.5)


def test_the_share_of_zeros_of_a_ball_is_that_of_the_cube_around_it() -> None:
    place = np.indices((39,) * 3) - 19
    ball = ((place**2).sum(axis=0) <= 19.5**2).astype(float)
    assert look(ball[None], ("t1c",)).zeros == pytest.approx(1 - np.pi / 6, abs=0.02)


def test_the_quantiles_are_those_of_what_is_not_zero() -> None:
    image = np.zeros((1, 32, 32, 32))
    image[0, 2:30, 2:30, 2:30] = np.random.default_rng(0).uniform(10, 20, (28, 28, 28))
    quantiles = look(image, ("flair",)).quantiles["flair"]
    assert quantiles[16] == pytest.approx(15, abs=0.1)
    assert (quantiles[0], quantiles[-1]) == pytest.approx((10.05, 19.95), abs=0.05)


def test_mutual_information_is_that_of_the_ranks() -> None:
    one, other = blobs(1, 36), blobs(1, 36) ** 2 + 0.2 * blobs(2, 36)
    found = look(np.stack([one, other]), ("t1c", "t1")).information["t1c", "t1"]
    inside = one > 0

    def ranks(values: np.ndarray) -> np.ndarray:
        return np.digitize(values, np.quantile(values, np.arange(1, 32) / 32))

    assert found == pytest.approx(mutual_info_score(ranks(one[inside]), ranks(other[inside])) / np.log(2), rel=0.01)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("way", [-1, 1])
def test_an_image_that_lies_elsewhere_shares_more_once_it_is_moved_back(axis: int, way: int) -> None:
    one, other = blobs(3), 3 - blobs(3)
    other[one == 0] = 0
    together = look(np.stack([one, other]), ("t1c", "t2"))
    apart = look(np.stack([one, np.roll(other, 4 * way, axis)]), ("t1c", "t2"))
    assert together.moved["t2"] < 0.8
    assert apart.moved["t2"] > 1.2


def test_a_modality_of_zeros_is_missing_and_an_empty_scan_looks_like_nothing() -> None:
    image = np.stack([blobs(1, 24), np.zeros((24,) * 3)])
    assert set(look(image, ("t1c", "t1")).quantiles) == {"t1c"}
    assert look_at(np.zeros((1, 8, 8, 8)), (1, 1, 1), modalities=("t1c",), voxel_mm=None) is None


@pytest.mark.slow
def test_a_look_at_a_whole_scan_takes_a_tenth_of_a_second() -> None:
    image = np.repeat(np.repeat(np.stack([blobs(n, 80) for n in range(4)]), 2, axis=1), 2, axis=2)
    took = []
    for _ in range(5):
        started = time.perf_counter()
        look(image, ("t1c", "t1", "t2", "flair"))
        took.append(time.perf_counter() - started)
    assert sorted(took)[2] < 0.15
