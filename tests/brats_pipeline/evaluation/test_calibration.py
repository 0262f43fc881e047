"""Calibration in an evaluation: found beside the predictions, written everywhere, refused in words, verified."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from brats_pipeline.errors import PipelineError
from brats_pipeline.evaluation.evaluate import Evaluation, evaluate
from brats_pipeline.evaluation.verification import verify_report
from brats_pipeline.metrics.calibration import MARGIN
from transforms.probabilities import write_probabilities

SHAPE = (30, 30, 30)
AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])
CASES = ("A", "B", "C")
REGIONS = ("TC", "WT", "ET")
FIGURES = ("calibration.png", "calibration.svg")


def labels() -> np.ndarray:
    """Three cubes in each other, of 10, 8 and 4 voxels: edema, enhancing tumour, necrosis."""
    found = np.zeros(SHAPE, np.uint8)
    for inset, value in ((10, 2), (11, 4), (13, 1)):
        found[inset:-inset, inset:-inset, inset:-inset] = value
    return found


def probabilities() -> np.ndarray:
    """Nine in ten inside each region, nothing outside."""
    masks = [np.isin(labels(), values) for values in ([1, 4], [1, 2, 4], [4])]
    return np.stack(masks).astype(np.float32) * 0.875  # exact in float16


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """References, perfect predictions, and probabilities for all three cases."""
    for folder in ("references", "predictions"):
        (tmp_path / folder).mkdir()
        for case_id in CASES:
            nib.save(nib.Nifti1Image(labels(), AFFINE), tmp_path / folder / f"{case_id}.nii.gz")
    for case_id in CASES:
        save(tmp_path, case_id)
    return tmp_path


def save(tree: Path, case_id: str, values: np.ndarray | None = None, **arguments: Any) -> None:
    arguments = {"regions": REGIONS, "affine": AFFINE, **arguments}
    held = probabilities() if values is None else values
    write_probabilities(tree / "predictions" / "probabilities" / f"{case_id}.npz", held, **arguments)


def run(tree: Path, **options: Any) -> Evaluation:
    options = {"images": False, **options}
    return evaluate(tree / "predictions", tree / "references", tree / "out", convention="brats2017", **options)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Most of the time of an evaluation goes into figures that a test does not look at."""
    monkeypatch.setattr("brats_pipeline.evaluation.evaluate.write_report", lambda *arguments, **named: [])


def summary(tree: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((tree / "out" / "summary.json").read_text())
    return found


@pytest.mark.usefixtures("undrawn")
def test_figures_counted_by_hand_are_in_the_tables(tree: Path) -> None:
    run(tree)
    near, inside = (10 + 2 * MARGIN) ** 3, 10**3
    found = summary(tree)["calibration"]
    whole = found["regions"]["WT"]
    assert list(found["regions"]) == ["WT", "TC", "ET"]
    assert (whole["n"], whole["voxels"]) == (3, 3 * near)
    assert whole["ece"] == pytest.approx(0.125 * inside / near)
    assert whole["mce"] == pytest.approx(0.125)
    assert whole["brier"] == pytest.approx(0.125**2 * inside / near)
    assert whole["ece_per_case"]["mean"] == pytest.approx(whole["ece"])
    assert [each["voxels"] for each in whole["bins"] if each["voxels"]] == [3 * (near - inside), 3 * inside]
    assert found["without"] == {}
    with (tree / "out" / "calibration.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["case_id"], row["region"]) for row in rows[:4]] == [("A", "WT"), ("A", "TC"), ("A", "ET"), ("B", "WT")]
    assert rows[0]["voxels"] == str(near)
    assert float(rows[0]["ece"]) == pytest.approx(0.125 * inside / near, abs=1e-6)


def test_the_report_has_a_section_with_a_diagram_for_every_region(tree: Path) -> None:
    run(tree)
    for name in ("report.html", "report.md"):
        text = (tree / "out" / name).read_text()
        assert text.count("Calibration") == 1, name
        assert "Voxels at most 5 voxels along every axis" in text
    html = (tree / "out" / "report.html").read_text()
    assert 'alt="Reliability diagram of every region"' in html
    assert "take part" not in html, "nobody is left out"
    assert {path.name for path in (tree / "out" / "figures").glob("cal*")} == set(FIGURES)


def test_nothing_appears_where_no_probabilities_are_and_nothing_stays_of_earlier_ones(tree: Path) -> None:
    run(tree)
    assert all(
        (tree / "out" / name).is_file() for name in ("calibration.csv", *(f"figures/{name}" for name in FIGURES))
    )
    shutil.rmtree(tree / "predictions" / "probabilities")
    assert run(tree).calibration is None
    assert "calibration" not in summary(tree)
    assert not [path for path in (tree / "out").rglob("*") if "calibration" in path.name]
    for name in ("report.html", "report.md"):
        assert "alibration" not in (tree / "out" / name).read_text()


@pytest.mark.usefixtures("undrawn")
def test_false_leaves_them_out_and_a_folder_elsewhere_is_taken(tree: Path) -> None:
    assert run(tree, probabilities=False).calibration is None
    shutil.move(tree / "predictions" / "probabilities", tree / "elsewhere")
    found = run(tree, probabilities=tree / "elsewhere").calibration
    assert found is not None
    assert found.regions["WT"].n == 3


@pytest.mark.usefixtures("undrawn")
def test_more_processes_give_the_same_files(tree: Path) -> None:
    run(tree)
    alone = {name: (tree / "out" / name).read_bytes() for name in ("calibration.csv", "summary.json")}
    run(tree, workers=2)
    assert alone == {name: (tree / "out" / name).read_bytes() for name in alone}


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"values": probabilities()[:, :-1]}, "the probabilities have shape (29, 30, 30), the reference (30, 30, 30)"),
        ({"values": probabilities() * 3}, "values from 0 to 2.625"),
        ({"values": np.full((3, *SHAPE), np.nan)}, "holds NaN"),
        ({"regions": ("a", "b", "c")}, "the probabilities are of a, b, c; scored are WT, TC, ET"),
        ({"affine": AFFINE * 2}, "lie on another grid"),
    ],
)
def test_a_file_that_cannot_be_used_costs_its_case_alone_and_is_said(
    tree: Path, change: dict[str, Any], words: str
) -> None:
    save(tree, "B", **change)
    evaluation = run(tree)
    assert evaluation.complete, "the label maps can be scored"
    assert evaluation.calibration is not None
    assert words in evaluation.calibration.without["B"]
    assert {found.n for found in evaluation.calibration.regions.values()} == {2}
    assert summary(tree)["calibration"]["without"].keys() == {"B"}


