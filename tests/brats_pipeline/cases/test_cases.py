"""Finding cases and deciding conventions, on tiny files written here."""

import json
import logging
import re
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from brats_pipeline.cases import (
    case_list_sha256,
    count_label,
    count_labels,
    decide_conventions,
    find_cases,
    listing_defects,
    missing_modalities,
    settle_conventions,
)
from brats_pipeline.cases.conventions import count_values
from brats_pipeline.errors import CaseError, PipelineError

OLD = {"t1c": "_t1ce", "t1": "_t1", "t2": "_t2", "flair": "_flair", "label": "_seg"}
NEW = {"t1c": "-t1c", "t1": "-t1n", "t2": "-t2w", "flair": "-t2f", "label": "-seg"}
PLAIN = {"t1c": "t1ce", "t1": "t1", "t2": "t2", "flair": "flair", "label": "seg"}


def write(path: Path, values: object = 1) -> Path:
    """A 6x5x4 image; the values given are painted into its first voxels."""
    voxels = np.zeros((6, 5, 4), np.int16)
    flat = np.atleast_1d(np.asarray(values))
    voxels.ravel()[: flat.size] = flat
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(voxels, np.diag([-1.0, -1, 1, 1])).to_filename(path)
    return path


def write_case(folder: Path, stem: str, ends: dict[str, str], labels: list[int] | None = None, suffix: str = ".nii.gz"):
    for kind, end in ends.items():
        if kind != "label":
            write(folder / f"{stem}{end}{suffix}")
        elif labels is not None:
            write(folder / f"{stem}{end}{suffix}", labels)


@pytest.mark.parametrize(
    ("folder", "stem", "ends", "layout", "patient"),
    [
        ("HGG/Brats17_CBICA_AAB_1", "Brats17_CBICA_AAB_1", OLD, "brats2017", "CBICA_AAB"),
        ("LGG/Brats18_2013_2_1", "Brats18_2013_2_1", OLD, "brats2017", "2013_2"),
        ("a/b/c/Brats18_TCIA05_396_1", "Brats18_TCIA05_396_1", OLD, "brats2017", "TCIA05_396"),
        ("HGG/BraTS19_TMC_06290_1", "BraTS19_TMC_06290_1", OLD, "brats2017", "TMC_06290"),
        ("x/BraTS20_Training_001", "BraTS20_Training_001", OLD, "brats2020", "BraTS20_Training_001"),
        (".", "BraTS20_Validation_012", OLD, "brats2020", "BraTS20_Validation_012"),
        ("BraTS2021_00006", "BraTS2021_00006", OLD, "brats2021", "BraTS2021_00006"),
        ("BraTS-GLI-00002-000", "BraTS-GLI-00002-000", NEW, "brats2023", "00002"),
        ("BraTS-PED-00030-001", "BraTS-PED-00030-001", NEW, "brats2023", "00030"),
        ("BraTS-GoAT-00012", "BraTS-GoAT-00012", NEW, "brats2023", "00012"),
        ("case7", "", PLAIN, "plain", "case7"),
        ("TCGA-FG-6692-20031110", "", PLAIN | {"t1c": "T1Gd", "flair": "FLAIR"}, "plain", "TCGA_FG_6692"),
        ("clinic", "anna", {kind: f"_{word}" for kind, word in PLAIN.items()}, "plain", "anna"),
    ],
)
@pytest.mark.parametrize("suffix", [".nii.gz", ".nii", ".NII.GZ"])
def test_every_layout_is_recognised_without_being_named(tmp_path, folder, stem, ends, layout, patient, suffix):
    if suffix == ".NII.GZ":  # nibabel writes lower-case suffixes only
        write_case(tmp_path / folder, stem, ends, [1, 2])
        for path in list((tmp_path / folder).iterdir()):
            path.rename(path.with_name(path.name.replace(".nii.gz", ".NII.GZ")))
    else:
        write_case(tmp_path / folder, stem, ends, [1, 2], suffix)
    (case,) = find_cases(tmp_path)
    assert case.case_id == (stem or folder)
    assert (case.layout, case.patient_id, case.convention) == (layout, patient, None)
    assert list(case.images) == ["t1c", "t1", "t2", "flair"]
    for kind, end in ends.items():
        source = case.label if kind == "label" else case.images[kind]
        assert source.paths == (tmp_path / folder / f"{stem}{end}{suffix}",)
    assert find_cases(tmp_path / folder) == [case]


