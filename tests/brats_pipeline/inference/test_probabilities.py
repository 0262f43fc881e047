"""Segmentation with ``--save-probabilities``: what is saved, what is redone, what is removed."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from brats_pipeline.errors import PipelineError
from brats_pipeline.inference.segment import segment
from brats_pipeline.predictions import files_by_case, find_predictions
from transforms.probabilities import read_probabilities

CASE, OTHER = "BraTS2021_00001", "BraTS2021_00003"


@pytest.fixture(scope="module")
def saved(run: Path, cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two cases segmented with their probabilities; must not be changed."""
    out = tmp_path_factory.mktemp("saved") / "predictions"
    segment([cohort / CASE, cohort / OTHER], out, bundle=run, device="cpu", save_probabilities=True)
    return out


def files(out: Path) -> dict[str, bytes]:
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in out.rglob("*.n*z")}


def test_probabilities_lie_on_the_grid_of_the_scan_and_give_the_label_map_by_the_threshold(
    saved: Path, cohort: Path, predictions: Path
) -> None:
    assert sorted(files(saved)) == [f"{CASE}.nii.gz", f"{OTHER}.nii.gz"] + [
        f"probabilities/{name}.npz" for name in (CASE, OTHER)
    ]
    for case_id in (CASE, OTHER):
        found = read_probabilities(saved / "probabilities" / f"{case_id}.npz")
        scan = nib.load(cohort / case_id / f"{case_id}_t1ce.nii.gz")
        assert found.values.dtype == np.float16
        assert found.values.shape == (3, *scan.shape)
        assert np.array_equal(found.affine, scan.affine)
        assert found.regions == ("TC", "WT", "ET")
        labels = np.asanyarray(nib.load(saved / f"{case_id}.nii.gz").dataobj)
        core, whole, enhancing = found.values.astype(np.float32) > 0.5
        undecided = (np.abs(found.values.astype(np.float32) - 0.5) < 0.001).any(axis=0)  # rounded to float16
        expected = np.where(enhancing, 4, np.where(core, 1, np.where(whole, 2, 0)))
        assert np.array_equal(labels[~undecided], expected[~undecided])
        assert whole.any()
        assert undecided.mean() < 0.01
        assert (saved / f"{case_id}.nii.gz").read_bytes() == (predictions / f"{case_id}.nii.gz").read_bytes()


def test_the_files_belong_to_their_cases_and_are_no_predictions(saved: Path) -> None:
    there = files_by_case(saved)
    assert there[CASE] == [saved / f"{CASE}.nii.gz", saved / "probabilities" / f"{CASE}.npz"]
    assert find_predictions(saved) == {name: saved / f"{name}.nii.gz" for name in (CASE, OTHER)}


def test_a_second_call_writes_what_is_missing_and_only_that(
    saved: Path, cohort: Path, run: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(saved, tmp_path / "out")
    (out / "probabilities" / f"{CASE}.npz").unlink()
    arguments: dict[str, Any] = {"bundle": run, "device": "cpu"}
    folders = [cohort / CASE, cohort / OTHER]
    assert segment(folders, out, **arguments).skipped == [CASE, OTHER], "label maps are complete"
    result = segment(folders, out, **arguments, save_probabilities=True)
    assert (result.done, result.skipped) == ([CASE], [OTHER])
    assert files(out) == files(saved)
    assert segment(folders, out, **arguments, overrides={"save_probabilities": True}).skipped == [CASE, OTHER]


def test_probabilities_do_not_outlive_the_label_map_they_belong_to(
    saved: Path, cohort: Path, run: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(saved, tmp_path / "out")
    segment([cohort / CASE], out, bundle=run, device="cpu", overwrite=True)
    assert sorted(files(out)) == [f"{CASE}.nii.gz", f"{OTHER}.nii.gz", f"probabilities/{OTHER}.npz"]


def test_probabilities_of_a_scan_that_went_bad_are_removed(run: Path, own_cohort: Path, tmp_path: Path) -> None:
    folders = [own_cohort / CASE, own_cohort / OTHER]
    arguments: dict[str, Any] = {"bundle": run, "device": "cpu", "save_probabilities": True}
    segment(folders, tmp_path / "out", **arguments)
    scan = own_cohort / CASE / f"{CASE}_t2.nii.gz"
    scan.write_bytes(scan.read_bytes()[:1000])
    assert set(segment(folders, tmp_path / "out", **arguments).failed) == {CASE}
    assert sorted(files(tmp_path / "out")) == [f"{OTHER}.nii.gz", f"probabilities/{OTHER}.npz"]


def test_the_command_has_the_flag_and_is_silent_without(
    cohort: Path, run: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    plain, wanted = tmp_path / "plain", tmp_path / "wanted"
    for out, flags in ((plain, []), (wanted, ["--save-probabilities"])):
        assert command("segment", cohort / CASE, "-o", out, "--bundle", run, "--device", "cpu", *flags).code == 0
    assert list(files(plain)) == [f"{CASE}.nii.gz"]
    assert sorted(files(wanted)) == [f"{CASE}.nii.gz", f"probabilities/{CASE}.npz"]


def test_a_run_from_before_probabilities_could_be_saved_is_refused_by_name(
    cohort: Path, run: Path, tmp_path: Path
) -> None:
    old = shutil.copytree(run, tmp_path / "old run")
    path = old / "configs" / "inference.yaml"
    text = path.read_text()
    path.write_text("".join(line for line in text.splitlines(True) if not line.startswith("save_probabilities")))
    with pytest.raises(PipelineError, match=r"old run.*save_probabilities"):
        segment([cohort / CASE], tmp_path / "out", bundle=old, device="cpu", save_probabilities=True)
    assert not (tmp_path / "out").exists()
