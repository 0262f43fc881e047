"""Curves in other tools: what arrives there is what curves.csv says, and it stays inside the run."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from brats_pipeline.errors import PipelineError
from brats_pipeline.training import tracking
from brats_pipeline.training.tracking import Tracker


def tracked(toy: Callable[..., Any], tool: str, folder: Path) -> Any:
    training = toy(epochs=2, out=folder, handlers=(Tracker(tool, run_dir=folder),))
    Tracker(tool, run_dir=folder).attach(training.evaluator)
    training.run()
    return training.recorder.history


def test_tensorboard_holds_the_curves(toy: Callable[..., Any], tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    history = tracked(toy, "tensorboard", tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    for name, column in (("val_mean_dice", "val_dice"), ("val_loss", "val_loss"), ("train_mean_dice", "train_dice")):
        scalars = events.Scalars(name)
        assert [scalar.step for scalar in scalars] == [1, 2], name
        assert [scalar.value for scalar in scalars] == pytest.approx([row[column] for row in history])
    steps = [scalar.value for scalar in events.Scalars("step_loss")]
    assert [sum(steps[:2]) / 2, sum(steps[2:]) / 2] == pytest.approx([row["loss"] for row in history])


# 2026-11: MLflow 3 and what it imports warn of each other while they are imported.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_mlflow_holds_the_curves_in_a_database_inside_the_run(
    toy: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    history = tracked(toy, "mlflow", tmp_path / "run")
    with sqlite3.connect(tmp_path / "run" / "mlflow.db") as database:
        rows = database.execute("select key, step, value from metrics order by key, step").fetchall()
    for name, column in (("val_mean_dice", "val_dice"), ("val_loss", "val_loss"), ("train_mean_dice", "train_dice")):
        assert [(step, value) for key, step, value in rows if key == name] == [
            (row["epoch"], pytest.approx(row[column])) for row in history
        ]
    assert not list(elsewhere.iterdir())


def test_a_tool_that_is_not_installed_is_named_with_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda _: None)
    with pytest.raises(PipelineError, match=r"mlflow, which is not installed; .*brats-pipeline\[tracking\]"):
        Tracker("mlflow", run_dir="run")


def test_an_unknown_tool_is_refused() -> None:
    with pytest.raises(ValueError, match="tracking is 'wandb'; known: tensorboard, mlflow"):
        Tracker("wandb", run_dir="run")
