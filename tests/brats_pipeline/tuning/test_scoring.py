"""One case under many settings, by tables: the same scores as cleaning and scoring every mask for itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from brats_pipeline.cases import Case, Source
from brats_pipeline.errors import CaseError
from brats_pipeline.metrics import RULES, region_masks, score_case
from brats_pipeline.tuning.grid import Grid, RegionSettings
from brats_pipeline.tuning.scoring import OpenCase, Task, rules_for, score_table
from tests.brats_pipeline.tuning.conftest import Labels, Values, head, sure
from transforms.cleaning import Cleaning
from transforms.labels import CONVENTIONS
from transforms.probabilities import read_probabilities, write_probabilities

TRIED = Grid(thresholds=(0.3, 0.5), smallest_components=(0, 3, 30), smallest_ets=(0, 40, 5000))


def task_of(make_run: Callable[..., Path], labels: Labels, values: Values) -> Task:
    run = make_run({"case": (labels, values)})
    case = Case("case", "case", {}, Source((run.parent / "cohort" / "case.nii.gz",)), "plain", "brats2023")
    file = run / "tuning" / "predictions" / "probabilities" / "case.npz"
    return Task(case, file, rules_for(RULES["brats2023-gli"], "dice", ("TC", "WT", "ET")), "dice", "outward")


@pytest.fixture
def task(make_run: Callable[..., Path]) -> Task:
    """A noisy case: holes, bays and specks of every size."""
    labels = head()
    noise = np.random.default_rng(7).normal(0, 0.16, (3, *labels.shape))
    noisy = np.clip(sure(labels, inside=0.7, outside=0.2) + noise, 0, 1)
    return task_of(make_run, labels, noisy.astype(np.float16))


@pytest.mark.parametrize("region", ["WT", "TC", "ET"])
def test_every_option_scores_as_its_mask_scores(task: Task, region: str) -> None:
    options = TRIED.options(region, RegionSettings())
    found = score_table(task, {region: options})
    assert not isinstance(found, CaseError)
    held = read_probabilities(task.probabilities)
    values = held.values[held.regions.index(region)]
    convention, labels = CONVENTIONS["brats2023"], head()
    scores = {}
    for option, score in zip(options, found[region], strict=True):
        cleaning = Cleaning(
            (region,), "outward", (option.fill_holes,), (option.smallest_component,), (option.keep_largest,),
            option.smallest_et,
        )  # fmt: skip
        (mask,) = cleaning([values.astype(np.float32) >= np.float32(option.threshold)])
        truth = region_masks(labels, convention, [region])[region]
        expected = 2 * (mask & truth).sum() / (mask.sum() + truth.sum())
        assert score == pytest.approx(expected, abs=1e-12), option
        scores[round(score, 6)] = option
    assert len(scores) > 5  # the options differ, or the comparison would say nothing


def test_a_mask_that_many_options_share_is_scored_once(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    case, calls = OpenCase(task, lowest=0.5), []
    plain = case._score_mask
    monkeypatch.setattr(case, "_score_mask", lambda region, mask: calls.append(mask.tobytes()) or plain(region, mask))
    options = Grid(thresholds=(0.5,)).options("WT", RegionSettings())
    case.score_options("WT", options)
    assert len(options) == 32
    assert len(set(calls)) > 3
    assert len(calls) <= len(set(calls)) + 2  # with and without holes the same parts may be left


def test_a_thin_tumour_in_a_volume_is_not_filled_as_a_picture_would_be(make_run: Callable[..., Path]) -> None:
    ring = np.zeros((24, 22, 20), np.uint8)
    ring[10, 5:10, 5:10] = 3
    ring[10, 7, 7] = 0
    case = OpenCase(task_of(make_run, ring, sure(ring)), lowest=0.5)
    options = [RegionSettings(), RegionSettings(fill_holes=True)]
    assert case.score_options("WT", options) == [1.0, 1.0]


def test_the_penalty_is_the_diagonal_of_the_whole_volume(task: Task) -> None:
    rules = rules_for(RULES["brats2024-met"], "hd95_mm", ("TC", "WT", "ET"))
    nothing = np.zeros((3, 24, 22, 20), np.float16)
    write_probabilities(task.probabilities, nothing, regions=("TC", "WT", "ET"))
    case = OpenCase(Task(task.case, task.probabilities, rules, "hd95_mm", "outward"), lowest=0.5)
    assert case.score_options("WT", [RegionSettings()]) == [pytest.approx(np.hypot(np.hypot(24, 22), 20))]
    convention = CONVENTIONS["brats2023"]
    rows = score_case(
        np.zeros_like(head()), head(), case_id="case", spacing_mm=(1, 1, 1), prediction_convention=convention,
        reference_convention=convention, rules=rules,
    )  # fmt: skip
    settings = {region: RegionSettings() for region in ("TC", "WT", "ET")}
    assert case.score_settings(settings) == {row.region: row.hd95_mm for row in rows}


@pytest.mark.parametrize(
    ("shape", "regions", "message"),
    [
        ((3, 5, 5, 5), ("TC", "WT", "ET"), "another grid"),
        ((2, 24, 22, 20), ("TC", "WT"), "without ET"),
    ],
)
def test_probabilities_that_do_not_fit_are_told(
    task: Task, shape: tuple[int, ...], regions: tuple[str, ...], message: str
) -> None:
    write_probabilities(task.probabilities, np.zeros(shape, np.float16), regions=regions)
    found = score_table(task, {"WT": [RegionSettings()]})
    assert isinstance(found, CaseError)
    assert message in found.reason


def test_labels_that_the_rules_read_by_a_later_convention_are_scored(task: Task) -> None:
    rules = rules_for(RULES["brats2024-gli"], "lesionwise_dice", ("TC", "WT", "ET"))
    found = score_table(replace(task, rules=rules, metric="lesionwise_dice"), {"WT": [RegionSettings(threshold=0.5)]})
    assert not isinstance(found, CaseError)
    assert 0 < found["WT"][0] < 1