def test_a_cohort_of_many_layouts_comes_sorted_and_once(tmp_path):
    write_case(tmp_path / "b", "BraTS2021_00006", OLD)
    write_case(tmp_path / "a", "Brats18_2013_2_1", OLD)
    write_case(tmp_path / "c" / "case7", "", PLAIN)
    (tmp_path / "survival.csv").write_text("id,days\n")
    (tmp_path / "b" / ".DS_Store").write_text("")
    ids = [case.case_id for case in find_cases(tmp_path)]
    assert ids == ["BraTS2021_00006", "Brats18_2013_2_1", "case7"]
    assert [case.case_id for case in find_cases(tmp_path, tmp_path / "a", tmp_path)] == ids


def test_predictions_hidden_files_and_derived_images_make_no_cases(tmp_path):
    folder = tmp_path / "BraTS2021_00006"
    write_case(folder, "BraTS2021_00006", OLD, [1, 4])
    write(tmp_path / "out" / "BraTS2021_00006.nii.gz")
    write(folder / ".BraTS2021_00006_t1.nii.gz.x7.nii.gz")
    write(folder / "._BraTS2021_00006_t1.nii.gz")
    write(folder / "BraTS2021_00006_pred.nii.gz")
    write(folder / "brain_mask.nii.gz")
    write(folder / "n4_t1.nii.gz")
    write(tmp_path / "model_pred" / "BraTS2021_00006_seg.nii.gz")
    write(tmp_path / "__MACOSX" / "BraTS2021_00006_t1.nii.gz")
    write_case(tmp_path / "case7", "", PLAIN)
    write(tmp_path / "case7" / "n4_t1.nii.gz")
    write_case(tmp_path / "clinic", "anna", {kind: f"_{word}" for kind, word in PLAIN.items()})
    write(tmp_path / "clinic" / "brain_mask.nii.gz")
    assert [case.case_id for case in find_cases(tmp_path)] == ["BraTS2021_00006", "anna", "case7"]


def test_files_unpacked_into_folders_of_their_name_are_one_case(tmp_path):
    for end in OLD.values():
        write(tmp_path / "BraTS20_Training_001" / f"BraTS20_Training_001{end}.nii" / f"BraTS20_Training_001{end}.nii")
        write(tmp_path / "BraTS2021_00495" / f"BraTS2021_00495{end}.nii.gz" / "00000057_brain.nii")
    cases = find_cases(tmp_path)
    assert [case.case_id for case in cases] == ["BraTS2021_00495", "BraTS20_Training_001"]
    assert all(not missing_modalities(case) and case.label for case in cases)


def test_the_label_map_published_under_an_odd_name_is_adopted(tmp_path):
    write_case(tmp_path / "BraTS20_Training_355", "BraTS20_Training_355", OLD)
    odd = write(tmp_path / "BraTS20_Training_355" / "W39_1998.09.19_Segm.nii")
    (case,) = find_cases(tmp_path)
    assert case.label is not None
    assert case.label.paths == (odd,)


def test_a_link_back_to_the_root_does_not_go_round_for_ever(tmp_path):
    write_case(tmp_path / "case7", "", PLAIN)
    (tmp_path / "case7" / "again").symlink_to(tmp_path)
    assert len(find_cases(tmp_path)) == 1


def test_incomplete_cases_are_returned_with_what_they_have(tmp_path):
    write(tmp_path / "BraTS2021_00001" / "BraTS2021_00001_flair.nii.gz")
    write(tmp_path / "BraTS2021_00002" / "BraTS2021_00002_seg.nii.gz")
    one, two = find_cases(tmp_path)
    assert missing_modalities(one) == ("t1c", "t1", "t2")
    assert missing_modalities(one, ["flair"]) == ()
    assert two.images == {}
    assert two.label is not None


def test_an_unknown_folder_is_told_what_it_holds_and_what_is_recognised(tmp_path):
    for number in range(12):
        (tmp_path / f"scan_{number:02}.dcm").write_text("")
    write(tmp_path / "deep" / "MRI.nii.gz")
    with pytest.raises(PipelineError) as caught:
        find_cases(tmp_path)
    message = str(caught.value)
    for part in (
        str(tmp_path),
        "12 x .dcm: scan_00.dcm",
        "1 x .nii.gz: MRI.nii.gz",
        "BraTS2021_00006_t1ce",
        "t2.nii.gz",
    ):
        assert part in message


