"""What members say, pooled: entropies of known values, weights, and members that agree, disagree or have no say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, CropForegroundd, Orientationd, Spacingd
from scipy.stats import entropy as scipy_entropy

from transforms.restore import RestoreRegionsd
from transforms.uncertainty import FARTHEST, MemberPool, RestoreSpreadd, binary_entropy, mutual_information


def case(*values: float) -> torch.Tensor:
    """One case of one region: a row of voxels ``(1, 1, n, 1, 1)``."""
    return torch.tensor(values).view(1, 1, -1, 1, 1)


def pooled(members, weights=None, *, spread=False):
    pool = MemberPool(spread=spread)
    for number, member in enumerate(members):
        pool.add(member, 1 if weights is None else weights[number])
    return pool


def test_entropy_is_that_of_scipy_and_known_at_its_ends() -> None:
    p = torch.linspace(0, 1, 21, dtype=torch.float64)
    expected = [scipy_entropy([float(one), 1 - float(one)]) for one in p]
    assert binary_entropy(p).tolist() == pytest.approx(expected, abs=1e-12)
    assert binary_entropy(torch.tensor([0.0, 0.5, 1.0])).tolist() == pytest.approx([0, math.log(2), 0])


def test_two_sure_members_that_contradict_each_other_disagree_by_a_whole_bit() -> None:
    channels = pooled([case(1, 0.5, 0.2), case(0, 0.5, 0.2)], spread=True).logits()
    logits, expected, low, high = channels[0, :, :, 0, 0]
    mean = logits.sigmoid()
    assert mean.tolist() == pytest.approx([0.5, 0.5, 0.2])
    told = mutual_information(mean, expected)
    assert told.tolist() == pytest.approx([math.log(2), 0, 0], abs=1e-6)
    assert expected.tolist() == pytest.approx([0, math.log(2), scipy_entropy([0.2, 0.8])])
    assert low.tolist() == pytest.approx([0, 0.5, 0.2])
    assert high.tolist() == pytest.approx([1, 0.5, 0.2])


def test_pooled_figures_are_those_of_plain_numpy() -> None:
    generator = np.random.default_rng(0)
    p = generator.random((4, 2, 3, 5, 6, 7)).astype(np.float32)  # members, cases, regions
    weights = generator.random((4, 3)).astype(np.float32)
    channels = pooled(list(torch.from_numpy(p)), weights.tolist(), spread=True).logits()
    assert channels.shape == (2, 12, 5, 6, 7)
    share = (weights / weights.sum(axis=0)).reshape(4, 1, 3, 1, 1, 1)
    mean = (p * share).sum(axis=0)
    each = -p * np.log(p) - (1 - p) * np.log(1 - p)
    logits, expected, low, high = (part.numpy() for part in channels.split(3, dim=1))
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), mean, atol=1e-5)
    np.testing.assert_allclose(expected, (each * share).sum(axis=0), atol=1e-5)
    np.testing.assert_array_equal(low, p.min(axis=0))
    np.testing.assert_array_equal(high, p.max(axis=0))


def test_disagreement_is_never_negative_and_never_more_than_all_doubt() -> None:
    members = [torch.rand(1, 2, 8, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in range(5)]
    logits, expected, *_ = pooled(members, spread=True).logits().split(2, dim=1)
    mean = logits.sigmoid()
    told = mutual_information(mean, expected)
    assert (told > 0).all()
    assert (told <= binary_entropy(mean)).all()
    assert (binary_entropy(mean) <= math.log(2) + 1e-6).all()
    assert mutual_information(torch.tensor(0.3), binary_entropy(torch.tensor(0.3)) + 1e-7) == 0


def test_certainty_stays_certain_and_finite() -> None:
    logits = pooled([case(0, 1), case(0, 1)]).logits()
    assert logits.flatten().tolist() == [-FARTHEST, FARTHEST]
    assert logits.sigmoid().flatten().tolist() == [0, 1]
    assert logits.half().isfinite().all()


def test_a_member_without_weight_has_no_say_in_that_region() -> None:
    one = torch.tensor([0.2, 0.4]).view(1, 2, 1, 1, 1)
    other = torch.tensor([0.9, 0.8]).view(1, 2, 1, 1, 1)
    logits, expected, low, high = pooled([one, other], [[1, 3], [0, 1]], spread=True).logits().split(2, dim=1)
    assert logits.sigmoid().flatten().tolist() == pytest.approx([0.2, 0.5])
    assert low.flatten().tolist() == pytest.approx([0.2, 0.4])
    assert high.flatten().tolist() == pytest.approx([0.2, 0.8])
    assert expected[0, 0].item() == pytest.approx(scipy_entropy([0.2, 0.8]))


def test_weights_that_leave_a_region_without_a_member_are_refused() -> None:
    one = torch.full((1, 2, 1, 1, 1), 0.5)
    with pytest.raises(ValueError, match="each region needs one above 0"):
        pooled([one, one], [[1, 0], [1, 0]]).mean()
    with pytest.raises(ValueError, match="for 2 regions"):
        pooled([one], [[1]])
    with pytest.raises(ValueError, match="at least 0"):
        pooled([one], [[1, -1]])
    with pytest.raises(ValueError, match="above 0"):
        MemberPool().mean()


def test_a_member_is_not_changed_by_being_added() -> None:
    one, other = case(0.1, 0.9), case(0.3, 0.5)
    before = one.clone(), other.clone()
    pooled([one, other], spread=True).logits()
    assert torch.equal(one, before[0])
    assert torch.equal(other, before[1])


def spread_item(image: MetaTensor, p: torch.Tensor) -> dict:
    """A case as it leaves an inferer with spread: members ``(M, R, *spatial)`` on the grid of ``image``."""
    channels = pooled([member[None] for member in p], spread=True).logits()[0]
    return {"image": image, "pred": MetaTensor(channels, meta=image.meta)}


def test_where_grids_are_one_maps_and_bounds_come_from_the_channels() -> None:
    p = torch.rand(3, 2, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    item = RestoreSpreadd("pred", regions=["TC", "WT"], transform=None, threshold=[0.3, 0.6])(
        spread_item(MetaTensor(torch.zeros(1, 4, 5, 6)), p)
    )
    limits = torch.tensor([0.3, 0.6]).view(2, 1, 1, 1)
    assert item["pred"].shape == (2, 4, 5, 6)
    assert torch.equal(item["lowest"], (p >= limits).all(0).byte())
    assert torch.equal(item["highest"], (p >= limits).any(0).byte())
    mean = p.mean(0)
    expected = torch.from_numpy(scipy_entropy(np.stack([mean, 1 - mean])))
    torch.testing.assert_close(item["entropy"].float(), expected, atol=1e-3, rtol=0)
    each = torch.from_numpy(scipy_entropy(np.stack([p, 1 - p])).mean(0))
    torch.testing.assert_close(item["mutual_information"].float(), expected - each, atol=1e-3, rtol=0)
    torch.testing.assert_close(item["mean"].float(), mean, atol=1e-3, rtol=0)
    assert item["mean"].dtype == item["entropy"].dtype == torch.float16


def test_another_number_of_channels_is_refused() -> None:
    with pytest.raises(ValueError, match="8 channels for 3 regions"):
        RestoreSpreadd("pred", regions=["TC", "WT", "ET"], transform=None)({"pred": torch.zeros(8, 1, 1, 1)})


def preprocessed(spacing: float, shape=(9, 8, 7)) -> tuple[Compose, MetaTensor]:
    """A scan of 1 mm in another orientation, with a margin of air, resampled and cropped."""
    scan = torch.zeros(1, *shape)
    scan[:, 1:-1, 2:-1, 1:-2] = 1 + torch.rand(1, shape[0] - 2, shape[1] - 3, shape[2] - 3)
    image = MetaTensor(scan, affine=torch.diag(torch.tensor([1.0, 1.0, 1.0, 1.0], dtype=torch.float64)))
    chain = Compose(
        [
            Orientationd("image", axcodes="LPS", labels=(("L", "R"), ("P", "A"), ("I", "S"))),
            Spacingd("image", pixdim=[spacing] * 3, mode="bilinear", padding_mode="zeros"),
            CropForegroundd("image", source_key="image", allow_smaller=True),
        ]
    )
    return chain, chain({"image": image})["image"]


@pytest.mark.parametrize("spacing", [1.0, 1.6])
def test_mean_and_bounds_on_the_scan_are_what_the_regions_are_made_of(spacing: float) -> None:
    chain, image = preprocessed(spacing)
    p = torch.rand(3, 2, *image.shape[1:], generator=torch.Generator().manual_seed(1))
    item = RestoreSpreadd("pred", regions=["TC", "WT"], transform=chain)(spread_item(image, p))
    restored = RestoreRegionsd("pred", transform=chain, probabilities_key="probabilities")(item)
    assert restored["pred"].shape == item["mean"].shape == (2, 9, 8, 7)
    torch.testing.assert_close(item["mean"].float(), restored["probabilities"].as_tensor(), atol=1e-3, rtol=0)
    for member in p:
        alone = RestoreRegionsd("pred", transform=chain)({"image": image, "pred": MetaTensor(member.logit())})["pred"]
        assert (alone.as_tensor() >= item["lowest"]).all()
        assert (alone.as_tensor() <= item["highest"]).all()
    assert item["highest"].sum() > restored["pred"].sum() > item["lowest"].sum()


def test_resampling_makes_no_disagreement_where_there_is_none() -> None:
    chain, image = preprocessed(1.6)
    sure = torch.zeros(2, 1, *image.shape[1:])
    sure[:, :, : image.shape[1] // 2] = 1
    item = RestoreSpreadd("pred", regions=["WT"], transform=chain)(spread_item(image, sure))
    assert ((item["mean"] > 0.1) & (item["mean"] < 0.9)).any(), "or nothing was interpolated"
    assert item["entropy"].abs().max() < 1e-3
    assert item["mutual_information"].abs().max() < 1e-3
