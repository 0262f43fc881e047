"""A scan that does not look like the training is told on the terminal, in the record and in the report."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from brats_pipeline.bundles import freeze_bundle
from brats_pipeline.bundles.exporting import export_bundle
from brats_pipeline.inference.segment import segment

CASE = "BraTS2021_00001"


@pytest.fixture
def case(cohort: Path, tmp_path: Path) -> Path:
    """A copy of one case that a test may spoil."""
    return shutil.copytree(cohort / CASE, tmp_path / "scans" / CASE)


def change(case: Path, modality: str, function: Callable[[np.ndarray], np.ndarray]) -> None:
    path = case / f"{CASE}_{modality}.nii.gz"
    image = nib.load(path)
    nib.save(nib.Nifti1Image(function(np.asarray(image.dataobj)), image.affine), path)


def test_a_run_knows_what_its_training_saw_and_tells_no_names(run: Path) -> None:
    text = (run / "configs" / "fingerprint.json").read_text()
    told = json.loads(text)
    assert (told["cases"], told["modalities"]) == (4, ["t1c", "t1", "t2", "flair"])
    assert told["spacing_mm"] == [[4, 4, 4], [4, 4, 4]]
    assert "BraTS2021" not in text


def test_nothing_is_said_of_cases_like_those_of_the_training(predictions: Path) -> None:
    cases = json.loads((predictions / "run.json").read_text())["cases"]
    assert len(cases) == 6
    assert not [name for name, state in cases.items() if "unlike" in state]


def test_a_shifted_t2_is_told_on_the_terminal_in_the_record_and_in_the_report(
    case: Path, cohort: Path, run: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    change(case, "t2", lambda array: np.roll(array, 4, axis=0))  # 16 mm
    out = tmp_path / "out"
    arguments = ("segment", case, "-o", out, "--bundle", run, "--device", "cpu")
    outcome = command(*arguments)
    assert outcome.code == 0
    assert f"warning: {CASE} is unlike the training: " in outcome.err
    assert "T2 seems not to be co-registered" in outcome.err.replace("\n", " ")
    (sentence, *_) = [
        each for each in json.loads((out / "run.json").read_text())["cases"][CASE]["unlike"] if "co-registered" in each
    ]
    again = json.loads(command(*arguments, "--json").out)
    assert (again["skipped"], again["done"]) == ([CASE], [])
    assert sentence in again["unlike"][CASE]
    report = tmp_path / "report"
    assert command("evaluate", out, cohort, "-o", report, "--rules", "brats2023-gli").code in (0, 1)
    for name in ("report.html", "report.md"):
        assert f"{CASE} is unlike the training: T2 seems" in (report / name).read_text()


def test_thick_slices_and_a_skull_are_told(case: Path, run: Path, tmp_path: Path) -> None:
    for path in case.glob("*.nii.gz"):
        image = nib.load(path)
        array = np.asarray(image.dataobj)
        noisy = array + np.random.default_rng(0).integers(1, 20, array.shape).astype(array.dtype)
        affine = image.affine @ np.diag([1.0, 1.0, 1.5, 1.0])
        nib.save(nib.Nifti1Image(array if "seg" in path.name else noisy, affine), path)
    told = " ".join(segment([case], tmp_path / "out", bundle=run, device="cpu").unlike[CASE])
    assert "its voxels are 4x4x6 mm, those of the training 4x4x4 mm" in told
    assert "skull was not taken out" in told


def test_a_bundle_without_a_fingerprint_says_nothing(case: Path, run: Path, tmp_path: Path) -> None:
    own = shutil.copytree(run, tmp_path / "own")
    (own / "configs" / "fingerprint.json").unlink()
    change(case, "t2", lambda array: np.roll(array, 4, axis=0))
    assert segment([case], tmp_path / "out", bundle=own, device="cpu").unlike == {}


def test_an_export_keeps_what_the_training_saw(run: Path, tmp_path: Path) -> None:
    export_bundle(run, tmp_path / "exported")
    kept = tmp_path / "exported" / "configs" / "fingerprint.json"
    assert kept.read_bytes() == (run / "configs" / "fingerprint.json").read_bytes()


def test_what_is_frozen_for_new_weights_does_not_take_over_what_others_saw(run: Path, tmp_path: Path) -> None:
    freeze_bundle(run, tmp_path / "frozen", {})
    assert not (tmp_path / "frozen" / "configs" / "fingerprint.json").exists()


def test_the_members_of_an_ensemble_say_it_once(case: Path, run: Path, tmp_path: Path) -> None:
    other = shutil.copytree(run, tmp_path / "other")
    change(case, "t2", lambda array: np.roll(array, 4, axis=0))
    alone = segment([case], tmp_path / "alone", bundle=run, device="cpu").unlike
    together = segment([case], tmp_path / "together", bundle=[run, other], device="cpu")
    assert together.unlike == alone != {}
    assert json.loads((together.out / "run.json").read_text())["cases"][CASE]["unlike"] == alone[CASE]
