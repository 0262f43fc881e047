"""Loading a case: the voxels that nibabel reads, in the order of the modalities, and every refusal."""

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import LoadImage

from brats_pipeline.errors import PipelineError, root_cause
from transforms.labels import MODALITIES
from transforms.nifti import write_nifti
from transforms.reader import CaseReader, LoadCased, check_same_grid

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def load(item, **arguments):
    """Load a case; an error is the one that a person would see."""
    try:
        return LoadCased(["image", "label"], allow_missing_keys=True, **arguments)(item)
    except Exception as error:
        raise root_cause(error) from None


def rewrite(path, change):
    image = nib.load(path)
    voxels, affine = change(np.asarray(image.dataobj), image.affine.copy())
    write_nifti(path, nib.Nifti1Image(voxels, affine))


def test_voxels_and_affine_are_those_that_nibabel_reads(head, write_case):
    images, labels = head()
    affine = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.1, 0.2, 0.3) @ np.diag([1, 1.2, 0.8]), [5, -6, 7])
    item = write_case(images, labels, affine)
    loaded = load(item)
    expected = np.stack([np.asarray(nib.load(path).dataobj) for path in item["image"]])
    np.testing.assert_array_equal(loaded["image"].numpy(), expected)
    np.testing.assert_array_equal(loaded["label"].numpy()[0], labels)
    for key in ("image", "label"):
        np.testing.assert_allclose(loaded[key].affine, nib.load(item["image"][0]).affine)


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        ("u1", torch.uint8),
        ("<i2", torch.int16),
        (">i2", torch.int16),
        ("u2", torch.float32),
        ("i4", torch.float32),
        (">f4", torch.float32),
        ("f8", torch.float32),
    ],
)
def test_small_whole_numbers_stay_what_they_are_and_all_else_becomes_float32(head, write_case, stored, read):
    images, labels = head()
    item = write_case(images, labels)
    for path in item["image"]:
        image = nib.load(path)
        values = np.asarray(image.dataobj).clip(0, 200).astype(stored)
        header = type(image.header)(endianness=">" if stored[0] == ">" else "<")
        write_nifti(path, type(image)(values, image.affine, header, dtype=values.dtype))
    loaded = load(item)["image"]
    assert loaded.dtype == read
    np.testing.assert_array_equal(loaded.numpy(), images.clip(0, 200))


def test_channels_come_in_the_order_of_the_datalist(head, write_case):
    images, _ = head()
    loaded = load(write_case(images))
    for channel, modality in enumerate(MODALITIES):
        np.testing.assert_array_equal(loaded["image"][channel].numpy(), images[channel], err_msg=modality)


def test_many_large_files_at_once_come_whole_and_in_order(head, write_case):
    items = [write_case(head((40, 41, 42), seed=seed)[0], case_id=f"c{seed}") for seed in range(3)]
    for seed, item in enumerate(items * 3):
        np.testing.assert_array_equal(load(item)["image"].numpy(), head((40, 41, 42), seed=seed % 3)[0])


def test_the_metadata_say_where_the_voxels_lie(head, write_case):
    images, labels = head()
    item = write_case(images, labels)
    meta = load(item)["image"].meta
    assert meta["filename_or_obj"] == item["image"][0], "the first modality lends the header"
    assert meta["space"] == "RAS"
    assert meta["original_channel_dim"] == 0
    np.testing.assert_array_equal(meta["spatial_shape"], images.shape[1:])
    np.testing.assert_array_equal(meta["original_affine"], LPS)
    assert load(item)["case_id"] == "case"


@pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader:UserWarning")  # MONAI's, wherever pydicom is installed
def test_any_load_image_of_monai_can_use_the_reader(head, write_case):
    images, _ = head()
    item = write_case(images)
    loaded = LoadImage(reader=CaseReader(), image_only=True)(item["image"])
    np.testing.assert_array_equal(loaded.numpy(), images)
    one = LoadImage(reader=CaseReader(), image_only=True)(item["image"][2])
    np.testing.assert_array_equal(one.numpy(), images[2:3])


def test_suffixes_are_checked_for_every_file():
    reader = CaseReader()
    assert reader.verify_suffix("a.nii.gz")
    assert reader.verify_suffix(["a.nii", "b.NII.GZ"])
    assert not reader.verify_suffix(["a.nii", "b.dcm"])


