"""Regions cleaned behind the threshold: what each step does, and what no step may do."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from scipy import ndimage

from transforms.cleaning import Cleaning, CleanRegionsd, nested
from transforms.labels import CONVENTIONS, REGIONS
from transforms.regions import to_labels

Mask = npt.NDArray[np.bool_]
OFF = Cleaning(REGIONS)


def drawn(*rows: str) -> list[Mask]:
    """One picture as TC, WT, ET: ``w`` is WT alone, ``t`` TC too, ``e`` ET too; ``E`` is ET alone, ``T`` TC alone."""
    letters = np.array([list(row) for row in rows])
    return [np.isin(letters, list(signs)) for signs in ("teT", "wte", "eE")]


def same(first: list[Mask], second: list[Mask]) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(first, second, strict=True))


def cleaned(masks: list[Mask], **settings: Any) -> list[Mask]:
    return Cleaning(REGIONS, **settings)(masks)


def test_a_removed_part_of_the_whole_tumour_takes_its_core_with_it() -> None:
    before = drawn("wwww..te", "wtew....")
    assert same(cleaned(before, smallest_component=(0, 3, 0)), drawn("wwww....", "wtew...."))


def test_a_removed_part_of_the_core_stays_whole_tumour() -> None:
    before = drawn("wwwwww", "wtwtte")
    assert same(cleaned(before, smallest_component=(2, 0, 0)), drawn("wwwwww", "wwwtte"))


def test_the_largest_part_of_each_region_alone() -> None:
    before = drawn("wwww.tt", "wtww.tt")
    after = cleaned(before, keep_largest=(True, True, True))
    assert same(after, drawn("wwww...", "wtww..."))


def test_a_filled_hole_belongs_to_every_wider_region() -> None:
    before = drawn("eee", "e.e", "eee")
    assert same(cleaned(before, fill_holes=(False, False, True)), drawn("eee", "eee", "eee"))
    assert same(cleaned(before, fill_holes=(True, False, False)), drawn("eee", "ete", "eee"))


def test_all_of_a_small_enhancing_tumour_becomes_necrosis() -> None:
    before = drawn("weew", "wttw", "wewt")
    assert same(cleaned(before, smallest_et=3), before)
    after = cleaned(before, smallest_et=4)
    assert same(after, drawn("wttw", "wttw", "wtwt"))
    labels = to_labels(torch.from_numpy(np.stack(after)), CONVENTIONS["brats2023"])
    assert labels[0].tolist() == [[2, 1, 1, 2], [2, 1, 1, 2], [2, 1, 2, 1]]


def test_nesting_adds_to_the_wider_regions_or_takes_from_the_narrower_ones() -> None:
    before = drawn("wE", "T.")
    assert same(list(nested(dict(zip(REGIONS, before, strict=True))).values()), drawn("we", "t."))
    assert same(cleaned(before, nesting="inward"), drawn("w.", ".."))


def test_off_is_bit_for_bit_the_same_object() -> None:
    masks = torch.randint(0, 2, (3, 4, 4, 4), dtype=torch.uint8)
    assert CleanRegionsd("pred", regions=REGIONS)({"pred": masks})["pred"] is masks
    assert OFF.off
    assert CleanRegionsd("pred", regions=REGIONS, fill_holes=[False] * 3, smallest_component=[0, 0, 0]).cleaning.off
    assert not Cleaning(REGIONS, keep_largest=(False, True, False)).off


def test_kind_device_and_header_stay() -> None:
    regions = torch.zeros(3, 4, 5, 6, dtype=torch.float32)
    regions[:, 1:3, 1:3, 1:3] = 1
    regions[:, 3, 4, 5] = 1
    given_, affine = MetaTensor(regions.clone(), affine=2 * torch.eye(4)), 2 * torch.eye(4)
    after = CleanRegionsd("pred", regions=REGIONS, smallest_component=9)({"pred": given_})["pred"]
    assert isinstance(after, MetaTensor)
    assert after.dtype == torch.float32
    assert torch.equal(after.affine.float(), affine)
    assert after.sum() == 0  # eight voxels and, beside them, one at a corner: nine in a part, if they touched
    assert torch.equal(given_.as_tensor(), regions)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nesting": "sideways"}, "choose outward or inward"),
        ({"smallest_component": [1, 2]}, "2 values for 3 regions"),
        ({"smallest_component": -1}, "whole number of voxels"),
        ({"smallest_component": 2.5}, "whole number of voxels"),
        ({"smallest_et": True}, "whole number of voxels"),
        ({"keep_largest": "yes"}, "true or false"),
        ({"fill_holes": 1}, "true or false"),
    ],
)
def test_what_cannot_be_meant_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CleanRegionsd("pred", regions=REGIONS, **settings)


def test_a_smallest_et_needs_an_et() -> None:
    with pytest.raises(ValueError, match="the regions are WT"):
        CleanRegionsd("pred", regions=["WT"], smallest_et=10)
    with pytest.raises(ValueError, match="2 masks for 1 regions"):
        Cleaning(("WT",), fill_holes=(True,))([np.zeros((2, 2), bool)] * 2)


cleanings = st.builds(
    Cleaning,
    st.permutations(REGIONS).map(tuple),
    st.sampled_from(["outward", "inward"]),
    st.tuples(*[st.booleans()] * 3),
    st.tuples(*[st.integers(0, 6)] * 3),
    st.tuples(*[st.booleans()] * 3),
    st.integers(0, 8),
)


@st.composite
def regions(draw: st.DrawFn) -> list[Mask]:
    """Any three masks, nested or not."""
    shape = draw(st.tuples(*[st.integers(1, 6)] * 3))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    return [generator.random(shape) < draw(st.sampled_from([0.0, 0.1, 0.3, 0.6, 0.9])) for _ in range(3)]


@given(cleanings, regions())
@settings(deadline=None, max_examples=100)
def test_whatever_is_asked_for_regions_are_nested_and_twice_is_once(cleaning: Cleaning, masks: list[Mask]) -> None:
    after = cleaning(masks)
    if not cleaning.off:
        named = dict(zip(cleaning.regions, after, strict=True))
        assert not (named["ET"] & ~named["TC"]).any()
        assert not (named["TC"] & ~named["WT"]).any()
    assert same(cleaning(after), after)


@given(cleanings, regions())
@settings(deadline=None, max_examples=100)
def test_only_the_filling_of_holes_adds_voxels(cleaning: Cleaning, masks: list[Mask]) -> None:
    before = nested(dict(zip(cleaning.regions, masks, strict=True)))
    for region, mask, fill in zip(cleaning.regions, cleaning(masks), cleaning.fill_holes, strict=True):
        allowed = before[region]
        if any(cleaning.fill_holes):
            flat = tuple(axis for axis, side in enumerate(allowed.shape) if side == 1)
            whole = ndimage.binary_fill_holes(allowed.squeeze(flat)) if len(flat) < 3 else allowed
            allowed = np.reshape(whole, allowed.shape)
        assert not (mask & ~allowed).any(), (region, fill)


@given(cleanings, regions())
@settings(deadline=None, max_examples=100)
def test_every_part_that_is_left_is_as_large_as_asked_for(cleaning: Cleaning, masks: list[Mask]) -> None:
    if cleaning.off:
        return
    for region, mask, smallest, largest in zip(
        cleaning.regions, cleaning(masks), cleaning.smallest_component, cleaning.keep_largest, strict=True
    ):
        numbers, count = ndimage.label(mask, np.ones((3, 3, 3)))
        assert all(size >= smallest for size in np.bincount(numbers.ravel())[1:]), region
        assert count <= 1 or not largest
        if region == "ET":
            assert mask.sum() == 0 or mask.sum() >= cleaning.smallest_et
