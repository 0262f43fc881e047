"""From a DICOM exam to a prepared case, and back to a segmentation in the frame of its T1c."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

pytest.importorskip("highdicom")

import pydicom

from brats_pipeline.cases import find_cases
from brats_pipeline.dicom.segmentation import write_dicom_seg
from brats_pipeline.errors import PipelineError
from brats_pipeline.inference.extras import Extras, make_extras
from brats_pipeline.inference.making import Made, make_dicom
from brats_pipeline.inference.result import Segmentation
from brats_pipeline.phantom import make_case
from brats_pipeline.prepare import prepare_case, source_series, to_native

SIZE, SPACING_MM = (40, 48, 36), (5.0, 4.5, 5.0)
NAMES = {"t1c": "AX T1 +C", "t1": "AX T1", "t2": "AX T2", "flair": "AX FLAIR"}


@pytest.fixture(scope="module")
def head() -> Any:
    return make_case(3, shape=SIZE, spacing_mm=SPACING_MM)


@pytest.fixture(scope="module")
def scan(scanner: Any) -> Any:
    """Where the head lies in the scanner: at an angle."""
    return scanner.Scan(size=SIZE, spacing_mm=SPACING_MM, degrees=(8.0, -5.0, 11.0))


@pytest.fixture(scope="module")
def exam(head: Any, scan: Any, scanner: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One heap of files: the four modalities, of T2 every other slice, of FLAIR not all, and things to pass over."""
    folder: Path = tmp_path_factory.mktemp("dicom") / "exam"
    for number, (modality, name) in enumerate(NAMES.items(), start=1):
        slices = scan.slices(head.images[modality].astype(int))
        if modality == "t2":
            slices = slices[::2]
        if modality == "flair":
            slices = slices[2:]
        uid = slices[0].SeriesInstanceUID
        for each in slices:
            each.SeriesNumber, each.SeriesDescription, each.SeriesInstanceUID = number, name, uid
        scanner.save(slices, folder, seed=number)
    scanner.save(scanner.Scan(tags={"SeriesDescription": "ADC", "SeriesNumber": 8}).slices(), folder, seed=8)
    (folder / "LIESMICH.TXT").write_text("Bitte lesen")
    return folder


