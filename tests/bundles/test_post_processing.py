"""Post-processing in the bundles: off by default, obeyed by our command as by MONAI's, tuned from end to end."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml

from brats_pipeline.bundles import list_bundles
from brats_pipeline.errors import PipelineError
from brats_pipeline.evaluation.evaluate import evaluate
from brats_pipeline.inference.segment import segment
from brats_pipeline.overlays import CLEANING
from brats_pipeline.tuning.grid import Grid
from brats_pipeline.tuning.tune import tune
from transforms.cleaning import Cleaning, CleanRegionsd

CASE = "BraTS2021_00001"
OVERLAY = "smallest_component: [30, 60, 0]\nkeep_largest: [false, true, false]\nsmallest_et: 40\n"


def config(bundle: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((bundle / "configs" / name).read_text())
    return content


@pytest.fixture
def own_run(run: Path, tmp_path: Path) -> Path:
    """A copy of the run that a test may give an overlay."""
    return shutil.copytree(run, tmp_path / "own run")


def labels_of(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


@pytest.mark.parametrize("bundle", list_bundles(), ids=lambda path: path.name)
def test_every_bundle_has_the_same_ids_and_all_of_them_are_off(bundle: Path) -> None:
    for name in ("inference.yaml", "evaluate.yaml"):
        content = config(bundle, name)
        assert content["threshold"] == 0.5
        told = {key: content[key] for key in CLEANING}
        step = CleanRegionsd("pred", regions=config(bundle, "inference.yaml")["regions"], **told)
        assert step.cleaning.off
        steps = (
            content["to_label_map"] if name == "inference.yaml" else content["validate::postprocessing"]["transforms"]
        )
        (ours,) = [each for each in steps if each["_target_"] == "transforms.cleaning.CleanRegionsd"]
        assert {key: ours[key] for key in CLEANING} == {key: f"@{key}" for key in CLEANING}
    shipped = bundle / "configs" / "postprocessing.yaml"
    assert not shipped.exists() or (bundle / "models" / "model.pt").is_file(), "it suits weights, and there are none"


def test_label_maps_are_bit_for_bit_those_of_a_chain_without_the_step(
    own_run: Path, predictions: Path, cohort: Path, tmp_path: Path
) -> None:
    content = config(own_run, "inference.yaml")
    steps = content["to_label_map"]
    content["to_label_map"] = [step for step in steps if step["_target_"] != "transforms.cleaning.CleanRegionsd"]
    assert len(content["to_label_map"]) == len(steps) - 1
    (own_run / "configs" / "inference.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    segment([cohort / CASE], tmp_path / "out", bundle=own_run, device="cpu")
    name = f"{CASE}.nii.gz"
    assert (tmp_path / "out" / name).read_bytes() == (predictions / name).read_bytes()


def test_an_overlay_is_obeyed_by_segment_and_by_monai_alike(
    own_run: Path,
    predictions: Path,
    cohort: Path,
    tmp_path: Path,
    python: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    path = own_run / "configs" / "postprocessing.yaml"
    path.write_text(OVERLAY)
    segment([cohort / CASE], tmp_path / "ours", bundle=own_run, device="cpu")
    name = f"{CASE}.nii.gz"
    before, after = labels_of(predictions / name), labels_of(tmp_path / "ours" / name)
    masks = [np.isin(before, values) for values in ((1, 4), (1, 2, 4), (4,))]
    core, whole, enhancing = Cleaning(
        ("TC", "WT", "ET"), smallest_component=(30, 60, 0), keep_largest=(False, True, False), smallest_et=40
    )(masks)
    assert np.array_equal(after, np.where(enhancing, 4, np.where(core, 1, np.where(whole, 2, 0))))
    assert not np.array_equal(after, before)
    files = [str(own_run / "configs" / "inference.yaml"), str(path)]
    arguments = ["--config_file", str(files), "--bundle_root", own_run, "--output_dir", tmp_path / "theirs"]
    arguments += ["--dataset_dir", cohort / CASE, "--device", "$torch.device('cpu')"]
    done = python(["-m", "monai.bundle", "run", *arguments], cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "theirs" / name).read_bytes() == (tmp_path / "ours" / name).read_bytes()


def test_label_maps_of_before_an_overlay_are_not_taken_for_those_behind_it(
    own_run: Path, cohort: Path, tmp_path: Path
) -> None:
    segment([cohort / CASE], tmp_path / "out", bundle=own_run, device="cpu")
    (own_run / "configs" / "postprocessing.yaml").write_text(OVERLAY)
    with pytest.raises(PipelineError, match="--overwrite"):
        segment([cohort / CASE], tmp_path / "out", bundle=own_run, device="cpu")
    assert segment([cohort / CASE], tmp_path / "out", bundle=own_run, device="cpu", overwrite=True).done == [CASE]


def test_a_run_is_tuned_and_then_scores_what_tuning_said(
    own_run: Path, cohort: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    answer = command("tune", own_run, "--write-anyway", "--workers", 1, "--device", "cpu")
    assert answer.code == 0, answer.err
    assert "no test can decide" in " ".join(answer.out.split())
    grid = Grid(thresholds=(0.3, 0.5), smallest_components=(0, 20), smallest_ets=(0, 20))
    probabilities = own_run / "tuning" / "predictions" / "probabilities"
    times = {path: path.stat().st_mtime_ns for path in probabilities.iterdir()}
    tuning = tune(own_run, grid=grid, write_anyway=True, device="cpu")
    assert times == {path: path.stat().st_mtime_ns for path in probabilities.iterdir()}  # nothing is made twice
    assert tuning.written is not None
    held_out = sorted({row.case_id for row in tuning.rows})
    segment([cohort], tmp_path / "out", bundle=own_run, device="cpu", only=held_out)
    found = evaluate(tmp_path / "out", cohort, tmp_path / "report", only=held_out, images=False)
    expected = {(row.case_id, row.region): row.in_sample for row in tuning.rows}
    assert {(row.case_id, row.region): row.dice for row in found.scores} == pytest.approx(expected, abs=1e-3)
    assert any(row.in_sample > row.untuned for row in tuning.rows)


def test_what_a_run_was_trained_on_is_never_tuned_on(own_run: Path, cohort: Path) -> None:
    grid = Grid((0.5,), (0, 20), (0,), fill_holes=False, keep_largest=False)
    notes: list[str] = []
    tuning = tune(own_run, data=cohort, grid=grid, device="cpu", on_note=notes.append)
    assert len({row.case_id for row in tuning.rows}) == 2
    assert tuning.trained_on == 4
    assert notes == ["4 cases are left out: the run was trained on them, or on scans of their patients"]
