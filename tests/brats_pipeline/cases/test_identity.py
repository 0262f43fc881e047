"""The same scan is recognised under another name, and different heads are not."""

import os
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from brats_pipeline.cases import find_cases, identity
from brats_pipeline.cases.identity import Shared, find_shared
from brats_pipeline.cases.patients import read_patients, with_patients
from brats_pipeline.errors import PipelineError

SHAPE = (60, 72, 50)
LPS = np.diag([-1.0, -1, 1, 1])
OLD = {"t1c": "_t1ce", "t1": "_t1", "t2": "_t2", "flair": "_flair", "label": "_seg"}
NEW = {"t1c": "-t1c", "t1": "-t1n", "t2": "-t2w", "flair": "-t2f", "label": "-seg"}


def head(seed: int) -> dict[str, np.ndarray]:
    """Four images of one ellipsoid with folds of its own, and a blob for a tumour; background 0."""
    rng = np.random.default_rng(seed)
    axes = np.meshgrid(*(np.linspace(-1.3, 1.3, side) for side in SHAPE), indexing="ij")
    inside = sum(axis**2 for axis in axes) < 1
    images = {}
    for number, modality in enumerate(("t1c", "t1", "t2", "flair")):
        folds = gaussian_filter(rng.normal(size=SHAPE), 2)
        tissue = np.maximum(600 + 100 * number + 4000 * folds, 20)
        images[modality] = np.where(inside, tissue, 0).astype(np.int16)
    blob = gaussian_filter(rng.normal(size=SHAPE), 5)
    order = np.sort(blob[inside])
    images["label"] = (inside & (blob > order[-1500])).astype(np.uint8) + (inside & (blob > order[-600]))
    return images


def write(folder: Path, images: dict[str, np.ndarray], ends: dict[str, str], affine: np.ndarray = LPS) -> None:
    folder.mkdir(parents=True)
    for kind, values in images.items():
        nib.Nifti1Image(values, affine).to_filename(folder / f"{folder.name}{ends[kind]}.nii.gz")


@pytest.fixture
def cohort(tmp_path: Path) -> Path:
    """Three patients."""
    for number in range(3):
        write(tmp_path / "a" / f"BraTS2021_0000{number}", head(number), OLD)
    return tmp_path / "a"


def shared(*roots: Path) -> list[Shared]:
    return find_shared(find_cases(*roots))


def test_different_patients_share_nothing(cohort):
    seen = []
    assert find_shared(find_cases(cohort), on_case=seen.append) == []
    assert seen == ["BraTS2021_00000", "BraTS2021_00001", "BraTS2021_00002"]


def turned(images):
    """As a file in RAS stores them: the first two axes the other way round."""
    return {kind: np.flip(values, (0, 1)) for kind, values in images.items()}


def test_a_case_renamed_turned_padded_retyped_and_relabelled_is_recognised(cohort, tmp_path):
    images = turned(head(1))
    images["label"] = images["label"] * 2  # every tissue has another number
    changed = {
        kind: np.pad(values, ((4, 9), (0, 3), (7, 2))).astype(np.uint8 if kind == "label" else np.float64)
        for kind, values in images.items()
    }
    write(tmp_path / "b" / "BraTS-GLI-00077-000", changed, NEW, np.eye(4))
    assert shared(cohort, tmp_path / "b") == [
        Shared("BraTS-GLI-00077-000", "BraTS2021_00001", "equal t1c, t1, t2, flair, label map")
    ]


def test_axes_in_another_order_are_recognised(cohort, tmp_path):
    swapped = {kind: np.transpose(values, (2, 0, 1)) for kind, values in head(2).items()}
    affine = np.zeros((4, 4))
    affine[2, 0], affine[0, 1], affine[1, 2], affine[3, 3] = 1, -1, -1, 1
    write(tmp_path / "b" / "BraTS-GLI-00077-000", swapped, NEW, affine)
    (pair,) = shared(cohort, tmp_path / "b")
    assert (pair.second, pair.reason) == ("BraTS2021_00002", "equal t1c, t1, t2, flair, label map")


