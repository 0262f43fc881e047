"""Every kind of input file gives the label map of the case, where the case lies; what cannot be used is named."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import torch

from brats_pipeline.bundles import bundle_path, freeze_bundle
from brats_pipeline.cases.volumes import file_notes
from brats_pipeline.inference.inputs import cases_given
from brats_pipeline.phantom import make_case
from brats_pipeline.weights import write_checkpoint
from networks import UNet
from transforms.labels import MODALITIES

Command = Callable[..., Any]

SPACING_MM = 4.0
SHAPE = (25, 28, 26)
SMALL = {"depth": 2, "features": 8}
OBLIQUE = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.2, -0.15, 0.3) @ np.diag([-SPACING_MM, SPACING_MM, SPACING_MM]), [40, -50.5, -30.25]
)
MSD_ORDER = ("flair", "t1", "t1c", "t2")


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with weights that were never trained: what it marks means nothing, but every difference would show."""
    run = tmp_path_factory.mktemp("inputs") / "run"
    overrides = {f"network_def::{name}": value for name, value in SMALL.items()}
    overrides |= {"roi_size": [16, 16, 16], "precision": "float32", "spacing": [SPACING_MM] * 3}
    freeze_bundle(bundle_path("brats_glioma_3d"), run, overrides)
    torch.manual_seed(0)
    network = UNet(spatial_dims=3, in_channels=8, out_channels=3, **SMALL)
    write_checkpoint(run / "models" / "model.pt", network.state_dict())
    return run


@pytest.fixture(scope="module")
def images() -> dict[str, np.ndarray]:
    return dict(make_case(5, shape=SHAPE, spacing_mm=SPACING_MM).images)


@pytest.fixture(scope="module")
def expected(
    untrained: Path, images: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and affine of the same head as four plain NIfTI files."""
    from brats_pipeline.inference.segment import segment

    folder = tmp_path_factory.mktemp("expected") / "case7"
    write_four(folder, images, ".nii.gz")
    result = segment([folder], folder.parent / "out", bundle=untrained, device="cpu", convention="brats2023")
    image = nib.load(result.out / "case7.nii.gz")
    labels = np.asarray(image.dataobj)
    assert set(np.unique(labels)) == {0, 1, 2, 3}
    np.testing.assert_allclose(image.affine, OBLIQUE, atol=1e-4)
    return labels, OBLIQUE


def write_one(path: Path, values: np.ndarray, affine: np.ndarray = OBLIQUE) -> Path:
    """A scan in the format of its suffix; what is no NIfTI is written by SimpleITK."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name.endswith((".nii", ".nii.gz")):
        nib.save(nib.Nifti1Image(values, affine), path)
        return path
    image = sitk.GetImageFromArray(np.ascontiguousarray(values.T))
    lps = np.diag([-1, -1, 1, 1]) @ affine
    image.SetSpacing(np.linalg.norm(lps[:3, :3], axis=0).tolist())
    image.SetDirection((lps[:3, :3] / np.linalg.norm(lps[:3, :3], axis=0)).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    sitk.WriteImage(image, str(path), useCompression=True)
    return path


def write_four(folder: Path, images: dict[str, np.ndarray], suffix: str) -> dict[str, Path]:
    return {name: write_one(folder / f"{name}{suffix}", values) for name, values in images.items()}


def write_4d(path: Path, images: dict[str, np.ndarray], order: tuple[str, ...] = MSD_ORDER) -> Path:
    return write_one(path, np.stack([images[name] for name in order], axis=-1))


def write_msd(folder: Path, images: dict[str, np.ndarray]) -> Path:
    names = {"flair": "FLAIR", "t1": "T1w", "t1c": "t1gd", "t2": "T2w"}
    listing = {
        "modality": {str(number): names[name] for number, name in enumerate(MSD_ORDER)},
        "training": [],
        "test": ["./imagesTs/BRATS_485.nii.gz"],
    }
    path = write_4d(folder / "imagesTs" / "BRATS_485.nii.gz", images)
    (folder / "dataset.json").write_text(json.dumps(listing))
    return path


def segmented(command: Command, run: Path, out: Path, *arguments: object) -> tuple[nib.Nifti1Image, Any]:
    """The only label map of a call, in the numbers of 2023, and what the command said."""
    given = [*arguments, "-o", out, "--bundle", run, "--device", "cpu", "--convention", "brats2023"]
    outcome = command("segment", *given)
    assert outcome.code == 0, outcome.err
    (path,) = out.glob("*.nii.gz")
    return nib.load(path), outcome


def assert_same(image: nib.Nifti1Image, expected: tuple[np.ndarray, np.ndarray]) -> None:
    np.testing.assert_array_equal(np.asarray(image.dataobj), expected[0])
    np.testing.assert_allclose(image.affine, expected[1], atol=1e-4)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".mha", ".nrrd"])