def test_scaled_and_float_files_are_read_as_scaled(head, write_case):
    images, _ = head()
    item = write_case(images)
    scaled = bytearray(nib.Nifti1Image(images[1], LPS).to_bytes())
    scaled[112:120] = np.array([0.5, -3], dtype="<f4").tobytes()  # scl_slope, scl_inter
    Path(item["image"][1]).write_bytes(gzip.compress(scaled))
    write_nifti(item["image"][2], nib.Nifti1Image(images[2].astype(np.float32) / 3, LPS))
    loaded = load(item)["image"].numpy()
    np.testing.assert_allclose(loaded[1], images[1] * 0.5 - 3)
    np.testing.assert_allclose(loaded[2], images[2] / 3, rtol=1e-6)
    np.testing.assert_array_equal(loaded[0], images[0])


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "grid"),
    [
        (lambda voxels, affine: (voxels[:, :, 1:], affine), "9x8x6 voxels of 1x1x1 mm, LPS, origin (0, 0, 0)"),
        (
            lambda voxels, affine: (voxels, affine @ np.diag([1, 1, 2, 1])),
            "9x8x7 voxels of 1x1x2 mm, LPS, origin (0, 0, 0)",
        ),
        (lambda voxels, affine: (voxels[::-1], np.eye(4)), "9x8x7 voxels of 1x1x1 mm, RAS, origin (0, 0, 0)"),
    ],
)
@pytest.mark.parametrize("odd", ["t1", "flair", "label"])
def test_differing_grids_are_refused_with_each_file_and_its_grid(head, write_case, change, grid, odd):
    item = write_case(*head())
    path = item["label"] if odd == "label" else item["image"][MODALITIES.index(odd)]
    rewrite(path, change)
    with pytest.raises(PipelineError, match="the images do not share one voxel grid") as caught:
        load(item)
    message = str(caught.value)
    assert f"{path}: {grid}" in message
    assert f"{item['image'][0]}: 9x8x7 voxels of 1x1x1 mm, LPS, origin (0, 0, 0)" in message
    assert message.endswith("co-register and resample them to one grid first")


def test_grids_that_differ_by_rounding_are_one(head, write_case):
    images, _ = head()
    item = write_case(images)
    rewrite(item["image"][1], lambda voxels, affine: (voxels, affine + 1e-4))
    assert load(item)["image"].shape == (4, 9, 8, 7)


def test_one_grid_needs_no_second():
    check_same_grid({"a": ((3, 3, 3), LPS)})


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_infinity_are_refused_with_modality_and_count(head, write_case, value):
    images, _ = head()
    item = write_case(images)

    def spoil(voxels, affine):
        voxels = voxels.astype(np.float32)
        voxels[2, 2, :3] = value
        return voxels, affine

    rewrite(item["image"][2], spoil)
    with pytest.raises(PipelineError, match="t2 holds 3 voxels that are NaN or infinite; repair or export"):
        load(item)


@pytest.mark.parametrize("value", [0, 17])
def test_a_constant_image_is_refused_with_its_value(head, write_case, value):
    images, _ = head()
    item = write_case(images)
    rewrite(item["image"][3], lambda voxels, affine: (np.full_like(voxels, value), affine))
    with pytest.raises(PipelineError, match=rf"flair is (constant|empty): every voxel is {value}\b"):
        load(item)


@pytest.mark.parametrize("shape", [(9, 8, 7, 4), (9, 8)])
def test_a_file_without_three_axes_is_refused(head, write_case, shape):
    images, _ = head()
    item = write_case(images)
    write_nifti(item["image"][1], nib.Nifti1Image(np.ones(shape, dtype=np.int16), LPS))
    with pytest.raises(PipelineError) as caught:
        load(item)
    assert str(caught.value).startswith(f"{item['image'][1]}: shape {shape} has {len(shape)} axes; give one 3D file")


@pytest.mark.parametrize("count", [1, 3])
def test_a_wrong_number_of_files_is_refused_with_what_is_needed(head, write_case, count):
    images, _ = head()
    with pytest.raises(PipelineError, match=f"{count} images came, 4 are needed: t1c, t1, t2, flair"):
        load(write_case(images[:count]))


def test_fewer_modalities_are_right_where_fewer_are_asked_for(head, write_case):
    images, _ = head()
    assert load(write_case(images[:1]), modalities=["flair"])["image"].shape == (1, 9, 8, 7)


def test_a_label_map_with_fractions_is_refused_with_one_of_them(head, write_case):
    images, labels = head()
    item = write_case(images, labels)

    def interpolate(voxels, affine):
        voxels = voxels.astype(np.float32)
        voxels[4, 4, 4] = 1.25
        return voxels, affine

    rewrite(item["label"], interpolate)
    with pytest.raises(PipelineError, match=r"case_seg\.nii\.gz: the label map holds the value 1\.25, which"):
        load(item)


def test_an_empty_label_map_is_right(head, write_case):
    images, labels = head()
    assert not load(write_case(images, np.zeros_like(labels)))["label"].any()


def test_a_missing_label_is_right_only_where_allowed(head, write_case):
    item = write_case(head()[0])
    assert "label" not in load(item)
    with pytest.raises(KeyError, match="label"):
        LoadCased(["image", "label"])(item)


