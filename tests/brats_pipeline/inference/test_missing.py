"""A case that lacks a modality: refused, unless it is asked for and the network was trained for it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from brats_pipeline.errors import PipelineError
from brats_pipeline.inference.extras import Extras
from brats_pipeline.inference.segment import segment
from brats_pipeline.training.train import train

CASE, OTHER = "BraTS2021_00001", "BraTS2021_00002"


@pytest.fixture(scope="module")
def forgiving(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose network was trained with modalities left out; must not be changed."""
    settings = {
        "spacing": [4.0] * 3,
        "patch_size": [32] * 3,
        "roi_size": [32] * 3,
        "network_def::features": 8,
        "network_def::depth": 2,
        "learning_rate": 0.01,
        "max_epochs": 2,
        "patches_per_epoch": 8,
        "precision": "float32",
        "modality_dropout": 0.5,
        "presence_flags": True,
    }
    out = tmp_path_factory.mktemp("forgiving") / "run"
    return train("brats_glioma_3d", out, data=cohort, fold=None, device="cpu", overrides=settings).run


@pytest.fixture
def lacking(own_cohort: Path) -> Path:
    """A cohort in which one case has no T1."""
    (own_cohort / CASE / f"{CASE}_t1.nii.gz").unlink()
    return own_cohort