@pytest.mark.parametrize(
    ("name", "says"), [("empty", "no files"), ("absent", "does not exist"), ("file.csv", "is a file")]
)
def test_a_root_without_cases_is_refused(tmp_path, name, says):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.csv").write_text("")
    write_case(tmp_path / "case7", "", PLAIN)
    with pytest.raises(PipelineError, match=says):
        find_cases(tmp_path / "case7", tmp_path / name)


def test_two_cases_of_one_id_are_refused_with_both_folders(tmp_path):
    write_case(tmp_path / "a" / "case7", "", PLAIN)
    write_case(tmp_path / "b" / "case7", "", PLAIN)
    with pytest.raises(PipelineError) as caught:
        find_cases(tmp_path / "a", tmp_path / "b")
    assert str(tmp_path / "a" / "case7") in str(caught.value)
    assert str(tmp_path / "b" / "case7") in str(caught.value)


@pytest.mark.parametrize(("first", "second"), [("t1.nii", "t1.nii.gz"), ("t1ce.nii.gz", "T1Gd.nii.gz")])
def test_two_files_for_one_modality_are_one_defect_with_both_names(tmp_path, first, second):
    write(tmp_path / "case7" / first)
    write(tmp_path / "case7" / second)
    write_case(tmp_path / "case8", "", PLAIN)
    seven, eight = find_cases(tmp_path)
    (defect,) = listing_defects(seven)
    assert defect.startswith("two files for t1")
    assert f"/{first}" in defect
    assert f"/{second}" in defect
    assert not listing_defects(eight)


def test_two_label_maps_are_one_defect_and_neither_is_counted(tmp_path):
    write_case(tmp_path / "case7", "", PLAIN, [0, 1])
    write(tmp_path / "case7" / f"{PLAIN['label']}.nii", [0, 2])
    (case,) = find_cases(tmp_path)
    (defect,) = listing_defects(case)
    assert defect.startswith("two files for label")
    with pytest.raises(CaseError, match="case7: two files for label"):
        count_label(case)


def test_the_hash_of_a_case_list_forgets_the_order_only():
    assert case_list_sha256(["a", "b"]) == case_list_sha256(["b", "a"]) != case_list_sha256(["ab"])


# ------------------------------------------------------------------------------------------------------------- slices


