"""Slices with their neighbours as channels: the same channels in training patches and in inference."""

from __future__ import annotations

import pytest
import torch
from monai.transforms import Compose

from brats_pipeline.inference.inferers import SliceInferer
from transforms.neighbours import SlabToChannelsd, neighbouring, slab_to_channels
from transforms.patches import RandPatchd, RegionVoxelsd
from transforms.presence import flag_presence

DEPTH = 5


def volume() -> torch.Tensor:
    """Two modalities of 6 by 4 voxels and five slices, every voxel a number of its own."""
    return torch.arange(2.0 * 6 * 4 * DEPTH).reshape(2, 6, 4, DEPTH)


def shifted(by: int) -> torch.Tensor:
    """The volume whose slice z is slice z + by, the last one repeated."""
    return torch.stack([volume()[..., min(max(z + by, 0), DEPTH - 1)] for z in range(DEPTH)], dim=-1)


def channels(by: int, neighbours: int) -> slice:
    """Where the modalities of the slice that many above the middle one lie."""
    return slice(2 * (neighbours + by), 2 * (neighbours + by + 1))


def test_beyond_the_ends_the_last_slice_is_repeated() -> None:
    assert neighbouring(torch.tensor([0, 3]), 1, 4).tolist() == [[0, 0, 1], [2, 3, 3]]
    assert neighbouring(torch.tensor([2]), 0, 4).tolist() == [[2]]
    assert neighbouring(torch.tensor([0]), 2, 1).tolist() == [[0, 0, 0, 0, 0]]


def test_the_modalities_of_one_slice_lie_side_by_side() -> None:
    channels = slab_to_channels(volume()[..., :3])
    assert channels.shape == (6, 6, 4)
    assert torch.equal(channels[2:4], volume()[..., 1])


@pytest.mark.parametrize(("neighbours", "by"), [(0, 0), (1, 0), (1, -1), (1, 1), (2, -2)])
@pytest.mark.parametrize("slice_batch_size", [3, 16])
def test_inference_shows_each_slice_with_its_neighbours(neighbours: int, by: int, slice_batch_size: int) -> None:
    two = torch.stack([volume(), -volume()])
    infer = SliceInferer(slice_batch_size=slice_batch_size, precision="float32", neighbours=neighbours)
    logits = infer(two, lambda image: image[:, channels(by, neighbours)])
    assert torch.equal(logits, torch.stack([shifted(by), -shifted(by)]))


@pytest.mark.parametrize(("neighbours", "by"), [(0, 0), (1, 0), (1, -1), (1, 1), (2, -2)])
def test_training_patches_show_each_slice_with_its_neighbours(neighbours: int, by: int) -> None:
    crop = RandPatchd(
        ["image", "label"], label_key="label", patch_size=(6, 4, 1), region_share=0, neighbours=neighbours
    )
    draw = Compose([RegionVoxelsd("label"), crop, SlabToChannelsd(["image", "label"])]).set_random_state(seed=0)
    seen = set()
    for _ in range(40):
        case = {"image": volume(), "label": volume()[:1]}  # the label tells which slice was drawn
        patch = draw(case)
        place = int(patch["label"][0, 0, 0])
        assert torch.equal(patch["image"][channels(by, neighbours)], shifted(by)[..., place])
        patch["image"] *= 0
        assert torch.equal(case["image"], volume())
        seen.add(place)
    assert seen == set(range(DEPTH))


def test_flags_come_once_behind_all_slices() -> None:
    present = torch.tensor([0.0, 1.0])
    flagged = flag_presence(volume(), present)
    shapes = []

    def network(image: torch.Tensor) -> torch.Tensor:
        shapes.append(image.shape[1])
        return image[:, -2:]

    logits = SliceInferer(precision="float32", neighbours=1, flags=2)(flagged[None], network)
    assert shapes == [3 * 2 + 2]
    assert torch.equal(logits[0], flagged[2:])
    training = flag_presence(slab_to_channels(volume()[..., 1:4]), present)
    inference = SliceInferer(precision="float32", neighbours=1, flags=2)(flagged[None], lambda image: image)
    assert torch.equal(training, inference[0, ..., 2])


def test_neighbours_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="only patches of one slice"):
        RandPatchd("image", label_key="label", patch_size=(4, 4, 4), neighbours=1)
    with pytest.raises(ValueError, match="neighbours is -1"):
        SliceInferer(neighbours=-1)
