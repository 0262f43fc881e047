"""The way back to the scan: the same regions as by inverting every probability, in bytes where that is enough."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Activationsd, AsDiscreted, Compose, CropForegroundd, Invertd, Orientationd, Spacingd

from transforms.restore import RestoreRegionsd, interpolated


def preprocessing() -> Compose:
    return Compose(
        [
            Orientationd("image", axcodes="LPS", labels=(("L", "R"), ("P", "A"), ("I", "S"))),
            Spacingd(
                "image", pixdim=[1.0] * 3, min_pixdim=[0.95] * 3, max_pixdim=[1.05] * 3, mode="bilinear",
                padding_mode="zeros",
            ),
            CropForegroundd("image", source_key="image", allow_smaller=True),
        ]
    )  # fmt: skip


AFFINES = {
    "as it is": np.diag([-1.0, -1.0, 1.0, 1.0]),
    "turned": np.array([[0, 0, 1.0, 3], [1, 0, 0, -5], [0, -1, 0, 7], [0, 0, 0, 1]]),
    "nearly 1 mm": np.diag([-1.04, 1.0, 0.97, 1.0]),
    "thick slices": np.diag([1.0, -1.0, 2.5, 1.0]),
}


def case(affine: np.ndarray[Any, Any]) -> tuple[Compose, dict[str, Any]]:
    """A scan, preprocessed, with logits on its new grid."""
    scan = torch.zeros(2, 14, 12, 10)
    scan[:, 2:11, 3:10, 1:8] = 1 + torch.rand(2, 9, 7, 7, generator=torch.Generator().manual_seed(1))
    chain = preprocessing()
    item = chain({"image": MetaTensor(scan, affine=torch.tensor(affine))})
    shape = item["image"].shape[1:]
    logits = 2 * torch.randn(3, *shape, generator=torch.Generator().manual_seed(2))
    return chain, {**item, "pred": MetaTensor(logits, meta=item["image"].meta)}


@pytest.mark.parametrize("threshold", [0.5, 0.3])
@pytest.mark.parametrize("affine", AFFINES.values(), ids=AFFINES)
def test_regions_are_those_of_the_inverted_probabilities(affine: np.ndarray[Any, Any], threshold: float) -> None:
    chain, item = case(affine)
    inverted = Compose(
        [
            Activationsd("pred", sigmoid=True),
            Invertd("pred", transform=chain, orig_keys="image", nearest_interp=False, to_tensor=True),
        ]
    )(dict(item))["pred"]
    expected = AsDiscreted("pred", threshold=threshold)({"pred": inverted})["pred"]
    regions = RestoreRegionsd("pred", transform=chain, threshold=threshold)(item)["pred"]
    assert regions.dtype == torch.uint8
    assert regions.shape == (3, 14, 12, 10)
    assert torch.equal(regions.as_tensor(), expected.as_tensor().byte())
    kept = RestoreRegionsd("pred", transform=chain, threshold=threshold, probabilities_key="said")(item)
    torch.testing.assert_close(kept["said"].as_tensor(), inverted.as_tensor())
    assert torch.equal(kept["pred"].as_tensor(), regions.as_tensor())


@pytest.mark.parametrize(("name", "made"), [*zip(AFFINES, [False, False, False, True], strict=True)])
def test_only_another_spacing_makes_values_between_voxels(name: str, made: bool) -> None:
    assert interpolated(case(AFFINES[name])[1]["image"]) is made


def test_turning_the_voxels_of_a_tilted_scan_makes_values_between_them() -> None:
    tilt = np.eye(4)
    tilt[:2, :2] = [[0.8, -0.6], [0.6, 0.8]]
    upright = Compose([Spacingd("image", pixdim=[1.0] * 3, diagonal=True)])
    for affine, made in ((tilt, True), (np.eye(4), False)):
        image = upright({"image": MetaTensor(torch.rand(1, 8, 8, 8), affine=torch.tensor(affine))})["image"]
        torch.testing.assert_close(image.affine[:3, :3].double(), torch.eye(3, dtype=torch.float64))
        assert interpolated(image) is made


def test_each_region_may_have_its_own_threshold() -> None:
    chain, item = case(AFFINES["turned"])
    limits = [0.2, 0.5, 0.9]
    together = RestoreRegionsd("pred", transform=chain, threshold=limits)(item)["pred"]
    for number, limit in enumerate(limits):
        alone = RestoreRegionsd("pred", transform=chain, threshold=limit)(item)["pred"]
        assert torch.equal(together[number], alone[number])


def test_on_the_grid_of_the_scan_nothing_travels_and_no_image_is_asked() -> None:
    logits = torch.tensor([[[-0.1, 0.0, 2.0]], [[1.3, 1.4, -5.0]]])
    item = RestoreRegionsd("pred", transform=None, threshold=[0.5, 0.8], probabilities_key="said")({"pred": logits})
    assert torch.equal(item["pred"].as_tensor(), torch.tensor([[[0, 1, 1]], [[0, 1, 0]]]).byte())  # ln 4 = 1.386
    torch.testing.assert_close(item["said"].as_tensor(), 1 / (1 + (-logits).exp()))


def test_thresholds_that_cannot_be_are_refused() -> None:
    for wrong in (1.0, 0, -0.1, float("nan"), True, "half", [0.5, "half"], None):
        with pytest.raises(ValueError, match=f"^threshold is {re.escape(repr(wrong))}; give numbers between 0 and 1"):
            RestoreRegionsd("pred", transform=preprocessing(), threshold=wrong)  # type: ignore[arg-type]
    chain, item = case(AFFINES["as it is"])
    with pytest.raises(ValueError, match="2 thresholds for 3 regions"):
        RestoreRegionsd("pred", transform=chain, threshold=[0.5, 0.5])(item)


@pytest.mark.parametrize("name", ["as it is", "turned", "nearly 1 mm"])
def test_regions_that_come_as_bytes_travel_back_as_those_of_logits_do(name: str) -> None:
    chain, item = case(AFFINES[name])
    restore = RestoreRegionsd("pred", transform=chain, threshold=0.3)
    logits = item["pred"]
    bytes_of = MetaTensor((logits.as_tensor().sigmoid() >= 0.3).byte(), meta=logits.meta)
    assert torch.equal(restore({**item, "pred": bytes_of})["pred"], restore(item)["pred"])


def test_bytes_are_refused_where_probabilities_are_needed() -> None:
    for name, more, why in (("thick slices", {}, "interpolated"), ("turned", {"probabilities_key": "said"}, "kept")):
        chain, item = case(AFFINES[name])
        item["pred"] = MetaTensor(torch.ones_like(item["pred"]).byte(), meta=item["pred"].meta)
        with pytest.raises(ValueError, match=f"pred holds regions already, but probabilities are to be {why}"):
            RestoreRegionsd("pred", transform=chain, **more)(item)


def test_what_was_interpolated_travels_back_once_for_probabilities_and_regions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ways, back = [], RestoreRegionsd._back
    monkeypatch.setattr(
        RestoreRegionsd, "_back", lambda self, values, *rest, **how: ways.append(1) or back(self, values, *rest, **how)
    )
    chain, item = case(AFFINES["thick slices"])
    kept = RestoreRegionsd("pred", transform=chain, probabilities_key="said")(item)
    assert len(ways) == 1
    assert torch.equal(kept["pred"].as_tensor().bool(), kept["said"].as_tensor() >= 0.5)
