"""Calibration against drawn voxels, analytic values, scikit-learn and SciPy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import binary_dilation

from brats_pipeline.metrics.calibration import (
    BINS,
    Reliability,
    around,
    bins_of,
    case_reliability,
    pooled,
    reliability,
    summarise_calibration,
)


def forecast(n: int, seed: int = 0, power: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, and truths that follow them (to a power)."""
    random = np.random.default_rng(seed)
    p = random.random(n)
    return p, random.random(n) < p**power


def test_drawn_voxels_give_the_figures_counted_by_hand() -> None:
    p = np.array([0.1, 0.3, 0.6, 0.6, 0.9])
    truth = np.array([False, True, False, True, True])
    found = reliability(p, truth, bins=2)
    assert (found.voxels, found.inside) == ((2, 3), (1, 2))
    assert found.probability == pytest.approx((0.4, 2.1))
    low, high = abs(0.2 - 0.5), abs(0.7 - 2 / 3)
    assert found.ece == pytest.approx((2 * low + 3 * high) / 5)
    assert found.mce == pytest.approx(low)
    assert found.brier == pytest.approx((0.01 + 0.49 + 0.36 + 0.16 + 0.01) / 5)


def test_a_forecast_of_nine_in_ten_for_a_coin_is_off_by_four_tenths() -> None:
    found = reliability(np.full(1000, 0.9), np.arange(1000) % 2 == 0)
    assert found.ece == pytest.approx(0.4)
    assert found.mce == pytest.approx(0.4)
    assert found.brier == pytest.approx((0.01 + 0.81) / 2)


def test_probabilities_that_come_true_have_no_error_but_that_of_chance() -> None:
    found = reliability(*forecast(400_000))
    assert found.ece is not None
    assert found.ece < 0.003
    assert found.brier == pytest.approx(1 / 6, abs=0.002)  # the integral of p (1 - p)


def test_a_known_overconfidence_is_found() -> None:
    p, truth = forecast(400_000, power=2)  # the truth comes with p squared
    found = reliability(p, truth)
    assert found.ece == pytest.approx(1 / 6, abs=0.003)  # the integral of p - p²
    assert found.mce == pytest.approx(0.25, abs=0.015)


def test_a_certain_and_right_forecast_is_perfect_and_a_wrong_one_the_worst() -> None:
    truth = np.array([True, False, True])
    right, wrong = reliability(truth.astype(float), truth), reliability(1.0 - truth, truth)
    assert (right.ece, right.mce, right.brier) == (0, 0, 0)
    assert (wrong.ece, wrong.mce, wrong.brier) == (1, 1, 1)


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_bins_are_those_of_scikit_learn_edges_included(kind: type) -> None:
    from sklearn.calibration import calibration_curve
    from sklearn.metrics import brier_score_loss

    p, truth = forecast(5000, seed=2, power=1.7)
    p = np.concatenate([p, np.arange(BINS + 1) / BINS, [0.0, 1.0]]).astype(kind)
    truth = np.concatenate([truth, np.arange(BINS + 3) % 2 == 0])
    found = reliability(p, truth)
    observed, mean = calibration_curve(truth, p.astype(float), n_bins=BINS)
    bins = bins_of(found)
    assert [each.observed for each in bins] == pytest.approx(observed.tolist())
    assert [each.mean_probability for each in bins] == pytest.approx(mean.tolist())
    assert found.brier == pytest.approx(brier_score_loss(truth, p.astype(float)))
    assert [bins[0].low, bins[-1].high] == [0, 1]


def test_a_bin_without_voxels_says_nothing() -> None:
    bins = bins_of(reliability(np.array([0.05, 0.95]), np.array([False, True])))
    assert [each.voxels for each in bins] == [1, *[0] * (BINS - 2), 1]
    assert bins[3].observed is None
    assert bins[3].mean_probability is None


