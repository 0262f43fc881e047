"""Every defect is named, and a sound cohort has none."""

import gzip
import json
import os
import struct
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from brats_pipeline.cases import case_list_sha256, decide_conventions, find_cases
from brats_pipeline.cases.volumes import copied_modalities
from brats_pipeline.data.fingerprint import check_case, check_headers, inspect_cases
from brats_pipeline.errors import CaseError

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
    (spoil_shape, ["t2 and t1c lie on different grids", "6x5x3 voxels", "6x5x4 voxels", "brats-pipeline prepare"]),
    (spoil_affine, ["flair and t1c lie on different grids", "origin (5, 0, 0)", "origin (0, 0, 0)"]),
    (spoil_label_grid, ["label and t1c lie on different grids", "RAS", "LPS", "resample it"]),
    (spoil_axes, ["t1 has shape 6x5x4x2", "three axes"]),
    (spoil_gzip, ["_t1.nii.gz", "truncated"]),
    (spoil_text, ["_t1.nii.gz", "no NIfTI file"]),
    (spoil_empty_file, ["_t1.nii.gz", "empty"]),
]
VOXELS = [
    (spoil_label_value, ["7"]),
    (spoil_label_fraction, ["label map holds the value 0.25"]),
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
    assert "_t1ce.nii.gz: the affine of the header places no voxels ([[nan" in defect
    assert json.loads(fingerprint.to_json())["cases"][0]["shape"] == list(SHAPE)


# ------------------------------------------------------------------------------------------------------------- slices

STEM = "TCGA_CS_0001_2000"
RAMP = np.arange(48, dtype=np.uint8).reshape(8, 6)


def write_slices(root: Path, stem: str = STEM, copied: str = "", tumour: int = 5) -> Path:
    """Two slices of 8 rows and 6 columns; in the second a tumour of so many voxels. Named channels copy FLAIR."""
    folder = root / stem
    folder.mkdir(parents=True)
    flair = RAMP + 100
    for number in (1, 2):
        channels = {"t1": RAMP, "flair": flair, "t1c": 2 * RAMP} | dict.fromkeys(copied.split(), flair)
        Image.fromarray(np.dstack(list(channels.values()))).save(folder / f"{stem}_{number}.tif")
        mask = np.zeros(48, np.uint8)
        mask[: tumour * (number == 2)] = 255
        Image.fromarray(mask.reshape(8, 6)).save(folder / f"{stem}_{number}_mask.tif")
    return folder


def test_slices_are_described_in_voxels_alone(tmp_path):
    fingerprint = inspect_cases(find_cases(write_slices(tmp_path)))
    (case,) = fingerprint.cases
    assert (case.defects, case.notes, case.copied, case.convention) == ((), (), (), "lgg")
    assert (case.shape, case.spacing_mm, case.orientation) == ((6, 8, 2), (), "")
    assert (case.labels_voxels, case.regions_voxels) == ({1: 5}, {"WT": 5})
    assert (case.labels_ml, case.regions_ml) == ({}, {})
    # FLAIR is 100..147 and all of it above a tenth of 147; T1 is 0..47, of which 5..47 lie above 4.7.
    assert case.intensities["flair"]["p50"] == pytest.approx(123.5)
    assert case.intensities["t1"]["p50"] == pytest.approx(26)
    (row,) = fingerprint.rows()
    assert (row["WT_voxels"], row["WT_ml"], row["TC_voxels"], row["spacing_mm"], row["labels"]) == (
        5,
        None,
        None,
        "",
        "1",
    )
    cohort = json.loads(fingerprint.to_json())["cohort"]
    assert (cohort["regions_ml"], cohort["regions_voxels"]["WT"]["median"]) == ({}, 5)
    assert cohort["spacings_mm"] == {"none": 1}


@pytest.mark.parametrize(
    ("copied", "note"),
    [
        ("t1c", "t1c is a copy of flair (a missing sequence replaced by FLAIR)"),
        ("t1", "t1 is a copy of flair (a missing sequence replaced by FLAIR)"),
        ("t1 t1c", "t1c and t1 are copies of flair (a missing sequence replaced by FLAIR)"),
    ],
)
def test_a_sequence_replaced_by_flair_is_a_note_and_no_defect(tmp_path, copied, note):
    write_slices(tmp_path, copied=copied)
    write_slices(tmp_path, "TCGA_CS_0002_2000")
    cases = find_cases(tmp_path)
    fingerprint = inspect_cases(cases)
    assert fingerprint.defects == {}
    assert fingerprint.notes == {STEM: (note,)}
    assert set(fingerprint.cases[0].copied) == set(copied_modalities(cases[0])) == set(copied.split())
    assert copied_modalities(cases[0]) == dict.fromkeys(copied.split(), "flair")
    assert copied_modalities(cases[1]) == {}
    assert fingerprint.rows()[0]["copied"] == " ".join(fingerprint.cases[0].copied)
    assert fingerprint.cohort()["with_copied_modalities"] == 1


def test_equal_percentiles_alone_are_no_copy_and_files_can_be_copies_too(folder):
    write(file(folder, "t1"), image()[::-1])
    write(file(folder, "t1ce"), image()[:, ::-1])
    fingerprint = inspect_cases(find_cases(folder))
    assert fingerprint.cases[0].copied == ("t2",)
    write(file(folder, "t2"), image()[:, :, ::-1])
    assert inspect_cases(find_cases(folder)).notes == {}


def test_an_unreadable_image_is_no_copy_but_an_error(folder):
    spoil_gzip(folder)
    with pytest.raises(CaseError, match=r"BraTS2021_00001: .*_t1\.nii\.gz: .*truncated"):
        copied_modalities(find_cases(folder)[0])


def rgb16(path: Path) -> None:
    """A TIFF of 3 channels of 16 bits, which Pillow cannot write: header, one directory, one strip."""
    pixels = RAMP.astype("<u2").repeat(3).tobytes()
    tags = [(256, 4, 1, 6), (257, 4, 1, 8), (258, 3, 3, 8 + len(pixels)), (259, 3, 1, 1), (262, 3, 1, 2)]
    tags += [(273, 4, 1, 8), (277, 3, 1, 3), (278, 4, 1, 8), (279, 4, 1, len(pixels)), (284, 3, 1, 1)]
    bits = struct.pack("<3H", 16, 16, 16)
    start = 8 + len(pixels) + len(bits)
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    directory = struct.pack("<H", len(tags)) + entries + struct.pack("<I", 0)
    path.write_bytes(b"II*\0" + struct.pack("<I", start) + pixels + bits + directory)


def picture(folder: Path, end: str, values: np.ndarray) -> None:
    Image.fromarray(values).save(folder / f"{STEM}_{end}.tif")


def spoil_no_mask(folder):
    (folder / f"{STEM}_2_mask.tif").unlink()


def spoil_no_slice(folder):
    (folder / f"{STEM}_2.tif").unlink()


def spoil_gap(folder):
    for end in ("", "_mask"):
        (folder / f"{STEM}_2{end}.tif").rename(folder / f"{STEM}_4{end}.tif")


def spoil_one_channel(folder):
    picture(folder, "2", RAMP)


def spoil_sixteen_bits(folder):
    picture(folder, "2", RAMP.astype(np.uint16))


def spoil_sixteen_bit_colours(folder):
    rgb16(folder / f"{STEM}_2.tif")


def spoil_alpha(folder):
    picture(folder, "2", np.dstack([RAMP] * 4))


def spoil_every_slice(folder):
    for number in "12":
        picture(folder, number, RAMP)


def spoil_size(folder):
    picture(folder, "2", np.dstack([RAMP[:, :5]] * 3))


def spoil_mask_size(folder):
    for number in "12":
        picture(folder, f"{number}_mask", np.zeros((8, 7), np.uint8))


def spoil_colour_mask(folder):
    picture(folder, "2_mask", np.dstack([RAMP] * 3))


def spoil_no_picture(folder):
    (folder / f"{STEM}_2.tif").write_text("this is no picture")


def spoil_width(folder):
    """As one damaged byte can: Pillow refuses so wide a picture by an error of its own."""
    path = folder / f"{STEM}_2.tif"
    content = bytearray(path.read_bytes())
    (start,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, start)
    place = next(at for at in range(start + 2, start + 2 + 12 * count, 12) if content[at : at + 2] == b"\x00\x01")
    struct.pack_into("<HII", content, place + 2, 4, 1, 2**30)
    path.write_bytes(content)


def spoil_pages(folder):
    page = Image.fromarray(np.dstack([RAMP] * 3))
    page.save(folder / f"{STEM}_2.tif", save_all=True, append_images=[page] * 19)


def spoil_half_a_picture(folder):
    path = folder / f"{STEM}_2.tif"
    path.write_bytes(path.read_bytes()[:-60])


def spoil_grey_mask(folder):
    picture(folder, "2_mask", RAMP)


SLICE_HEADERS = [
    (spoil_no_mask, ["slice without a mask: slice 2"]),
    (spoil_no_slice, ["mask without a slice: slice 2"]),
    (spoil_gap, ["slices 2, 3 missing between 1 and 4"]),
    (spoil_one_channel, ["_2.tif: slice of 1 channel of 8 bits", "3 channels of 8 bits needed"]),
    (spoil_sixteen_bits, ["_2.tif: slice of 1 channel of 16 bits", "3 channels of 8 bits needed"]),
    (spoil_sixteen_bit_colours, ["_2.tif: slice of 3 channels of 16 bits", "3 channels of 8 bits needed"]),
    (spoil_alpha, ["_2.tif: slice of 4 channels of 8 bits"]),
    (spoil_every_slice, ["_1.tif: slice of 1 channel", "and 1 more"]),
    (spoil_size, ["different sizes: 6x8", "5x8"]),
    (spoil_mask_size, ["masks of 7x8 for slices of 6x8"]),
    (
        spoil_colour_mask,
        ["_2_mask.tif: mask of 3 channels of 8 bits; 1 channel of 8 bits or 1 channel of 1 bit needed"],
    ),
    (spoil_no_picture, ["_2.tif: cannot be read as a TIFF slice (it is no TIFF picture"]),
    (spoil_width, ["_2.tif: cannot be read as a TIFF slice", "pixels) exceeds limit"]),
    (spoil_pages, ["_2.tif: holds more than one page; one slice per file is needed"]),
]
SLICE_PIXELS = [
    (spoil_grey_mask, ["_2_mask.tif: the mask holds [2, 3, 4, 5, 6]; needed are 0 and 255"]),
    (spoil_half_a_picture, ["_2.tif: cannot be read"]),
]


@pytest.mark.parametrize(
    ("spoil", "says"), SLICE_HEADERS + SLICE_PIXELS, ids=lambda value: getattr(value, "__name__", "")
)
def test_each_defect_of_slices_is_named_once_and_the_cohort_survives(tmp_path, spoil, says):
    write_slices(tmp_path, "TCGA_CS_0002_2000")
    spoil(write_slices(tmp_path))
    cases = find_cases(tmp_path)
    fingerprint = inspect_cases(cases)
    assert list(fingerprint.defects) == [STEM]
    (defect,) = fingerprint.defects[STEM]
    assert all(part in defect for part in says)
    wanted = ("t1c", "t1", "flair")
    assert check_case(decide_conventions(cases, "lgg")[0], wanted=wanted) == [defect]
    assert check_headers(cases[0], wanted=wanted) == ([defect] if (spoil, says) in SLICE_HEADERS else [])


def test_slices_lack_t2_for_whoever_wants_it(tmp_path):
    (case,) = find_cases(write_slices(tmp_path))
    assert check_headers(case) == ["missing modality t2 (there are t1c, t1, flair)"]


# ------------------------------------------------------------------------------------------------------------ Decathlon


@pytest.fixture
def decathlon(tmp_path: Path) -> Path:
    """Two cases of 2 mm3 voxels; FLAIR, T1, T1c and T2 are one to four times the image."""
    root = tmp_path / "Task01_BrainTumour"
    for name in ("BRATS_001", "BRATS_002"):
        write(root / "imagesTr" / f"{name}.nii.gz", np.stack([image() * factor for factor in (1, 2, 3, 4)], axis=-1))
        write(root / "labelsTr" / f"{name}.nii.gz", labels(v1=3, v2=5, v3=2))
    listed = [
        {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"}
        for name in ("BRATS_001", "BRATS_002")
    ]
    modality = {"0": "FLAIR", "1": "T1w", "2": "t1gd", "3": "T2w"}
    (root / "dataset.json").write_text(json.dumps({"modality": modality, "training": listed, "test": []}))
    return root


def test_a_file_of_four_channels_is_described_by_modality(decathlon):
    cases = find_cases(decathlon)
    fingerprint = inspect_cases(cases)
    case, _ = fingerprint.cases
    assert (fingerprint.defects, fingerprint.notes) == ({}, {})
    assert (case.shape, case.spacing_mm, case.orientation, case.convention) == (SHAPE, (1, 1, 2), "LPS", "msd")
    assert case.regions_ml == pytest.approx({"WT": 0.020, "TC": 0.014, "ET": 0.004})
    medians = {modality: told["p50"] for modality, told in case.intensities.items()}
    assert medians == pytest.approx({"t1c": 151.5, "t1": 101, "t2": 202, "flair": 50.5})
    assert check_case(cases[0]) == check_headers(cases[0]) == []


def spoil_missing_image(root):
    (root / "imagesTr" / "BRATS_001.nii.gz").unlink()


def spoil_missing_label(root):
    (root / "labelsTr" / "BRATS_001.nii.gz").unlink()


def spoil_three_axes(root):
    write(root / "imagesTr" / "BRATS_001.nii.gz", image())


def spoil_two_channels(root):
    write(root / "imagesTr" / "BRATS_001.nii.gz", np.stack([image(), image() * 2], axis=-1))


def spoil_four_axes_label(root):
    write(root / "labelsTr" / "BRATS_001.nii.gz", labels(v1=1)[..., None].repeat(2, axis=-1))


def spoil_other_grid(root):
    write(root / "labelsTr" / "BRATS_001.nii.gz", labels(v1=1), np.eye(4))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (spoil_missing_image, "BRATS_001.nii.gz: is named in dataset.json and not there"),
        (spoil_missing_label, "labelsTr/BRATS_001.nii.gz: is named in dataset.json and not there"),
        (spoil_three_axes, "BRATS_001.nii.gz: has shape 6x5x4; four axes are needed"),
        (spoil_two_channels, "BRATS_001.nii.gz: has shape 6x5x4x2; four axes are needed, the last with channel"),
        (spoil_four_axes_label, "label has shape 6x5x4x2; three axes"),
        (spoil_other_grid, "label and t1c lie on different grids"),
    ],
)
def test_each_defect_of_a_decathlon_case_is_named_once(decathlon, spoil, says):
    spoil(decathlon)
    cases = find_cases(decathlon)
    fingerprint = inspect_cases(cases)
    assert list(fingerprint.defects) == ["BRATS_001"]
    (defect,) = fingerprint.defects["BRATS_001"]
    assert says in defect
    assert check_headers(cases[0]) == [defect]


@pytest.mark.real
def test_real_cases_raise_no_false_alarm_and_the_raw_exam_names_its_grids():
    root = Path(os.environ["BRATS_PIPELINE_DATA"])
    assert inspect_cases(find_cases(root / "brats")).defects == {}
    (raw,) = find_cases(root / "raw")
    assert any("different grids" in defect for defect in check_headers(raw))


@pytest.mark.real
def test_real_slices_raise_no_false_alarm_and_five_patients_have_copied_channels():
    fingerprint = inspect_cases(find_cases(Path(os.environ["BRATS_PIPELINE_DATA"]) / "lgg"))
    assert len(fingerprint.cases) == 58
    assert fingerprint.defects == {}
    assert {case.case_id: case.copied for case in fingerprint.cases if case.copied} == {
        "TCGA_DU_6407_19860514": ("t1c",),
        "TCGA_DU_7301_19911112": ("t1c",),
        "TCGA_DU_8165_19970205": ("t1c",),
        "TCGA_HT_7877_19980917": ("t1c", "t1"),
        "TCGA_HT_A61B_19991127": ("t1c", "t1"),
    }