def test_a_folder_of_files_of_any_kind(command, untrained, images, expected, tmp_path, suffix):
    write_four(tmp_path / "case7", images, suffix)
    assert_same(segmented(command, untrained, tmp_path / "out", tmp_path / "case7")[0], expected)


def test_four_named_files_of_four_kinds_with_odd_names(command, untrained, images, expected, tmp_path):
    suffixes = dict(zip(MODALITIES, (".mha", ".nii", ".nrrd", ".nii.gz"), strict=True))
    paths = {name: write_one(tmp_path / f"Müller's scan {name}{suffixes[name]}", images[name]) for name in MODALITIES}
    arguments = [part for name, path in paths.items() for part in (f"--{name}", path)]
    assert_same(segmented(command, untrained, tmp_path / "out", *arguments)[0], expected)


def test_a_4d_file_whose_channels_are_named(command, untrained, images, expected, tmp_path):
    path = write_4d(tmp_path / "scan 4D.nii.gz", images, ("t2", "t1c", "flair", "t1"))
    image, _ = segmented(command, untrained, tmp_path / "out", path, "--channels", "t2, T1gd, FLAIR, t1w")
    assert image.shape == SHAPE
    assert_same(image, expected)


def test_a_4d_file_of_the_decathlon_needs_no_names(command, untrained, images, expected, tmp_path):
    path = write_msd(tmp_path / "Task01", images)
    assert_same(segmented(command, untrained, tmp_path / "out", path)[0], expected)
    assert_same(segmented(command, untrained, tmp_path / "whole", tmp_path / "Task01")[0], expected)


@pytest.mark.parametrize("dtype", ["f8", "u2", "i4", ">i2"])
def test_any_type_of_number(command, untrained, images, expected, tmp_path, dtype):
    for name, values in images.items():
        header = nib.Nifti1Header(endianness=">" if dtype[0] == ">" else "<")
        header.set_data_dtype(dtype)
        image = nib.Nifti1Image(values.astype(dtype), OBLIQUE, header)
        (tmp_path / "case7").mkdir(exist_ok=True)
        (tmp_path / "case7" / f"{name}.nii").write_bytes(image.to_bytes())
    assert_same(segmented(command, untrained, tmp_path / "out", tmp_path / "case7")[0], expected)


def test_nifti_2_gives_nifti_2_where_it_lies(command, untrained, images, expected, tmp_path):
    (tmp_path / "case7").mkdir()
    for name, values in images.items():
        nib.save(nib.Nifti2Image(values, OBLIQUE), tmp_path / "case7" / f"{name}.nii.gz")
    image, _ = segmented(command, untrained, tmp_path / "out", tmp_path / "case7")
    assert isinstance(image, nib.Nifti2Image)
    assert_same(image, expected)


def test_volumes_with_a_fourth_axis_of_one(command, untrained, images, expected, tmp_path):
    for name, values in images.items():
        write_one(tmp_path / "case7" / f"{name}.nii.gz", values[..., None])
    assert_same(segmented(command, untrained, tmp_path / "out", tmp_path / "case7")[0], expected)