def write_slices(folder: Path, stem: str, numbers=range(1, 13), masks=None) -> Path:
    """Slices whose red, green and blue are their number, 100 and 200; masks of the same numbers unless told."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        picture = np.zeros((8, 6, 3), np.uint8) + np.uint8([number, 100, 200])
        Image.fromarray(picture).save(folder / f"{stem}_{number}.tif")
    for number in numbers if masks is None else masks:
        mask = np.zeros((8, 6), np.uint8)
        mask[: number % 3] = 255
        Image.fromarray(mask).save(folder / f"{stem}_{number}_mask.tif")
    return folder


@pytest.mark.parametrize(
    ("folder", "stem", "patient"),
    [
        ("kaggle_3m/TCGA_CS_4942_19970222", "TCGA_CS_4942_19970222", "TCGA_CS_4942"),
        ("a/b/c/TCGA_HT_A61B_19991127", "TCGA_HT_A61B_19991127", "TCGA_HT_A61B"),
        ("all", "TCGA_CS_4942_19970222", "TCGA_CS_4942"),
        ("patient7", "patient7", "patient7"),
    ],
)
def test_slices_become_one_case_ordered_by_number(tmp_path, folder, stem, patient):
    write_slices(tmp_path / folder, stem)
    (case,) = find_cases(tmp_path)
    assert (case.case_id, case.patient_id, case.layout, case.convention) == (stem, patient, "lgg", None)
    assert {modality: source.channel for modality, source in case.images.items()} == {"t1c": 2, "t1": 0, "flair": 1}
    assert list(case.images) == ["t1c", "t1", "flair"]
    paths = tuple(tmp_path / folder / f"{stem}_{number}.tif" for number in range(1, 13))
    assert {source.paths for source in case.images.values()} == {paths}
    assert case.label is not None
    assert case.label.channel is None
    assert [path.name for path in case.label.paths] == [f"{stem}_{number}_mask.tif" for number in range(1, 13)]
    assert listing_defects(case) == []
    assert find_cases(tmp_path / folder) == [case]


def test_slices_of_two_patients_in_one_folder_are_two_cases(tmp_path):
    for stem in ("TCGA_CS_4942_19970222", "TCGA_CS_4943_20000902"):
        write_slices(tmp_path / "all", stem, range(1, 3))
    assert [case.case_id for case in find_cases(tmp_path)] == ["TCGA_CS_4942_19970222", "TCGA_CS_4943_20000902"]


def test_a_patient_without_masks_has_no_label_map_and_one_without_slices_no_image(tmp_path):
    write_slices(tmp_path / "one", "TCGA_CS_0001_2000", masks=[])
    write_slices(tmp_path / "two", "TCGA_CS_0002_2000", [], masks=[1, 2])
    write_slices(tmp_path / "three", "TCGA_CS_0003_2000", [7], masks=[])
    bare, masks, lone = find_cases(tmp_path)
    assert bare.label is None
    assert masks.images == {}
    assert masks.label is not None
    assert len(lone.images["flair"].paths) == 1
    assert [listing_defects(case) for case in (bare, masks, lone)] == [[], [], []]


@pytest.mark.parametrize(
    ("numbers", "masks", "says"),
    [
        ([1, 2, 4, 5], [1, 2, 4, 5], "slice 3 missing between 1 and 5"),
        ([1, 4, 9], [], "slices 2, 3, 5, 6, 7 and 1 more missing between 1 and 9"),
        ([1, 2, 3], [1, 3], "slice without a mask: slice 2 (TCGA_CS_0001_2000_2.tif)"),
        ([1, 2, 3], [1, 2, 3, 4, 5], "mask without a slice: slices 4, 5 (TCGA_CS_0001_2000_4_mask.tif)"),
        ([1, 3], [1, 2, 3], "mask without a slice: slice 2 (TCGA_CS_0001_2000_2_mask.tif)"),
    ],
)
def test_slices_and_masks_that_do_not_match_are_one_defect(tmp_path, numbers, masks, says):
    write_slices(tmp_path, "TCGA_CS_0001_2000", numbers, masks)
    (case,) = find_cases(tmp_path)
    (defect,) = listing_defects(case)
    assert says in defect


def test_one_slice_in_two_files_is_one_defect(tmp_path):
    write_slices(tmp_path, "TCGA_CS_0001_2000")
    (tmp_path / "TCGA_CS_0001_2000_7.tif").rename(tmp_path / "TCGA_CS_0001_2000_7.tiff")
    write_slices(tmp_path, "TCGA_CS_0001_2000", [7], masks=[])
    (case,) = find_cases(tmp_path)
    (defect,) = listing_defects(case)
    assert re.match(r"two files for slice 7: .*_7\.tif and .*_7\.tiff", defect)


def test_pictures_that_are_no_slices_make_no_case(tmp_path):
    write_slices(tmp_path / "figures", "figure", [1, 2], masks=[])
    write_case(tmp_path / "case7", "", PLAIN)
    assert [case.case_id for case in find_cases(tmp_path)] == ["case7"]
    with pytest.raises(PipelineError, match=r"2 x \.tif: figure_1\.tif(.|\n)*lgg: TCGA_CS_4942"):
        find_cases(tmp_path / "figures")


# ---------------------------------------------------------------------------------------------- Decathlon, dataset.json

MODALITY = {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}


def write_decathlon(root: Path, labels=(1, 2, 3), **changes) -> Path:
    """Two cases with a label map and one without."""
    for name in ("BRATS_001", "BRATS_002", "BRATS_003"):
        where = root / ("imagesTs" if name.endswith("3") else "imagesTr")
        voxels = np.zeros((6, 5, 4, 4), np.int16) + np.int16([1, 2, 3, 4])
        where.mkdir(parents=True, exist_ok=True)
        nib.Nifti1Image(voxels, np.eye(4)).to_filename(where / f"{name}.nii.gz")
        if not name.endswith("3"):
            write(root / "labelsTr" / f"{name}.nii.gz", list(labels))
    listed = [
        {"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in ("BRATS_001", "BRATS_002")
    ]
    described = {"name": "BRATS", "modality": MODALITY, "training": listed, "test": ["./imagesTs/BRATS_003.nii.gz"]}
    (root / "dataset.json").write_text(json.dumps(described | changes))
    return root


@pytest.mark.parametrize("order", [MODALITY, {"3": "FLAIR", "0": "T2w", "1": "T1gd", "2": "T1w"}])
def test_channels_of_the_decathlon_are_told_by_name(tmp_path, caplog, order):
    root = write_decathlon(tmp_path / "deep" / "Task01_BrainTumour", modality=order)
    with caplog.at_level(logging.WARNING):
        one, two, three = find_cases(tmp_path)
    assert caplog.records == []
    channel = {name.lower(): int(key) for key, name in order.items()}
    wanted = {"t1c": channel["t1gd"], "t1": channel["t1w"], "t2": channel["t2w"], "flair": channel["flair"]}
    assert {modality: source.channel for modality, source in one.images.items()} == wanted
    assert list(one.images) == ["t1c", "t1", "t2", "flair"]
    assert {source.paths for source in one.images.values()} == {(root / "imagesTr" / "BRATS_001.nii.gz",)}
    assert (one.case_id, one.patient_id, one.layout) == ("BRATS_001", "BRATS_001", "msd")
    assert one.label.paths == (root / "labelsTr" / "BRATS_001.nii.gz",)
    assert two.label is not None
    assert (three.case_id, three.label) == ("BRATS_003", None)
    assert {case.convention for case in decide_conventions([one, two, three])} == {"msd"}


def test_a_file_that_the_decathlon_lists_and_nobody_has_is_a_defect_of_its_case(tmp_path):
    write_decathlon(tmp_path)
    (tmp_path / "imagesTr" / "BRATS_002.nii.gz").unlink()
    one, two, three = find_cases(tmp_path)
    assert listing_defects(one) == listing_defects(three) == []
    (defect,) = listing_defects(two)
    assert f"{tmp_path / 'imagesTr' / 'BRATS_002.nii.gz'}: is named in dataset.json and not there" in defect


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"modality": {"0": "CT"}}, "channel 0, 'CT', is no modality of brain tumours; FLAIR, T1w"),
        ({"modality": {"0": "FLAIR", "1": "flair"}}, "channel 1, 'flair', occurs twice"),
        ({"modality": ["FLAIR"]}, "'modality' must be"),
        ({"training": [{"label": "x"}]}, "'training' must list one image file for each case"),
        ({"training": [{"image": ["a", "b"]}]}, "'training' must list one image file for each case"),
        ({"test": ["./imagesTr/BRATS_001.nii.gz"]}, "BRATS_001: .* lists it twice"),
        ({"training": [], "test": ["./imagesTs/BRATS_009.nii.gz"]}, "names 1 cases, and none of their files is there"),
    ],
)
def test_a_dataset_json_that_makes_no_sense_is_refused(tmp_path, changes, says):
    write_decathlon(tmp_path, **changes)
    with pytest.raises(PipelineError, match=says) as caught:
        find_cases(tmp_path)
    assert str(tmp_path / "dataset.json") in str(caught.value)


def test_a_dataset_json_that_is_no_json_is_refused_beside_its_images_and_ignored_elsewhere(tmp_path):
    write_decathlon(tmp_path / "msd")
    (tmp_path / "msd" / "dataset.json").write_text("{")
    with pytest.raises(PipelineError, match=r"dataset\.json: is no JSON file"):
        find_cases(tmp_path / "msd")
    write_case(tmp_path / "case7", "", PLAIN)
    for content in ("{", "[]", '{"channel_names": {}}'):
        (tmp_path / "case7" / "dataset.json").write_text(content)
        assert len(find_cases(tmp_path / "case7")) == 1


# --------------------------------------------------------------------------------------------------------- conventions


def cohort(root: Path, labels: dict[str, list[int] | None]):
    for case_id, values in labels.items():
        if case_id.startswith("plain"):
            write_case(root / case_id, "", PLAIN, values)
        else:
            write_case(root / case_id, case_id, NEW if "-" in case_id else OLD, values)
    return find_cases(root)


def decided(cases) -> dict[str, str | None]:
    return {case.case_id: case.convention for case in decide_conventions(cases)}


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"BraTS2021_00001": [1, 2, 4]}, "brats2017"),
        ({"BraTS2021_00001": [1, 2]}, "brats2017"),
        ({"BraTS2021_00001": None}, "brats2017"),
        ({"BraTS2021_00001": [1, 2, 3], "BraTS2021_00002": [2]}, "brats2023"),
        ({"Brats18_2013_2_1": [4]}, "brats2017"),
        ({"BraTS20_Training_001": []}, "brats2017"),
        ({"BraTS-GLI-00001-000": [1, 2, 3]}, "brats2023"),
        ({"BraTS-GLI-00001-000": [1, 2, 4], "BraTS-GLI-00002-000": [1, 2]}, "brats2017"),
        ({"BraTS-GLI-00001-000": [1, 2]}, "brats2023"),
        ({"BraTS-GLI-00001-000": [1, 2, 3, 4], "BraTS-GLI-00002-000": [2, 4]}, "brats2024-gli"),
        ({"BraTS-GLI-00001-100": [1, 2, 3, 4], "BraTS-GLI-00002-101": [2, 4]}, "brats2024-gli"),
        ({"BraTS-GLI-00001-000": None}, "brats2023"),
        ({"BraTS-SSA-00001-000": [1, 2, 3]}, "brats2023"),
        ({"BraTS-MEN-00001-000": None}, "brats2023"),
        ({"BraTS-MET-00001-000": [1, 2, 3, 4]}, "brats2024-met"),
        ({"BraTS-PED-00001-000": [1, 2, 3, 4]}, "brats2024-ped"),
        ({"plain1": [1, 2, 3], "plain2": None}, "brats2023"),
        ({"plain1": [1, 4]}, "brats2017"),
        ({"plain1": None}, "brats2023"),
    ],
)
def test_values_of_the_whole_cohort_decide_the_convention(tmp_path, labels, expected):
    assert decided(cohort(tmp_path, labels)) == dict.fromkeys(labels, expected)


def test_each_layout_of_a_mixed_cohort_is_decided_for_itself(tmp_path):
    labels = {"BraTS2021_00001": [1, 4], "BraTS-GLI-00002-000": [1, 2, 3], "Brats18_2013_2_1": [2]}
    assert decided(cohort(tmp_path, labels)) == {
        "BraTS2021_00001": "brats2017",
        "BraTS-GLI-00002-000": "brats2023",
        "Brats18_2013_2_1": "brats2017",
    }


def test_layouts_with_one_reading_are_decided_even_without_label_maps(tmp_path):
    write_slices(tmp_path / "a", "TCGA_CS_0001_2000", range(1, 4))
    write_slices(tmp_path / "b", "TCGA_CS_0002_2000", range(1, 4), masks=[])
    write_decathlon(tmp_path / "c")
    assert {case.layout: case.convention for case in decide_conventions(find_cases(tmp_path))} == {
        "lgg": "lgg",
        "msd": "msd",
    }


def test_a_decathlon_label_map_in_other_numbers_is_refused(tmp_path):
    with pytest.raises(CaseError, match=r"BRATS_001: .* holds 1 2 4, and 4 is in no label convention"):
        decide_conventions(find_cases(write_decathlon(tmp_path, labels=(1, 2, 4))))


@pytest.mark.parametrize(
    ("labels", "readings"),
    [
        ({"BraTS-PED-00001-000": [1, 2, 3]}, ["brats2023: 1 NCR, 2 ED, 3 ET", "brats2024-ped: 1 ET, 2 NET, 3 CC"]),
        ({"BraTS-PED-00001-000": [1, 2]}, ["brats2023", "brats2024-ped"]),
        ({"BraTS-PED-00001-000": None}, ["brats2023", "brats2024-ped: 1 ET, 2 NET, 3 CC, 4 ED"]),
        (
            {"BraTS-GLI-00001-100": [1, 2, 4]},
            ["brats2017: 1 NCR/NET, 2 ED, 4 ET", "brats2024-gli: 1 NETC, 2 SNFH, 4 RC"],
        ),
        ({"plain1": [1, 2, 3, 4]}, ["brats2024-gli", "brats2024-ped"]),
        ({"BraTS2021_00001": [1, 2, 3, 4]}, ["brats2024-gli", "brats2024-ped"]),
        ({"BraTS-GLI-00001-000": [1, 3], "BraTS-GLI-00002-000": [1, 4]}, ["3 occurs in BraTS-GLI-00001-000", "4 in"]),
        ({"BraTS2021_00001": [1, 3], "BraTS2021_00002": [1, 4]}, ["3 occurs in BraTS2021_00001", "4 in"]),
    ],
)
def test_what_stays_ambiguous_is_refused_with_the_readings(tmp_path, labels, readings):
    cases = cohort(tmp_path, labels)
    with pytest.raises(PipelineError) as caught:
        decide_conventions(cases)
    for part in (*readings, next(iter(labels)), "--convention"):
        assert part in str(caught.value)
    assert {case.convention for case in decide_conventions(cases, "brats2024-ped")} == {"brats2024-ped"}


def test_a_value_of_no_convention_is_refused_by_case_and_value(tmp_path):
    cases = cohort(tmp_path, {"BraTS2021_00001": [1, 2, 4], "BraTS2021_00002": [1, 2, 7]})
    with pytest.raises(CaseError, match=r"BraTS2021_00002: .* 1 2 7, and 7 is in no"):
        decide_conventions(cases)
    refused = []
    kept = decide_conventions(cases, set_aside=lambda error, about: refused.extend(case.case_id for case in about))
    assert refused == ["BraTS2021_00002"]
    assert [(case.case_id, case.convention) for case in kept] == [("BraTS2021_00001", "brats2017")]


def test_a_convention_that_is_named_wins_and_reads_no_file(tmp_path):
    cases = cohort(tmp_path, {"BraTS2021_00001": [1, 2, 7]})
    cases[0].label.paths[0].unlink()
    assert decide_conventions(cases, "brats2023")[0].convention == "brats2023"
    with pytest.raises(PipelineError, match=r"'brats2022'; known: brats2017"):
        decide_conventions(cases, "brats2022")


def test_a_decided_case_is_not_read_again(tmp_path):
    cases = decide_conventions(cohort(tmp_path, {"BraTS2021_00001": [1, 2, 4]}))
    cases[0].label.paths[0].unlink()
    assert decide_conventions(cases) == cases


def test_a_label_map_that_cannot_be_read_decides_nothing(tmp_path):
    cases = cohort(tmp_path, {"BraTS-GLI-00001-000": [1, 4], "BraTS-GLI-00002-000": [3]})
    cases[1].label.paths[0].write_bytes(b"\x1f\x8b broken")
    seen = []
    counts = count_labels(cases, on_case=seen.append)
    assert seen == ["BraTS-GLI-00001-000", "BraTS-GLI-00002-000"]
    assert isinstance(counts["BraTS-GLI-00002-000"], CaseError)
    assert {case.convention for case in settle_conventions(cases, counts)} == {"brats2017"}


def test_voxels_are_counted_and_fractions_refused():
    assert count_values(np.array([0, 4, 2, 4, 0], np.float32)) == {2: 1, 4: 2}
    assert count_values(np.zeros((2, 2), np.uint8)) == {}
    for odd in (0.5, np.nan, np.inf):
        with pytest.raises(PipelineError, match=f"holds the value {odd}"):
            count_values(np.array([0, 1, odd]))


def test_finding_and_inspecting_cases_loads_neither_torch_nor_monai():
    code = (
        "import sys, brats_pipeline.cases, brats_pipeline.data.datalist, brats_pipeline.data.fingerprint; "
        "print([name for name in ('torch', 'monai', 'pandas', 'sklearn', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.real
def test_real_cases_are_found_and_decided():
    import os

    root = Path(os.environ["BRATS_PIPELINE_DATA"])
    found = {case.case_id: case for case in decide_conventions(find_cases(root / "brats", root / "raw"))}
    assert len(found) == 11
    assert found["BraTS-GLI-00002-000"].convention == "brats2023"
    assert found["TCGA-FG-6692"].layout == "plain"
    named = [case for case in found.values() if case.layout in ("brats2017", "brats2021")]
    assert len(named) == 9
    assert {case.convention for case in named} == {"brats2017"}
