"""Every defect is named, and a sound cohort has none."""

import gzip
import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from brats_pipeline.cases import case_list_sha256, decide_conventions, find_cases
from brats_pipeline.fingerprint import check_case, check_headers, inspect_cases

SHAPE = (6, 5, 4)
LPS = np.diag([-1.0, -1, 2, 1])
ENDS = ("t1ce", "t1", "t2", "flair")


def image() -> np.ndarray:
    """Background 0, then 1, 2, 3, ... up to 100."""
    voxels = np.zeros(SHAPE, np.int16)
    voxels.ravel()[20:] = np.arange(1, 101)
    return voxels


def labels(**voxels_of: int) -> np.ndarray:
    """A label map with, say, ``v4=3``: three voxels of 4."""
    values = [value for name, count in voxels_of.items() for value in [int(name[1:])] * count]
    voxels = np.zeros(SHAPE, np.uint8)
    voxels.ravel()[: len(values)] = values
    return voxels


def write(path: Path, voxels: np.ndarray, affine: np.ndarray = LPS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(voxels, affine).to_filename(path)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One sound case: 3 voxels of 1, 5 of 2, 2 of 4; 2 mm3 each."""
    folder = tmp_path / "BraTS2021_00001"
    for end in ENDS:
        write(folder / f"BraTS2021_00001_{end}.nii.gz", image())
    write(folder / "BraTS2021_00001_seg.nii.gz", labels(v1=3, v2=5, v4=2))
    return folder


def file(folder: Path, end: str) -> Path:
    return folder / f"{folder.name}_{end}.nii.gz"


def test_a_sound_case_is_described_and_has_no_defects(folder):
    cases = find_cases(folder)
    seen = []
    fingerprint = inspect_cases(cases, on_case=seen.append)
    (case,) = fingerprint.cases
    assert seen == ["BraTS2021_00001"]
    assert case.defects == ()
    assert (case.shape, case.spacing_mm, case.orientation) == (SHAPE, (1, 1, 2), "LPS")
    assert case.convention == "brats2017"
    assert case.labels_ml == pytest.approx({1: 0.006, 2: 0.010, 4: 0.004})
    assert case.regions_ml == pytest.approx({"WT": 0.020, "TC": 0.010, "ET": 0.004})
    assert case.intensities["t2"] == pytest.approx({"p1": 1.99, "p25": 25.75, "p50": 50.5, "p75": 75.25, "p99": 99.01})
    assert check_case(cases[0]) == check_headers(cases[0]) == []


def test_the_json_and_the_rows_tell_the_same(folder):
    write(folder.parent / "case7" / "t1.nii.gz", image(), np.diag([2.0, 2, 2, 1]))
    fingerprint = inspect_cases(find_cases(folder.parent))
    document = json.loads(fingerprint.to_json())
    assert document["schema_version"] == 1
    assert document["cohort"]["layouts"] == {"brats2021": 1, "plain": 1}
    assert document["cohort"]["spacings_mm"] == {"1x1x2": 1, "2x2x2": 1}
    assert document["cohort"]["orientations"] == {"LPS": 1, "RAS": 1}
    assert document["cohort"]["with_defects"] == 1
    assert document["cohort"]["regions_ml"]["WT"]["median"] == pytest.approx(0.020)
    assert document["cohort"]["case_list_sha256"] == case_list_sha256(["case7", "BraTS2021_00001"])
    first, second = fingerprint.rows()
    assert first["labels"] == "1 2 4"
    assert first["WT_ml"] == document["cases"][0]["regions_ml"]["WT"]
    assert (first["shape"], first["spacing_mm"], first["defects"]) == ("6x5x4", "1x1x2", 0)
    assert (second["WT_ml"], second["modalities"], second["defects"]) == (None, "t1", 1)


def spoil_modality(folder):
    file(folder, "t2").unlink()


def spoil_all_images(folder):
    for end in ENDS:
        file(folder, end).unlink()


def spoil_shape(folder):
    write(file(folder, "t2"), image()[:, :, :3])


def spoil_affine(folder):
    write(file(folder, "flair"), image(), LPS + np.array([[0, 0, 0, 5.0]] + [[0] * 4] * 3))


def spoil_label_grid(folder):
    write(file(folder, "seg"), labels(v1=1), np.diag([1.0, 1, 1, 1]))


def spoil_axes(folder):
    write(file(folder, "t1"), image()[..., None].repeat(2, axis=-1))


def spoil_gzip(folder):
    noise = np.random.default_rng(0).integers(0, 1000, SHAPE).astype(np.int16)
    path = write(file(folder, "t1"), noise)
    path.write_bytes(path.read_bytes()[:-40])


def spoil_text(folder):
    file(folder, "t1").write_text("this is no scan, but a letter long enough to be taken for a header" * 10)


def spoil_empty_file(folder):
    file(folder, "t1").write_bytes(b"")


def spoil_label_value(folder):
    write(file(folder, "seg"), labels(v1=1, v7=2))


def spoil_label_fraction(folder):
    write(file(folder, "seg"), labels(v1=1).astype(np.float32) / 4)


def spoil_nan(folder):
    voxels = image().astype(np.float32)
    voxels[0, 0, :3] = np.nan, np.inf, -np.inf
    write(file(folder, "t1ce"), voxels)


def spoil_zero(folder):
    write(file(folder, "flair"), np.zeros(SHAPE, np.int16))


def spoil_constant(folder):
    write(file(folder, "flair"), np.full(SHAPE, 42, np.int16))


def spoil_tissue(folder):
    write(file(folder, "flair"), (image() > 0).astype(np.int16))


HEADERS = [
    (spoil_modality, ["missing modality t2", "t1c, t1, flair"]),
    (spoil_all_images, ["label map without any image"]),
    (spoil_shape, ["t2 and t1c lie on different grids", "6x5x3 voxels", "6x5x4 voxels"]),
    (spoil_affine, ["flair and t1c lie on different grids", "origin (5, 0, 0)", "origin (0, 0, 0)"]),
    (spoil_label_grid, ["label and t1c lie on different grids", "RAS", "LPS"]),
    (spoil_axes, ["t1 has shape 6x5x4x2", "three axes"]),
    (spoil_gzip, ["_t1.nii.gz", "truncated"]),
    (spoil_text, ["_t1.nii.gz", "no NIfTI file"]),
    (spoil_empty_file, ["_t1.nii.gz", "empty"]),
]
VOXELS = [
    (spoil_label_value, ["7"]),
    (spoil_label_fraction, ["label map holds 0.25"]),
    (spoil_nan, ["t1c holds 3 voxels that are NaN or infinite"]),
    (spoil_zero, ["flair is empty"]),
    (spoil_constant, ["flair is constant: every voxel is 42"]),
    (spoil_tissue, ["flair is constant: every nonzero voxel is 1"]),
]


@pytest.mark.parametrize(("spoil", "says"), HEADERS + VOXELS, ids=lambda value: getattr(value, "__name__", ""))
def test_each_defect_is_named_once_and_the_cohort_survives(folder, spoil, says):
    other = folder.parent / "BraTS2021_00002"
    for path in folder.iterdir():
        write(other / path.name.replace(folder.name, other.name), nib.load(path).get_fdata().astype(np.int16))
    spoil(folder)
    fingerprint = inspect_cases(find_cases(folder.parent))
    assert list(fingerprint.defects) == ["BraTS2021_00001"]
    (defect,) = fingerprint.defects["BraTS2021_00001"]
    assert all(part in defect for part in says)
    assert len(json.loads(fingerprint.to_json())["cases"]) == 2


@pytest.mark.parametrize(("spoil", "says"), HEADERS + VOXELS, ids=lambda value: getattr(value, "__name__", ""))
def test_a_single_case_can_be_checked_before_a_run(folder, spoil, says):
    spoil(folder)
    (case,) = decide_conventions(find_cases(folder), "brats2017")
    (defect,) = check_case(case)
    assert all(part in defect for part in says)
    assert check_headers(case) == ([defect] if (spoil, says) in HEADERS else [])


def test_modalities_that_are_not_wanted_are_not_looked_at(folder):
    spoil_gzip(folder)
    (case,) = find_cases(folder)
    assert check_headers(case, wanted=["flair"]) == check_case(case, wanted=["flair"]) == []


def test_headers_are_enough_for_uncompressed_and_nifti_2_files(tmp_path):
    for end in ENDS:
        kind = nib.Nifti2Image if end == "t1" else nib.Nifti1Image
        kind(np.ones((10, 10, 10), np.int16), LPS).to_filename(tmp_path / f"{end}.nii")
    (case,) = find_cases(tmp_path)
    path = tmp_path / "t2.nii"
    path.write_bytes(path.read_bytes() + b"\0" * 64)  # padding at the end harms nobody
    assert check_headers(case) == []
    path.write_bytes(path.read_bytes()[:1000])
    (defect,) = check_headers(case)
    assert f"{path}: the header promises" in defect


def test_a_gzip_stream_written_in_parts_is_whole(folder):
    path = file(folder, "t1")
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[:500]) + gzip.compress(content[500:]))
    (case,) = find_cases(folder)
    assert check_headers(case) == check_case(case) == []


def test_headers_are_checked_without_decoding_the_voxels(folder):
    path = file(folder, "t1")
    content = bytearray(
        write(path, np.random.default_rng(0).integers(0, 999, (40, 40, 40)).astype(np.int16)).read_bytes()
    )
    content[len(content) // 2] ^= 0xFF  # damage that only the checksum of the whole stream shows
    path.write_bytes(content)
    (case,) = find_cases(folder)
    assert any("damaged" in defect for defect in check_case(case))
    assert not any("damaged" in defect for defect in check_headers(case))


def test_an_ambiguous_cohort_is_described_and_says_so(tmp_path):
    for end in ("t1c", "t1n", "t2w", "t2f"):
        write(tmp_path / f"BraTS-PED-00001-000-{end}.nii.gz", image())
    write(tmp_path / "BraTS-PED-00001-000-seg.nii.gz", labels(v1=1, v3=1))
    (case,) = inspect_cases(find_cases(tmp_path)).cases
    assert case.convention is None
    assert case.labels_ml == pytest.approx({1: 0.002, 3: 0.002})
    assert case.regions_ml == {}
    (defect,) = case.defects
    assert "brats2024-ped: 1 ET, 3 CC" in defect


def test_a_header_without_voxel_size_is_a_defect_and_still_json(folder):
    path = file(folder, "t1ce")
    broken = nib.Nifti1Image(image(), LPS)
    broken.header["srow_x"] = np.nan
    broken.to_filename(path)
    content = nib.load(path)
    content.header["srow_x"] = np.nan
    nib.Nifti1Image(image(), None, content.header).to_filename(path)
    fingerprint = inspect_cases(find_cases(folder))
    (defect,) = fingerprint.defects["BraTS2021_00001"]
    assert "t1c has no usable voxel size" in defect
    assert json.loads(fingerprint.to_json())["cases"][0]["shape"] == list(SHAPE)


@pytest.mark.real
def test_real_cases_raise_no_false_alarm_and_the_raw_exam_names_its_grids():
    root = Path(os.environ["BRATS_PIPELINE_DATA"])
    assert inspect_cases(find_cases(root / "brats")).defects == {}
    (raw,) = find_cases(root / "raw")
    assert any("different grids" in defect for defect in check_headers(raw))
