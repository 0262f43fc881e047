"""A scan within the bounds passes untouched; any other is resampled as MONAI does it."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Spacingd

from brats_pipeline.inference.estimating import LiveBytes
from transforms import spacing
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


def test_parts_of_a_scan_are_resampled_as_by_monai_in_less_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.rand(4, 40, 36, 32, generator=torch.Generator().manual_seed(0))
    affine = torch.tensor([[0, -0.5, 0, 9], [-0.6, 0, 0, 3], [0, 0, 0.7, -5], [0, 0, 0, 1]], dtype=torch.float64)
    monkeypatch.setattr(spacing, "VOXELS_AT_ONCE", 3 * 36 * 32)
    found, peaks = [], []
    for kind in (SpacingWhereNeededd, Spacingd):
        chain = kind("image", **{**BOUNDS, "mode": "bilinear"})
        item = {"image": MetaTensor(values.clone(), affine=affine, meta={"case": "a"})}
        with LiveBytes() as there:
            resampled = chain(item)
        with LiveBytes() as back:
            inverted = chain.inverse(resampled)
        found += [(resampled["image"], inverted["image"])]
        peaks += [(there.peak, back.peak)]
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours.as_tensor(), theirs.as_tensor(), atol=1e-6, rtol=0)
        torch.testing.assert_close(ours.affine, theirs.affine)
        assert ours.dtype == theirs.dtype
        assert ours.meta["case"] == "a"
        assert len(ours.applied_operations) == len(theirs.applied_operations)
    (there, back), (their_there, their_back) = peaks
    assert there < their_there / 2
    assert back < their_back / 2, "40 rows come three by three"
