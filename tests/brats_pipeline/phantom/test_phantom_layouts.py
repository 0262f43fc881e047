"""Synthetic cohorts of the kinds that are not one file per modality: slices of whole heads, and 4-D files."""

import json
import re
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from brats_pipeline.phantom import make_slices, write_cohort

SMALL = {"shape": (64, 64, 64), "spacing_mm": 3.0}
T1, FLAIR, T1C = 0, 1, 2


@pytest.fixture(scope="module")
def patients(tmp_path_factory) -> list[Path]:
    return write_cohort(tmp_path_factory.mktemp("lgg"), cases=10, layout="lgg", seed=1, shape=(64, 64, 24))


def numbered(folder: Path, *, masks: bool) -> list[Path]:
    """The slices of a patient or their masks, in order."""
    paths = [path for path in folder.iterdir() if path.stem.endswith("_mask") == masks]
    return sorted(paths, key=lambda path: int(re.findall(r"\d+", path.stem)[-1]))


def pictures(folder: Path, *, masks: bool = False) -> np.ndarray:
    return np.stack([np.asarray(Image.open(path)) for path in numbered(folder, masks=masks)])


def test_a_patient_is_a_folder_of_rgb_slices_with_one_binary_mask_each(patients):
    for folder in patients:
        assert re.fullmatch(r"TCGA_Z[ABC]_90\d\d_(199\d|200[0-3])(0\d|1[0-2])[0-2]\d", folder.name)
        slices, masks = numbered(folder, masks=False), numbered(folder, masks=True)
        assert [path.name for path in slices] == [f"{folder.name}_{number}.tif" for number in range(1, 25)]
        assert [path.name for path in masks] == [f"{folder.name}_{number}_mask.tif" for number in range(1, 25)]
        assert pictures(folder).shape == (24, 64, 64, 3)
        assert pictures(folder).dtype == np.uint8
        masks = pictures(folder, masks=True)
        assert masks.shape == (24, 64, 64)
        assert set(np.unique(masks)) == {0, 255}


def test_a_whole_patient_has_256_pixels_a_side_and_20_to_30_slices():
    shapes = [make_slices((0, seed)).tumour.shape for seed in range(3)]
    assert {shape[:2] for shape in shapes} == {(256, 256)}
    assert all(20 <= shape[2] <= 30 for shape in shapes)
    assert len(set(shapes)) > 1


def test_about_a_third_of_the_slices_shows_tumour(patients):
    shares = [(pictures(folder, masks=True) > 0).any(axis=(1, 2)).mean() for folder in patients]
    assert 0.22 < np.mean(shares) < 0.45
    assert min(shares) > 0


def test_the_fourth_and_the_ninth_patient_lack_a_sequence(patients):
    for index, folder in enumerate(patients):
        scan = pictures(folder)
        copied = [channel for channel in (T1, T1C) if np.array_equal(scan[..., channel], scan[..., FLAIR])]
        assert copied == {3: [T1C], 8: [T1, T1C]}.get(index, [])


def test_missing_sequences_can_be_switched_off_and_change_nothing_else(tmp_path, patients):
    whole = write_cohort(tmp_path, cases=4, layout="lgg", seed=1, shape=(64, 64, 24), missing_sequences=False)
    for one, other in zip(whole, patients[:4], strict=True):
        assert one.name == other.name
        assert np.array_equal(pictures(one)[..., FLAIR], pictures(other)[..., FLAIR])
    assert not np.array_equal(pictures(whole[3])[..., T1C], pictures(whole[3])[..., FLAIR])


def test_institutions_differ_in_size(patients):
    sites = [folder.name[5:7] for folder in patients]
    assert sorted(sites.count(site) for site in set(sites)) == [2, 3, 5]


def test_the_head_has_a_bright_scalp_and_a_dark_skull_around_the_brain():
    """From outside along a row through the middle of an upper slice: bright, dark, then brain."""
    head = make_slices((1, 0), shape=(128, 128, 24))
    rim = head.images["t1"][:, 64, 17].astype(float)
    line = rim[np.flatnonzero(rim > 60)[0] :]
    scalp = line[:6].max()
    skull = line[np.argmax(line[:6]) :][:8].min()
    brain = np.median(line[20:50])
    assert scalp > 1.3 * brain
    assert skull < 0.6 * brain


def test_the_face_looks_up_and_the_first_slice_is_the_lowest():
    head = make_slices((1, 2), shape=(128, 128, 24))
    eyes_level = head.images["t1"][:, :, 6:10].max(axis=2)
    columns, rows = np.nonzero(eyes_level > 60)
    nose = columns[rows == rows.min()]
    assert abs(np.median(nose) - 63.5) < 8  # the foremost point is the nose, in the middle
    top = (head.images["flair"][:, :, -3] > 60).sum()
    assert top < 0.6 * (head.images["flair"][:, :, 12] > 60).sum()  # the crown is narrow, the neck is not
    assert (head.images["flair"][:, :, 1] > 60).sum() > top