def test_links_are_followed_and_the_record_names_the_files(command, untrained, images, expected, tmp_path):
    """Cohorts on clusters are often made of links into a store."""
    stored = write_four(tmp_path / "store", images, ".nii.gz")
    (tmp_path / "case7").mkdir()
    for name, path in stored.items():
        (tmp_path / "case7" / f"{name}.nii.gz").symlink_to(path)
    assert_same(segmented(command, untrained, tmp_path / "out", tmp_path / "case7")[0], expected)
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert {told["path"] for told in record["cases"]["case7"]["inputs"].values()} == set(map(str, stored.values()))


def test_a_lone_link_out_of_the_folder_is_told(command, untrained, images, expected, tmp_path):
    paths = write_four(tmp_path / "case7", images, ".nii.gz")
    (tmp_path / "elsewhere").mkdir()
    paths["t2"].rename(tmp_path / "elsewhere" / "t2.nii.gz")
    paths["t2"].symlink_to("../elsewhere/t2.nii.gz")
    image, outcome = segmented(command, untrained, tmp_path / "out", tmp_path / "case7")
    assert_same(image, expected)
    note = f"t2 is a link that leads out of the case's folder, to {tmp_path / 'elsewhere' / 't2.nii.gz'}; others are"
    assert note in outcome.err + outcome.out
    outcome = command("inspect", tmp_path / "case7")
    assert note in " ".join((outcome.err + outcome.out).split())


def test_links_within_the_folder_and_whole_cohorts_of_links_are_not_told(images, tmp_path):
    paths = write_four(tmp_path / "case7", images, ".nii.gz")
    paths["t2"].rename(tmp_path / "case7" / "4711.dat")
    paths["t2"].symlink_to("4711.dat")
    (case,) = cases_given([tmp_path / "case7"])
    assert not file_notes(case, MODALITIES)
    (tmp_path / "farm").mkdir()
    for name, path in paths.items():
        (tmp_path / "farm" / f"{name}.nii.gz").symlink_to(path)
    (case,) = cases_given([tmp_path / "farm"])
    assert not file_notes(case, MODALITIES)


# --- notes ---------------------------------------------------------------------------------------------------------


def test_of_two_places_in_a_header_the_one_that_holds_is_told(command, untrained, images, expected, tmp_path):
    for name, path in write_four(tmp_path / "case7", images, ".nii.gz").items():
        image = nib.load(path)
        image.set_qform(nib.affines.from_matvec(np.eye(3), [0, 0, 7]) @ OBLIQUE, 1)
        image.set_sform(OBLIQUE, 2)
        nib.save(nib.Nifti1Image(images[name], OBLIQUE, image.header), path)
    image, outcome = segmented(command, untrained, tmp_path / "out", tmp_path / "case7")
    assert_same(image, expected)
    note = "t1c, t1, t2, flair: qform (code 1) and sform (code 2) place the voxels up to 7 mm apart; the sform holds"
    assert f"case7: {note}" in outcome.err + outcome.out
    assert note in json.loads((tmp_path / "out" / "run.json").read_text())["cases"]["case7"]["note"]
    outcome = command("inspect", tmp_path / "case7")
    assert note in outcome.err + outcome.out


def test_a_header_that_places_nothing_is_segmented_with_a_note(command, untrained, images, tmp_path):
    (tmp_path / "case7").mkdir()
    for name, values in images.items():
        image = nib.Nifti1Image(values, None)
        image.header["pixdim"][1:4] = SPACING_MM
        nib.save(nib.Nifti1Image(values, None, image.header), tmp_path / "case7" / f"{name}.nii.gz")
    image, outcome = segmented(command, untrained, tmp_path / "out", tmp_path / "case7")
    np.testing.assert_array_equal(image.affine, nib.load(tmp_path / "case7" / "t1c.nii.gz").affine)
    assert "neither qform nor sform is set" in outcome.err + outcome.out


# --- refusals ------------------------------------------------------------------------------------------------------


def patch(path: Path, offset: int, value: Any, dtype: str) -> None:
    """Change one field of a packed NIfTI header."""
    content = bytearray(gzip.decompress(path.read_bytes()))
    told = np.array(value, dtype).tobytes()
    content[offset : offset + len(told)] = told
    path.write_bytes(gzip.compress(content))


