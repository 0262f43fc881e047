"""Random changes of intensity: zeros stay, slices of a modality change alike, and each change against an oracle."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from monai.transforms import RandSimulateLowResolution
from scipy.ndimage import gaussian_filter

from transforms.channels import RandChannelsd
from transforms.contrast_augmentation import RandContrastd, RandGammad, RandScaled, RandShiftd, change_gamma
from transforms.sharpness import RandBlurd, RandLowResolutiond, RandNoised, blur, lower_resolution

EVERY: dict[str, Any] = {
    "scale": (RandScaled, {"low": 0.5, "high": 0.7}),
    "shift": (RandShiftd, {"low": 0.2, "high": 0.3}),
    "contrast": (RandContrastd, {"low": 1.2, "high": 1.5}),
    "gamma": (RandGammad, {"low": 0.7, "high": 0.8}),
    "inverted gamma": (RandGammad, {"low": 0.7, "high": 0.8, "inverted": True}),
    "noise": (RandNoised, {"low": 0.1, "high": 0.3}),
    "blur": (RandBlurd, {"low": 0.5, "high": 1.5}),
    "low resolution": (RandLowResolutiond, {"low": 0.5, "high": 0.7}),
}
every = pytest.mark.parametrize("name", EVERY)


def step(name: str, **more: Any) -> RandChannelsd:
    kind, arguments = EVERY[name]
    made: RandChannelsd = kind("image", **{"prob": 1.0} | arguments | more)
    return made.set_random_state(seed=2)


def brain(channels: int = 4, sides: tuple[int, ...] = (12, 10, 8)) -> torch.Tensor:
    """Z-scored values with air around them, and a last channel that is missing."""
    image = torch.zeros(channels, *sides)
    inside = (slice(None), *(slice(2, side - 1) for side in sides))
    image[inside] = torch.randn(image[inside].shape, generator=torch.Generator().manual_seed(0))
    image[-1] = 0
    return image


@every
def test_zeros_stay_and_the_rest_changes_and_the_input_does_not(name: str) -> None:
    image = brain()
    before = image.clone()
    result = step(name)({"image": image})["image"]
    assert torch.equal(image, before)
    assert torch.all(result[before == 0] == 0)
    assert torch.isfinite(result).all()
    inside = before[0] != 0
    assert all((result[number] != before[number])[inside].float().mean() > 0.5 for number in range(3))
    assert torch.all(result[3] == 0)
    assert result.dtype == torch.float32


@every
def test_the_same_seed_gives_the_same_and_a_pickled_copy_too(name: str) -> None:
    image = brain()
    first, again = step(name), copy.deepcopy(step(name))
    assert torch.equal(first({"image": image})["image"], again({"image": image})["image"])
    assert not torch.equal(first({"image": image})["image"], again.set_random_state(seed=9)({"image": image})["image"])


@every
def test_probabilities_hold_for_samples_and_for_modalities(name: str) -> None:
    image, samples = torch.ones(3, 4, 4) * torch.linspace(-1, 2, 16).reshape(4, 4), 400
    draw = step(name, prob=0.5, channel_prob=0.25)
    changed = [(draw({"image": image})["image"] != image).any(dim=2).any(dim=1).tolist() for _ in range(samples)]
    assert np.mean(changed) == pytest.approx(0.125, abs=0.05)
    assert np.mean([any(sample) for sample in changed]) == pytest.approx(0.5 * (1 - 0.75**3), abs=0.08)


@pytest.mark.parametrize("name", [name for name in EVERY if name not in ("noise", "contrast")])
def test_neighbouring_slices_of_one_modality_change_alike(name: str) -> None:
    one = brain(2, (40, 30))[0]
    two = torch.stack([one, 2 * one])
    result = step(name, slices=3)({"image": torch.cat([two, two, two])})["image"]
    torch.testing.assert_close(result[:2], result[2:4])
    torch.testing.assert_close(result[:2], result[4:])
    assert not torch.allclose(result[1], 2 * result[0])


def test_noise_is_drawn_for_each_slice_with_one_deviation() -> None:
    image = torch.ones(3, 200, 200)
    result = step("noise", slices=3)({"image": image})["image"] - 1
    deviations = result.std(dim=(1, 2))
    torch.testing.assert_close(deviations, deviations[:1].expand(3), rtol=0.03, atol=0)
    assert abs(float((result[0] * result[1]).mean())) < 0.01 * float(deviations[0])
    assert 0.1 < float(deviations[0]) < 0.3


@pytest.mark.parametrize("sides", [(11, 9), (11, 9, 7)])
@pytest.mark.parametrize("sigma", [0.4, 1.3])
def test_blur_equals_scipys_gaussian(sides: tuple[int, ...], sigma: float) -> None:
    image = np.random.default_rng(0).normal(size=(2, *sides))
    share_inside = gaussian_filter(np.ones(sides), sigma, mode="constant", truncate=4.5)
    expected = np.stack([gaussian_filter(one, sigma, mode="constant", truncate=4.5) / share_inside for one in image])
    torch.testing.assert_close(blur(torch.tensor(image), sigma), torch.tensor(expected), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("sides", [(16, 12), (16, 12, 10)])
def test_low_resolution_equals_monais_without_zeros(sides: tuple[int, ...]) -> None:
    image = torch.rand(2, *sides) + 1
    linear = {2: "bilinear", 3: "trilinear"}[len(sides)]
    theirs = RandSimulateLowResolution(
        prob=1, zoom_range=(0.6, 0.6), downsample_mode="nearest-exact", upsample_mode=linear
    )
    torch.testing.assert_close(lower_resolution(image, 0.6), theirs(image))


def test_gamma_keeps_the_mean_and_deviation_of_the_brain_and_the_order_of_its_values() -> None:
    image = brain()[:1]
    inside = image != 0
    for exponent in (0.6, 1.7):
        result = change_gamma(image, exponent)
        torch.testing.assert_close(result[inside].mean(), image[inside].mean(), rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(result[inside].std(), image[inside].std(), rtol=1e-4, atol=1e-4)
        order = image[inside].argsort()
        assert torch.all(result[inside][order].diff() >= 0)
    scaled = (image[inside] - image.min()) / (image.max() - image.min())
    expected = scaled**1.7
    expected = (expected - expected.mean()) / expected.std() * image[inside].std() + image[inside].mean()
    torch.testing.assert_close(change_gamma(image, 1.7)[inside], expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(change_gamma(image, 1.0), image, rtol=1e-4, atol=1e-4)


def test_gamma_widens_the_bright_end_or_inverted_the_dark_one() -> None:
    values = torch.linspace(-1, 2, 31)[None]
    plain = step("gamma", low=1.5, high=1.5)({"image": values})["image"][0].diff()
    inverted = step("inverted gamma", low=1.5, high=1.5)({"image": values})["image"][0].diff()
    assert plain[-1] > 2 * plain[0]
    assert inverted[0] > 2 * inverted[-1]


def test_contrast_keeps_the_mean_within_the_range() -> None:
    image = torch.tensor([[0.0, -3.0, -1.0, 1.0, 3.0]])
    result = step("contrast", low=1.5, high=1.5)({"image": image})["image"]
    torch.testing.assert_close(result, torch.tensor([[0.0, -3.0, -1.5, 1.5, 3.0]]))


def test_scale_and_shift_are_what_they_say() -> None:
    image = torch.tensor([[0.0, -2.0, 4.0]])
    torch.testing.assert_close(step("scale", low=0.5, high=0.5)({"image": image})["image"], image / 2)
    shifted = step("shift", low=0.25, high=0.25)({"image": image})["image"]
    torch.testing.assert_close(shifted, torch.tensor([[0.0, -1.75, 4.25]]))


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="channel_prob is 2"):
        step("scale", channel_prob=2)
    with pytest.raises(ValueError, match="low must not exceed high"):
        step("scale", low=2.0, high=1.0)
    with pytest.raises(ValueError, match="slices is 0"):
        step("scale", slices=0)
    with pytest.raises(ValueError, match="exponent must be above 0"):
        step("gamma", low=0.0)
    with pytest.raises(ValueError, match="4 channels are no multiple of 3 slices"):
        step("scale", slices=3)({"image": brain()})


@pytest.mark.gpu
@every
def test_a_gpu_changes_images_as_the_cpu_does(name: str) -> None:
    image = brain()
    here, there = step(name)({"image": image})["image"], step(name)({"image": image.cuda()})["image"]
    assert there.device.type == "cuda"
    if name == "noise":
        assert torch.all(there.cpu()[image == 0] == 0)
    else:
        torch.testing.assert_close(there.cpu(), here, rtol=1e-3, atol=1e-3)