def test_a_label_map_alone_gives_a_patient_away(cohort, tmp_path):
    other = head(7) | {"label": head(1)["label"]}
    write(tmp_path / "b" / "BraTS-GLI-00077-000", other, NEW)
    assert shared(cohort, tmp_path / "b") == [Shared("BraTS-GLI-00077-000", "BraTS2021_00001", "equal label map")]


def test_empty_label_maps_and_tiny_ones_give_nobody_away(tmp_path):
    for number, voxels in ((0, 0), (1, 0), (2, 3), (3, 3)):
        images = head(number)
        images["label"] = np.zeros(SHAPE, np.uint8)
        images["label"].ravel()[:voxels] = 1
        write(tmp_path / f"BraTS2021_0000{number}", images, OLD)
    assert shared(tmp_path) == []


def noisy(values, rng):
    return values + rng.normal(0, 0.01 * values.max(), values.shape).astype(np.float32)


def noisy_inside(values, rng):
    return np.where(values > 0, noisy(values, rng), 0)


def normalised(values, rng):
    tissue = values != 0
    return np.where(tissue, (values - values[tissue].mean()) / values[tissue].std(), 0)


def brighter(values, rng):
    return values * 3.7


@pytest.mark.parametrize("change", [noisy, noisy_inside, normalised, brighter])
def test_a_case_whose_voxels_were_changed_is_recognised_by_its_looks(cohort, tmp_path, change):
    rng = np.random.default_rng(0)
    images = {kind: change(values, rng).astype(np.float32) for kind, values in head(1).items() if kind != "label"}
    write(tmp_path / "b" / "BraTS-GLI-00077-000", images, NEW)
    (pair,) = shared(cohort, tmp_path / "b")
    assert (pair.first, pair.second) == ("BraTS-GLI-00077-000", "BraTS2021_00001")
    assert pair.reason.startswith("flair images look alike (correlation ")


