"""What may be said of two runs, and tables of several runs joined."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from brats_pipeline.metrics import COLUMNS, RULES, score_miss
from brats_pipeline.metrics.comparison import (
    FEWEST_CASES,
    LEVEL,
    Comparison,
    compare_paired,
    lower_is_better,
    verdict,
)
from brats_pipeline.metrics.joining import by_case, join_runs
from brats_pipeline.metrics.statistics import bootstrap_interval, smallest_p
from transforms.labels import CONVENTIONS


def said(first, second, *, metric="dice", adjusted_p=None):
    """The verdict on values in the order of their cases."""
    comparison = compare(first, second)
    return verdict(comparison, metric=metric, first="A", second="B", adjusted_p=adjusted_p)


def compare(first, second, **options):
    ids = [f"case{number:03}" for number in range(len(first))]
    return compare_paired(dict(zip(ids, first, strict=True)), dict(zip(ids, second, strict=True)), **options)


def test_figures_are_those_of_scipy_and_of_a_hand():
    first = [0.9, 0.8, 0.85, 0.7, 0.95, 0.6, 0.88, 0.5]
    second = [0.8, 0.82, 0.80, 0.7, 0.85, 0.45, 0.80, 0.3]
    found = compare(first, second)
    differences = [0.10, -0.02, 0.05, 0, 0.10, 0.15, 0.08, 0.20]
    assert found.n == 8
    assert (found.higher, found.equal, found.lower) == (6, 1, 1)
    assert found.mean_difference == pytest.approx(0.0825)
    assert found.median_difference == pytest.approx(0.09)
    assert found.interval_95 == bootstrap_interval(differences)
    # Ranks with the zero: 0, .02, .05, .08, .10, .10, .15, .20 -> 1 2 3 4 5.5 5.5 7 8; the negative one has rank 2.
    assert found.rank_biserial == pytest.approx((33 - 2) / 35)
    # Of 2 ** 7 signs those with a negative sum of 0 or 2 are as uneven or more, on either side: 4.
    assert found.p_value == pytest.approx(4 / 128)
    half = stats.ttest_rel(first, second).confidence_interval(0.95)
    assert found.smallest_difference == pytest.approx((half.high - half.low) / 2)
    assert found.smallest_p == pytest.approx(2 / 128)  # all positive, or all negative


def test_cases_are_joined_by_their_ids_and_not_by_their_order():
    first, second = {"a": 0.9, "b": 0.5, "c": 0.7}, {"c": 0.7, "a": 0.8, "b": 0.5}
    assert compare_paired(first, second).mean_difference == pytest.approx(0.1 / 3)
    assert compare_paired(dict(reversed(first.items())), second) == compare_paired(first, second)


def test_a_case_of_one_run_alone_is_refused_and_not_dropped():
    with pytest.raises(ValueError, match=r"only one of the runs has b; join the runs first"):
        compare_paired({"a": 1.0, "b": 0.0}, {"a": 1.0})


def test_a_value_that_is_not_defined_is_left_out_and_named():
    found = compare([0.9, math.nan, 0.7], [0.8, 0.5, 0.7])
    assert (found.n, found.undefined) == (2, ("case001",))
    with pytest.raises(ValueError, match="case000 has an infinite value"):
        compare([math.inf, 1.0], [1.0, 1.0])


def test_a_clear_difference_is_called_by_its_better_side():
    generator = np.random.default_rng(0)
    base, gain = generator.uniform(0.5, 0.8, 20), generator.uniform(0.02, 0.1, 20)
    assert said(base + gain, base).startswith("A is better than B.")
    assert said(base, base + gain).startswith("A is worse than B.")
    assert said(base + gain, base, metric="hd95_mm").startswith("A is worse than B.")
    assert said(base, base + gain, metric="hd95_mm").startswith("A is better than B.")


def test_the_sentence_gives_its_figures_and_their_unit():
    text = said(np.arange(12) + 12.0, np.arange(12) * 1.5, metric="hd95_mm", adjusted_p=0.004)
    assert "HD95 of A less that of B: mean +9.25 mm, median +9.25 mm, 95 % interval +" in text
    assert "Wilcoxon p = 0.00049, corrected by Holm p = 0.004; n = 12, 0 equal" in text


def test_correction_for_many_tests_can_take_a_finding_back():
    base = np.linspace(0.5, 0.8, 8)
    assert said(base + 0.05, base).startswith("A is better")
    assert said(base + 0.05, base, adjusted_p=0.06).startswith("No difference between A and B is shown.")


def test_an_interval_without_zero_is_not_enough_when_the_ranks_disagree():
    """Seven small losses and three large gains: the mean says gain, the ranks say nothing."""
    differences = np.array([-0.01, -0.011, -0.012, -0.013, -0.014, -0.015, -0.016, 0.3, 0.31, 0.32])
    found = compare(differences + 0.5, np.full(10, 0.5))
    assert found.interval_95[0] > 0
    assert found.p_value > LEVEL
    assert verdict(found, metric="dice", first="A", second="B").startswith("No difference")


@pytest.mark.parametrize(("sign", "ranks", "shown"), [(1, 0.3, 1), (1, -0.3, 0), (-1, -0.3, -1), (-1, 0.3, 0)])
def test_a_mean_and_ranks_that_point_apart_show_nothing_however_small_the_p(sign, ranks, shown):
    found = Comparison(
        n=10,
        cases=10,
        undefined=(),
        mean_difference=sign * 0.1,
        median_difference=ranks / 10,
        interval_95=(0.01, 0.2) if sign > 0 else (-0.2, -0.01),
        p_value=0.01,
        rank_biserial=ranks,
        higher=5,
        equal=0,
        lower=5,
        smallest_p=smallest_p(10),
        smallest_difference=0.09,
    )
    assert found.shown() == shown


def test_ranks_are_not_enough_when_the_interval_holds_zero():
    """Many small gains and one great loss: the ranks say gain, the mean does not."""
    differences = np.array([*np.linspace(0.010, 0.03, 19), -0.9])
    found = compare(differences + 0.95, np.full(20, 0.95))
    assert found.p_value < LEVEL
    assert found.interval_95[0] < 0
    text = verdict(found, metric="dice", first="A", second="B")
    assert text.startswith("No difference between A and B is shown.")
    assert "the smallest mean difference that 20 cases of this spread could show is" in text


@pytest.mark.parametrize("n", range(1, FEWEST_CASES))
def test_below_six_cases_nothing_is_decided_however_clear_it_looks(n):
    text = said(np.linspace(0.8, 0.9, n), np.linspace(0.1, 0.15, n))
    assert text.startswith(f"With {n} case{'s' if n > 1 else ''} no test can decide between A and B")
    assert f"smallest two-sided p of Wilcoxon's test is {2.0 ** (1 - n):.3g}" in text
    assert "better" not in text
    assert "worse" not in text


def test_no_p_from_elsewhere_decides_for_few_cases():
    assert compare([0.8, 0.85, 0.9, 0.95], [0.1, 0.2, 0.1, 0.2]).shown(adjusted_p=0.001) == 0


def test_six_is_the_first_n_at_which_the_test_can_decide():
    assert smallest_p(FEWEST_CASES) < LEVEL <= smallest_p(FEWEST_CASES - 1)
    assert said(np.linspace(0.8, 0.9, 6), np.linspace(0.1, 0.15, 6)).startswith("A is better")


def test_of_few_cases_the_smallest_difference_they_could_show_is_printed():
    """Differences 0.1, 0.2, 0.3: SD 0.1, t(0.975, 2) = 4.303, so 4.303 * 0.1 / sqrt(3) = 0.248."""
    text = said([0.6, 0.7, 0.8], [0.5, 0.5, 0.5])
    assert "the smallest mean difference that 3 cases of this spread could show is 0.248" in text
    assert "one case has no spread" in said([0.6], [0.5])


def test_equal_runs_and_runs_without_a_value_are_said_to_be_so():
    assert said([0.5] * 9, [0.5] * 9) == "A and B have the same Dice in all 9 cases."
    assert "nothing to compare" in said([math.nan] * 9, [0.5] * 9)
    assert compare([0.5] * 9, [0.5] * 9).p_value == 1


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=14), st.booleans())
def test_no_text_says_better_unless_the_paired_interval_excludes_zero(pairs, distance):
    first, second = ([value / 20 for value in side] for side in zip(*pairs, strict=True))
    found = compare(first, second, resamples=300)
    text = verdict(found, metric="hd95_mm" if distance else "dice", first="A", second="B")
    low, high = found.interval_95 or (0, 0)
    if "better" in text or "worse" in text:
        assert low > 0 or high < 0
        assert found.n >= FEWEST_CASES
        assert ("better" in text) == ((found.mean_difference > 0) != distance)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=1, max_size=14))
def test_the_other_way_round_everything_but_the_sign_is_the_same(pairs):
    first, second = ([value / 20 for value in side] for side in zip(*pairs, strict=True))
    forth, back = compare(first, second, resamples=100), compare(second, first, resamples=100)
    assert forth.mean_difference == -back.mean_difference
    assert forth.median_difference == -back.median_difference
    assert (forth.p_value, forth.rank_biserial) == (back.p_value, -back.rank_biserial)
    assert (forth.higher, forth.equal, forth.lower) == (back.lower, back.equal, back.higher)


@pytest.mark.slow
def test_runs_that_do_not_differ_are_rarely_called_better_or_worse():
    """1,000 pairs of runs from one distribution, at the smallest n that decides and above: at most 5 in 100."""
    for n in (6, 12, 30):
        generator = np.random.default_rng(n)
        calls = [
            compare(generator.normal(0, 1, n), generator.normal(0, 1, n), resamples=500).shown() != 0
            for _ in range(1000)
        ]
        assert np.mean(calls) <= 0.065


def test_every_column_with_a_better_side_has_it():
    smaller = {"hd95_mm", "assd_mm", "fp", "fn", "lesionwise_hd95_mm", "lesions_fp", "lesions_fn"}
    larger = {"dice", "iou", "precision", "recall", "specificity", "nsd_1mm", "lesionwise_dice", "tp", "lesions_tp"}
    assert all(map(lower_is_better, smaller))
    assert not any(map(lower_is_better, larger))
    with pytest.raises(ValueError, match="'predicted_ml' has no better side"):
        lower_is_better("predicted_ml")


@pytest.mark.parametrize("column", [c for c in COLUMNS if c.endswith("_mm") and not c.startswith("nsd")])
def test_distances_are_better_when_smaller(column):
    assert lower_is_better(column)


@dataclass(frozen=True)
class Scored:
    """As much of a row as is needed."""

    case_id: str
    region: str
    dice: float
    reference_ml: float = 1.0
    tp: int = 6
    fn: int = 4


def missed(row):
    return replace(row, dice=0.0, tp=0, fn=row.tp + row.fn)


def rows(*cases, dice=0.8):
    return [Scored(case, region, dice) for case in cases for region in ("WT", "ET")]


def test_a_case_that_a_run_lacks_is_a_miss_in_it_and_said_so():
    joined = join_runs({"A": rows("x", "y", "z"), "B": rows("z", "x"), "C": rows("y", "w")}, miss=missed)
    assert joined.case_ids == ("w", "x", "y", "z")
    assert joined.missing == {"A": ("w",), "B": ("w", "y"), "C": ("x", "z")}
    for own in joined.runs.values():
        assert [(row.case_id, row.region) for row in own] == [(c, r) for c in "wxyz" for r in ("WT", "ET")]
    assert by_case(joined.runs["B"], region="WT", metric="dice") == {"w": 0, "x": 0.8, "y": 0, "z": 0.8}
    assert joined.sentences() == (
        "A has no score for 1 of 4 cases (w); it counts as a miss.",
        "B has no score for 2 of 4 cases (w, y); each counts as a miss.",
        "C has no score for 2 of 4 cases (x, z); each counts as a miss.",
    )


def test_long_lists_of_missing_cases_are_cut_and_counted():
    joined = join_runs({"A": rows(*"abcdefgh"), "B": []}, miss=missed)
    assert joined.sentences() == ("B has no score for 8 of 8 cases (a, b, c, d, e and 3 more); each counts as a miss.",)
    assert all(row.dice == 0 for row in joined.runs["B"])


def test_runs_with_the_same_cases_are_left_as_they_are():
    joined = join_runs({"A": rows("x", "y"), "B": rows("y", "x", dice=0.5)}, miss=missed)
    assert joined.missing == {}
    assert joined.sentences() == ()
    assert joined.runs["A"] == tuple(rows("x", "y"))


def test_a_single_region_that_is_lacking_is_a_miss():
    joined = join_runs({"A": rows("x", "y"), "B": rows("x", "y")[:-1]}, miss=missed)
    assert joined.missing == {"B": ("y",)}
    assert [row.dice for row in joined.runs["B"]] == [0.8, 0.8, 0.8, 0.0]


def test_tables_that_cannot_be_compared_are_refused():
    with pytest.raises(ValueError, match="A scores x, WT twice"):
        join_runs({"A": [*rows("x"), *rows("x")]}, miss=missed)
    with pytest.raises(ValueError, match="B scores WT and the runs together ET, WT; score all runs by the same rules"):
        join_runs({"A": rows("x"), "B": rows("x")[:1]}, miss=missed)
    other = [replace(row, tp=9) for row in rows("x")]
    with pytest.raises(ValueError, match=r"reference of x, WT has 13 voxels in B and 10 in another run"):
        join_runs({"A": rows("x"), "B": other}, miss=missed)


def test_rows_of_a_real_table_join_with_the_miss_of_the_rules():
    convention, rule = CONVENTIONS["brats2023"], RULES["brats2023-gli"]
    labels = np.zeros((4, 4, 4), np.uint8)
    labels[1:3, 1:3, 1:3] = 3
    scored = {
        case_id: score_miss(labels, case_id=case_id, spacing_mm=(1, 1, 1), reference_convention=convention, rules=rule)
        for case_id in ("x", "y")
    }
    lookup = {(row.case_id, row.region): row for own in scored.values() for row in own}
    joined = join_runs(
        {"A": [*scored["x"], *scored["y"]], "B": scored["x"]}, miss=lambda row: lookup[row.case_id, row.region]
    )
    assert joined.missing == {"B": ("y",)}
    assert by_case(joined.runs["B"], region="ET", metric="hd95_mm") == dict.fromkeys(
        ("x", "y"), rule.empties.one_hd95_mm
    )


def test_time_points_of_one_patient_are_averaged_before_they_are_compared():
    patients = {f"{patient}-{visit}": patient for patient in "abcdefg" for visit in (1, 2, 3)}
    first = {case: 0.8 + 0.01 * number for number, case in enumerate(patients)}
    second = {case: value - 0.02 * (1 + int(case[-1])) for case, value in first.items()}
    found = compare_paired(first, second, patients=patients)
    by_hand = compare_paired(dict.fromkeys("abcdefg", 0.06), dict.fromkeys("abcdefg", 0.0))
    assert (found.n, found.cases) == (7, 21)
    assert found.p_value == by_hand.p_value
    assert found.mean_difference == pytest.approx(0.06)
    assert compare_paired(first, second).p_value < found.p_value
    assert "n = 7 patients (21 cases, averaged by patient)" in verdict(found, metric="dice", first="A", second="B")


def test_many_time_points_of_few_patients_decide_nothing():
    patients = {f"{patient}-{visit}": patient for patient in "abc" for visit in range(10)}
    second = {case: 0.01 * number for number, case in enumerate(patients)}
    first = {case: value + 0.1 for case, value in second.items()}
    text = verdict(compare_paired(first, second, patients=patients), metric="dice", first="A", second="B")
    assert text.startswith("With 3 patients (30 cases, averaged by patient) no test can decide")


def test_a_family_too_large_for_its_cases_is_said_to_decide_nothing():
    """Ten cases that all gain: p = 2 ** -9, which thirty comparisons raise to 0.059."""
    found = compare(np.linspace(0.80, 0.89, 10), np.linspace(0.5, 0.55, 10))
    wide = verdict(found, metric="dice", first="A", second="B", adjusted_p=30 * found.p_value, tests=30)
    assert wide.startswith("No test can decide between A and B among 30 comparisons: where 10 cases differ, ")
    assert "smallest two-sided p of Wilcoxon's test, corrected by Holm, is 0.059." in wide
    assert "could show" not in wide
    few = verdict(found, metric="dice", first="A", second="B", adjusted_p=25 * found.p_value, tests=25)
    assert few.startswith("A is better than B.")


def test_cases_that_are_equal_decide_nothing():
    first = [0.8, 0.81, 0.82, 0.83, 0.84, 0.5, 0.5, 0.5]
    found = compare(first, [0.7, 0.7, 0.7, 0.7, 0.7, 0.5, 0.5, 0.5])
    assert found.smallest_p == smallest_p(5)
    text = verdict(found, metric="dice", first="A", second="B")
    assert text.startswith("No test can decide between A and B: where 5 cases differ, the smallest two-sided p")
    assert found.p_value >= found.smallest_p


def test_what_could_be_shown_is_said_to_be_uncorrected_where_there_are_several_tests():
    random = np.random.default_rng(3)
    plain = random.uniform(0.5, 0.8, 20)
    found = compare(plain + random.normal(0, 0.05, 20), plain)
    text = verdict(found, metric="dice", first="A", second="B", adjusted_p=1.0, tests=3)
    assert "20 cases of this spread could show before correction is" in text
