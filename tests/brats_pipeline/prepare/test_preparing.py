"""From a raw exam to a case folder: what is in it, that the scans match, and what is refused."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from brats_pipeline.cases import find_cases
from brats_pipeline.errors import CaseError, PipelineError
from brats_pipeline.files import file_sha256
from brats_pipeline.prepare import preparing
from brats_pipeline.prepare.exam import find_exam
from brats_pipeline.prepare.images import array_of
from brats_pipeline.prepare.keeping import whole_folder
from brats_pipeline.prepare.matching import Match
from brats_pipeline.prepare.preparing import prepare_case
from brats_pipeline.prepare.similarity import Similarity

NAMES = {"t1c": "t1c", "t1": "t1n", "t2": "t2w", "flair": "t2f"}


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


@pytest.fixture
def t1c(exam: Path) -> dict[str, Path]:
    """An exam of one scan, which takes no time: there is nothing to match."""
    return {"t1c": exam / "t1c.nii.gz"}


@pytest.fixture
def unmatched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes every scan as it lies."""
    same = Match(sitk.Euler3DTransform(), Similarity(0.5, 1.0), Similarity(0.5, 1.0), 0.0, 0.0, True)
    monkeypatch.setattr(preparing, "match", lambda *_, **__: same)


def test_the_folder_is_a_case_of_four_modalities_on_one_grid(prepared: Path, exam: Path) -> None:
    (case,) = find_cases(prepared)
    assert (case.case_id, case.label) == ("exam 7", None)
    assert list(case.images) == ["t1c", "t1", "t2", "flair"]
    reference = nib.load(exam / "t1c.nii.gz")
    for modality, source in case.images.items():
        assert source.paths[0].name == f"exam 7-{NAMES[modality]}.nii.gz"
        image = nib.load(source.paths[0])
        assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
        np.testing.assert_allclose(image.affine, reference.affine, atol=1e-4)
        assert image.get_data_dtype() == np.int16
    assert {path.name for path in prepared.iterdir() if path.is_dir()} == {"transforms"}
    assert {path.name for path in (prepared / "transforms").iterdir()} == {"t1.tfm", "t2.tfm", "flair.tfm"}
    assert not [path for path in prepared.parent.rglob("*") if path.name.startswith(".")]


def test_finding_the_case_warns_of_nothing(prepared: Path, caplog: pytest.LogCaptureFixture) -> None:
    find_cases(prepared)
    assert not caplog.records


@pytest.mark.parametrize("modality", ["t1", "t2", "flair"])
def test_every_scan_lies_where_its_true_motion_puts_it(
    modality: str, prepared: Path, exam: Path, head: Any, scanner: Any
) -> None:
    written = voxels(prepared / f"exam 7-{NAMES[modality]}.nii.gz")
    inside = (written != 0) & (array_of(head.brain) > 0)
    assert inside.sum() > 0.7 * (array_of(head.brain) > 0).sum()  # the brain, not the fluid around it

    def alike(moved: sitk.Transform) -> float:
        as_it_came = preparing.read_image(exam / f"{modality}.nii.gz")
        put = sitk.Resample(as_it_came, head.brain, moved, sitk.sitkBSpline)
        return float(np.corrcoef(array_of(put)[inside], written[inside])[0, 1])

    assert alike(scanner.moves[modality][0]) > 0.985
    assert alike(sitk.Euler3DTransform()) < 0.9


def test_the_record_says_what_was_done(prepared: Path, exam: Path) -> None:
    record = json.loads((prepared / "prepare.json").read_text())
    assert record["reference"] == "t1c"
    assert record["inputs"]["t2"]["sha256"] == file_sha256(exam / "t2.nii.gz")
    for row in record["registration"].values():
        assert row["mutual_information_after"] > row["mutual_information_before"] > 0
        assert (prepared / row["transform"]).is_file()
    assert all(file_sha256(prepared / name) == told for name, told in record["outputs"].items())
    assert record["brain"]["method"] == "classical"
    assert "fallback" in " ".join(record["notes"])
    assert set(record["seconds"]) >= {"read", "brain", "match t1", "resample", "total"}
    assert (prepared / "preview.png").read_bytes().startswith(b"\x89PNG")


