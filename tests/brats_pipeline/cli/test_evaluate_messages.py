"""What `evaluate` says of its two sides: what their labels mean, how grids differ, and which option settles what."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

Command = Callable[..., Any]

SHAPE = (16, 16, 12)
CASES = ("BraTS2021_00001", "BraTS2021_00002")


def labels(enhancing: int) -> np.ndarray:
    """A box of oedema around one of enhancing tumour."""
    volume = np.zeros(SHAPE, np.uint8)
    volume[3:13, 3:13, 3:9] = 2
    volume[5:10, 5:10, 5:8] = enhancing
    return volume


def write(folder: Path, maps: dict[str, np.ndarray], affine: np.ndarray | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    for name, volume in maps.items():
        nib.save(nib.Nifti1Image(volume, np.eye(4) if affine is None else affine), folder / f"{name}.nii.gz")
    return folder


@pytest.fixture
def scored(command: Command, tmp_path: Path) -> Callable[..., Any]:
    """Scores predictions against references without pictures."""

    def score(predictions: Path, references: Path, *more: object) -> Any:
        return command(
            "evaluate", predictions, references, "-o", tmp_path / "out", "--no-images", "--workers", 1, *more
        )

    return score


@pytest.fixture
def references(tmp_path: Path) -> Path:
    return write(tmp_path / "references", {case_id: labels(4) for case_id in CASES})


def test_the_command_says_that_each_side_was_read_by_its_own_convention(scored, references, tmp_path):
    outcome = scored(write(tmp_path / "predictions", {case_id: labels(3) for case_id in CASES}), references)
    assert outcome.code == 0
    assert "references follow brats2017 (1 NCR/NET, 2 ED, 4 ET)" in outcome.out
    assert "their predictions brats2023 (1 NCR, 2 ED, 3 ET)" in outcome.out


def test_predictions_of_two_conventions_name_the_option_that_settles_it(scored, references, tmp_path):
    predictions = write(tmp_path / "predictions", {CASES[0]: labels(3), CASES[1]: labels(4)})
    outcome = scored(predictions, references)
    assert outcome.code == 2
    assert "--prediction-convention" in outcome.err


@pytest.mark.parametrize(
    ("side", "option"), [("predictions", "--prediction-convention"), ("references", "--convention")]
)
def test_a_label_outside_the_convention_names_the_option_of_its_side(side, option, scored, references, tmp_path):
    predictions = write(tmp_path / "predictions", {case_id: labels(4) for case_id in CASES})
    write(tmp_path / side, {CASES[0]: labels(7)})
    outcome = scored(predictions, references, "--convention", "brats2017")
    assert outcome.code == 1
    line = next(line for line in outcome.err.splitlines() if line.startswith(CASES[0]))
    assert "label 7" in line
    assert f" {option}" in line


def test_grids_that_differ_by_a_turn_alone_are_told_apart(scored, references, tmp_path):
    turn = np.deg2rad(3)
    turned = np.eye(4)
    turned[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    outcome = scored(write(tmp_path / "predictions", {case_id: labels(4) for case_id in CASES}, turned), references)
    assert outcome.code == 1
    prediction, reference = outcome.err.splitlines()[0].split("prediction ", 2)[2].split("; reference ")
    assert prediction != reference.split(";")[0]
    assert "(0.999, 0.0523, 0)" in prediction


def test_label_maps_of_other_names_are_told_how_to_be_called(scored, tmp_path):
    predictions = write(tmp_path / "predictions", {CASES[0]: labels(4)})
    outcome = scored(predictions, write(tmp_path / "references", {"patient-one": labels(4)}))
    assert outcome.code == 2
    assert f"{CASES[0]}.nii.gz" in outcome.err
    assert "patient-one.nii.gz" in outcome.err


def test_a_prediction_without_a_reference_is_said_not_to_be_scored(scored, references, tmp_path):
    predictions = write(tmp_path / "predictions", {case_id: labels(4) for case_id in (*CASES, "BraTS2021_09999")})
    outcome = scored(predictions, references)
    assert "BraTS2021_09999: is a prediction without a reference; not scored" in outcome.err