def labels(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def test_a_case_that_lacks_a_modality_is_refused_by_default(
    lacking: Path, forgiving: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    outcome = command("segment", lacking / CASE, "-o", tmp_path / "out", "--bundle", forgiving, "--device", "cpu")
    assert outcome.code == 2
    assert f"{CASE}: missing modality t1" in outcome.err
    assert "give the scan, or --allow-missing" in outcome.err
    assert not list(tmp_path.glob("out/*.nii.gz"))


def test_on_demand_it_is_segmented_and_both_output_and_record_say_what_was_missing(
    lacking: Path, forgiving: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    cases, out = (lacking / CASE, lacking / OTHER), tmp_path / "out"
    arguments = ("segment", *cases, "-o", out, "--bundle", forgiving, "--device", "cpu", "--allow-missing")
    outcome = command(*arguments)
    assert outcome.code == 0, outcome.err
    assert f"{CASE}: segmented without t1" in outcome.out
    assert OTHER not in outcome.out
    record = json.loads((out / "run.json").read_text())["cases"]
    assert record[CASE]["missing"] == ["t1"]
    assert "segmented without t1" in record[CASE]["note"]
    assert "missing" not in record[OTHER]
    again = json.loads(command(*arguments, "--json").out)
    assert (again["skipped"], again["done"]) == ([CASE, OTHER], [])
    assert again["missing"] == {CASE: ["t1"]}


def test_what_is_left_out_counts_for_no_more_than_what_is_missing(
    cohort: Path, lacking: Path, forgiving: Path, tmp_path: Path
) -> None:
    missing = segment([lacking / CASE], tmp_path / "a", bundle=forgiving, device="cpu", allow_missing=True)
    hidden = segment([cohort], tmp_path / "b", bundle=forgiving, device="cpu", without=["t1"], only=[CASE])
    whole = segment([cohort], tmp_path / "c", bundle=forgiving, device="cpu", allow_missing=True, only=[CASE])
    assert missing.done == hidden.done == whole.done == [CASE]
    assert (missing.missing, whole.missing) == ({CASE: ("t1",)}, {})
    first, second, third = (labels(tmp_path / name / f"{CASE}.nii.gz") for name in "abc")
    assert np.array_equal(first, second)
    assert not np.array_equal(second, third)


def test_a_call_that_may_not_leave_modalities_out_keeps_what_another_call_made_without_them(
    lacking: Path, forgiving: Path, tmp_path: Path
) -> None:
    cases, out = [lacking / CASE, lacking / OTHER], tmp_path / "out"
    arguments: dict[str, Any] = {"bundle": forgiving, "device": "cpu", "save_probabilities": True}
    segment(cases, out, **arguments, allow_missing=True)

    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in out.rglob("*.n*")}

    before, told = contents(), json.loads((out / "run.json").read_text())["cases"]
    result = segment(cases, out, **arguments)
    assert "missing modality t1" in result.failed[CASE]
    assert result.skipped == [OTHER]
    assert contents() == before
    assert json.loads((out / "run.json").read_text())["cases"] == told
    assert segment(cases, out, **arguments, allow_missing=True).skipped == [CASE, OTHER]


def test_a_modality_that_comes_later_is_used(cohort: Path, lacking: Path, forgiving: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    segment([lacking / CASE], out, bundle=forgiving, device="cpu", allow_missing=True)
    scan = f"{CASE}_t1.nii.gz"
    (lacking / CASE / scan).write_bytes((cohort / CASE / scan).read_bytes())
    result = segment([lacking / CASE], out, bundle=forgiving, device="cpu")
    assert (result.done, result.missing) == ([CASE], {})
    assert "missing" not in json.loads((out / "run.json").read_text())["cases"][CASE]


def test_a_case_without_its_first_modality_has_a_label_map_in_the_header_of_the_next(
    own_cohort: Path, forgiving: Path, tmp_path: Path
) -> None:
    (own_cohort / CASE / f"{CASE}_t1ce.nii.gz").unlink()
    segment([own_cohort / CASE], tmp_path / "out", bundle=forgiving, device="cpu", allow_missing=True)
    made, like = nib.load(tmp_path / "out" / f"{CASE}.nii.gz"), nib.load(own_cohort / CASE / f"{CASE}_t1.nii.gz")
    assert made.shape == like.shape
    assert np.array_equal(made.affine, like.affine)


def test_a_network_that_never_saw_a_case_without_it_refuses_and_says_how_to_train_one(
    lacking: Path, run: Path, tmp_path: Path
) -> None:
    with pytest.raises(PipelineError, match=r"trained without modality dropout.*--set modality_dropout=0\.2"):
        segment([lacking], tmp_path / "out", bundle=run, device="cpu", allow_missing=True)
    assert not (tmp_path / "out").exists()


def test_what_a_modality_is_worth_to_any_network_can_be_asked(cohort: Path, run: Path, tmp_path: Path) -> None:
    result = segment([cohort], tmp_path / "out", bundle=run, device="cpu", without=["flair"], only=[CASE])
    assert (result.done, result.missing) == ([CASE], {CASE: ("flair",)})


def test_leaving_out_everything_leaves_nothing_to_segment(cohort: Path, forgiving: Path, tmp_path: Path) -> None:
    every = ["t1c", "t1", "t2", "flair"]
    result = segment([cohort], tmp_path / "out", bundle=forgiving, device="cpu", without=every, only=[CASE])
    assert list(result.failed) == [CASE]


def test_unknown_names_are_refused(cohort: Path, forgiving: Path, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="no modality dwi"):
        segment([cohort], tmp_path / "out", bundle=forgiving, device="cpu", without=["dwi"])
    with pytest.raises(PipelineError, match="no case nobody"):
        segment([cohort], tmp_path / "out", bundle=forgiving, device="cpu", only=["nobody"])


def test_volumes_page_and_report_say_what_was_missing(
    lacking: Path, cohort: Path, forgiving: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    out, report = tmp_path / "out", tmp_path / "report"
    extras = Extras(volumes=True, viewer=True, preview=True)
    segment([lacking], out, bundle=forgiving, device="cpu", allow_missing=True, only=[CASE, OTHER], extras=extras)
    volumes = json.loads((out / "volumes.json").read_text())["cases"]
    assert volumes[CASE]["missing"] == ["t1"]
    assert "missing" not in volumes[OTHER]
    pages = {name: (out / f"{name}_viewer.html").read_text() for name in (CASE, OTHER)}
    assert "segmented without t1" in pages[CASE]
    assert "segmented without" not in pages[OTHER]
    assert command("evaluate", out, cohort, "-o", report, "--rules", "brats2023-gli").code in (0, 1)
    for name in ("report.html", "report.md"):
        text = (report / name).read_text()
        assert f"{CASE} was segmented without t1" in text
        assert f"{OTHER} was segmented without" not in text