def test_pictures_compared_a_few_at_a_time_give_the_pairs_of_all_at_once(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for number, patient in enumerate((0, 1, 0, 2, 0)):
        images = {"flair": noisy(head(patient)["flair"], rng)}
        write(tmp_path / f"BraTS2021_0000{number}", images, OLD)
    together = shared(tmp_path)
    assert [(pair.first[-1], pair.second[-1]) for pair in together] == [("0", "2"), ("0", "4"), ("2", "4")]
    monkeypatch.setattr(identity, "_ROWS", 2)
    assert shared(tmp_path) == together


def test_broken_and_empty_files_find_nobody_and_stop_nobody(cohort):
    for number in range(2):
        folder = cohort / f"BraTS2021_0001{number}"
        write(folder, {kind: np.zeros(SHAPE, np.int16) for kind in OLD}, OLD)
        (folder / f"{folder.name}_t1.nii.gz").write_bytes(b"\x1f\x8b broken")
    assert shared(cohort) == []


def test_slices_and_an_exam_of_one_barcode_are_one_patient(tmp_path):
    folder = tmp_path / "TCGA_FG_6692_20020606"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in (1, 2, 3):
        picture = rng.integers(0, 255, (16, 16, 3), np.uint8)
        Image.fromarray(picture).save(folder / f"{folder.name}_{number}.tif")
    (tmp_path / "TCGA-FG-6692").mkdir()
    for kind, values in head(0).items():
        nib.Nifti1Image(values, LPS).to_filename(tmp_path / "TCGA-FG-6692" / f"{kind}.nii.gz")
    assert shared(tmp_path) == [Shared("TCGA-FG-6692", "TCGA_FG_6692_20020606", "both named TCGA_FG_6692")]


def test_the_search_loads_neither_torch_nor_monai():
    modules = "brats_pipeline.cases.identity, brats_pipeline.cases.patients"
    code = f"import sys, {modules}; print({{'torch', 'monai'}} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# ------------------------------------------------------------------------------------------------------ patients by CSV


def test_a_table_of_patients_replaces_what_the_names_tell(cohort, tmp_path):
    table = tmp_path / "map.csv"
    table.write_text("\ufeffpatient_id, age,case_id\nanna,40,BraTS2021_00002\n\nanna,41,BraTS2021_00000\n", "utf-8")
    mapping = read_patients(table)
    assert mapping == {"BraTS2021_00002": "anna", "BraTS2021_00000": "anna"}
    told = [case.patient_id for case in with_patients(find_cases(cohort), mapping)]
    assert told == ["anna", "BraTS2021_00001", "anna"]


def test_a_table_that_lists_an_unknown_case_is_refused(cohort):
    with pytest.raises(PipelineError, match=r"lists BraTS2021_99999, and no such case .* called BraTS2021_00000"):
        with_patients(find_cases(cohort), {"BraTS2021_99999": "x", "BraTS2021_00000": "x"})


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "columns case_id and patient_id"),
        (b"case,patient\na,b\n", "case_id and patient_id is not there once: 'case,patient'"),
        (b"case_id;patient_id\na;b\n", "separated by a comma"),
        (b"case_id,patient_id\n", "lists no case"),
        (b"case_id,patient_id\na\n", "line 2 is 'a'"),
        (b"case_id,patient_id\na,\n", "line 2 is 'a,'"),
        (b"case_id,patient_id\na,b,c\n", "line 2 is 'a,b,c'"),
        (b"case_id,patient_id\na,b\na,c\n", "a occurs twice, again in line 3"),
        (b'case_id,patient_id\n"a,b\n', "is no CSV file"),
        (b"case_id,patient_id\n\xff\xfe,b\n", "UTF-8"),
    ],
)
def test_a_malformed_table_is_refused_with_the_reason(tmp_path, content, says):
    table = tmp_path / "map.csv"
    table.write_bytes(content)
    with pytest.raises(PipelineError, match=says) as caught:
        read_patients(table)
    assert str(table) in str(caught.value)


def test_a_table_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(PipelineError, match="cannot be read"):
        read_patients(tmp_path / "map.csv")


# ---------------------------------------------------------------------------------------------------------- real scans


@pytest.mark.real
def test_no_two_of_the_real_patients_are_taken_for_one():
    root = Path(os.environ["BRATS_PIPELINE_DATA"])
    assert shared(root / "brats", root / "lgg") == []


@pytest.mark.real
def test_a_real_case_is_recognised_after_renaming_turning_relabelling_and_noise(tmp_path):
    root = Path(os.environ["BRATS_PIPELINE_DATA"]) / "brats"
    source = root / "BraTS2021_01477"
    rng = np.random.default_rng(0)
    for name, ends in (("BraTS-GLI-09999-000", NEW), ("BraTS-GLI-09998-000", NEW)):
        images = {}
        for kind, end in OLD.items():
            image = nib.as_closest_canonical(nib.load(source / f"{source.name}{end}.nii.gz"))
            images[kind] = np.asanyarray(image.dataobj)
        images["label"] = np.where(images["label"] == 4, 3, images["label"])
        if name.endswith("98-000"):
            images = {kind: noisy(values, rng) for kind, values in images.items() if kind != "label"}
        write(tmp_path / name, images, ends, image.affine)
    pairs = {(pair.first, pair.second): pair.reason for pair in shared(root, tmp_path)}
    assert pairs.pop(("BraTS-GLI-09999-000", source.name)) == "equal t1c, t1, t2, flair, label map"
    assert pairs.pop(("BraTS-GLI-09998-000", source.name)).startswith("flair images look alike")
    assert list(pairs) == [("BraTS-GLI-09998-000", "BraTS-GLI-09999-000")]