def test_two_runs_write_the_same_bytes(exam: Path, tmp_path: Path) -> None:
    files = {name: exam / f"{name}.nii.gz" for name in ("t1c", "t1")}
    one, other = (
        prepare_case(files, tmp_path / folder / "case", grid="reference", brain="none").folder for folder in "ab"
    )
    for name in ("case-t1c.nii.gz", "case-t1n.nii.gz", "transforms/t1.tfm", "preview.png"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


@pytest.mark.usefixtures("unmatched")
def test_without_a_t1c_the_t1_is_the_reference_and_a_note_says_so(exam: Path, tmp_path: Path) -> None:
    files = {name: exam / f"{name}.nii.gz" for name in ("flair", "t1")}
    done = prepare_case(files, tmp_path / "case", grid="reference", brain="none")
    assert done.record["reference"] == "t1"
    assert any("no T1c" in note and "t1 is the reference" in note for note in done.notes)
    assert list(done.record["registration"]) == ["flair"]


def place(path: Path, out: Path, *, qform: int, sform: int, shift_mm: float = 0.0) -> Path:
    """Write a scan with these codes, its qform moved to the right."""
    image = nib.load(path)
    moved = image.affine.copy()
    moved[0, 3] += shift_mm
    image.set_qform(moved, qform)
    image.set_sform(image.affine, sform)
    nib.save(image, out)
    return out


def test_what_the_headers_leave_open_is_told(exam: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Match(sitk.Euler3DTransform(), Similarity(0.4, 1.0), Similarity(0.5, 1.0), 0.0, 0.0, False)
    monkeypatch.setattr(preparing, "match", lambda *_, **__: found)
    files = {
        "t1c": place(exam / "t1c.nii.gz", tmp_path / "t1c.nii.gz", qform=0, sform=0),
        "t1": place(exam / "t1.nii.gz", tmp_path / "t1.nii.gz", qform=1, sform=1, shift_mm=7),
        "t2": exam / "t2.nii.gz",
    }
    done = prepare_case(files, tmp_path / "case", grid="reference", brain="none", atlas=files["t1c"])
    told = [note for note in done.notes if "qform" in note]
    assert told == [
        "t1c, atlas: neither qform nor sform is set, so the header does not say which side is left; LAS is assumed",
        "t1: qform (code 1) and sform (code 1) place the voxels up to 7 mm apart; the sform holds",
    ]


@pytest.mark.usefixtures("unmatched")
def test_a_link_out_of_the_folder_of_an_exam_is_told(exam: Path, tmp_path: Path) -> None:
    (tmp_path / "exam").mkdir()
    shutil.copy(exam / "t1c.nii.gz", tmp_path / "exam")
    (tmp_path / "exam" / "t2.nii.gz").symlink_to(exam / "t2.nii.gz")
    done = prepare_case(tmp_path / "exam", tmp_path / "case", grid="reference", brain="none")
    (told,) = [note for note in done.notes if "link" in note]
    assert told.startswith("t2 is a link that leads out of the case's folder, to ")


@pytest.mark.usefixtures("unmatched")
def test_kept_headers_are_told(exam: Path, tmp_path: Path) -> None:
    files = {name: exam / f"{name}.nii.gz" for name in ("t1c", "t1")}
    done = prepare_case(files, tmp_path / "case", grid="reference", brain="none")
    assert any("t1: registration found nothing better than the headers" in note for note in done.notes)


def test_scans_that_share_no_head_are_refused(exam: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    apart = Match(sitk.Euler3DTransform(), Similarity(0, 0), Similarity(0, 0), 0.0, 0.0, True)
    monkeypatch.setattr(preparing, "match", lambda *_, **__: apart)
    files = {name: exam / f"{name}.nii.gz" for name in ("t1c", "t1")}
    with pytest.raises(CaseError, match="t1 cannot be brought to t1c: they share 0% of the head"):
        prepare_case(files, tmp_path / "case", grid="reference", brain="none")
    assert not list(tmp_path.iterdir())


def copy(files: dict[str, Path], folder: Path) -> Path:
    return Path(shutil.copy(files["t1c"], folder / "other.nii.gz"))


def packed_differently(files: dict[str, Path], folder: Path) -> Path:
    other = folder / "other.nii"
    other.write_bytes(gzip.decompress(files["t1c"].read_bytes()))
    return other


def changed(change: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]) -> Callable[..., Path]:
    def write(files: dict[str, Path], folder: Path) -> Path:
        image = nib.load(files["t1c"])
        values, affine = change(np.asarray(image.dataobj).astype(np.float32), image.affine)
        nib.save(nib.Nifti1Image(values, affine), folder / "other.nii.gz")
        return folder / "other.nii.gz"

    return write


def without_sides(files: dict[str, Path], folder: Path) -> Path:
    image = nib.load(files["t1c"])
    header = image.header.copy()
    header["qform_code"], header["sform_code"] = 0, 1
    header["srow_x"] = header["srow_y"] = header["srow_z"] = 0
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) + 1, None, header), folder / "other.nii.gz")
    return folder / "other.nii.gz"


