"""From the slices of a patient to a tensor, with the sequences that are missing made known to the network."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from brats_pipeline.errors import PipelineError
from transforms.slice_stack import LoadSlicesd, SaveSliceMasksd, SliceMajord

CHANNELS = {"t1c": 2, "t1": 0, "flair": 1}


@pytest.fixture
def item(tmp_path: Path) -> dict[str, object]:
    """A patient of three slices, 5 columns by 4 rows, whose T1c is a copy of FLAIR."""
    images, masks = [], []
    for number in range(3):
        picture = np.random.default_rng(number).integers(0, 255, (4, 5, 3), dtype=np.uint8)
        picture[..., 2] = picture[..., 1]
        mask = np.zeros((4, 5), np.uint8)
        mask[1, 2 + number] = 255
        images.append(str(tmp_path / f"p_{number + 1}.tif"))
        masks.append(str(tmp_path / f"p_{number + 1}_mask.tif"))
        Image.fromarray(picture).save(images[-1])
        Image.fromarray(mask).save(masks[-1])
    return {"case_id": "p", "image": images, "label": masks, "channels": CHANNELS}


def test_channels_are_taken_by_name(item: dict[str, object]) -> None:
    loaded = LoadSlicesd(["image", "label"], modalities=["flair", "t1"])(item)
    picture = np.asarray(Image.open(item["image"][1]))  # type: ignore[index]
    np.testing.assert_array_equal(loaded["image"][0, :, :, 1], picture[..., 1].T)
    np.testing.assert_array_equal(loaded["image"][1, :, :, 1], picture[..., 0].T)
    assert loaded["label"].shape == (1, 5, 4, 3)
    assert loaded["label"].nonzero().tolist() == [[0, 2, 1, 0], [0, 3, 1, 1], [0, 4, 1, 2]]


def test_a_copy_of_flair_is_absent_and_flair_is_present(item: dict[str, object]) -> None:
    loaded = LoadSlicesd("image", modalities=["t1c", "t1", "flair"])(item)
    assert loaded["present"].tolist() == [0, 1, 1]


def test_a_modality_that_slices_do_not_have_is_named(item: dict[str, object]) -> None:
    with pytest.raises(PipelineError, match="t2 is not in these slices"):
        LoadSlicesd("image", modalities=["t2"])(item)


def test_a_modality_that_slices_do_not_have_may_be_zeros_that_are_not_present(item: dict[str, object]) -> None:
    loaded = LoadSlicesd("image", modalities=["t1", "t2", "flair"], allow_missing=True)(item)
    whole = LoadSlicesd("image", modalities=["t1", "flair"])(item)
    assert loaded["present"].tolist() == [1, 0, 1]
    assert torch.equal(loaded["image"][[0, 2]], whole["image"])
    assert not loaded["image"][1].any()
    with pytest.raises(PipelineError, match="t2 is not in these slices"):
        LoadSlicesd("image", modalities=["t2"], allow_missing=True)(item)


def test_a_channel_without_contrast_is_refused_unless_nobody_asks_for_it(item: dict[str, object]) -> None:
    for path in item["image"]:  # type: ignore[attr-defined]
        picture = np.array(Image.open(path))
        picture[..., CHANNELS["t1"]] = 90
        Image.fromarray(picture).save(path)
    with pytest.raises(PipelineError, match="t1 is constant: every voxel is 90"):
        LoadSlicesd("image", modalities=["t1", "flair"])(item)
    assert LoadSlicesd("image", modalities=["flair"])(item)["image"].shape == (1, 5, 4, 3)


def test_a_slice_lies_in_one_piece_of_memory_and_the_volume_is_as_it_was() -> None:
    volume = torch.rand(2, 5, 4, 3)
    turned = SliceMajord("image")({"image": volume})["image"]
    assert torch.equal(turned, volume)
    assert volume[..., 1].is_contiguous() is False
    assert turned[..., 1].is_contiguous()


def test_masks_of_another_size_are_refused(item: dict[str, object], tmp_path: Path) -> None:
    for path in item["label"]:  # type: ignore[attr-defined]
        Image.fromarray(np.zeros((6, 5), np.uint8)).save(path)
    with pytest.raises(PipelineError, match="differ in size"):
        LoadSlicesd(["image", "label"], modalities=["flair"])(item)


def test_what_was_loaded_can_be_saved_unchanged(item: dict[str, object], tmp_path: Path) -> None:
    loaded = LoadSlicesd(["image", "label"], modalities=["flair"])(item)
    loaded["pred"] = loaded["label"]
    SaveSliceMasksd("pred", output_dir=tmp_path / "out", stacked=True)(loaded)
    for source in map(Path, item["label"]):  # type: ignore[call-overload]
        saved = Image.open(tmp_path / "out" / "p" / source.name)
        np.testing.assert_array_equal(np.asarray(saved), np.asarray(Image.open(source)))
    volume = nib.load(tmp_path / "out" / "p.nii.gz")
    np.testing.assert_array_equal(np.asarray(volume.dataobj), loaded["label"][0])
