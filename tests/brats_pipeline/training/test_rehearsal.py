"""Estimates before a training: measured on the configuration that will run, and nothing is left behind."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from brats_pipeline.cases import find_cases
from brats_pipeline.data.datalist import split_cases, write_datalist
from brats_pipeline.data.prepared import PreparedCases
from brats_pipeline.errors import PipelineError
from brats_pipeline.training import rehearsal
from brats_pipeline.training.rehearsal import Rehearsal
from brats_pipeline.training.train import rehearse_training, train

TEN_SECONDS_AN_EPOCH = Rehearsal(
    device="cpu",
    parameters=1,
    steps_per_second=2.0,
    steps_per_epoch=16,
    epochs=100,
    validation_seconds=10.0,
    validations=20,
    cases=3,
    case_bytes=300,
    cache_dir=None,
    peak_bytes=1,
)
"""8 s of steps, and 10 s of validation every fifth epoch."""


@pytest.fixture
def small(quick_settings: dict[str, Any]) -> dict[str, Any]:
    """Six epochs of three steps, two of them validated."""
    return {**quick_settings, "max_epochs": 6, "patches_per_epoch": 5, "val_interval": 4}


def test_hours_are_steps_and_validations() -> None:
    assert TEN_SECONDS_AN_EPOCH.seconds == 100 * 8 + 20 * 10


def test_a_wall_time_holds_as_many_epochs_as_fit_with_their_share_of_validation() -> None:
    assert TEN_SECONDS_AN_EPOCH.epochs_within(10) == 60
    assert replace(TEN_SECONDS_AN_EPOCH, validation_seconds=0.0).epochs_within(10) == 75
    assert TEN_SECONDS_AN_EPOCH.epochs_within(0.01) == 1


def test_the_estimate_for_a_wall_time_is_of_the_epochs_that_fit() -> None:
    within = TEN_SECONDS_AN_EPOCH.within(10)
    assert (within.epochs, within.validations, within.seconds) == (60, 12, 600)


def test_an_estimate_counts_what_is_there(small: dict[str, Any], cohort: Path, tmp_path: Path) -> None:
    said = rehearse_training(
        "brats_glioma_3d", data=cohort, folds=3, device="cpu", overrides={**small, "cache_dir": str(tmp_path)}
    )
    assert (said.cases, said.epochs, said.steps_per_epoch, said.validations) == (6, 6, 3, 2)
    assert said.steps_per_second > 0
    assert said.validation_seconds > 0
    # Phantom heads fill about half of 44 x 48 x 40; four modalities of int16 or uint8 and three regions of uint8.
    assert 6 * 7 * 44 * 48 * 40 / 8 < said.case_bytes < 6 * 11 * 44 * 48 * 40 * 1.2
    assert said.peak_bytes > 2**26
    assert said.cache_dir == str(tmp_path)
    assert "6 epochs" in "\n".join(said.lines())


def test_no_case_is_prepared_while_steps_are_timed(
    small: dict[str, Any], cohort: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    timing, prepared = [False], []
    prepare, batches = PreparedCases._prepare, rehearsal.endless_batches

    def noted(self: PreparedCases, case: int) -> Any:
        prepared.append(timing[0])
        return prepare(self, case)

    def timed(*given: Any) -> Generator[Any]:
        timing[0] = True
        try:
            yield from batches(*given)
        finally:
            timing[0] = False

    monkeypatch.setattr(PreparedCases, "_prepare", noted)
    monkeypatch.setattr(rehearsal, "endless_batches", timed)
    rehearse_training("brats_glioma_3d", data=cohort, fold=None, device="cpu", overrides=small)
    assert prepared == [False] * 3, "of six cases three, before the first step"


def test_a_dry_run_prints_the_estimate_and_leaves_nothing(
    small: dict[str, Any], command: Callable[..., Any], cohort: Path, tmp_path: Path
) -> None:
    settings = [part for name, value in small.items() for part in ("--set", f"{name}={value}")]
    done = command("train", "brats_glioma_3d", "--data", cohort, "-o", tmp_path / "run", "--dry-run", *settings)
    assert done.code == 0, done.err
    for word in ("M parameters on cpu", "a second", "6 epochs", "prepared", "GiB", " h"):
        assert word in done.out
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_for_some_minutes_tells_of_the_epochs_that_fit(
    small: dict[str, Any], command: Callable[..., Any], cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Rehearsal, "epochs_within", lambda self, minutes: 2 if minutes == 7 else 0)
    del small["max_epochs"]
    settings = [part for name, value in small.items() for part in ("--set", f"{name}={value}")]
    call = ("train", "brats_glioma_3d", "--data", cohort, "-o", tmp_path / "run", "--dry-run", "--minutes", 7)
    done = command(*call, *settings)
    assert done.code == 0, done.err
    assert "2 epochs" in done.out


@pytest.mark.parametrize(
    ("more", "refusal"),
    [
        (("--minutes", 7, "--set", "max_epochs=3"), "--minutes and --set max_epochs both say how long"),
        (("--dry-run", "--resume"), "--dry-run tells of a training that begins; leave out --resume"),
    ],
)
def test_what_would_be_ignored_is_refused(
    command: Callable[..., Any], cohort: Path, tmp_path: Path, more: tuple[object, ...], refusal: str
) -> None:
    done = command("train", "brats_glioma_3d", "--data", cohort, "-o", tmp_path / "run", *more)
    assert (done.code, refusal in done.err) == (2, True), done.err


def test_a_convention_beside_a_datalist_is_refused(cohort: Path, tmp_path: Path) -> None:
    write_datalist(split_cases(find_cases(cohort), folds=3), tmp_path / "list.json")
    for start in (rehearse_training, partial(train, out=tmp_path / "run")):
        with pytest.raises(PipelineError, match="a datalist names the label convention of its cases already"):
            start("brats_glioma_3d", datalist=tmp_path / "list.json", convention="brats2023")


def test_a_training_for_some_minutes_sets_as_many_epochs_as_fit_and_says_so(
    small: dict[str, Any], cohort: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Rehearsal, "epochs_within", lambda self, minutes: 2 if minutes == 7 else 0)
    result = train("brats_glioma_3d", tmp_path / "run", data=cohort, folds=3, device="cpu", overrides=small, minutes=7)
    assert result.epochs == 2
    assert yaml.safe_load((result.run / "configs" / "train.yaml").read_text())["max_epochs"] == 2
    assert json.loads((result.run / "run.json").read_text())["minutes"] == 7
    again = train("brats_glioma_3d", result.run, minutes=7, resume=True, device="cpu", overrides={"max_epochs": 3})
    assert again.epochs == 3
    assert json.loads((result.run / "run.json").read_text())["minutes"] == 7
    with pytest.raises(PipelineError, match="was begun with --minutes 7; leave --minutes out"):
        train("brats_glioma_3d", result.run, minutes=9, resume=True, device="cpu")


def test_what_prepared_cases_take_is_said_before_they_are_kept(
    small: dict[str, Any], cohort: Path, tmp_path: Path
) -> None:
    said: list[str] = []
    overrides = {**small, "max_epochs": 1, "cache_dir": str(tmp_path / "cache")}
    for out in ("one", "other"):
        train(
            "brats_glioma_3d",
            tmp_path / out,
            data=cohort,
            folds=3,
            device="cpu",
            overrides=overrides,
            on_note=said.append,
        )
    assert [text.split(" takes")[0] for text in said] == ["preparing 4 cases", "preparing 2 cases"]
    one, other = (torch.load(tmp_path / out / "models" / "model.pt", weights_only=True) for out in ("one", "other"))
    assert all(torch.equal(one[name], other[name]) for name in one), "cases from the cache train the same network"


def test_an_impossible_fold_is_refused_as_in_training(small: dict[str, Any], cohort: Path) -> None:
    with pytest.raises(PipelineError, match="fold"):
        rehearse_training("brats_glioma_3d", data=cohort, folds=3, fold=7, device="cpu", overrides=small)