def test_flair_shows_the_tumour_brighter_than_the_brain_around_it(patients):
    for folder in patients:
        mask = pictures(folder, masks=True) > 0
        flair = pictures(folder)[..., FLAIR]
        beside = np.zeros_like(mask)
        for axis, step in ((1, 4), (1, -4), (2, 4), (2, -4)):
            beside |= np.roll(mask, step, axis)
        assert np.median(flair[mask]) > 1.15 * np.median(flair[beside & ~mask])


def test_the_same_seed_writes_the_same_slices(tmp_path, patients):
    (again,) = write_cohort(tmp_path / "again", cases=1, layout="lgg", seed=1, shape=(64, 64, 24))
    (other,) = write_cohort(tmp_path / "other", cases=1, layout="lgg", seed=2, shape=(64, 64, 24))
    for path in again.iterdir():
        assert path.read_bytes() == (patients[0] / path.name).read_bytes()
    assert not np.array_equal(pictures(other), pictures(again))


def test_slices_without_labels_have_no_masks(tmp_path):
    (folder,) = write_cohort(tmp_path, cases=1, layout="lgg", shape=(48, 48, 8), labels=False)
    assert len(list(folder.iterdir())) == 8
    assert not list(folder.glob("*mask*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"convention": "brats2021"}, "one binary mask"),
        ({"orientation": "RAS"}, "neither an orientation"),
        ({"spacing_mm": 1.0}, "nor voxel sides"),
        ({"shape": (16, 64, 20)}, "at least 24 columns"),
    ],
)
def test_what_slices_cannot_hold_is_refused(arguments, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        write_cohort(tmp_path / "out", cases=1, layout="lgg", **arguments)


def test_a_decathlon_stacks_flair_t1_t1gd_and_t2(tmp_path):
    (one,) = write_cohort(tmp_path / "own", cases=1, layout="plain", seed=3, **SMALL)
    (image,) = write_cohort(tmp_path / "msd", cases=1, layout="msd", seed=3, **SMALL)
    assert image == tmp_path / "msd" / "imagesTr" / "BRATS_001.nii.gz"
    stack = nib.load(image)
    assert stack.shape == (64, 64, 64, 4)
    for channel, name in enumerate(("flair", "t1", "t1c", "t2")):
        single = nib.load(one / f"{name}.nii.gz")
        assert np.array_equal(np.asarray(stack.dataobj)[..., channel], np.asarray(single.dataobj))
        assert np.array_equal(stack.affine, single.affine)
    labels = np.asarray(nib.load(tmp_path / "msd" / "labelsTr" / "BRATS_001.nii.gz").dataobj)
    own = np.asarray(nib.load(one / "seg.nii.gz").dataobj)  # 1 NCR, 2 ED, 4 ET; there 2, 1, 3
    assert np.array_equal(labels, np.array([0, 2, 1, 0, 3])[own])


def test_a_decathlon_says_in_its_dataset_file_what_it_holds(tmp_path):
    write_cohort(tmp_path / "train", cases=2, layout="msd", **SMALL)
    dataset = json.loads((tmp_path / "train" / "dataset.json").read_text())
    assert dataset["modality"] == {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}
    assert dataset["tensorImageSize"] == "4D"
    assert (dataset["numTraining"], dataset["numTest"], dataset["test"]) == (2, 0, [])
    for entry in dataset["training"]:
        assert all((tmp_path / "train" / path).is_file() for path in entry.values())


def test_decathlon_cases_without_labels_are_its_test_set(tmp_path):
    seen = []
    write_cohort(tmp_path, cases=1, layout="msd", labels=False, on_case=seen.append, **SMALL)
    dataset = json.loads((tmp_path / "dataset.json").read_text())
    assert (dataset["training"], dataset["test"]) == ([], ["./imagesTs/BRATS_001.nii.gz"])
    assert (tmp_path / "imagesTs" / "BRATS_001.nii.gz").is_file()
    assert not (tmp_path / "labelsTr").exists()
    assert seen == ["BRATS_001"]


def test_a_paediatric_tumour_of_2024_has_cysts_where_it_enhances(tmp_path):
    held = set()
    for folder in write_cohort(tmp_path, cases=8, layout="brats2024-ped", seed=1, **SMALL):
        labels = np.asarray(nib.load(folder / f"{folder.name}-seg.nii.gz").dataobj)
        own = set(np.unique(labels).tolist())
        assert own in ({0, 1, 3, 4}, {0, 2, 4})  # enhancing with cysts, or not enhancing
        held |= own
    assert held == {0, 1, 2, 3, 4}