def test_adding_up_cases_is_counting_their_voxels_together() -> None:
    p, truth = forecast(3000, power=3)
    parts = [reliability(p[start : start + 1000], truth[start : start + 1000]) for start in (0, 1000, 2000)]
    whole, joined = reliability(p, truth), pooled(parts)
    assert (joined.voxels, joined.inside) == (whole.voxels, whole.inside)
    assert joined.probability == pytest.approx(whole.probability)
    assert joined.squared_error == pytest.approx(whole.squared_error)
    assert pooled([]).ece is None


def test_overconfidence_of_one_case_and_underconfidence_of_another_cancel_in_the_pool_alone() -> None:
    """Why both are given: errors in opposite directions meet in one bin."""
    p = np.full(1000, 0.5)
    sure = {"a": {"WT": reliability(p, np.ones(1000, bool))}, "b": {"WT": reliability(p, np.zeros(1000, bool))}}
    found = summarise_calibration(sure, ["WT"], without={}).regions["WT"]
    assert found.ece == pytest.approx(0)
    assert found.ece_per_case is not None
    assert found.ece_per_case.mean == pytest.approx(0.5)


@pytest.mark.parametrize("margin", [0, 1, 2, 5])
def test_the_voxels_around_a_mask_are_its_dilation_by_a_cube(margin: int) -> None:
    mask = np.zeros((12, 13, 14), bool)
    mask[2, 3, 4] = mask[3:5, 6, 6] = mask[11, 0, 13] = True
    box, near = around(mask, margin)
    whole = np.zeros_like(mask)
    whole[box] = near
    assert np.array_equal(whole, binary_dilation(mask, np.ones((2 * margin + 1,) * 3, bool)))
    assert not whole.all() or margin == 5


def test_background_far_away_changes_nothing() -> None:
    def case(side: int) -> Reliability:
        reference, prediction = np.zeros((2, side, side, side), bool)
        reference[10:14, 10:14, 10:14] = True
        prediction[11:15, 10:14, 10:14] = True
        probability = np.full(reference.shape, 0.001, np.float16)
        probability[prediction] = 0.75
        return case_reliability(probability, reference=reference, prediction=prediction)

    small, large = case(24), case(60)
    assert small == large
    assert small.n == 15 * 14 * 14


def test_a_missed_region_and_a_false_one_count_and_one_that_neither_side_has_does_not() -> None:
    nothing, region = np.zeros((2, 20, 20, 20), bool)
    region[8:12, 8:12, 8:12] = True
    missed = case_reliability(np.zeros(region.shape), reference=region, prediction=nothing)
    false = case_reliability(region.astype(float), reference=nothing, prediction=region)
    absent = case_reliability(np.full(region.shape, 0.3), reference=nothing, prediction=nothing)
    assert (missed.n, false.n, absent.n) == (14**3, 14**3, 0)
    assert missed.ece == pytest.approx(64 / 14**3)
    assert false.mce == 1
    assert (absent.ece, absent.mce, absent.brier) == (None, None, None)


def test_a_cohort_counts_the_cases_that_take_part() -> None:
    p, truth = forecast(100)
    cases = {"b": {"WT": reliability(p, truth), "ET": pooled([])}, "a": {"WT": reliability(p, truth)}}
    found = summarise_calibration(cases, ["WT", "TC", "ET"], without={"d": "why", "c": "why"})
    assert {region: one.n for region, one in found.regions.items()} == {"WT": 2, "ET": 0}
    assert [(row.case_id, row.region) for row in found.rows] == [("a", "WT"), ("b", "WT"), ("b", "ET")]
    assert found.rows[-1].ece is None
    assert found.regions["ET"].ece_per_case is None
    assert list(found.without) == ["c", "d"]


@pytest.mark.parametrize("value", [np.nan, -0.1, 1.1])
def test_what_is_no_probability_is_refused(value: float) -> None:
    with pytest.raises(ValueError, match="probabilities lie from 0 to 1"):
        reliability(np.array([0.5, value]), np.array([True, False]))


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="shape"):
        reliability(np.zeros(3), np.zeros(4, bool))
    with pytest.raises(ValueError, match="shapes differ"):
        case_reliability(np.zeros((3, 3, 3)), reference=np.zeros((3, 3, 4), bool), prediction=np.zeros((3, 3, 4), bool))
