"""The box around the brain is the one that MONAI's generate_spatial_bounding_box draws."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.transforms import CropForegroundd
from monai.transforms.utils import generate_spatial_bounding_box

from transforms.foreground import CropForegroundBoxd, foreground_box


@given(
    size=st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6), st.integers(1, 6)),
    share=st.sampled_from([0.01, 0.05, 0.5]),
    dtype=st.sampled_from([torch.int16, torch.uint8, torch.float32]),
    turned=st.booleans(),
    seed=st.integers(0, 1000),
)
@settings(max_examples=150, deadline=None)
def test_the_box_is_that_of_monai(
    size: tuple[int, ...], share: float, dtype: torch.dtype, turned: bool, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    values = np.where(draw.random(size) < share, draw.integers(1, 255, size), 0)
    image = torch.from_numpy(values).to(dtype)
    if turned:
        image = image.permute(0, 3, 2, 1)
    start, end = foreground_box(image)
    if not image.any():
        assert (start == 0).all()
        assert tuple(end) == tuple(image.shape[1:])
        return
    expected = generate_spatial_bounding_box(image, lambda x: x != 0)
    assert ([*start], [*end]) == expected


def test_a_negative_voxel_is_foreground() -> None:
    for dtype in (torch.int16, torch.float32):
        image = torch.zeros(2, 5, 5, 5, dtype=dtype)
        image[1, 2, 3, 4] = -7
        start, end = foreground_box(image)
        assert (tuple(start), tuple(end)) == ((2, 3, 4), (3, 4, 5))


@pytest.mark.parametrize("dtype", [torch.int16, torch.float32])
def test_cropping_and_its_inverse_are_those_of_monai(dtype: torch.dtype) -> None:
    image = torch.zeros(2, 8, 9, 7, dtype=dtype)
    image[0, 2:5, 3:7, 1:6] = 3
    item = {"image": MetaTensor(image, affine=torch.diag(torch.tensor([-1.0, -2.0, 3.0, 1.0]))), "label": image[:1]}
    ours = CropForegroundBoxd(["image", "label"], source_key="image")
    theirs = CropForegroundd(["image", "label"], source_key="image", select_fn=lambda x: x != 0, allow_smaller=True)
    cropped, expected = ours(item), theirs(item)
    for key in ("image", "label"):
        torch.testing.assert_close(torch.as_tensor(cropped[key]), torch.as_tensor(expected[key]))
    assert torch.equal(cropped["image"].affine, expected["image"].affine)
    torch.testing.assert_close(ours.inverse(cropped)["image"].as_tensor(), image)
