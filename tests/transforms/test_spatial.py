"""Random rotation, scaling and mirroring: against scipy, image and regions alike, and what is drawn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform

from transforms.spatial import RandMirrord, RandRotateScaled, resample

BOTH = ["image", "label"]


def sample(sides: tuple[int, ...]) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "image": torch.rand(2, *sides, generator=generator),
        "label": (torch.rand(3, *sides, generator=generator) > 0.5).float(),
    }


def turn(**arguments: Any) -> RandRotateScaled:
    made = RandRotateScaled(BOTH, **{"mode": ["bilinear", "nearest"], "prob": 1.0} | arguments)
    return made.set_random_state(seed=1)


@pytest.mark.parametrize("sides", [(15, 12), (11, 14, 9)])
def test_resampling_equals_scipys_away_from_the_border(sides: tuple[int, ...]) -> None:
    data = sample(sides)["image"].double()
    matrix = np.eye(len(sides)) + np.random.default_rng(1).uniform(-0.2, 0.2, size=(len(sides),) * 2)
    middle = (np.array(sides) - 1) / 2
    offset = middle - matrix @ middle
    ours = resample(data, matrix, mode="bilinear", padding_mode="border")
    theirs = np.stack([affine_transform(channel.numpy(), matrix, offset, order=1, mode="nearest") for channel in data])
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-9)


def test_a_turn_by_a_right_angle_is_a_transposition() -> None:
    data = sample((8, 8))["image"]
    turned = resample(data, np.array([[0.0, -1.0], [1.0, 0.0]]), mode="nearest", padding_mode="zeros")
    assert torch.equal(turned, data.rot90(1, (1, 2))) or torch.equal(turned, data.rot90(-1, (1, 2)))


@pytest.mark.parametrize("sides", [(32, 24), (20, 24, 28)])
def test_image_and_regions_move_together_and_regions_stay_masks(sides: tuple[int, ...]) -> None:
    places = torch.meshgrid(*(torch.arange(side) - side / 2 - 3.0 for side in sides), indexing="ij")
    ball = torch.stack(places).square().sum(0) < 25
    data = {"image": ball.float()[None], "label": ball.float()[None]}
    for seed in range(5):
        made = turn(rotate=0.5, scale=(0.8, 1.25), stretch=0.1, shear=0.1).set_random_state(seed=seed)(data)
        assert set(made["label"].unique().tolist()) <= {0.0, 1.0}
        apart = (made["image"] > 0.5) != (made["label"] > 0)
        assert apart.sum() < 0.1 * ball.sum()
        assert not torch.equal(made["label"], data["label"])


def test_a_factor_above_one_shrinks_and_all_axes_share_it() -> None:
    cube = torch.zeros(1, 32, 32, 32)
    cube[:, 8:24, 8:24, 8:24] = 1
    made = turn(scale=(2, 2))({"image": cube, "label": cube})
    assert float(made["label"].sum()) == 8**3
    corners = made["label"][0].nonzero()
    assert (corners.amax(0) - corners.amin(0) + 1).tolist() == [8, 8, 8]


def test_draws_cover_their_ranges_and_the_share_given() -> None:
    draw = turn(prob=0.3, rotate=0.4, scale=(0.7, 1.4))
    factors, angles = [], []
    for _ in range(600):
        draw.matrix = None
        draw.randomize(2)
        if draw.matrix is not None:
            factors.append(float(np.linalg.det(draw.matrix)) ** 0.5)
            angles.append(float(np.arctan2(draw.matrix[1, 0], draw.matrix[0, 0])))
    assert len(factors) / 600 == pytest.approx(0.3, abs=0.06)
    assert 0.7 <= min(factors) < 0.75
    assert 1.35 < max(factors) <= 1.4
    assert -0.4 <= min(angles) < -0.35
    assert 0.35 < max(angles) <= 0.4


def test_mirroring_draws_each_axis_by_itself_and_moves_image_and_regions_alike() -> None:
    data = sample((4, 5, 6))
    draw = RandMirrord(BOTH, axes=[0, 2]).set_random_state(seed=0)
    seen = []
    for _ in range(200):
        made = draw(data)
        (axes,) = [axes for axes in ((), (1,), (3,), (1, 3)) if torch.equal(made["image"], data["image"].flip(axes))]
        assert torch.equal(made["label"], data["label"].flip(axes))
        seen.append(axes)
    assert all(seen.count(axes) / 200 == pytest.approx(0.25, abs=0.1) for axes in ((), (1,), (3,), (1, 3)))


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="1 modes came for 2 keys"):
        turn(mode=["bilinear"])
    with pytest.raises(ValueError, match="two factors above 0"):
        turn(scale=(0, 1))
    with pytest.raises(ValueError, match="two factors above 0"):
        turn(scale=(1.4, 0.7))


@pytest.mark.gpu
def test_a_gpu_turns_and_mirrors_as_the_cpu_does() -> None:
    data = sample((12, 10, 8))
    for made in (turn(rotate=0.5, scale=(0.8, 1.2)), RandMirrord(BOTH, axes=[0, 1, 2])):
        here = made.set_random_state(seed=3)(data)
        there = made.set_random_state(seed=3)({key: value.cuda() for key, value in data.items()})
        assert there["image"].device.type == "cuda"
        torch.testing.assert_close(there["image"].cpu(), here["image"], rtol=1e-3, atol=1e-3)
        assert (there["label"].cpu() != here["label"]).float().mean() < 0.01
