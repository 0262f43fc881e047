"""Measuring on the volume and applying to a patch gives what normalising the volume and then cutting gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from monai.transforms import NormalizeIntensityd

from transforms.intensity import ClipZScored
from transforms.scaling import ApplyScaled, Compactd, MeasureScaled

BOX = (slice(None), slice(2, 9), slice(0, 5), slice(3, 8))


def volume(*, air: int = 0) -> torch.Tensor:
    """Two channels of whole numbers, a third of each is air."""
    draw = np.random.default_rng(0)
    values = draw.integers(40, 900, (2, 12, 10, 11)).astype(np.float32)
    values[:, draw.random((12, 10, 11)) < 1 / 3] = air
    return torch.from_numpy(values)


@pytest.mark.parametrize(
    ("whole", "measure", "keep_zeros"),
    [
        (NormalizeIntensityd("image", nonzero=True, channel_wise=True), MeasureScaled("image"), True),
        (ClipZScored("image"), MeasureScaled("image", method="clip_z_score"), False),
    ],
)
def test_a_patch_is_normalised_as_its_volume_is(whole: Any, measure: Any, keep_zeros: bool) -> None:
    expected = torch.as_tensor(whole({"image": volume()})["image"])[BOX]
    item = Compactd("image")(measure({"image": volume()}))
    patch = {"image": item["image"][BOX], "image_scale": item["image_scale"]}
    torch.testing.assert_close(ApplyScaled("image", keep_zeros=keep_zeros)(patch)["image"], expected)


def test_an_empty_channel_stays_zero_by_either_method() -> None:
    for method in ("z_score", "clip_z_score"):
        item = MeasureScaled("image", method=method)({"image": torch.zeros(1, 4, 4, 4)})
        assert torch.equal(ApplyScaled("image", keep_zeros=True)(item)["image"], torch.zeros(1, 4, 4, 4))


def test_an_unknown_method_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'minmax'; known: z_score, clip_z_score"):
        MeasureScaled("image", method="minmax")


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([0.0, 1.0, 255.0], torch.uint8),
        ([0.0, 256.0], torch.int16),
        ([-1.0, 32767.0], torch.int16),
        ([0.0, 32768.0], torch.float32),
        ([0.0, 0.5], torch.float32),
        ([0.0, float("nan")], torch.float32),
    ],
)
def test_whole_numbers_take_the_smallest_type_that_holds_them(values: list[float], dtype: torch.dtype) -> None:
    given = torch.tensor(values).reshape(1, -1)
    stored = Compactd("image")({"image": given})["image"]
    assert stored.dtype == dtype
    torch.testing.assert_close(stored.float(), given, rtol=0, atol=0, equal_nan=True)


def test_the_layout_in_memory_stays() -> None:
    slices_apart = torch.arange(120.0).reshape(2, 3, 4, 5).permute(3, 0, 1, 2).contiguous().permute(1, 2, 3, 0)
    assert Compactd("image")({"image": slices_apart})["image"].stride() == slices_apart.stride()