def replace_by_folder(paths: dict[str, Path]) -> None:
    paths["t2"].unlink()
    paths["t2"].mkdir()


def three_of_four(paths: dict[str, Path]) -> None:
    values = np.stack([np.asarray(nib.load(path).dataobj) for path in paths.values()][:3], axis=-1)
    write_one(paths["t2"], values)


def rewrite(path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    image = nib.load(path)
    nib.save(nib.Nifti1Image(change(np.asarray(image.dataobj)), image.affine), path)


def bomb(path: Path) -> None:
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(10**7)))


def put(offset: int, value: Any, dtype: str, *names: str) -> Callable[[dict[str, Path]], None]:
    """Change one field in the headers of some scans."""

    def change(paths: dict[str, Path]) -> None:
        for name in names:
            patch(paths[name], offset, value, dtype)

    return change


def edit(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[dict[str, Path]], None]:
    return lambda paths: rewrite(paths["t1"], change)


def break_link(paths: dict[str, Path]) -> None:
    paths["t2"].unlink()
    paths["t2"].symlink_to("gone")


SROW, DIM, DATATYPE, UNITS, MAGIC = 280, 40, 70, 123, 344
SPOILT: dict[str, tuple[Callable[[dict[str, Path]], object], str]] = {
    "a bomb": (lambda paths: bomb(paths["t1"]), "bytes, and more than 4096 follow behind them: header and voxels do"),
    "an affine of NaN": (put(SROW, [np.nan] * 4, "<f4", "t1"), "places no voxels"),
    "a singular affine": (put(SROW, [0] * 8, "<f4", "t1"), "no usable voxel size or orientation"),
    "spacing in metres": (put(UNITS, 1, "u1", *MODALITIES), "the header measures in metres"),
    "huge voxels": (put(SROW, np.ravel(OBLIQUE[:3] * 1000), "<f4", *MODALITIES), "make a field of view of"),
    "tiny voxels": (put(SROW, np.ravel(OBLIQUE[:3] / 1000), "<f4", *MODALITIES), "make a field of view of"),
    "no axes": (put(DIM, [0], "<i2", "t1"), "the NIfTI header cannot be used"),
    "a side of nothing": (put(DIM + 2, [0], "<i2", "t1"), "the NIfTI header cannot be used"),
    "two axes": (edit(lambda values: values[:, :, 9]), "has shape 25x28; three axes"),
    "five axes": (
        edit(lambda values: np.stack([values[..., None]] * 2, axis=-1)),
        "has shape 25x28x26x1x2; three axes",
    ),
    "three channels": (three_of_four, "t2 has shape 25x28x26x3; three axes are needed"),
    "complex": (put(DATATYPE, [32, 64], "<i2", "t1"), "holds colours or complex numbers"),
    "half a pair": (put(MAGIC, bytearray(b"ni1\0"), "u1", "t1"), "is one half of a pair"),
    "a folder": (replace_by_folder, "missing modality t2"),
    "a broken link": (break_link, "No such file or directory, a link to gone"),
    "a zero-byte file": (lambda paths: paths["t2"].write_bytes(b""), "the file is empty"),
}


@pytest.mark.parametrize("kind", list(SPOILT))
def test_what_cannot_be_used_is_refused_in_words(command, untrained, images, tmp_path, kind):
    spoil, says = SPOILT[kind]
    spoil(write_four(tmp_path / "case7", images, ".nii.gz"))
    arguments = ["-o", tmp_path / "out", "--bundle", untrained, "--device", "cpu"]
    outcome = command("segment", tmp_path / "case7", *arguments)
    assert outcome.code == 2
    assert says in outcome.err
    assert "Traceback" not in outcome.err
    assert outcome.err.count("case7: ") == 1
    assert not list((tmp_path / "out").glob("*.nii.gz"))
    assert says in (seen := command("inspect", tmp_path / "case7")).out + seen.err
    assert seen.code == 2


