"""Tuning where the right answer is known, and what it says where there is none."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from brats_pipeline.errors import PipelineError
from brats_pipeline.files import file_sha256
from brats_pipeline.tuning.grid import Grid
from brats_pipeline.tuning.tune import tune
from tests.brats_pipeline.tuning.conftest import Drawn, head, sure, vouch

MakeRun = Callable[..., Path]
SMALL = Grid(thresholds=(0.3, 0.5, 0.7), smallest_components=(0, 10, 50), smallest_ets=(0, 5, 50))


def speckled(cases: int) -> Drawn:
    """Perfect tumours, and in every case specks of eight voxels that are taken for tumour with ET."""
    drawn = {}
    for number in range(cases):
        labels = head(at=8 + number % 3)
        values = sure(labels)
        for corner in ((1, 1, 1), (20, 1, 1), (20, 18, 16))[: 1 + number % 3]:
            values[:, *(slice(start, start + 2) for start in corner)] = 0.8
        drawn[f"case{number}"] = (labels, values)
    return drawn


def overlay(run: Path) -> dict[str, Any] | None:
    path = run / "configs" / "postprocessing.yaml"
    return yaml.safe_load(path.read_text()) if path.is_file() else None


@pytest.mark.parametrize("metric", ["dice", "lesionwise_dice", "hd95_mm"])
def test_specks_are_removed_by_the_smallest_size_that_does_it_and_nothing_else_is_changed(
    make_run: MakeRun, metric: str
) -> None:
    run = make_run(speckled(7), spacing_mm=2.0)  # so that ET is larger than the lesions that do not count
    tuning = tune(run, metric=metric, grid=SMALL)
    assert overlay(run) == {
        "threshold": [0.5, 0.5, 0.5],
        "fill_holes": [False] * 3,
        "smallest_component": [10, 10, 10],
        "keep_largest": [False] * 3,
        "smallest_et": 0,
    }
    perfect = 0.0 if metric == "hd95_mm" else 1.0
    assert all(row.held_out == row.in_sample == perfect for row in tuning.rows)
    assert all(row.untuned != perfect for row in tuning.rows if row.region == "ET")
    assert tuning.verdict.helps
    assert "is better than the untuned one" in tuning.sentences()[0]


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_the_same_inputs_give_the_same_files_whatever_the_number_of_workers(make_run: MakeRun, workers: int) -> None:
    run = make_run(speckled(6))
    names = ("tuning/tuning.json", "tuning/tuning.md", "tuning/tuning.csv", "configs/postprocessing.yaml")
    tune(run, grid=SMALL)
    first = [(run / name).read_bytes() for name in names]
    (run / "configs" / "postprocessing.yaml").unlink()
    tune(run, grid=SMALL, workers=workers)
    assert [(run / name).read_bytes() for name in names] == first


def test_perfect_probabilities_leave_nothing_to_choose(make_run: MakeRun) -> None:
    run = make_run({f"case{number}": (head(), sure(head())) for number in range(6)})
    tuning = tune(run, grid=SMALL, write_anyway=True)
    assert overlay(run) is None
    assert not tuning.changed
    assert "the same Dice in all 6 cases" in tuning.sentences()[0]
    assert "nothing to write" in tuning.sentences()[-1]


def test_five_cases_can_decide_nothing_however_large_the_gain(make_run: MakeRun) -> None:
    run = make_run(speckled(5))
    tuning = tune(run, grid=SMALL)
    assert overlay(run) is None
    assert "With 5 cases no test can decide" in tuning.sentences()[0]
    assert "--write-anyway" in tuning.sentences()[-1]
    tuning = tune(run, grid=SMALL, write_anyway=True)
    assert overlay(run) is not None
    assert "because that was asked for" in " ".join(tuning.sentences())


def test_a_gain_that_one_case_alone_makes_is_told_to_be_none_that_is_shown(make_run: MakeRun) -> None:
    drawn = {f"case{number}": (head(at=8 + number % 3), sure(head(at=8 + number % 3))) for number in range(8)}
    labels, values = drawn["case3"]
    values = values.copy()
    values[:, 20:22, 1:3, 1:3] = 0.8
    run = make_run({**drawn, "case3": (labels, values)})
    tuning = tune(run, grid=SMALL)
    assert overlay(run) is None
    words = " ".join(tuning.sentences())
    assert "No difference" in words or "the same Dice" in words
    assert not tuning.verdict.helps


def test_time_points_of_one_patient_are_left_out_together_and_count_as_one(make_run: MakeRun) -> None:
    run = make_run(speckled(8), patients={f"case{number}": f"patient{number // 2}" for number in range(8)})
    tuning = tune(run, grid=SMALL)
    assert tuning.verdict.comparisons["mean"].n == 4
    assert "With 4 patients (8 cases, averaged by patient) no test can decide" in tuning.sentences()[0]


def test_regions_that_are_empty_on_either_side_do_not_stop_it(make_run: MakeRun) -> None:
    drawn: dict[str, Any] = dict(speckled(6))
    nothing = np.zeros_like(head())
    drawn["nothing at all"] = (nothing, sure(nothing))
    drawn["missed"] = (head(), sure(nothing))
    drawn["invented"] = (nothing, sure(head()))
    drawn["no enhancement"] = (head(enhancing=False), sure(head(enhancing=False)))
    tuning = tune(make_run(drawn), grid=SMALL, metric="hd95_mm")
    assert not tuning.failed
    assert {row.untuned for row in tuning.rows if row.case_id == "missed"} == {374.0}


def test_an_enhancing_tumour_that_is_invented_is_turned_to_necrosis(make_run: MakeRun) -> None:
    drawn = {}
    for number in range(8):
        labels = head(enhancing=number % 2 == 0)
        values = sure(labels)
        if number % 2:
            values[2, 8:10, 8:10, 8:10] = 0.9
        drawn[f"case{number}"] = (labels, values)
    tuning = tune(make_run(drawn), grid=Grid((0.5,), (0,), (0, 5, 10, 100), fill_holes=False, keep_largest=False))
    assert tuning.settings["ET"].smallest_et == 10
    assert all(row.in_sample == 1 for row in tuning.rows)


def test_what_is_held_out_is_what_evaluate_finds_in_the_label_map(make_run: MakeRun) -> None:
    """TC reaches out of WT, and ET out of TC: the regions are scored as the label map joins them."""
    from brats_pipeline.metrics import RULES, score_case
    from transforms.labels import CONVENTIONS

    labels = head()
    values = sure(labels)
    values[0, 14:18, 6:10, 6:10] = 0.9
    values[2, 8:12, 12:15, 8:12] = 0.9
    tuning = tune(make_run({"case": (labels, values)}), grid=SMALL)
    by_hand = np.zeros_like(labels)
    for channel, value in ((1, 2), (0, 1), (2, 3)):
        by_hand[values[channel] >= 0.5] = value
    convention = CONVENTIONS["brats2023"]
    rows = score_case(
        by_hand, labels, case_id="case", spacing_mm=(1, 1, 1), prediction_convention=convention,
        reference_convention=convention, rules=RULES["brats2023-gli"],
    )  # fmt: skip
    assert {row.region: row.untuned for row in tuning.rows} == {row.region: row.dice for row in rows}


def test_a_case_whose_probabilities_are_damaged_is_named_and_passed_over(make_run: MakeRun) -> None:
    run = make_run(speckled(4))
    (run / "tuning" / "predictions" / "probabilities" / "case2.npz").write_bytes(b"rubbish")
    tuning = tune(run, grid=SMALL)
    assert list(tuning.failed) == ["case2"]
    assert {row.case_id for row in tuning.rows} == {"case0", "case1", "case3"}


def test_an_overlay_of_earlier_is_left_alone_where_nothing_is_shown(make_run: MakeRun) -> None:
    run = make_run(speckled(3))
    (run / "configs" / "postprocessing.yaml").write_text("threshold: 0.3\n")
    tuning = tune(run, grid=SMALL)
    assert overlay(run) == {"threshold": 0.3}
    assert "of earlier stays as it is" in tuning.sentences()[-1]
    assert {row.untuned for row in tuning.rows} != {1.0}  # the overlay is not what tuning is compared with


def test_the_tables_hold_every_case_and_region(make_run: MakeRun) -> None:
    run = make_run(speckled(6))
    tune(run, grid=SMALL)
    with (run / "tuning" / "tuning.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 18
    assert {row["settings"] for row in rows} == {">= 0.5, parts >= 10"}
    content = json.loads((run / "tuning" / "tuning.json").read_text())
    assert content["schema_version"] == 1
    assert content["written"] is content["helps"] is True
    assert content["comparisons"]["mean"]["n"] == 6
    text = (run / "tuning" / "tuning.md").read_text()
    assert "| WT | " in text
    assert "not a medical device" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"metric": "dise"}, "unknown metric 'dise'; known: dice"),
        ({"metric": "lesionwise_dice", "rules": "brats2020"}, "score no single lesions"),
        ({"rules": "lgg"}, "not made for them; use brats2023-gli"),
        ({"rules": "brats2024-men-rt"}, "score GTV, the network marks TC, WT, ET"),
        ({"data": "here", "datalist": "there"}, "give either"),
        ({"datalist": "there", "convention": "brats2021"}, "a datalist names the label convention"),
        ({"convention": "brats2021"}, "a datalist names the label convention"),
    ],
)
def test_what_cannot_be_tuned_is_refused(make_run: MakeRun, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(PipelineError, match=message):
        tune(make_run(speckled(2)), grid=SMALL, **arguments)


def split_in_two(run: Path) -> list[Path]:
    """Two runs that were each trained on one half of the cases, with the probabilities of the other half."""
    record = json.loads((run / "datalist.json").read_text())
    halves = []
    for number in (0, 1):
        half = Path(shutil.copytree(run, run.parent / f"half{number}"))
        (half / "models" / "model.pt").write_bytes(f"weights {number}".encode())
        items = [item | {"fold": place % 2} for place, item in enumerate(record["training"])]
        (half / "datalist.json").write_text(json.dumps({"training": items}))
        (half / "run.json").write_text(json.dumps({"fold": number}))
        shutil.rmtree(half / "tuning")
        found = run / "tuning" / f"fold{number}" / "predictions" / "probabilities"
        found.mkdir(parents=True)
        for place, item in enumerate(record["training"]):
            if place % 2 == number:
                name = f"{item['case_id']}.npz"
                (run / "tuning" / "predictions" / "probabilities" / name).rename(found / name)
        vouch(half, run / "tuning" / f"fold{number}")
        halves.append(half)
    (run / "run.json").write_text(json.dumps({"fold": None}))
    return halves


def test_a_run_that_saw_every_case_is_tuned_by_runs_that_did_not(make_run: MakeRun) -> None:
    alone = tune(make_run(speckled(6)), grid=SMALL)
    (alone.run / "configs" / "postprocessing.yaml").unlink()
    halves = split_in_two(alone.run)
    with pytest.raises(PipelineError, match="no validation fold"):
        tune(alone.run, grid=SMALL)
    together = tune(alone.run, folds=halves, grid=SMALL)
    assert together.settings == alone.settings
    assert [row.case_id for row in together.rows] == [row.case_id for row in alone.rows]
    assert together.rows == alone.rows
    assert (together.folds, together.trained_on) == (2, 0)
    assert (alone.run / "configs" / "postprocessing.yaml").is_file()
    assert not (halves[0] / "configs" / "postprocessing.yaml").exists()
    assert "2 networks of its recipe" in (alone.run / "tuning" / "tuning.md").read_text()
    told = json.loads((alone.run / "tuning" / "tuning.json").read_text())
    assert told["folds_weights_sha256"] == [file_sha256(half / "models" / "model.pt") for half in halves]


def test_of_a_case_that_several_never_saw_the_first_is_asked(make_run: MakeRun) -> None:
    run = make_run(speckled(6))
    halves = split_in_two(run)
    twice = tune(run, folds=[*halves, halves[0]], grid=SMALL)
    assert len({row.case_id for row in twice.rows}) == 6


def test_runs_of_other_regions_are_refused(make_run: MakeRun) -> None:
    run = make_run(speckled(2))
    halves = split_in_two(run)
    path = halves[1] / "configs" / "inference.yaml"
    content = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**content, "regions": ["WT"]}))
    with pytest.raises(PipelineError, match=r"half1 marks WT and .*run TC, WT, ET; give runs of one recipe"):
        tune(run, folds=halves, grid=SMALL)


def test_the_dice_to_expect_is_learned_where_there_are_cases_enough_and_not_otherwise(make_run: MakeRun) -> None:
    """Probabilities of 0.9, 0.8, 0.7 whose masks cover all, four fifths and two thirds of the tumour."""
    drawn: dict[str, Any] = {}
    for number in range(12):
        labels = head(at=8 + number % 3)
        values = sure(labels, inside=0.9 - 0.1 * (number % 3), outside=0.0)
        values[:, :, :, 14 - 2 * (number % 3) : 15] = (
            0  # a part that the network misses, the larger the less sure it is
        )
        drawn[f"case{number:02d}"] = (labels, values)
    run = make_run(drawn)
    tuning = tune(run, grid=Grid(thresholds=(0.5,), smallest_components=(0,), smallest_ets=(0,)))
    fits = json.loads((run / "configs" / "expected_dice.json").read_text())["regions"]
    assert set(fits) == {"TC", "WT", "ET"}
    masks = {name: values[1] >= 0.5 for name, (_, values) in drawn.items()}
    tumours = {name: labels > 0 for name, (labels, _) in drawn.items()}
    true = [2 * (masks[name] & tumours[name]).sum() / (masks[name].sum() + tumours[name].sum()) for name in drawn]
    corners = fits["WT"]["dice"]
    assert min(corners) == pytest.approx(min(true))
    assert max(corners) == pytest.approx(max(true))
    assert any("off by 0.000 on patients left out (n = 12)" in sentence for sentence in tuning.expectations())


def test_no_dice_is_expected_where_a_surer_network_is_a_worse_one(make_run: MakeRun) -> None:
    """The larger the part of WT that it misses, the surer the network is of the rest."""
    drawn: dict[str, Any] = {}
    for number in range(12):
        labels = head(at=8 + number % 3)
        values = sure(labels, inside=0.7 + 0.1 * (number % 3), outside=0.0)
        values[1, :, :, 14 - 2 * (number % 3) : 15] = 0
        drawn[f"case{number:02d}"] = (labels, values)
    tuning = tune(make_run(drawn), grid=Grid(thresholds=(0.5,), smallest_components=(0,), smallest_ets=(0,)))
    path = tuning.run / "configs" / "expected_dice.json"
    told = json.loads(path.read_text())["regions"] if path.exists() else {}
    assert "WT" not in told
    assert "WT" in tuning.expected
    assert any(line.startswith("WT: ") and line.endswith("so none will be told.") for line in tuning.expectations())


def test_no_dice_is_expected_on_the_word_of_a_few_cases(make_run: MakeRun) -> None:
    few = tune(make_run(speckled(9)), grid=SMALL)
    assert not (few.run / "configs" / "expected_dice.json").exists()
    assert any("no Dice can be expected" in sentence for sentence in few.expectations())


def test_probabilities_of_other_scans_are_not_taken_whatever_the_cases_are_called(make_run: MakeRun) -> None:
    run = make_run(speckled(6))
    scans = run.parent / "cohort"
    times = (scans / "case0.nii.gz").stat()
    os.utime(scans / "case0.nii.gz", ns=(times.st_atime_ns, times.st_mtime_ns + 10**9))
    with pytest.raises(PipelineError, match="no cases here"):  # a network is asked; the drawn files suit none
        tune(run, grid=SMALL)


def test_the_gain_that_is_told_is_the_one_whose_interval_stands_beside_it(make_run: MakeRun) -> None:
    patients = {f"case{number}": "often" if number < 4 else f"patient{number}" for number in range(8)}
    tuning = tune(make_run(speckled(8), patients=patients), grid=SMALL)
    for row in tuning.table()[1:]:
        assert float(row[3]) == pytest.approx(tuning.verdict.comparisons[row[0]].mean_difference, abs=2e-4)
        assert float(row[2]) - float(row[1]) == pytest.approx(float(row[3]), abs=2e-4)
