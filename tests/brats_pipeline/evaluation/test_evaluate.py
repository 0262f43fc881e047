"""A cohort is scored: pairs, conventions, misses, refusals, files."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from brats_pipeline.errors import PipelineError
from brats_pipeline.evaluation.evaluate import Evaluation, evaluate
from brats_pipeline.metrics import COLUMNS

SHAPE = (24, 26, 20)
AFFINE = np.diag([-1.0, -1.0, 1.5, 1.0])


def tumour(centre: tuple[int, int, int] = (12, 13, 10), enhancing: int = 4) -> np.ndarray:
    """Nested balls: edema 2, core 1, enhancing tumour."""
    grid = np.indices(SHAPE).transpose(1, 2, 3, 0)
    distance = np.linalg.norm(grid - np.array(centre), axis=-1)
    labels = np.zeros(SHAPE, np.uint8)
    for radius, value in ((7, 2), (5, enhancing), (2, 1)):
        labels[distance <= radius] = value
    return labels


def save(path: Path, data: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(data, affine), path)
    return path


def write_dataset(root: Path, labels: dict[str, np.ndarray]) -> Path:
    """A dataset in the naming of 2021 with smooth noise for scans."""
    random = np.random.default_rng(0)
    for case_id, label in labels.items():
        for modality in ("t1", "t1ce", "t2", "flair"):
            scan = (random.normal(300, 30, SHAPE) + 100 * (label > 0)).astype(np.int16)
            scan[:2] = scan[-2:] = 0
            save(root / case_id / f"{case_id}_{modality}.nii.gz", scan)
        save(root / case_id / f"{case_id}_seg.nii.gz", label)
    return root


def write_maps(root: Path, labels: dict[str, np.ndarray], affine: np.ndarray = AFFINE) -> Path:
    for case_id, label in labels.items():
        save(root / f"{case_id}.nii.gz", label, affine)
    return root


A, B, C = "BraTS2021_00001", "BraTS2021_00002", "BraTS2021_00003"


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "data", {A: tumour(), B: tumour((11, 12, 9)), C: tumour((13, 12, 10))})


def run(tmp_path: Path, predictions: Path, references: Path, **options) -> Evaluation:
    options.setdefault("images", False)
    return evaluate(predictions, references, tmp_path / "out", **options)


def dice(evaluation: Evaluation) -> dict[tuple[str, str], float]:
    return {(row.case_id, row.region): row.dice for row in evaluation.scores}


def test_perfect_predictions_score_one_and_zero(tmp_path, dataset):
    predictions = write_maps(tmp_path / "pred", {A: tumour(), B: tumour((11, 12, 9)), C: tumour((13, 12, 10))})
    evaluation = run(tmp_path, predictions, dataset)
    assert evaluation.complete
    assert [(row.case_id, row.region) for row in evaluation.scores] == [
        (case_id, region) for case_id in (A, B, C) for region in ("WT", "TC", "ET")
    ]
    assert {(row.dice, row.hd95_mm) for row in evaluation.scores} == {(1.0, 0.0)}


def test_a_shifted_prediction_is_measured_in_millimetres(tmp_path, dataset):
    predictions = write_maps(tmp_path / "pred", {A: np.roll(tumour(), 3, axis=2)})
    evaluation = run(tmp_path, predictions, dataset, only=[A])
    whole = evaluation.scores[0]
    assert whole.reference_ml == pytest.approx(int((tumour() > 0).sum()) * 1.5 / 1000)
    assert 0 < whole.dice < 1
    # A ball moved by 4.5 mm: near its poles the surfaces are that far apart, nowhere farther.
    assert 3 < whole.hd95_mm <= 4.5


def test_a_missing_prediction_is_a_miss_and_is_named(tmp_path, dataset):
    predictions = write_maps(tmp_path / "pred", {A: tumour(), C: tumour((13, 12, 10))})
    evaluation = run(tmp_path, predictions, dataset)
    assert evaluation.missing == (B,)
    assert not evaluation.complete
    scores = dice(evaluation)
    assert [scores[B, region] for region in ("WT", "TC", "ET")] == [0, 0, 0]
    whole = evaluation.regions[0]
    assert (whole.n, whole.metrics["dice"].mean) == (3, pytest.approx(2 / 3))
    assert whole.metrics["hd95_mm"].mean == pytest.approx(374 / 3)


def test_predictions_of_unknown_cases_are_listed(tmp_path, dataset):
    predictions = write_maps(tmp_path / "pred", {A: tumour(), "BraTS2021_09999": tumour()})
    assert run(tmp_path, predictions, dataset).unmatched == ("BraTS2021_09999",)


def test_a_fold_is_scored_without_the_others(tmp_path, dataset):
    predictions = write_maps(tmp_path / "pred", {A: tumour(), B: tumour((11, 12, 9))})
    evaluation = run(tmp_path, predictions, dataset, only=[B])
    assert {row.case_id for row in evaluation.scores} == {B}
    assert (evaluation.missing, evaluation.unmatched) == ((), ())
    with pytest.raises(PipelineError, match="no label map for nobody"):
        run(tmp_path, predictions, dataset, only=[B, "nobody"])


def test_a_grid_moved_by_one_voxel_is_refused_with_both_grids(tmp_path, dataset):
    moved = AFFINE.copy()
    moved[2, 3] = 1.5
    predictions = write_maps(tmp_path / "pred", {A: tumour()}, moved)
    write_maps(predictions, {B: tumour((11, 12, 9))})
    evaluation = run(tmp_path, predictions, dataset, only=[A, B])
    assert list(evaluation.failed) == [A]
    assert "origin (0, 0, 1.5)" in evaluation.failed[A]
    assert "origin (0, 0, 0)" in evaluation.failed[A]
    assert dice(evaluation)[A, "WT"] == 0
    assert dice(evaluation)[B, "WT"] == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (lambda path: path.write_bytes(b"no scan"), "no NIfTI file"),
        (lambda path: save(path, np.full(SHAPE, 0.5, np.float32)), "holds the value 0.5"),
        (lambda path: save(path, np.full(SHAPE, np.nan, np.float32)), "holds the value nan"),
        (lambda path: save(path, np.full(SHAPE, 7, np.uint8)), "holds the label 7"),
        (lambda path: save(path, np.full(SHAPE, 300, np.int16)), "holds the value 300"),
        (lambda path: save(path, np.full(SHAPE, -1, np.int16)), "holds the value -1"),
        (lambda path: save(path, np.ones((*SHAPE, 2), np.uint8)), "has three axes"),
    ],
)
def test_an_unusable_prediction_is_a_miss_and_the_others_go_on(tmp_path, dataset, content, reason):
    predictions = write_maps(tmp_path / "pred", {B: tumour((11, 12, 9))})
    content(predictions / f"{A}.nii.gz")
    evaluation = run(tmp_path, predictions, dataset, only=[A, B])
    assert reason in evaluation.failed[A]
    assert dice(evaluation)[A, "WT"] == 0
    assert dice(evaluation)[B, "WT"] == 1


def test_a_reference_with_a_foreign_label_is_not_scored_but_named(tmp_path, dataset):
    save(dataset / A / f"{A}_seg.nii.gz", np.full(SHAPE, 7, np.uint8))
    predictions = write_maps(tmp_path / "pred", {A: tumour(), B: tumour((11, 12, 9))})
    evaluation = run(tmp_path, predictions, dataset, only=[A, B])
    assert "7" in evaluation.failed[A]
    assert {row.case_id for row in evaluation.scores} == {B}


def test_enhancing_tumour_may_be_four_on_one_side_and_three_on_the_other(tmp_path, dataset):
    predictions = write_maps(
        tmp_path / "pred",
        # One of them holds no enhancing tumour: the cohort decides, not the case.
        {
            A: tumour(enhancing=3),
            B: np.minimum(tumour((11, 12, 9), enhancing=2), 2),
            C: tumour((13, 12, 10), enhancing=3),
        },
    )
    evaluation = run(tmp_path, predictions, dataset)
    assert evaluation.conventions == {"brats2017": "brats2023"}
    assert dice(evaluation)[A, "ET"] == 1
    assert dice(evaluation)[C, "ET"] == 1
    assert dice(evaluation)[B, "ET"] == 0


def test_predictions_in_two_conventions_are_refused(tmp_path, dataset):
    predictions = write_maps(tmp_path / "pred", {A: tumour(enhancing=3), B: tumour((11, 12, 9), enhancing=4)})
    with pytest.raises(PipelineError, match=f"label 3, in {A}(.|\n)*label 4, in {B}"):
        run(tmp_path, predictions, dataset)
    assert not (tmp_path / "out").exists()


def test_references_may_be_a_bare_folder_of_label_maps(tmp_path):
    references = write_maps(tmp_path / "references", {A: tumour(enhancing=3), B: tumour((11, 12, 9), enhancing=3)})
    predictions = write_maps(tmp_path / "pred", {A: tumour(), B: tumour((11, 12, 9))})
    evaluation = run(tmp_path, predictions, references, images=True)
    assert evaluation.conventions == {"brats2023": "brats2017"}
    assert set(dice(evaluation).values()) == {1.0}
    assert "No pictures" in (tmp_path / "out" / "report.html").read_text()


def test_a_region_that_a_convention_lacks_is_refused(tmp_path, dataset):
    predictions = write_maps(tmp_path / "pred", {A: tumour()})
    with pytest.raises(PipelineError, match="lgg has no TC, ET"):
        run(tmp_path, predictions, dataset, prediction_convention="lgg")
    with pytest.raises(PipelineError, match="unknown label convention 'brats1999'"):
        run(tmp_path, predictions, dataset, prediction_convention="brats1999")


def test_folders_that_do_not_belong_together_are_refused(tmp_path, dataset):
    predictions = write_maps(tmp_path / "pred", {"somebody": tumour()})
    with pytest.raises(PipelineError, match=rf"such as {A}\.nii\.gz, and the folder holds somebody\.nii\.gz"):
        run(tmp_path, predictions, dataset)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(PipelineError, match="holds no NIfTI file"):
        run(tmp_path, tmp_path / "nothing", dataset)
    with pytest.raises(PipelineError, match="does not exist"):
        run(tmp_path, tmp_path / "nowhere", dataset)


def test_two_files_for_one_case_are_refused(tmp_path, dataset):
    predictions = write_maps(tmp_path / "pred", {A: tumour()})
    save(predictions / f"{A}.nii", tumour())
    with pytest.raises(PipelineError, match=f"two files for {A}"):
        run(tmp_path, predictions, dataset)


def test_an_out_folder_that_cannot_be_made_is_refused_before_the_work(tmp_path, dataset):
    predictions = write_maps(tmp_path / "pred", {A: tumour()})
    (tmp_path / "out").write_text("a file stands here")
    seen: list[str] = []
    with pytest.raises(PipelineError, match="cannot be made"):
        run(tmp_path, predictions, dataset, on_case=seen.append)
    assert seen == []


def test_unknown_rules_list_the_known_ones(tmp_path, dataset):
    with pytest.raises(ValueError, match="brats2023-gli"):
        run(tmp_path, dataset, dataset, rules="brats1999")


def test_tables_have_the_agreed_columns_and_leave_undefined_cells_empty(tmp_path, dataset):
    predictions = write_maps(tmp_path / "pred", {A: tumour()})
    run(tmp_path, predictions, dataset, only=[A, B])
    with (tmp_path / "out" / "cases.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [row["case_id"] for row in rows] == [A] * 3 + [B] * 3
    assert rows[0]["dice"] == "1"
    assert rows[3]["hd95_mm"] == "374"
    assert (rows[3]["predicted_ml"], rows[3]["specificity"]) == ("", "")


def test_the_summary_says_by_which_rules(tmp_path, dataset):
    predictions = write_maps(tmp_path / "pred", {A: tumour()})
    run(tmp_path, predictions, dataset, only=[A, B])
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["schema_version"] == 2
    assert summary["rules"]["empties"]["one_hd95_mm"] == 374
    assert summary["missing"] == [B]
    assert summary["regions"]["ET"]["metrics"]["dice"] == {
        "n": 2, "mean": 0.5, "sd": pytest.approx(0.5**0.5), "median": 0.5, "q1": 0.25, "q3": 0.75,
        "mean_interval_95": [0, 1],
    }  # fmt: skip


def test_the_printed_table_ends_with_the_mean_over_the_regions(tmp_path, dataset):
    predictions = write_maps(tmp_path / "pred", {A: tumour()})
    table = run(tmp_path, predictions, dataset, only=[A, B]).table()
    assert [row[0] for row in table] == ["region", "WT", "TC", "ET", "mean"]
    assert {len(row) for row in table} == {9}
    assert table[1][:5] == ["WT", "2", "0", "0.500 ± 0.707", "0.500"]
    assert table[4][3] == "0.500"


def test_more_processes_and_a_second_run_give_the_same_files(tmp_path, dataset):
    predictions = write_maps(tmp_path / "pred", {A: np.roll(tumour(), 1, 0), B: tumour(), C: tumour()})
    seen: list[str] = []
    alone = evaluate(predictions, dataset, tmp_path / "alone", images=True, on_case=seen.append)
    together = evaluate(predictions, dataset, tmp_path / "together", images=True, workers=2)
    assert seen == [A, B, C]
    assert alone.scores == together.scores
    for name in ("cases.csv", "summary.json", "report.html"):
        assert (tmp_path / "alone" / name).read_bytes() == (tmp_path / "together" / name).read_bytes(), name


def test_an_unusable_scan_costs_the_picture_and_not_the_score(tmp_path, dataset):
    (dataset / A / f"{A}_flair.nii.gz").write_bytes(b"no scan")
    predictions = write_maps(tmp_path / "pred", {A: tumour(), B: tumour((11, 12, 9))})
    evaluation = run(tmp_path, predictions, dataset, only=[A, B], images=True)
    assert evaluation.complete
    html = (tmp_path / "out" / "report.html").read_text()
    assert html.count("data:image/jpeg") == 1
    assert "no NIfTI file" in html


def test_only_tables_of_an_earlier_evaluation_are_removed(tmp_path, dataset):
    predictions = write_maps(tmp_path / "predictions", {A: tumour(), B: tumour(), C: tumour()})
    out = tmp_path / "out"
    for name in ("lesions.csv", "slices.csv", "figures/calibration.png"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("mine")
    run(tmp_path, predictions, dataset, rules="brats2020")
    listed = json.loads((out / "manifest.json").read_text())["outputs"]
    for name in ("lesions.csv", "slices.csv", "figures/calibration.png"):
        assert (out / name).read_text() == "mine"
        assert name not in listed
    run(tmp_path, predictions, dataset, rules="brats2023-gli")
    assert (out / "lesions.csv").read_text() != "mine"
    run(tmp_path, predictions, dataset, rules="brats2020")
    assert not (out / "lesions.csv").exists()
    assert (out / "slices.csv").read_text() == "mine"