@pytest.mark.parametrize(
    ("channels", "says"),
    [
        (
            None,
            "holds 3 channels, and no dataset.json says which is which; name them in their order, such as --channels",
        ),
        ("t1c,t1,t2,flair", "holds 3 channels, and --channels t1c,t1,t2,flair names 4; name every one"),
        ("t1c,t1,t2", "missing modality flair"),
        ("t1c,t1,-", "missing modality t2, flair"),
        ("t1c,t1,pd", "'pd' is no modality; name each channel of the file in its order, such as t1c,t1,t2,flair"),
        ("t1c,t1,t1gd", "'t1gd' occurs twice"),
    ],
)
def test_channels_that_do_not_fit_are_refused(command, untrained, images, tmp_path, channels, says):
    path = write_4d(tmp_path / "scan.nii.gz", images, ("t1c", "t1", "t2"))
    named = [] if channels is None else ["--channels", channels]
    outcome = command("segment", path, *named, "-o", tmp_path / "out", "--bundle", untrained, "--device", "cpu")
    assert outcome.code == 2
    assert says in outcome.err
    assert "Traceback" not in outcome.err


def test_a_lone_volume_says_nothing_of_its_modality(command, untrained, images, tmp_path):
    path = write_one(tmp_path / "scan.nii.gz", images["t1"])
    outcome = command("segment", path, "-o", tmp_path / "out", "--bundle", untrained, "--device", "cpu")
    assert outcome.code == 2
    assert "has shape 25x28x26; a file given alone needs a fourth axis" in outcome.err


def test_channels_without_a_4d_file_are_refused(command, untrained, images, tmp_path):
    write_four(tmp_path / "case7", images, ".nii.gz")
    arguments = ["--channels", "t1c,t1,t2,flair", "-o", tmp_path / "out", "--bundle", untrained]
    outcome = command("segment", tmp_path / "case7", *arguments)
    assert outcome.code == 2
    assert "--channels names the channels of 4-D files, and none was given" in outcome.err


@pytest.mark.parametrize(("make", "says"), [(Path.mkdir, "is a folder"), (lambda path: None, "there is no such file")])
def test_a_named_file_that_is_none_is_refused(command, untrained, tmp_path, make, says):
    make(tmp_path / "a.nii.gz")
    outcome = command("segment", "--t1c", tmp_path / "a.nii.gz", "-o", tmp_path / "out", "--bundle", untrained)
    assert outcome.code == 2
    assert f"a.nii.gz: {says}; give the path of a .nii, .nii.gz, .mha or .nrrd file" in outcome.err


def test_two_4d_files_of_one_name_are_refused(command, untrained, images, tmp_path):
    paths = [write_4d(tmp_path / name / "scan.nii.gz", images, MODALITIES) for name in "ab"]
    arguments = ["--channels", ",".join(MODALITIES), "-o", tmp_path / "out", "--bundle", untrained]
    outcome = command("segment", *paths, *arguments)
    assert outcome.code == 2
    assert "two cases are called scan" in outcome.err


def test_names_of_channels_win_over_a_dataset_json(images, tmp_path):
    path = write_msd(tmp_path, images)
    (told,), (named,) = cases_given([path]), cases_given([path], channels="t2,t1c,t1,flair")
    assert {name: source.channel for name, source in told.images.items()} == {"t1c": 2, "t1": 1, "t2": 3, "flair": 0}
    assert {name: source.channel for name, source in named.images.items()} == {"t1c": 1, "t1": 2, "t2": 0, "flair": 3}
    assert told.layout == named.layout == "msd"


def test_a_dataset_json_that_lists_other_files_says_nothing(command, untrained, images, tmp_path):
    path = write_msd(tmp_path, images)
    shutil.copy(path, tmp_path / "imagesTs" / "other.nii.gz")
    outcome = command("segment", tmp_path / "imagesTs" / "other.nii.gz", "-o", tmp_path / "out", "--bundle", untrained)
    assert outcome.code == 2
    assert "no dataset.json says which is which" in outcome.err