def not_a_number(values: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values[3, 3, 3:5] = np.nan
    return values, affine


def in_metres(files: dict[str, Path], folder: Path) -> Path:
    image = nib.load(files["t1c"])
    image.header.set_xyzt_units("meter")
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj) + 1, image.affine, image.header), folder / "other.nii.gz")
    return folder / "other.nii.gz"


SHEAR = np.eye(4)
SHEAR[0, 2] = 0.4
WRONG: dict[str, tuple[Callable[..., Path], str]] = {
    "the same file": (copy, "t1 .*holds the same voxels as t1c"),
    "the same voxels": (packed_differently, "t1 .*holds the same voxels as t1c"),
    "four axes": (changed(lambda values, affine: (np.stack([values] * 3, -1), affine)), "68x82x70x3, 3 volumes"),
    "NaN": (changed(not_a_number), "holds 2 voxels that are NaN"),
    "constant": (changed(lambda values, affine: (values * 0 + 7, affine)), "is 7 in every voxel"),
    "one slice": (changed(lambda values, affine: (values[:, :, :1] + 1, affine)), "at least 4 voxels along each axis"),
    "sheared": (changed(lambda values, affine: (values + 1, SHEAR @ affine)), "not at right angles"),
    "no voxel size": (without_sides, "no usable voxel size"),
    "in metres": (in_metres, "t1: .*measures in metres"),
    "huge voxels": (changed(lambda values, affine: (values + 1, np.diag([50, 50, 50, 1]) @ affine)), "at most 2000 mm"),
}


@pytest.mark.parametrize("defect", list(WRONG))
def test_a_scan_that_cannot_be_used_is_named(defect: str, t1c: dict[str, Path], tmp_path: Path) -> None:
    spoil, words = WRONG[defect]
    (tmp_path / "scans").mkdir()
    files = {**t1c, "t1": spoil(t1c, tmp_path / "scans")}
    with pytest.raises(CaseError, match=words):
        prepare_case(files, tmp_path / "case", brain="none")
    assert {path.name for path in tmp_path.iterdir()} == {"scans"}


def test_a_mask_of_another_grid_is_refused_with_both_grids(t1c: dict[str, Path], exam: Path, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"another grid \(.*5 mm.*68x82x70 voxels of 3x3x3 mm"):
        prepare_case(t1c, tmp_path / "case", brain_mask=exam / "t2.nii.gz")


def test_a_given_mask_is_what_stays(t1c: dict[str, Path], head: Any, scanner: Any, tmp_path: Path) -> None:
    mask = scanner.save(head.brain, tmp_path / "mask.nii.gz")
    done = prepare_case(t1c, tmp_path / "case", grid="reference", brain_mask=mask)
    inside = array_of(head.brain) > 0
    kept = voxels(done.folder / "case-t1c.nii.gz")
    assert not kept[~inside].any()
    np.testing.assert_allclose(kept[inside], voxels(t1c["t1c"])[inside], atol=1)
    assert done.record["brain"] == {"method": "given", "volume_ml": pytest.approx(inside.sum() * 0.027)}


