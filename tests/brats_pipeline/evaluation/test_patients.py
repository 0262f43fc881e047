"""A table says which cases are one patient: intervals draw whole patients, and the report can still be made again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from brats_pipeline.errors import PipelineError
from brats_pipeline.evaluation.evaluate import Evaluation, evaluate
from brats_pipeline.evaluation.verification import verify_report
from brats_pipeline.metrics import bootstrap_interval

SHAPE = (20, 20, 12)
CASES = [f"BraTS2021_0000{number}" for number in range(1, 7)]
OWNERS = dict(zip(CASES, ["a", "a", "b", "b", "c", "c"], strict=True))
Command = Callable[..., Any]


@pytest.fixture
def sides(tmp_path: Path) -> tuple[Path, Path]:
    """Predictions and references of six cases; names tell six patients, and predictions differ from case to case."""
    reference = np.zeros(SHAPE, np.uint8)
    reference[4:14, 4:14, 3:9] = 4
    for number, case_id in enumerate(CASES):
        prediction = reference.copy()
        prediction[: 4 + 3 * (number // 2) + number % 2] = 0
        for side, labels in (("references", reference), ("predictions", prediction)):
            (tmp_path / side).mkdir(exist_ok=True)
            nib.save(nib.Nifti1Image(labels, np.eye(4)), tmp_path / side / f"{case_id}.nii.gz")
    return tmp_path / "predictions", tmp_path / "references"


def table(path: Path, owners: dict[str, str]) -> Path:
    path.write_text("case_id,patient_id\n" + "".join(f"{case},{patient}\n" for case, patient in owners.items()))
    return path


def interval(evaluation: Evaluation) -> tuple[float, float]:
    told = evaluation.regions[0].metrics["dice"].mean_interval_95
    assert told is not None
    return told


def test_intervals_draw_the_patients_of_the_table(sides, tmp_path):
    alone = evaluate(*sides, tmp_path / "alone", images=False)
    joined = evaluate(*sides, tmp_path / "joined", images=False, patients=table(tmp_path / "patients.csv", OWNERS))
    values = [row.dice for row in joined.scores if row.region == "WT"]
    assert interval(joined) == pytest.approx(bootstrap_interval(values, patients=list(OWNERS.values())))
    assert interval(alone) == pytest.approx(bootstrap_interval(values))
    assert interval(joined) != interval(alone)
    told = {
        name: json.loads((tmp_path / name / "summary.json").read_text())["intervals"] for name in ("alone", "joined")
    }
    assert (told["alone"]["drawn"], told["alone"]["patients"]) == ("case", 6)
    assert (told["joined"]["drawn"], told["joined"]["patients"], told["joined"]["cases"]) == ("patient", 3, 6)
    assert "3 patients with 6 time points" in (tmp_path / "joined" / "report.html").read_text()


def test_a_report_with_a_table_of_patients_holds_until_the_table_changes(sides, tmp_path):
    path = table(tmp_path / "patients.csv", OWNERS)
    evaluate(*sides, tmp_path / "out", images=False, patients=path)
    assert verify_report(tmp_path / "out").holds
    table(path, OWNERS | {CASES[1]: "b"})
    found = verify_report(tmp_path / "out")
    assert found.files == ("table of patients ../patients.csv was changed after manifest.json was written",)
    assert any(sentence.startswith("summary.json, ") for sentence in found.figures)


def test_a_table_that_names_a_case_which_is_not_there_is_refused_before_the_work(sides, tmp_path):
    path = table(tmp_path / "patients.csv", OWNERS | {"BraTS2021_09999": "z"})
    with pytest.raises(PipelineError, match="lists BraTS2021_09999, and no such case is there"):
        evaluate(*sides, tmp_path / "out", images=False, patients=path)
    assert not (tmp_path / "out").exists()


def test_a_table_may_list_cases_that_are_left_out_of_the_fold(sides, tmp_path):
    path = table(tmp_path / "patients.csv", OWNERS)
    evaluation = evaluate(*sides, tmp_path / "out", images=False, patients=path, only=CASES[:2])
    assert set(evaluation.patients.values()) == {"a"}


def test_the_command_takes_the_table(sides, tmp_path, command: Command):
    path = table(tmp_path / "patients.csv", OWNERS)
    outcome = command("evaluate", *sides, "-o", tmp_path / "out", "--no-images", "--workers", 1, "--patients", path)
    assert outcome.code == 0
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["intervals"]["patients"] == 3
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["call"]["patients"] == "../patients.csv"
