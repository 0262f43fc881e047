"""What a person can get wrong: one clear message, the right exit code, and nothing half-written."""

from __future__ import annotations

import errno
import os
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from brats_pipeline.cli import run as run_command

Command = Callable[..., Any]

CASES = [f"BraTS2021_0000{number}" for number in range(1, 7)]


def scan(folder: Path, word: str) -> Path:
    return folder / f"{folder.name}_{word}.nii.gz"


def rewrite(path: Path, change: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]) -> None:
    image = nib.load(path)
    voxels, affine = change(np.asarray(image.dataobj), image.affine)
    nib.save(nib.Nifti1Image(voxels, affine), path)


def remove(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def write_text(path: Path) -> None:
    path.write_text("Dear colleague, please find attached the scan.\n")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def move_grid(path: Path) -> None:
    rewrite(path, lambda voxels, affine: (voxels, affine @ nib.affines.from_matvec(np.eye(3), [5, 0, 0])))


def crop(path: Path) -> None:
    rewrite(path, lambda voxels, affine: (voxels[:-4], affine))


def put_nan(path: Path) -> None:
    def change(voxels: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        voxels = voxels.astype(np.float32)
        voxels[20, 20, 18:20] = np.nan
        return voxels, affine

    rewrite(path, change)


def flatten(path: Path) -> None:
    rewrite(path, lambda voxels, affine: (np.full_like(voxels, 5), affine))


def double(path: Path) -> None:
    shutil.copy(path, path.with_suffix(""))


def binarise(path: Path) -> None:
    rewrite(path, lambda voxels, affine: ((voxels > 0).astype(voxels.dtype), affine))


def blacken(path: Path) -> None:
    rewrite(path, lambda voxels, affine: (np.zeros_like(voxels), affine))


DEFECTS: dict[str, tuple[str, Callable[[Path], None], list[str]]] = {
    "missing modality": ("t2", remove, ["missing modality t2", "t1c, t1, flair"]),
    "truncated": ("t1", truncate, ["_t1.nii.gz", "truncated", "again"]),
    "text": ("t1ce", write_text, ["_t1ce.nii.gz", "no NIfTI file"]),
    "empty file": ("t1ce", empty, ["_t1ce.nii.gz", "the file is empty"]),
    "moved": ("flair", move_grid, ["flair", "grid", "origin"]),
    "cropped": ("flair", crop, ["flair", "grid", "44x48x40", "40x48x40"]),
    "NaN": ("t2", put_nan, ["t2 holds 2 voxels that are NaN or infinite"]),
    "constant": ("t1", flatten, ["t1 ", "5", "every voxel"]),
    "two files": ("t2", double, ["two files for t2", "_t2.nii ", "_t2.nii.gz", "keep one"]),
    "mask": ("t1", binarise, ["t1 is constant: every nonzero voxel is 1"]),
    "black": ("t1", blacken, ["t1 ", "0", "every voxel"]),
}


@pytest.fixture(params=list(DEFECTS))
def spoilt(request: pytest.FixtureRequest, own_cohort: Path) -> tuple[Path, list[str]]:
    """A case with one defect, and what a message about it must say."""
    word, spoil, wanted = DEFECTS[request.param]
    folder = own_cohort / CASES[0]
    spoil(scan(folder, word))
    return folder, [folder.name, *wanted]


def said(text: str, wanted: list[str]) -> bool:
    return all(words in text for words in wanted) and "Traceback" not in text and "not foreseen" not in text


def one_message(text: str) -> bool:
    return text.startswith("error: ") and text.count("error: ") == 1 and "Traceback" not in text


def leftovers(folder: Path) -> list[Path]:
    """Temporary files anywhere below."""
    return [path for path in folder.rglob("*") if path.name.startswith(".")]


def test_inspect_names_the_defect(spoilt: tuple[Path, list[str]], command: Command, tmp_path: Path) -> None:
    folder, wanted = spoilt
    whole = command("inspect", folder.parent, "-o", tmp_path / "fingerprint.json")
    assert whole.code == 1
    assert said(whole.out, wanted)
    assert "5 with defects" not in whole.out
    assert (tmp_path / "fingerprint.json").is_file()
    alone = command("inspect", folder)
    assert alone.code == 2
    assert said(alone.out, wanted)


def test_segment_alone_is_refused(spoilt: tuple[Path, list[str]], command: Command, run: Path, tmp_path: Path) -> None:
    folder, wanted = spoilt
    outcome = command("segment", folder, "-o", tmp_path / "out", "--bundle", run, "--device", "cpu")
    assert outcome.code == 2
    assert said(outcome.err, wanted)
    assert outcome.err.count(folder.name + ": ") == 1
    assert not list((tmp_path / "out").glob("*.nii.gz"))
    assert not leftovers(tmp_path)


def test_train_is_refused(spoilt: tuple[Path, list[str]], command: Command, tmp_path: Path) -> None:
    folder, wanted = spoilt
    settings = ["spacing=[4,4,4]", "patch_size=[16,16,16]", "network_def::depth=1", "max_epochs=1"]
    settings += ["patches_per_epoch=6", "network_def::features=8", "roi_size=[32,32,32]", "val_interval=1"]
    arguments = [argument for setting in settings for argument in ("--set", setting)]
    outcome = command(
        "train", "brats_glioma_3d", "--data", folder.parent, "-o", tmp_path / "run", "--folds", 3, "--device", "cpu",
        *arguments,
    )  # fmt: skip
    assert outcome.code == 2
    assert one_message(outcome.err)
    assert said(outcome.err, wanted)
    assert not list((tmp_path / "run").rglob("*.pt"))
    assert not leftovers(tmp_path)


def test_a_defect_in_the_validation_fold_names_its_case(
    own_cohort: Path, run: Path, command: Command, tmp_path: Path
) -> None:
    import json

    held_out = [
        item["case_id"] for item in json.loads((run / "datalist.json").read_text())["training"] if not item["fold"]
    ]
    put_nan(scan(own_cohort / held_out[0], "t2"))
    settings = ["spacing=[4,4,4]", "patch_size=[16,16,16]", "network_def::depth=1", "max_epochs=1"]
    settings += ["patches_per_epoch=1", "network_def::features=8", "roi_size=[32,32,32]", "val_interval=1"]
    arguments = [argument for setting in settings for argument in ("--set", setting)]
    outcome = command(
        "train", "brats_glioma_3d", "--data", own_cohort, "-o", tmp_path / "run", "--folds", 3, "--device", "cpu",
        *arguments,
    )  # fmt: skip
    assert outcome.code == 2
    assert one_message(outcome.err)
    assert said(outcome.err, [held_out[0], "t2 holds 2 voxels"])


def put_seven(folder: Path) -> None:
    def change(voxels: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        voxels = voxels.copy()
        voxels[voxels == 2] = 7
        return voxels, affine

    rewrite(scan(folder, "seg"), change)


def test_label_value_seven_stops_training_with_its_case_and_the_known_values(
    own_cohort: Path, command: Command, tmp_path: Path
) -> None:
    put_seven(own_cohort / CASES[2])
    outcome = command("train", "brats_glioma_3d", "--data", own_cohort, "-o", tmp_path / "run", "--folds", 3)
    assert outcome.code == 2
    assert one_message(outcome.err)
    assert said(outcome.err, [CASES[2], "7", "0 1 2 4"])
    assert not (tmp_path / "run").exists()


def test_label_value_seven_is_a_defect_for_inspect(own_cohort: Path, command: Command) -> None:
    put_seven(own_cohort / CASES[2])
    outcome = command("inspect", own_cohort)
    assert outcome.code == 1
    assert said(outcome.out, [f"{CASES[2]}: ", "7", "0 1 2 4"])


def test_label_value_seven_is_not_scored_and_named(
    own_cohort: Path, predictions: Path, command: Command, tmp_path: Path
) -> None:
    put_seven(own_cohort / CASES[2])
    outcome = command("evaluate", predictions, own_cohort, "-o", tmp_path / "out", "--no-images", "--workers", 1)
    assert outcome.code == 1
    lines = outcome.err.splitlines()
    assert [line for line in lines if line.startswith(f"{CASES[2]}: ") and "7" in line and "not scored" in line]
    assert CASES[2] not in (tmp_path / "out" / "cases.csv").read_text()


def test_label_value_seven_in_a_prediction_counts_as_a_miss(
    cohort: Path, predictions: Path, command: Command, tmp_path: Path
) -> None:
    spoilt = shutil.copytree(predictions, tmp_path / "predictions")
    rewrite(spoilt / f"{CASES[2]}.nii.gz", lambda voxels, affine: (np.where(voxels > 0, 7, 0).astype(np.uint8), affine))
    outcome = command("evaluate", spoilt, cohort, "-o", tmp_path / "out", "--no-images", "--workers", 1)
    assert outcome.code == 1
    assert said(outcome.err, [f"{CASES[2]}: ", "7", "miss"])


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect",),
        ("split", "-o", "{tmp}/datalist.json"),
        ("train", "brats_glioma_3d", "-o", "{tmp}/out", "--data"),
        ("segment", "-o", "{tmp}/out", "--bundle", "{run}"),
        ("evaluate", "{predictions}", "-o", "{tmp}/out"),
    ],
    ids=lambda arguments: arguments[0],
)
@pytest.mark.parametrize("kind", ["empty", "absent", "file", "foreign"])
def test_a_folder_without_cases_is_refused(
    arguments: tuple[str, ...], kind: str, command: Command, run: Path, predictions: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    wanted = {"absent": "does not exist", "file": "is a file"}.get(kind, "no cases here")
    if kind == "file":
        folder.touch()
    elif kind != "absent":
        folder.mkdir()
    if kind == "foreign":
        (folder / "slide.dcm").touch()
    given = [argument.format(tmp=tmp_path, run=run, predictions=predictions) for argument in arguments]
    outcome = command(*given, folder)
    assert outcome.code == 2
    assert one_message(outcome.err)
    assert said(outcome.err, [str(folder), wanted])
    assert kind != "foreign" or said(outcome.err, ["slide.dcm", "BraTS2021_00006_t1ce.nii.gz"])
    assert {path.name for path in tmp_path.iterdir()} <= {"data"}


UNWRITABLE = {
    "inspect": ("inspect", "{cohort}", "-o"),
    "split": ("split", "{cohort}", "--folds", "3", "-o"),
    "phantom": ("phantom", "--cases", "1", "--size", "32", "--spacing", "6"),
    "train": ("train", "brats_glioma_3d", "--data", "{cohort}", "--folds", "3", "-o"),
    "segment": ("segment", "{cohort}", "--bundle", "{run}", "--device", "cpu", "-o"),
    "evaluate": ("evaluate", "{predictions}", "{cohort}", "--no-images", "--workers", "1", "-o"),
}


@pytest.mark.parametrize("arguments", UNWRITABLE.values(), ids=UNWRITABLE)
def test_an_output_folder_that_cannot_be_made_is_refused(
    arguments: tuple[str, ...], command: Command, cohort: Path, run: Path, predictions: Path, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("a regular file")
    given = [argument.format(cohort=cohort, run=run, predictions=predictions) for argument in arguments]
    outcome = command(*given, file / "out")
    assert outcome.code == 2
    assert one_message(outcome.err)
    assert said(outcome.err, [str(file / "out"), "cannot be"])
    assert file.read_text() == "a regular file"


@pytest.mark.parametrize("arguments", UNWRITABLE.values(), ids=UNWRITABLE)
def test_a_full_disk_is_named_and_leaves_no_half_file(
    arguments: tuple[str, ...],
    command: Command,
    cohort: Path,
    run: Path,
    predictions: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    given = [argument.format(cohort=cohort, run=run, predictions=predictions) for argument in arguments]
    outcome = command(*given, tmp_path / "out")
    assert outcome.code == 2
    assert one_message(outcome.err)
    assert said(outcome.err, ["No space left on device", "free disk space"])
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_a_disk_that_fills_up_in_mid_cohort_keeps_the_whole_files(
    command: Command, cohort: Path, run: Path, predictions: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync, out = os.fsync, tmp_path / "out"

    def filling(handle: int) -> None:
        if len([path for path in out.glob("*.nii.gz") if not path.name.startswith(".")]) >= 2:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(handle)

    monkeypatch.setattr("os.fsync", filling)
    outcome = command("segment", cohort, "--bundle", run, "--device", "cpu", "-o", tmp_path / "out")
    assert outcome.code == 2
    assert one_message(outcome.err)
    assert "No space left on device" in outcome.err
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"run.json", f"{CASES[0]}.nii.gz", f"{CASES[1]}.nii.gz"}
    monkeypatch.undo()
    again = command("segment", cohort, "--bundle", run, "--device", "cpu", "-o", tmp_path / "out")
    assert again.code == 0
    told = re.search(r"(\d) cases segmented, (\d) were there already, 0 failed", again.out)
    assert told is not None
    assert int(told[1]) + int(told[2]) == 6
    assert int(told[1]) >= 4  # what no record could say is segmented again
    for path in predictions.glob("*.nii.gz"):
        assert path.read_bytes() == (tmp_path / "out" / path.name).read_bytes()


@pytest.mark.parametrize(
    "arguments",
    [
        ("train", "no_such_bundle", "--data", "{cohort}", "-o", "{tmp}/out"),
        ("segment", "{cohort}", "--bundle", "no_such_bundle", "-o", "{tmp}/out"),
        ("bundle", "info", "no_such_bundle"),
        ("bundle", "path", "no_such_bundle"),
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_an_unknown_bundle_is_refused_with_the_known_ones(
    arguments: tuple[str, ...], command: Command, cohort: Path, tmp_path: Path
) -> None:
    outcome = command(*(argument.format(cohort=cohort, tmp=tmp_path) for argument in arguments))
    assert outcome.code == 2
    assert one_message(outcome.err)
    assert said(outcome.err, ["no_such_bundle", "brats_glioma_3d"])
    assert not list(tmp_path.iterdir())


def test_a_bundle_without_weights_says_how_to_get_some(command: Command, cohort: Path, tmp_path: Path) -> None:
    untrained = tmp_path / "untrained"
    shutil.copytree(Path(__file__).parents[3] / "bundles" / "brats_glioma_3d" / "configs", untrained / "configs")
    outcome = command("segment", cohort, "--bundle", untrained, "-o", tmp_path / "out")
    assert outcome.code == 2
    assert one_message(outcome.err)
    assert said(outcome.err, ["untrained has no weights", "brats-pipeline train", "--bundle RUN"])
    assert not (tmp_path / "out").exists()


def test_weights_that_do_not_fit_name_the_first_differing_layers(
    command: Command, cohort: Path, run: Path, tmp_path: Path
) -> None:
    arguments = ["segment", cohort, "--bundle", run, "-o", tmp_path / "out", "--device", "cpu"]
    wider = command(*arguments, "--set", "network_def::features=16")
    assert wider.code == 2
    assert one_message(wider.err)
    assert said(wider.err, ["model.pt", "encoder.0.0.weight", "(8, 8, 3, 3, 3)", "(16, 8, 3, 3, 3)", "layers differ"])
    deeper = command(*arguments, "--set", "network_def::depth=3")
    assert deeper.code == 2
    assert one_message(deeper.err)
    assert said(deeper.err, ["encoder.2.0.weight is missing in the file"])
    assert not (tmp_path / "out").exists()


class Trap:
    """Unpickled, it makes a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("kind", ["text", "truncated", "trap", "zipped trap", "list", "numbers"])
def test_a_file_that_holds_no_weights_is_refused_and_never_executed(
    kind: str, command: Command, cohort: Path, run: Path, tmp_path: Path
) -> None:
    import torch

    copy = shutil.copytree(run, tmp_path / "run")
    weights = copy / "models" / "model.pt"
    target = tmp_path / "executed"
    if kind == "text":
        weights.write_text("garbage")
    elif kind == "truncated":
        truncate(weights)
    elif kind == "trap":
        weights.write_bytes(pickle.dumps(Trap(target)))
    elif kind == "zipped trap":
        torch.save({"encoder": Trap(target)}, weights)
    elif kind == "list":
        torch.save([1, 2, 3], weights)
    else:
        torch.save(dict.fromkeys(torch.load(weights, weights_only=True), 1.0), weights)
    outcome = command("segment", cohort, "--bundle", copy, "-o", tmp_path / "out", "--device", "cpu")
    assert outcome.code == 2
    assert one_message(outcome.err)
    assert said(outcome.err, [str(weights)])
    assert "weights_only" not in outcome.err  # advice to load it unsafely is no advice
    assert len(outcome.err.splitlines()) == 1
    assert not target.exists()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["transforms", "networks"])
@pytest.mark.parametrize("arguments", [["bundle", "list"], ["segment", "data", "-o", "out"]], ids=lambda a: a[0])
def test_a_foreign_package_of_our_name_is_refused(
    name: str, arguments: list[str], python: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("print('foreign code')\n")
    result = python(["-m", "brats_pipeline", *arguments], cwd=tmp_path)
    assert result.returncode == 2
    assert result.stdout == ""
    assert one_message(result.stderr)
    assert said(result.stderr, [f"package '{name}' comes from {tmp_path / name}", "run from another folder"])


def test_the_check_for_foreign_packages_passes_here() -> None:
    assert run_command(["bundle", "path", "brats_glioma_3d"]) == 0