@pytest.fixture(scope="module")
def case(exam: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prepared") / "head 3"
    return prepare_case(exam, out, grid="reference", brain="none", interpolation="linear").folder


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def at_points(path: Path, points: np.ndarray) -> np.ndarray:
    """What a NIfTI file holds at points in LPS millimetres that are centres of its voxels."""
    image = nib.load(path)
    places = np.einsum("ij,...j->...i", np.linalg.inv(np.diag([-1.0, -1, 1, 1]) @ image.affine)[:, :3], points)
    places += np.linalg.inv(np.diag([-1.0, -1, 1, 1]) @ image.affine)[:, 3]
    whole = np.rint(places[..., :3]).astype(int)
    assert np.abs(places[..., :3] - whole).max() < 1e-2
    return np.asarray(image.dataobj)[tuple(np.moveaxis(whole, -1, 0))]


def test_the_t1c_holds_its_own_voxels_at_their_places_in_the_patient(case: Path, head: Any, scan: Any) -> None:
    assert np.array_equal(at_points(case / "head 3-t1c.nii.gz", scan.points), head.images["t1c"])


@pytest.mark.parametrize(("modality", "end"), [("t1", "t1n"), ("t2", "t2w"), ("flair", "t2f")])
def test_the_other_modalities_lie_over_the_t1c(case: Path, head: Any, scan: Any, modality: str, end: str) -> None:
    found = at_points(case / f"head 3-{end}.nii.gz", scan.points).astype(float)[:, :, 4:-4].ravel()
    expected = head.images[modality][:, :, 4:-4].astype(float)
    right = np.corrcoef(found, expected.ravel())[0, 1]
    shifted = np.corrcoef(found, np.roll(expected, 1, axis=0).ravel())[0, 1]
    assert right > 0.9
    assert right > shifted


def test_the_record_keeps_the_identifier_and_the_files_of_every_series(case: Path, exam: Path) -> None:
    record = json.loads((case / "prepare.json").read_text())
    headers = {path: pydicom.dcmread(path) for path in exam.iterdir() if path.name.startswith("IM")}
    for number, (modality, name) in enumerate(NAMES.items(), start=1):
        own = [each for each in headers.values() if each.SeriesNumber == number]
        origin = record["inputs"][modality]
        assert origin["path"] == str(exam)
        assert origin["dicom"]["series_instance_uid"] == own[0].SeriesInstanceUID
        assert (origin["dicom"]["series_number"], origin["dicom"]["description"]) == (str(number), name)
        assert {headers[exam / file].SOPInstanceUID for file in origin["dicom"]["files"]} == {
            each.SOPInstanceUID for each in own
        }
        assert len(origin["sha256"]) == 64
    assert "Doe" not in (case / "prepare.json").read_text()


def test_a_label_map_of_the_case_becomes_a_segmentation_of_the_original_series(
    case: Path, head: Any, scan: Any, tmp_path: Path
) -> None:
    image = nib.load(case / "head 3-t1c.nii.gz")
    places = np.einsum("ij,...j->...i", np.linalg.inv(np.diag([-1.0, -1, 1, 1]) @ image.affine)[:3, :3], scan.points)
    places += np.linalg.inv(np.diag([-1.0, -1, 1, 1]) @ image.affine)[:3, 3]
    labels = np.zeros(image.shape, np.uint8)
    labels[tuple(np.moveaxis(np.rint(places).astype(int), -1, 0))] = head.tumour
    nib.save(nib.Nifti1Image(labels, image.affine), tmp_path / "labels.nii.gz")
    native = to_native(tmp_path / "labels.nii.gz", case, tmp_path / "native.nii.gz")
    files = source_series(case)
    assert files is not None
    found = pydicom.dcmread(write_dicom_seg(native, files, tmp_path / "seg.dcm", convention="brats2023"))
    first = pydicom.dcmread(files[0])
    assert found.ReferencedSeriesSequence[0].SeriesInstanceUID == first.SeriesInstanceUID
    assert found.FrameOfReferenceUID == first.FrameOfReferenceUID
    back = np.zeros_like(head.tumour)
    places_of_slices = scan.points[0, 0]
    pixels = found.pixel_array.reshape(-1, found.Rows, found.Columns)
    for frame, groups in zip(pixels, found.PerFrameFunctionalGroupsSequence, strict=True):
        corner = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
        (which,) = np.flatnonzero(np.linalg.norm(places_of_slices - corner, axis=1) < 1e-3)
        segment = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        back[:, :, which][frame.T > 0] = segment
    assert (head.tumour > 0).sum() > 50
    assert np.array_equal(back, head.tumour)


def test_segment_finds_the_series_of_a_case_among_the_others_of_its_folder(
    case: Path, exam: Path, scan: Any, tmp_path: Path
) -> None:
    image = nib.load(case / "head 3-t1c.nii.gz")
    (tmp_path / "native").mkdir()
    nib.save(nib.Nifti1Image(np.ones(image.shape, np.uint8), image.affine), tmp_path / "labels.nii.gz")
    (found,) = find_cases(case)
    made = Made(found, tmp_path / "labels.nii.gz", "brats2023")
    make_dicom(made, tmp_path / "o.dcm", native=tmp_path / "native" / "n.nii.gz", series=None, deidentify=False)
    t1c = [each for each in map(pydicom.dcmread, exam.glob("IM1*")) if each.SeriesDescription == "AX T1 +C"]
    written = pydicom.dcmread(tmp_path / "o.dcm")
    assert written.ReferencedSeriesSequence[0].SeriesInstanceUID == t1c[0].SeriesInstanceUID
    assert written.pixel_array.sum() == np.prod(scan.size)


def test_a_segmentation_that_names_the_patient_does_not_serve_who_asks_for_one_that_does_not(
    case: Path, tmp_path: Path
) -> None:
    image = nib.load(case / "head 3-t1c.nii.gz")
    nib.save(nib.Nifti1Image(np.ones(image.shape, np.uint8), image.affine), tmp_path / "head 3.nii.gz")
    (found,) = find_cases(case)
    cases = [replace(found, case_id="head 3", convention="brats2023")]
    result = Segmentation(tmp_path, tmp_path, skipped=["head 3"])
    removed = []
    for deidentify in (False, True, False):
        make_extras(cases, result, Extras(formats=("dicom-seg",), deidentify=deidentify))
        assert result.without == {}
        removed.append(pydicom.dcmread(tmp_path / "head 3.dcm").get("PatientIdentityRemoved"))
    assert removed == [None, "YES", None]
    stamp = (tmp_path / "head 3.dcm").stat().st_mtime_ns
    make_extras(cases, result, Extras(formats=("dicom-seg",)))
    assert (tmp_path / "head 3.dcm").stat().st_mtime_ns == stamp


def test_a_case_from_other_files_has_no_source_series(case: Path, tmp_path: Path) -> None:
    other = prepare_case({"t1c": case / "head 3-t1c.nii.gz"}, tmp_path / "other", grid="reference", brain="none")
    assert source_series(other.folder) is None


def test_the_command_shows_the_table_and_prepares_what_it_says(
    exam: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    arguments = ("--no-brain-extraction", "--grid", "reference", "--t1", "none", "--t2", "none", "--flair", "4")
    outcome = command("prepare", exam, "-o", tmp_path / "case", *arguments)
    assert outcome.code == 0, outcome.err
    rows = [line.split() for line in outcome.out.splitlines()]
    assert ["1", "AX", "T1", "+C", "36", "5", "x", "4.5", "x", "5", "T1C", "called", "t1,", "named", "as"] in [
        row[:15] for row in rows
    ]
    assert any(row[:1] == ["8"] and row[-1] == "diffusion" for row in rows)
    assert "set aside: 1 x no DICOM file" in outcome.err
    assert sorted(path.name for path in (tmp_path / "case").glob("*.nii.gz")) == ["case-t1c.nii.gz", "case-t2f.nii.gz"]


def test_folders_of_series_can_be_given_one_by_one(
    head: Any, scan: Any, scanner: Any, tmp_path: Path, command: Callable[..., Any]
) -> None:
    folder = scanner.save(scan.slices(head.images["t1c"].astype(int)), tmp_path / "9 any name")
    arguments = ("--no-brain-extraction", "--grid", "reference", "--json")
    outcome = command("prepare", "--t1c", folder, "-o", tmp_path / "case", *arguments)
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["inputs"]["t1c"]["path"] == str(folder)


def test_a_choice_that_is_open_ends_with_the_table_and_without_a_case(
    scanner: Any, tmp_path: Path, command: Callable[..., Any]
) -> None:
    for number in (1, 2):
        tags = {"SeriesNumber": number, "SeriesDescription": "AX T1 +C"}
        scanner.save(scanner.Scan(tags=tags).slices(), tmp_path / "exam", seed=number)
    outcome = command("prepare", tmp_path / "exam", "-o", tmp_path / "case")
    assert outcome.code == 2
    assert "t1c may be series 1 or 2. Say which, as in --t1c NUMBER" in outcome.err
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "case").exists()


def test_segmenting_a_dicom_folder_says_to_prepare_it_first(exam: Path, command: Callable[..., Any]) -> None:
    for name in ("inspect", "segment"):
        more = () if name == "inspect" else ("-o", exam.parent / "out")
        outcome = command(name, exam, *more)
        assert outcome.code == 2
        assert "holds DICOM files" in outcome.err
        assert f"brats-pipeline prepare '{exam}' -o CASE" in outcome.err or f"prepare {exam} -o CASE" in outcome.err


def test_the_series_of_a_case_that_moved_away_is_named(case: Path, scan: Any, tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros(scan.size, np.uint8), scan.affine), tmp_path / "l.nii")
    with pytest.raises(PipelineError, match=r"is not there any more \(2 of 2 slices\)"):
        write_dicom_seg(tmp_path / "l.nii", [tmp_path / "a", tmp_path / "b"], tmp_path / "o.dcm", convention="lgg")


