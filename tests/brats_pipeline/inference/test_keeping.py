"""Regions instead of logits: the same answer in a byte, wherever it may be given before the way back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.data import DataLoader, Dataset, MetaTensor
from monai.transforms import Compose, EnsureTyped, Orientationd, Spacingd
from torch import Tensor, nn

from brats_pipeline.inference.inferers import SliceInferer, WindowInferer
from brats_pipeline.inference.keeping import Keeping
from brats_pipeline.inference.windows import blend_windows, lay_windows
from transforms.restore import RestoreRegionsd

THRESHOLDS = [0.2, 0.5, 0.9]


def volume(*size: int) -> Tensor:
    return 2 * torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [(16, 12, 9), (33, 16, 20)], ids=["one window", "many windows"])
@pytest.mark.parametrize("threshold", [0.3, THRESHOLDS], ids=["for all", "for each"])
def test_regions_are_the_logits_at_their_thresholds(size: tuple[int, ...], threshold: Any) -> None:
    image = volume(*size)
    regions = WindowInferer([16] * 3, precision="float32", reduce="regions", threshold=threshold)(image, nn.Identity())
    limits = threshold if isinstance(threshold, list) else [threshold] * 3
    expected = image.sigmoid() >= torch.tensor(limits).view(3, 1, 1, 1)
    assert regions.dtype == torch.uint8
    assert torch.equal(regions.bool(), expected)


def test_regions_of_slices_are_their_logits_at_their_thresholds() -> None:
    image = torch.cat([volume(6, 5, 7), volume(6, 5, 7).flip(2)])
    inferer = SliceInferer(slice_batch_size=4, precision="float32", reduce="regions", threshold=THRESHOLDS)
    expected = image.sigmoid() >= torch.tensor(THRESHOLDS).view(3, 1, 1, 1)
    assert torch.equal(inferer(image, nn.Identity()).bool(), expected)


def test_a_probability_that_is_its_threshold_belongs_to_the_region() -> None:
    logits = torch.tensor([-1e-6, 0.0, 1e-6]).view(1, 3, 1, 1)
    kept = Keeping("regions", threshold=0.5).of(logits, regions_axis=0)
    assert kept.flatten().tolist() == [0, 1, 1]
    restored = RestoreRegionsd("pred", transform=None, threshold=0.5)({"pred": logits})["pred"]
    assert torch.equal(restored.as_tensor(), kept)


def test_air_holds_no_region() -> None:
    image = torch.zeros(1, 3, 48, 16, 16)
    image[:, :, 40:] = 5
    regions = WindowInferer([16] * 3, precision="float32", reduce="regions")(image, nn.Identity())
    assert not regions[:, :, :32].any()
    assert regions[:, :, 40:].all()


@pytest.mark.parametrize(("spacing_mm", "kind"), [(1.0, torch.uint8), (2.0, torch.float32)])
def test_where_voxels_were_interpolated_logits_come_all_the_same(spacing_mm: float, kind: torch.dtype) -> None:
    chain = Compose(
        [
            EnsureTyped("image"),
            Orientationd("image", axcodes="LPS", labels=(("L", "R"), ("P", "A"), ("I", "S"))),
            Spacingd("image", pixdim=[1.0] * 3),
        ]
    )
    scan = MetaTensor(volume(12, 8, 8)[0], affine=torch.diag(torch.tensor([spacing_mm, 1, 1, 1])))
    (batch,) = DataLoader(Dataset([{"image": scan}], chain), batch_size=1)
    restored = []
    for reduce in ("regions", "logits"):
        said: Any = WindowInferer([64] * 3, precision="float32", reduce=reduce, threshold=0.3)(
            batch["image"], nn.Identity()
        )
        assert said.dtype == (kind if reduce == "regions" else torch.float32)
        item = {"image": chain({"image": scan})["image"], "pred": MetaTensor(said[0].as_tensor())}
        restored.append(RestoreRegionsd("pred", transform=chain, threshold=0.3)(item)["pred"])
    assert torch.equal(*restored)


@pytest.mark.parametrize("overlap", [0.25, 0.5, 0.75])
def test_sums_in_half_precision_are_the_logits_but_for_their_last_digits(overlap: float) -> None:
    image = volume(40, 24, 16)
    grid = lay_windows(image.shape[2:], [16] * 3, overlap=overlap)
    slabs = blend_windows(image, nn.Identity(), grid, sums=torch.float16)
    whole = torch.cat([logits for _, logits in slabs if logits is not None], dim=1)
    assert whole.dtype == torch.float32
    torch.testing.assert_close(whole, image[0], rtol=0.01, atol=0.01)
    inferer = WindowInferer([16] * 3, overlap=overlap, precision="float32", accumulate="float16")
    assert torch.equal(inferer(image, nn.Identity())[0], whole)


@pytest.mark.gpu
def test_what_is_kept_may_be_put_together_off_the_gpu() -> None:
    image = volume(40, 16, 16)
    for inferer in (WindowInferer([16] * 3, precision="float32", keep_on="cpu"), SliceInferer(keep_on="cpu")):
        logits = inferer(image.cuda(), nn.Identity())
        assert logits.device.type == "cpu"
        torch.testing.assert_close(logits, image, rtol=0.01, atol=0.01)


def test_a_stride_may_be_given_for_a_network_that_does_not_say_its_own() -> None:
    seen = []
    inferer = WindowInferer([32] * 3, precision="float32", stride=8)
    assert inferer(volume(13, 16, 31), lambda windows: seen.append(windows.shape[2:]) or windows).shape[2:] == (
        13, 16, 31,
    )  # fmt: skip
    assert seen == [(16, 16, 32)]


def test_what_cannot_be_kept_is_refused() -> None:
    with pytest.raises(ValueError, match="reduce is 'labels'; known: logits, regions"):
        WindowInferer([8], reduce="labels")
    with pytest.raises(ValueError, match="accumulate is 'bfloat16'; known: float32, float16"):
        WindowInferer([8], accumulate="bfloat16")
    with pytest.raises(ValueError, match="2 thresholds for 3 regions"):
        Keeping("regions", threshold=[0.1, 0.2]).of(volume(2, 2, 2), regions_axis=1)
