"""Arms side by side: the same cases, means over seeds, one correction for all comparisons of a metric."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.stats import wilcoxon

from brats_pipeline.metrics import COLUMNS, RegionScore, csv_text
from brats_pipeline.metrics.statistics import holm
from brats_pipeline.studies.comparing import compare_arms, rank_arms, shared_rows, without_modalities
from brats_pipeline.studies.gathering import Scored
from brats_pipeline.studies.scores import mean_rows, read_scores

REGIONS = ("WT", "TC")


def row(case: int, region: str, dice: float, **more: Any) -> RegionScore:
    values: dict[str, Any] = dict.fromkeys(("iou", "precision", "recall", "specificity"), 0.5)
    values |= {"hd95_mm": 3.0, "reference_ml": 1.0, "predicted_ml": 1.0, "tp": 10, "fp": 1, "fn": 2, "tn": 100}
    return RegionScore(case_id=f"case{case:02}", region=region, dice=dice, **{**values, **more})


def table(dice: np.ndarray) -> tuple[RegionScore, ...]:
    """``(cases, regions)`` to rows."""
    return tuple(
        row(case, region, float(dice[case, at])) for case in range(len(dice)) for at, region in enumerate(REGIONS)
    )


def plan_of(reference: str = "plain", compare: tuple[str, ...] = ("dice",)) -> Any:
    return SimpleNamespace(reference=reference, compare=compare, ranking=compare)


def scored(name: str, rows: tuple[RegionScore, ...], folds: tuple[int, ...] = (0,)) -> Scored:
    arm: Any = SimpleNamespace(name=name)
    return Scored(arm, units=(), folds=folds, rows=rows, seeds={}, without={})


def identities(rows: tuple[RegionScore, ...]) -> dict[str, str]:
    return {each.case_id: each.case_id for each in rows}


def test_without_a_modality_an_arm_is_compared_with_itself_on_the_same_cases() -> None:
    random = np.random.default_rng(1)
    whole = random.uniform(0.5, 0.8, (9, 2))
    lost = {name: table(whole - random.uniform(0.0, 0.2, (9, 2))) for name in ("t1", "flair")}
    arm = replace(scored("plain", table(whole)), missing=lost)
    rows = {"plain": table(whole[:8])}  # the last case was not tested by every arm
    found = without_modalities(plan_of(), [arm], rows, patients=identities(rows["plain"]), resamples=500)
    assert [(each.modality, each.region) for each in found] == [(m, r) for m in lost for r in REGIONS]
    wanted = []
    for each in found:
        own = [score.dice for score in lost[each.modality] if score.region == each.region][:8]
        other = [score.dice for score in rows["plain"] if score.region == each.region]
        assert each.mean == pytest.approx(np.mean(own))
        assert each.comparison.mean_difference == pytest.approx(np.mean(own) - np.mean(other), abs=1e-8)
        wanted.append(wilcoxon(np.subtract(own, other), zero_method="pratt").pvalue)
    assert [each.adjusted_p for each in found] == pytest.approx(holm(wanted))


def test_differences_tests_and_their_correction_agree_with_scipy() -> None:
    random = np.random.default_rng(0)
    plain = random.uniform(0.5, 0.8, (12, 2))
    runs = {"plain": table(plain), "wide": table(plain + random.normal(0.03, 0.02, (12, 2)))}
    runs["deep"] = table(plain + random.normal(0.0, 0.02, (12, 2)))
    found = compare_arms(plan_of(), runs, patients=identities(runs["plain"]), resamples=500)
    assert [(each.arm, each.region) for each in found] == [
        (arm, region) for arm in ("wide", "deep") for region in REGIONS
    ]
    wanted = []
    for each in found:
        own = [score.dice for score in runs[each.arm] if score.region == each.region]
        other = [score.dice for score in runs["plain"] if score.region == each.region]
        assert each.comparison.mean_difference == pytest.approx(np.mean(own) - np.mean(other), abs=1e-8)
        wanted.append(float(wilcoxon(own, other, method="exact").pvalue))
        assert each.comparison.p_value == pytest.approx(wanted[-1])
    assert [each.adjusted_p for each in found] == pytest.approx(holm(wanted))


def test_better_is_said_only_where_the_interval_excludes_zero() -> None:
    random = np.random.default_rng(1)
    plain = random.uniform(0.5, 0.8, (12, 2))
    ahead = plain + np.stack([np.full(12, 0.05), random.normal(0, 0.05, 12)], axis=1)
    runs = {"plain": table(plain), "wide": table(ahead)}
    whole, core = compare_arms(plan_of(), runs, patients=identities(runs["plain"]), resamples=500)
    assert whole.sentence.startswith("WT: wide is better than plain.")
    assert core.sentence.startswith("TC: No difference between wide and plain is shown.")
    low, high = core.comparison.interval_95 or (0.0, 0.0)
    assert low < 0 < high


def test_five_cases_decide_nothing_however_far_apart() -> None:
    plain = np.full((5, 2), 0.1)
    runs = {"plain": table(plain), "wide": table(plain + 0.8)}
    for each in compare_arms(plan_of(), runs, patients=identities(runs["plain"]), resamples=100):
        assert "With 5 cases no test can decide" in each.sentence
        assert "better" not in each.sentence


def test_cases_of_one_patient_count_once() -> None:
    plain = np.full((8, 2), 0.5)
    runs = {"plain": table(plain), "wide": table(plain + 0.1)}
    twins = {f"case{case:02}": f"patient{case // 2}" for case in range(8)}
    assert {each.comparison.n for each in compare_arms(plan_of(), runs, patients=twins, resamples=100)} == {4}


def test_what_one_arm_has_not_tested_yet_is_in_no_table() -> None:
    whole = table(np.full((6, 2), 0.5))
    half = tuple(each for each in whole if each.case_id < "case03")
    rows = shared_rows([scored("plain", whole), scored("wide", half), scored("idle", (), folds=())])
    assert set(rows) == {"plain", "wide"}
    assert {each.case_id for each in rows["plain"]} == {"case00", "case01", "case02"}


def test_nothing_is_compared_without_the_reference_arm() -> None:
    runs = {"wide": table(np.full((6, 2), 0.5))}
    assert compare_arms(plan_of(), runs, patients=identities(runs["wide"])) == []
    assert rank_arms(plan_of(), runs, patients=identities(runs["wide"])) is None


def test_what_the_rules_do_not_define_is_no_number_and_stops_nothing() -> None:
    rows = table(np.full((7, 2), 0.5))
    runs = {"plain": rows, "wide": rows}
    for each in compare_arms(plan_of(compare=("legacy_dice",)), runs, patients=identities(rows), resamples=100):
        assert (each.comparison.n, each.adjusted_p) == (0, None)
        assert "share no case in which" in each.sentence
    assert rank_arms(plan_of(compare=("legacy_dice",)), runs, patients=identities(rows), resamples=100) is None


def test_a_mean_without_a_modality_and_its_cost_are_over_the_same_patients() -> None:
    random = np.random.default_rng(3)
    whole = table(random.uniform(0.5, 0.8, (9, 2)))
    patients = {each.case_id: "often" if each.case_id < "case05" else each.case_id for each in whole}
    for share in (0.0, 0.3):
        lost = table(
            np.array([each.dice * (share if patients[each.case_id] == "often" else 1) for each in whole]).reshape(9, 2)
        )
        arm = replace(scored("plain", whole), missing={"t1": lost})
        for each in without_modalities(plan_of(), [arm], {"plain": whole}, patients=patients, resamples=100):
            by_patient: dict[str, list[float]] = {}
            for one in whole:
                if one.region == each.region:
                    by_patient.setdefault(patients[one.case_id], []).append(one.dice)
            before = np.mean([np.mean(values) for values in by_patient.values()])
            assert each.mean == pytest.approx(before + each.comparison.mean_difference, abs=1e-6)


def test_seeds_are_averaged_case_by_case() -> None:
    first = (row(0, "WT", 0.2, hd95_mm=1.0), row(1, "WT", 0.4))
    second = (row(0, "WT", 0.6, hd95_mm=4.0), row(1, "WT", 0.8))
    means = mean_rows([first, second])
    assert [each.dice for each in means] == pytest.approx([0.4, 0.6])
    assert means[0].hd95_mm == pytest.approx(2.5)
    assert means[0].tp + means[0].fn == first[0].tp + first[0].fn


def test_a_table_of_scores_is_read_as_it_was_written(tmp_path: Path) -> None:
    rows = (
        row(0, "WT", 0.25, lesions_tp=2, lesions_fp=0, lesions_fn=1, lesionwise_dice=0.5),
        row(1, "WT", 1.0, hd95_mm=float("nan")),
    )
    path = tmp_path / "cases.csv"
    path.write_text(csv_text(rows, COLUMNS))
    again = read_scores(path)
    assert csv_text(again, COLUMNS) == path.read_text()
    assert again[0] == rows[0]
    assert again[1].lesions_tp is None
    assert np.isnan(again[1].hd95_mm)