def test_the_answer_of_a_network_lands_in_the_patient_where_the_label_map_says(
    case: Path, exam: Path, run: Path, scan: Any, tmp_path: Path, command: Callable[..., Any]
) -> None:
    out = tmp_path / "out"
    wishes = ("--native", "--format", "dicom-seg", "--format", "nrrd", "--volumes", "--preview", "--viewer", "-q")
    outcome = command(
        "segment", case, "-o", out, "--bundle", run, "--device", "cpu", "--set", "spacing=[5,5,5]", *wishes
    )
    assert outcome.code == 0, outcome.err
    (name,) = json.loads((out / "run.json").read_text())["cases"]
    ends = ("_preview.png", "_viewer.html", ".seg.nrrd", ".dcm", ".nii.gz")
    assert {f"{name}{end}" for end in ends} | {"volumes.json", "native"} <= {path.name for path in out.iterdir()}
    native = nib.load(out / "native" / f"{name}.nii.gz")
    labels = at_points(out / "native" / f"{name}.nii.gz", scan.points)
    assert native.shape == labels.shape  # at_points has compared the places
    assert 0 < (labels > 0).sum() < labels.size
    found = pydicom.dcmread(out / f"{name}.dcm")
    (source,) = {each.SeriesInstanceUID for each in map(pydicom.dcmread, exam.glob("IM1*")) if each.SeriesNumber == 1}
    assert found.ReferencedSeriesSequence[0].SeriesInstanceUID == source
    back = np.zeros(labels.shape, np.uint8)
    pixels = found.pixel_array.reshape(-1, found.Rows, found.Columns)
    for frame, groups in zip(pixels, found.PerFrameFunctionalGroupsSequence, strict=True):
        corner = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
        (which,) = np.flatnonzero(np.linalg.norm(scan.points[0, 0] - corner, axis=1) < 1e-3)
        back[:, :, which][frame.T > 0] = groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber
    assert np.array_equal(back, labels)
