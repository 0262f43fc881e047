"""Small synthetic cohorts, a run trained on one of them in seconds, and the command line called in this process."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

SPACING_MM = 4.0
TINY: dict[str, Any] = {
    "spacing": [SPACING_MM] * 3,
    "patch_size": [32, 32, 32],
    "roi_size": [32, 32, 32],
    "network_def::features": 8,
    "network_def::depth": 2,
    "learning_rate": 0.01,
    "max_epochs": 4,
    "patches_per_epoch": 8,
    "val_interval": 2,
    "modality_dropout": 0.0,
    "precision": "float32",
}
"""Overrides with which the bundle trains in seconds on cohorts of :func:`write_small_cohort`."""

FOLDS = 3
QUICK: dict[str, Any] = {
    "spacing": [SPACING_MM] * 3,
    "patch_size": [16] * 3,
    "roi_size": [32] * 3,
    "network_def::features": 4,
    "network_def::norm": "instance",
    "network_def::depth": 1,
    "max_epochs": 2,
    "patches_per_epoch": 2,
    "val_interval": 1,
    "precision": "float32",
}
"""A training of a second or two, for what does not need a network that has learned."""


@dataclass(frozen=True)
class Outcome:
    """What a command came to."""

    code: int
    out: str
    err: str


def write_small_cohort(out: Path, **arguments: Any) -> Path:
    """A cohort whose heads are some 40 voxels wide."""
    from brats_pipeline.phantom import write_cohort

    write_cohort(out, shape=(44, 48, 40), spacing_mm=SPACING_MM, **{"cases": 6, **arguments})
    return out


@pytest.fixture(scope="session")
def make_cohort(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a small cohort, once per session for the same arguments; tests must not change it."""

    @cache
    def make(**arguments: Any) -> Path:
        return write_small_cohort(tmp_path_factory.mktemp("cohort") / "cohort", **arguments)

    return make


@pytest.fixture(scope="session")
def cohort(make_cohort: Callable[..., Path]) -> Path:
    """Six cases in the naming of 2021; tests must not change it."""
    return make_cohort()


@pytest.fixture
def own_cohort(cohort: Path, tmp_path: Path) -> Path:
    """A copy of ``cohort`` that a test may spoil."""
    return shutil.copytree(cohort, tmp_path / "own cohort")


@pytest.fixture
def quick_settings() -> dict[str, Any]:
    """A copy of :data:`QUICK`."""
    return dict(QUICK)


@pytest.fixture(scope="session")
def quick() -> Callable[..., Path]:
    """Trains a run with :data:`QUICK` and what else is given; returns its folder."""
    from brats_pipeline.training.train import train

    def make(out: Path, cohort: Path, **arguments: Any) -> Path:
        overrides = {**QUICK, **arguments.pop("overrides", {})}
        given = {"data": cohort, "folds": FOLDS, "device": "cpu", **arguments}
        return train("brats_glioma_3d", out, overrides=overrides, **given).run

    return make


@pytest.fixture(scope="session")
def run(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run trained on ``cohort``: it has learned a little, and must not be changed."""
    from brats_pipeline.training.train import train

    return train(
        "brats_glioma_3d",
        tmp_path_factory.mktemp("train") / "run",
        data=cohort,
        folds=FOLDS,
        device="cpu",
        overrides=TINY,
    ).run


@pytest.fixture(scope="session")
def predictions(run: Path, cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Label maps of all of ``cohort`` by ``run``; must not be changed."""
    from brats_pipeline.inference.segment import segment

    return segment([cohort], tmp_path_factory.mktemp("segment") / "predictions", bundle=run, device="cpu").out


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """Calls the command line in this process; log messages reach standard error as they do for a user."""
    from brats_pipeline.cli import run as run_command

    def call(*arguments: object) -> Outcome:
        capsys.readouterr()
        root = logging.getLogger()
        handlers, root.handlers = root.handlers, []  # pytest's own would swallow what a user sees
        try:
            code = run_command([str(argument) for argument in arguments])
        finally:
            root.handlers = handlers
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return call


@pytest.fixture(scope="session")
def python() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the interpreter in a process of its own, away from the clone."""

    def call(arguments: Sequence[object], *, cwd: Path, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *map(str, arguments)],
            cwd=cwd,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
        )

    return call


def as_settings(overrides: dict[str, Any]) -> list[str]:
    """Overrides as ``--set`` arguments of the command line."""
    return [argument for name, value in overrides.items() for argument in ("--set", f"{name}={value}")]