def test_what_is_there_is_not_overwritten_unasked(t1c: dict[str, Path], tmp_path: Path) -> None:
    first = prepare_case(t1c, tmp_path / "case", grid="reference", brain="none")
    before = (first.folder / "prepare.json").read_bytes()
    with pytest.raises(PipelineError, match="--overwrite"):
        prepare_case(t1c, tmp_path / "case", brain="none")
    assert (first.folder / "prepare.json").read_bytes() == before
    again = prepare_case(t1c, tmp_path / "case", grid="reference", brain="none", overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["case"]
    assert (again.folder / "prepare.json").is_file()


@pytest.mark.parametrize("meanwhile", [False, True])
@pytest.mark.parametrize("name", ["exam 7-seg.nii.gz", "transforms/mine.tfm", "more/notes.txt"])
def test_what_a_person_put_into_a_prepared_case_is_never_removed(
    name: str, meanwhile: bool, prepared: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(prepared, tmp_path / "case")
    with whole_folder(out, overwrite=True) as part:  # what prepare wrote is replaced
        shutil.copytree(prepared, part, dirs_exist_ok=True)

    def put() -> None:
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("drawn by hand")

    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}

    before = contents() | {out / name: b"drawn by hand"}
    if not meanwhile:
        put()
    with (
        pytest.raises(PipelineError, match=rf"holds {name}, which prepare did not write"),
        whole_folder(out, overwrite=True),
    ):
        put()
    assert contents() == before


@pytest.mark.parametrize(
    ("name", "case_id"),
    [("t1c.nii.gz", "P1"), ("A-12_t1c.nii.gz", "A-12"), ("BraTS-GLI-00002-000-t1c.nii.gz", "BraTS-GLI-00002-000")],
)
def test_a_case_is_called_as_the_folder_it_is_written_to_where_no_file_names_it(
    name: str, case_id: str, tmp_path: Path
) -> None:
    (tmp_path / "nifti").mkdir()
    (tmp_path / "nifti" / name).touch()
    assert find_exam(tmp_path / "nifti", "P1").case_id == case_id


def test_a_folder_of_something_else_is_never_overwritten(t1c: dict[str, Path], exam: Path) -> None:
    with pytest.raises(PipelineError, match="no prepared case"):
        prepare_case(t1c, exam, brain="none", overwrite=True)
    assert (exam / "t2.nii.gz").is_file()


def test_a_place_that_cannot_be_written_is_told_before_the_work(t1c: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    steps: list[str] = []
    with pytest.raises(PipelineError, match="cannot be written"):
        prepare_case(t1c, tmp_path / "file" / "case", on_step=steps.append)
    assert steps == []


def test_a_failure_keeps_the_case_that_was_there(t1c: dict[str, Path], tmp_path: Path) -> None:
    prepare_case(t1c, tmp_path / "case", grid="reference", brain="none")

    def fail(step: str) -> None:
        if step == "preview":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare_case(t1c, tmp_path / "case", grid="reference", brain="none", overwrite=True, on_step=fail)
    assert [path.name for path in tmp_path.iterdir()] == ["case"]
    assert find_cases(tmp_path)[0].case_id == "case"


KILL = """
import os, signal, sys
from pathlib import Path
from brats_pipeline.prepare import prepare_case
stop = lambda step: os.kill(os.getpid(), signal.SIGKILL) if step == "resample" else None
prepare_case({"t1c": Path(sys.argv[1])}, Path(sys.argv[2]), grid="reference", brain="none", on_step=stop)
"""


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_killed_run_leaves_no_case_and_the_next_one_sweeps_up(t1c: dict[str, Path], tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILL, str(t1c["t1c"]), str(tmp_path / "case")], check=False)
    assert done.returncode == -9
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".case.part-")
    with pytest.raises(PipelineError, match="no cases here"):
        find_cases(tmp_path)
    prepare_case(t1c, tmp_path / "case", grid="reference", brain="none")
    assert [path.name for path in tmp_path.iterdir()] == ["case"]


@pytest.mark.usefixtures("unmatched")
def test_the_command_prints_mutual_information_and_notes(
    exam: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    done = command("prepare", exam, "-o", tmp_path / "case", "--grid", "reference", "--no-brain-extraction")
    assert done.code == 0
    assert "mutual information" in done.out
    for modality in ("t1 ", "t2 ", "flair "):
        assert f"{modality}" in done.out
    assert "a face can be drawn" in done.err
    assert "Research software" in done.out
    refused = command("prepare", exam, "-o", tmp_path / "case")
    assert refused.code == 2
    assert refused.err.startswith("error: ")
    assert "--overwrite" in refused.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "give either the folder"),
        (("--grid", "2mm", "--t1c", "{t1c}"), "grid is one of 1mm, reference"),
        (("--brain-extraction", "scalpel", "--t1c", "{t1c}"), "unknown brain extraction 'scalpel'"),
        (("--brain-mask", "{t1c}", "--no-brain-extraction", "--t1c", "{t1c}"), "leave the other option out"),
    ],
)
def test_a_wrong_request_is_one_message(
    arguments: tuple[str, ...], words: str, t1c: dict[str, Path], tmp_path: Path, command: Callable[..., Any]
) -> None:
    done = command("prepare", "-o", tmp_path / "case", *(each.format(**t1c) for each in arguments))
    assert done.code == 2
    assert words in done.err
    assert not list(tmp_path.iterdir())
