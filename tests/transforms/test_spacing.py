"""A scan within the bounds passes untouched; any other is resampled as MONAI does it."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Spacingd

from transforms.spacing import SpacingWhereNeededd

BOUNDS = {
    "pixdim": (1.0, 1.0, 1.0),
    "min_pixdim": (0.95,) * 3,
    "max_pixdim": (1.05,) * 3,
    "mode": ("bilinear", "nearest"),
}


def scan(sides: tuple[float, float, float], dtype: torch.dtype = torch.int16) -> dict[str, MetaTensor]:
    draw = torch.Generator().manual_seed(0)
    values = torch.randint(0, 300, (2, 9, 8, 7), generator=draw).to(dtype)
    affine = torch.diag(torch.tensor([-sides[0], -sides[1], sides[2], 1.0], dtype=torch.float64))
    return {"image": MetaTensor(values, affine=affine), "label": MetaTensor(values[:1] % 2, affine=affine)}


@pytest.mark.parametrize("sides", [(1.0, 1.0, 1.0), (0.96, 1.04, 1.0)])
def test_a_scan_within_the_bounds_keeps_values_type_and_grid(sides: tuple[float, float, float]) -> None:
    item = scan(sides)
    chain = SpacingWhereNeededd(["image", "label"], **BOUNDS)
    passed = chain(item)
    for key in item:
        assert passed[key].dtype == item[key].dtype
        assert torch.equal(passed[key].as_tensor(), item[key].as_tensor())
        assert torch.equal(passed[key].affine, item[key].affine)
        assert not passed[key].applied_operations
    assert torch.equal(chain.inverse(passed)["image"].as_tensor(), item["image"].as_tensor())
    # MONAI agrees that there is nothing to do; it only makes floats of the voxels.
    assert torch.equal(Spacingd(["image", "label"], **BOUNDS)(item)["image"].as_tensor(), item["image"].float())


@pytest.mark.parametrize("dtype", [torch.int16, torch.float32])
def test_any_other_scan_is_resampled_as_by_monai_whatever_its_type(dtype: torch.dtype) -> None:
    item = scan((1.0, 1.2, 2.0), dtype)
    ours, theirs = (kind(["image", "label"], **BOUNDS) for kind in (SpacingWhereNeededd, Spacingd))
    resampled, expected = ours(item), theirs(scan((1.0, 1.2, 2.0), torch.float32))
    for key in item:
        assert torch.equal(resampled[key].as_tensor(), expected[key].as_tensor())
    assert torch.equal(ours.inverse(resampled)["image"].as_tensor(), theirs.inverse(expected)["image"].as_tensor())
