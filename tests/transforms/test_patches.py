"""Random patches: their share around the regions, their size, and what becomes of a case without any tumour."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.transforms import Compose

from transforms.patches import RandPatchd, RegionVoxelsd

SHAPE = (24, 20, 16)
# Region voxels that no patch has in its middle by accident more often than once in (21 * 17 * 13) draws.
POINTS = {0: (12, 10, 8), 2: (6, 6, 6)}


def case(points: dict[int, tuple[int, int, int]]) -> dict[str, Any]:
    """Three regions, each of one voxel or none; the image holds each voxel's own number."""
    label = torch.zeros(3, *SHAPE, dtype=torch.uint8)
    for region, point in points.items():
        label[(region, *point)] = 1
    return {"image": torch.arange(label[0].numel()).reshape(1, *SHAPE), "label": label}


def chain(share: float, size: tuple[int, int, int] = (4, 4, 4)) -> Compose:
    crop = RandPatchd(["image", "label"], label_key="label", patch_size=size, region_share=share)
    return Compose([RegionVoxelsd("label"), crop]).set_random_state(seed=0)


def corner(patch: dict[str, Any]) -> tuple[int, ...]:
    return tuple(int(axis) for axis in torch.unravel_index(patch["image"][0, 0, 0, 0], SHAPE))


def test_the_given_share_of_patches_is_centred_in_a_region_and_every_region_present_has_its_part() -> None:
    draw, count = chain(1 / 3), 1200
    corners = [corner(draw(case(POINTS))) for _ in range(count)]
    for point in POINTS.values():
        assert corners.count(tuple(axis - 2 for axis in point)) / count == pytest.approx(1 / 6, abs=0.04)


def test_a_small_region_has_as_many_patches_as_a_large_one() -> None:
    label = torch.zeros(3, *SHAPE, dtype=torch.uint8)
    label[0, :10, :10, :10] = 1
    label[2, 20, 5:15, 12] = 1
    draw, count = chain(1, (1, 1, 1)), 800
    patches = [draw({"image": label[:1], "label": label})["label"] for _ in range(count)]
    for region in (0, 2):
        assert sum(int(patch[region].sum()) for patch in patches) / count == pytest.approx(1 / 2, abs=0.1)


def test_patches_from_anywhere_reach_both_ends_of_every_axis() -> None:
    draw = chain(0)
    corners = [corner(draw(case(POINTS))) for _ in range(1500)]
    for axis, length in enumerate(SHAPE):
        assert {place[axis] for place in corners} == set(range(length - 4 + 1))


@pytest.mark.parametrize("size", [(4, 4, 4), (24, 20, 1), SHAPE])
def test_a_patch_has_exactly_its_size_even_at_the_border_and_without_tumour(size: tuple[int, int, int]) -> None:
    draw = chain(1, size)
    for points in ({0: (0, 0, 0)}, {1: (23, 19, 15)}, {}):
        for _ in range(10):
            patch = draw(case(points))
            assert patch["image"].shape == (1, *size)
            assert patch["label"].shape == (3, *size)
            for region in points:
                assert patch["label"][region].sum() == 1


def test_without_tumour_patches_come_from_anywhere() -> None:
    draw = chain(1)
    assert len({corner(draw(case({}))) for _ in range(50)}) > 40


def test_the_same_seed_gives_the_same_patches_and_another_one_others() -> None:
    runs = []
    for seed in (3, 3, 4):
        draw = chain(0.5).set_random_state(seed=seed)
        runs.append([corner(draw(case(POINTS))) for _ in range(20)])
    assert runs[0] == runs[1] != runs[2]


def test_images_and_regions_are_cut_at_the_same_place_and_the_case_stays_as_it_was() -> None:
    whole = case(POINTS)
    patch = chain(1)(whole)
    patch["image"] *= 0
    torch.testing.assert_close(whole["image"], case(POINTS)["image"])
    again = chain(1)(whole)
    start = corner(again)
    box = tuple(slice(first, first + 4) for first in start)
    assert torch.equal(again["label"], whole["label"][(slice(None), *box)])


def test_many_voxels_are_thinned_out_evenly() -> None:
    label = torch.ones(1, 10, 10, 10)
    (voxels,) = RegionVoxelsd("label", max_voxels=100)({"label": label})["label_voxels"]
    assert voxels.tolist() == list(range(0, 1000, 10))


def test_what_cannot_be_cut_is_refused() -> None:
    with pytest.raises(ValueError, match="region_share"):
        chain(1.5)
    with pytest.raises(ValueError, match="max_voxels"):
        RegionVoxelsd("label", max_voxels=0)
    crop = RandPatchd("image", label_key="label", patch_size=(4, 4, 17))
    with pytest.raises(ValueError, match="does not fit"):
        crop(RegionVoxelsd("label")(case(POINTS)))
