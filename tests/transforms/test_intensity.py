"""Normalisation with and without a brain mask: against MONAI and numpy, and by its properties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import NormalizeIntensity

from transforms.intensity import ClipZScored, ZScored, clip_z_score


@pytest.fixture
def image() -> torch.Tensor:
    """Two channels of a head on dark, noisy air; a few voxels far brighter than the rest."""
    generator = torch.Generator().manual_seed(0)
    image = 3 * torch.rand(2, 20, 20, 10, generator=generator)
    image[:, 5:15, 5:15] = 100 + 20 * torch.randn(2, 10, 10, 10, generator=generator)
    image[0, 7, 7, :3] = 250
    image[1] *= 2.5
    return image


def test_numpy_computes_the_same(image: torch.Tensor) -> None:
    result = clip_z_score(image)
    for channel, normalised in zip(image.numpy(), result.numpy(), strict=True):
        inside = channel > 0.1 * channel.max()
        low, high = np.percentile(channel[inside], [1, 99], method="nearest")
        clipped = np.clip(channel, low, high)
        expected = (clipped - clipped[inside].mean()) / clipped[inside].std(ddof=1)
        np.testing.assert_allclose(normalised, expected, rtol=1e-3, atol=1e-3)


def test_the_foreground_has_mean_0_and_deviation_1(image: torch.Tensor) -> None:
    for channel, normalised in zip(image, clip_z_score(image), strict=True):
        inside = normalised[channel > 0.1 * channel.max()]
        assert inside.mean().item() == pytest.approx(0, abs=1e-4)
        assert inside.std().item() == pytest.approx(1, abs=1e-4)


def test_a_brighter_scanner_changes_nothing(image: torch.Tensor) -> None:
    torch.testing.assert_close(clip_z_score(image), clip_z_score(3 * image), rtol=1e-4, atol=1e-4)


def test_more_air_around_the_head_changes_nothing(image: torch.Tensor) -> None:
    padded = torch.nn.functional.pad(image, (0, 0, 30, 30, 30, 30))
    torch.testing.assert_close(clip_z_score(padded)[:, 30:-30, 30:-30], clip_z_score(image))


def test_a_channel_without_contrast_becomes_zero() -> None:
    assert not clip_z_score(torch.full((1, 4, 4, 2), 7.0)).any()
    assert not clip_z_score(torch.zeros(1, 4, 4, 2)).any()


def test_the_dictionary_form_does_the_same(image: torch.Tensor) -> None:
    torch.testing.assert_close(ClipZScored("image")({"image": image})["image"], clip_z_score(image))


@pytest.mark.parametrize("dtype", [torch.int16, torch.float32])
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("offset", [0, 20_000])
def test_the_z_score_over_nonzero_voxels_is_that_of_monai(dtype: torch.dtype, turned: bool, offset: int) -> None:
    draw = torch.Generator().manual_seed(0)
    values = torch.randint(-50, 400, (3, 9, 11, 10), generator=draw) + offset
    values[:, torch.rand(9, 11, 10, generator=draw) < 0.4] = 0
    values[2] = 0  # a modality that is missing
    volume = values.to(dtype)
    volume = volume.permute(0, 3, 2, 1) if turned else volume
    expected = NormalizeIntensity(nonzero=True, channel_wise=True, dtype=np.float64)(volume.double())
    scan = MetaTensor(volume, affine=torch.diag(torch.tensor([2.0, 1.0, 1.0, 1.0])))
    result = ZScored("image")({"image": scan})["image"]
    torch.testing.assert_close(result.as_tensor(), torch.as_tensor(expected).float(), rtol=1e-4, atol=1e-5)
    assert result.is_contiguous()
    assert torch.equal(result.affine, scan.affine)
    assert torch.equal(result == 0, volume == 0)


def test_working_piece_by_piece_changes_nothing(image: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    air = image < 5
    scan = image.masked_fill(air, 0.0)
    whole, clipped = ZScored("image")({"image": scan})["image"], clip_z_score(image)
    monkeypatch.setattr("transforms.intensity.PIECE", 7)
    torch.testing.assert_close(ZScored("image")({"image": scan})["image"], whole)
    assert torch.equal(clip_z_score(image), clipped)