@pytest.mark.usefixtures("undrawn")
def test_a_case_without_probabilities_or_without_a_label_map_takes_no_part(tree: Path) -> None:
    (tree / "predictions" / "probabilities" / "A.npz").unlink()
    (tree / "predictions" / "B.nii.gz").unlink()
    found = run(tree).calibration
    assert found is not None
    assert found.without == {
        "A": "no probabilities",
        "B": "has no label map that could be scored beside its probabilities",
    }
    assert found.regions["WT"].n == 1


def test_regions_and_cases_without_probabilities_are_named_in_the_report(tree: Path) -> None:
    (tree / "predictions" / "probabilities" / "C.npz").unlink()
    for case_id in ("A", "B"):
        save(tree, case_id, probabilities()[1:], regions=("WT", "ET"))
    found = run(tree).calibration
    assert found is not None
    assert list(found.regions) == ["WT", "ET"]
    for name in ("report.html", "report.md"):
        text = (tree / "out" / name).read_text()
        assert "No probabilities of TC." in text
        assert "2 of 3 cases take part. Left out: C: no probabilities." in text


def test_a_case_that_cannot_be_scored_is_not_taken_off_those_that_take_part(tree: Path) -> None:
    nib.save(nib.Nifti1Image(np.full(SHAPE, 9, np.uint8), AFFINE), tree / "references" / "B.nii.gz")
    run(tree)
    assert (
        "2 of 2 cases take part. Left out: B: its reference cannot be used" in (tree / "out" / "report.md").read_text()
    )


def test_where_no_file_can_be_used_the_report_says_so_and_draws_nothing(tree: Path) -> None:
    for path in (tree / "predictions" / "probabilities").iterdir():
        path.write_bytes(b"no archive")
    run(tree)
    assert "0 of 3 cases take part" in (tree / "out" / "report.html").read_text()
    assert not list((tree / "out" / "figures").glob("cal*"))
    assert "figures/calibration.png" not in json.loads((tree / "out" / "manifest.json").read_text())["outputs"]


@pytest.mark.usefixtures("undrawn")
def test_a_folder_without_probabilities_that_was_asked_for_is_refused(tree: Path) -> None:
    (tree / "empty").mkdir()
    with pytest.raises(PipelineError, match=r"such as A\.npz, and the folder holds none"):
        run(tree, probabilities=tree / "empty")
    assert not (tree / "out").exists()


@pytest.mark.usefixtures("undrawn")
def test_the_command_takes_a_folder_and_names_who_is_left_out(tree: Path, command: Callable[..., Any]) -> None:
    shutil.move(tree / "predictions" / "probabilities", tree / "elsewhere")
    (tree / "elsewhere" / "C.npz").unlink()
    arguments = ("evaluate", tree / "predictions", tree / "references", "-o", tree / "out", "--no-images")
    outcome = command(*arguments, "--convention", "brats2017", "--probabilities", tree / "elsewhere", "--workers", "1")
    assert outcome.code == 0
    assert "C: takes no part in the calibration: no probabilities" in outcome.err


def test_verification_holds_and_finds_an_edited_figure_and_changed_probabilities(tree: Path) -> None:
    run(tree)
    assert verify_report(tree / "out").holds
    manifest = json.loads((tree / "out" / "manifest.json").read_text())
    assert manifest["probabilities"]["A"].keys() == {"../predictions/probabilities/A.npz"}
    assert {"calibration.csv", *(f"figures/{name}" for name in FIGURES)} <= manifest["outputs"].keys()
    save(tree, "A", probabilities() / 2)
    table = tree / "out" / "calibration.csv"
    table.write_text(table.read_text().replace("B,WT,8000,0.015625", "B,WT,8000,0.01"))
    found = verify_report(tree / "out")
    told = "was changed after manifest.json was written"
    assert found.files == (
        f"A: file of probabilities ../predictions/probabilities/A.npz {told}",
        f"calibration.csv {told}",
    )
    assert "calibration.csv, B WT: ece is 0.01, the predictions give 0.015625" in found.figures
    assert any(sentence.startswith("calibration.csv, A WT: ece is ") for sentence in found.figures)
    assert any("summary.json, calibration.regions.WT.ece is " in sentence for sentence in found.figures)


@pytest.mark.usefixtures("undrawn")
def test_probabilities_saved_after_a_report_leave_it_true(tree: Path) -> None:
    run(tree, probabilities=False)
    assert verify_report(tree / "out").holds