@pytest.mark.parametrize("damage", [b"", b"a text, no scan", b"\x1f\x8b\x08\x00 cut"])
@pytest.mark.parametrize("key", ["t1", "label"])
def test_a_damaged_file_is_refused_by_its_path(head, write_case, tmp_path, damage, key):
    item = write_case(*head())
    path = tmp_path / "case" / f"case_{key.replace('label', 'seg')}.nii.gz"
    path.write_bytes(damage)
    with pytest.raises(PipelineError) as caught:
        load(item)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    "affine", [np.zeros((4, 4)), np.diag([1, 1, 0, 1]), np.full((4, 4), np.nan), np.diag([1, np.inf, 1, 1])]
)
def test_affines_that_place_no_voxel_are_refused(head, write_case, affine):
    def lost(voxels, _affine):
        image = nib.Nifti1Image(voxels, None)
        image.header["sform_code"] = 1
        for row, name in zip(affine, ("srow_x", "srow_y", "srow_z"), strict=False):
            image.header[name] = row
        return nib.Nifti1Image(voxels, None, image.header)

    item = write_case(head()[0], affine=None, make=lost)
    with pytest.raises(PipelineError, match=r"case_t1c\.nii\.gz: the affine of the header places no voxels"):
        load(item)


def test_wanted_modalities_are_found_by_name_among_those_of_the_case(head, write_case):
    images, _ = head()
    item = write_case(images) | {"modalities": list(MODALITIES)}
    loaded = load(item, modalities=["flair", "t1c"])["image"]
    np.testing.assert_array_equal(loaded.numpy(), images[[MODALITIES.index("flair"), MODALITIES.index("t1c")]])
    with pytest.raises(PipelineError, match=r"t2 is missing; this case has t1c, t1"):
        load(item | {"modalities": ["t1c", "t1"], "image": item["image"][:2]}, modalities=["t1c", "t2"])


def test_a_4d_file_gives_its_channels_by_name(head, tmp_path):
    images, _ = head()
    path = tmp_path / "BRATS_001.nii.gz"
    write_nifti(path, nib.Nifti1Image(np.moveaxis(images, 0, -1), LPS))
    channels = {"flair": 3, "t1": 1, "t1c": 0, "t2": 2}
    loaded = load({"image": [str(path)], "channels": channels})["image"]
    np.testing.assert_array_equal(loaded.numpy(), images[[channels[name] for name in MODALITIES]])
    np.testing.assert_allclose(loaded.affine, LPS)
    with pytest.raises(PipelineError, match="4 channels"):
        load({"image": [str(path)], "channels": channels | {"t2": 4}})


def test_a_mask_in_the_place_of_a_scan_is_refused_though_it_has_two_values(head, write_case):
    images, _ = head()
    images[1] = images[1] > 0
    with pytest.raises(PipelineError, match=r"^t1 is constant: every nonzero voxel is 1"):
        load(write_case(images))


def test_a_missing_modality_may_be_zeros_that_are_not_present(head, write_case):
    images, _ = head()
    item = write_case(images) | {"modalities": list(MODALITIES)}
    whole = LoadCased("image")(item)
    assert whole["present"].tolist() == [1, 1, 1, 1]
    lacking = item | {"image": [item["image"][0], *item["image"][2:]], "modalities": ["t1c", "t2", "flair"]}
    loaded = LoadCased("image", allow_missing=True)(lacking)
    assert loaded["present"].tolist() == [1, 0, 1, 1]
    np.testing.assert_array_equal(loaded["image"][[0, 2, 3]], whole["image"][[0, 2, 3]])
    assert not loaded["image"][1].any()
    np.testing.assert_array_equal(loaded["image"].affine, whole["image"].affine)
    assert loaded["image"].meta["filename_or_obj"] == whole["image"].meta["filename_or_obj"]
    with pytest.raises(PipelineError, match=r"t1 is missing; this case has t2"):
        LoadCased("image", modalities=["t1"], allow_missing=True)(
            item | {"image": item["image"][2:3], "modalities": ["t2"]}
        )


def test_a_channel_that_a_4d_file_lacks_may_be_zeros(head, write_case, tmp_path):
    images, _ = head()
    path = tmp_path / "four.nii.gz"
    write_nifti(path, nib.Nifti1Image(np.moveaxis(images, 0, -1), np.eye(4)))
    item = {"case_id": "four", "image": [str(path)], "channels": {"t1c": 2, "flair": 0}}
    loaded = LoadCased("image", allow_missing=True)(item)
    assert loaded["present"].tolist() == [1, 0, 0, 1]
    np.testing.assert_array_equal(loaded["image"][0], images[2])
    np.testing.assert_array_equal(loaded["image"][3], images[0])
