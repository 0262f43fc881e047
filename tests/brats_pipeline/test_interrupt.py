"""Ctrl-C and kill: what was finished stays whole, and a second call completes the rest."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from brats_pipeline.errors import was_interrupted

TIMEOUT_S = 120


def start(*arguments: object, cwd: Path) -> subprocess.Popen[str]:
    """The command line in a process of its own that Ctrl-C reaches, whatever started the tests."""
    return subprocess.Popen(
        [sys.executable, "-m", "brats_pipeline", *map(str, arguments)],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )


def send_when(process: subprocess.Popen[str], condition: Callable[[], bool], number: int) -> tuple[int, str]:
    """Send a signal as soon as something has happened; returns the exit code and standard error."""
    deadline = time.monotonic() + TIMEOUT_S
    try:
        while not condition():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.kill(process.pid, number)
        _, err = process.communicate(timeout=TIMEOUT_S)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    return process.returncode, err


def settings_of(run: Path) -> list[str]:
    overrides: dict[str, Any] = json.loads((run / "run.json").read_text())["overrides"]
    named = ((name, value) for name, value in overrides.items() if name not in ("seed", "fold"))
    return [argument for name, value in named for argument in ("--set", f"{name}={json.dumps(value)}")]


def curves(run: Path) -> list[dict[str, str]]:
    with (run / "curves.csv").open(newline="") as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def assert_same_weights(one: Path, other: Path) -> None:
    for name in ("model.pt", "last.pt"):
        first, second = (torch.load(run / "models" / name, weights_only=True) for run in (one, other))
        first, second = first.get("network", first), second.get("network", second)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first), name


def test_ctrl_c_in_mid_cohort_keeps_finished_cases_and_a_second_call_completes(
    cohort: Path, run: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    cases = tmp_path / "cases"
    cases.mkdir()
    for folder in sorted(cohort.iterdir())[:4]:
        shutil.copytree(folder, cases / folder.name)
    out = tmp_path / "out"
    # Windows that overlap as much as this take half a second a case: time to press Ctrl-C.
    arguments = ("segment", cases, "-o", out, "--bundle", run, "--device", "cpu", "--set", "overlap=0.85")
    process = start(*arguments, cwd=tmp_path)
    code, err = send_when(process, lambda: any(out.glob("*.nii.gz")), signal.SIGINT)
    assert code == 130, err
    assert err.startswith("interrupted; what was finished is kept")
    assert len(err.splitlines()) == 1
    finished = {path.name: path.read_bytes() for path in out.glob("*.nii.gz")}
    assert 1 <= len(finished) < 4
    assert {path.name for path in out.iterdir()} == {*finished, "run.json"}
    for name in finished:
        assert np.asarray(nib.load(out / name).dataobj).dtype == np.uint8
    assert set(json.loads((out / "run.json").read_text())["cases"]) <= {name.split(".")[0] for name in finished}
    again = command(*arguments)
    assert again.code == 0
    assert f"{4 - len(finished)} cases segmented, {len(finished)} were there already" in again.out
    assert {path.name for path in out.glob("*.nii.gz")} == {f"{path.name}.nii.gz" for path in cases.iterdir()}
    assert all((out / name).read_bytes() == content for name, content in finished.items())
    whole = command("segment", cases, "-o", tmp_path / "whole", *arguments[4:])
    assert whole.code == 0
    for path in out.glob("*.nii.gz"):
        assert path.read_bytes() == (tmp_path / "whole" / path.name).read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["Ctrl-C", "kill"])
def test_a_training_that_was_stopped_continues_as_if_it_had_not_been(
    number: int, cohort: Path, run: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    stopped = tmp_path / "run"
    arguments = ("train", "brats_glioma_3d", "--data", cohort, "--folds", 3, "-o", stopped, "--device", "cpu")
    process = start(*arguments, *settings_of(run), cwd=tmp_path)
    code, err = send_when(process, (stopped / "curves.csv").is_file, number)
    assert code == (130 if number == signal.SIGINT else -signal.SIGKILL), err
    epochs = int(torch.load(stopped / "models" / "last.pt", weights_only=True)["epoch"])
    assert 1 <= epochs < 4
    if number == signal.SIGINT:
        assert "interrupted" in err
        assert "--resume" in err
        assert len(err.splitlines()) == 1
        assert json.loads((stopped / "run.json").read_text())["status"] == "interrupted"
    refused = command(*arguments)
    assert refused.code == 2
    assert "--resume" in refused.err
    resumed = command("train", "brats_glioma_3d", "-o", stopped, "--resume", "--device", "cpu")
    assert resumed.code == 0, resumed.err
    assert_same_weights(stopped, run)
    assert curves(stopped) == curves(run)
    record = json.loads((stopped / "run.json").read_text())
    assert (record["status"], record["epochs"], record["resumed"]) == ("finished", 4, True)
    assert record["overrides"] == json.loads((run / "run.json").read_text())["overrides"]


def test_an_interrupt_that_a_layer_made_another_error_of_is_one_still(
    cohort: Path, run: Path, command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from brats_pipeline.training.losses import DiceBCELoss

    def stop(*_: Any) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as interrupt:
            raise RuntimeError("cannot schedule new futures after shutdown") from interrupt

    monkeypatch.setattr(DiceBCELoss, "forward", stop)
    stopped = tmp_path / "run"
    arguments = ("train", "brats_glioma_3d", "--data", cohort, "--folds", 3, "-o", stopped, "--device", "cpu")
    with_settings = command(*arguments, *settings_of(run))
    assert with_settings.code == 130
    assert with_settings.err.startswith("interrupted; what was finished is kept")
    assert "error" not in with_settings.err


def test_errors_that_caused_each_other_are_no_interrupt_and_no_endless_search() -> None:
    first, second = RuntimeError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    assert not was_interrupted(first)
    second.__cause__ = KeyboardInterrupt()
    assert was_interrupted(first)
