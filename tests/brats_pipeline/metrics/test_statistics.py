"""Intervals, tests and corrections against SciPy's statistics, enumeration and figures worked by hand."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from brats_pipeline.metrics.statistics import (
    EXACT_UP_TO,
    bootstrap_interval,
    holm,
    rank_biserial,
    resampled,
    smallest_p,
    t_half_width,
    wilcoxon_p,
)

SAMPLES = {
    "normal": np.random.default_rng(1).normal(0.8, 0.1, 30),
    "Dice with misses": np.concatenate([np.random.default_rng(2).beta(9, 2, 57), np.zeros(3)]),
    "distances with a penalty": np.concatenate([np.random.default_rng(3).gamma(2, 3, 24), [373.128664]]),
    "ten": np.random.default_rng(4).normal(0, 1, 10),
}


def scipy_bca(values, confidence=0.95, resamples=10_000, seed=0):
    found = stats.bootstrap(
        (np.sort(values),),
        np.mean,
        confidence_level=confidence,
        n_resamples=resamples,
        method="BCa",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)


@pytest.mark.parametrize("confidence", [0.9, 0.95])
@pytest.mark.parametrize("name", SAMPLES)
def test_the_interval_is_that_of_scipy_for_the_same_draws(name, confidence):
    ours = bootstrap_interval(SAMPLES[name], confidence=confidence, seed=5)
    theirs = scipy_bca(SAMPLES[name], confidence=confidence, seed=5)
    # Resamples that tie with the mean are told apart by rounding there.
    assert ours == pytest.approx(theirs, abs=2e-3 * np.ptp(SAMPLES[name]))


def test_many_values_give_what_scipy_gives_to_the_last_digits():
    values = np.random.default_rng(6).gamma(1, 10, 400)
    assert bootstrap_interval(values) == pytest.approx(scipy_bca(values), rel=1e-12)


def exhaustive_bca(values, confidence=0.95):
    """The limits over all n**n resamples, in exact fractions up to the normal quantiles."""
    n = len(values)
    means = sorted(Fraction(sum(draw), n) for draw in itertools.product(values, repeat=n))
    mean = Fraction(sum(values), n)
    below = Fraction(sum(each < mean for each in means) + sum(each <= mean for each in means), 2 * len(means))
    jackknife = [Fraction(sum(values) - value, n - 1) for value in values]
    centre = Fraction(sum(jackknife), n)
    cubes = sum((centre - each) ** 3 for each in jackknife)
    squares = sum((centre - each) ** 2 for each in jackknife)
    acceleration = float(cubes) / (6 * float(squares) ** 1.5)
    normal = stats.norm
    bias = normal.ppf(float(below))
    tails = normal.ppf([(1 - confidence) / 2, (1 + confidence) / 2])
    levels = normal.cdf(bias + (bias + tails) / (1 - acceleration * (bias + tails)))
    return tuple(np.quantile([float(each) for each in means], levels))


@pytest.mark.parametrize("tenths", [(1, 2, 3, 7, 9), (8, 9, 9, 9, 2), (1, 3, 7, 4, 6)])
def test_of_few_values_the_interval_is_that_of_all_resamples(tenths):
    """With the mean tied in many resamples: 0.1 + 0.2 and 0.2 + 0.1 must not count as different."""
    expected = exhaustive_bca([Fraction(tenth, 10) for tenth in tenths])
    found = bootstrap_interval([tenth / 10 for tenth in tenths], resamples=200_000)
    # Means of five values in tenths lie 0.02 apart; the exact quantile lies on one of them or beside it.
    assert found == pytest.approx(expected, abs=0.0201)


def test_the_seed_decides_and_the_order_does_not():
    values = SAMPLES["Dice with misses"]
    first = bootstrap_interval(values, seed=7)
    assert first == bootstrap_interval(values, seed=7) == bootstrap_interval(values[::-1], seed=7)
    assert first != bootstrap_interval(values, seed=8)


def test_few_equal_and_undefined_values_have_plain_answers():
    assert bootstrap_interval([]) is None
    assert bootstrap_interval([0.7]) is None
    assert bootstrap_interval([0.7, math.nan]) is None
    assert bootstrap_interval([0.7] * 5) == (0.7, 0.7)
    values = list(SAMPLES["ten"])
    assert bootstrap_interval([math.nan, *values, math.nan]) == bootstrap_interval(values)


def test_what_has_no_interval_is_refused():
    with pytest.raises(ValueError, match="infinite"):
        bootstrap_interval([0.1, 0.2, math.inf])
    with pytest.raises(ValueError, match="between 0 and 1"):
        bootstrap_interval([0.1, 0.2], confidence=95)
    with pytest.raises(ValueError, match="0 resamples"):
        bootstrap_interval([0.1, 0.2], resamples=0)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=12), st.integers(0, 3))
def test_an_interval_lies_within_the_values_whatever_they_are(values, seed):
    low, high = bootstrap_interval(values, resamples=200, seed=seed)
    slack = 1e-9 * max(map(abs, values))
    assert min(values) - slack <= low <= high <= max(values) + slack


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-50, 50), min_size=3, max_size=12, unique=True), st.integers(-8, 8), st.integers(1, 8))
def test_moving_and_stretching_the_values_moves_and_stretches_the_interval(values, offset, factor):
    plain = bootstrap_interval(values, resamples=200)
    moved = bootstrap_interval([factor * value + offset for value in values], resamples=200)
    assert moved == pytest.approx([factor * end + offset for end in plain], abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 50), min_size=3, max_size=6))
def test_the_rounding_of_sums_does_not_move_the_interval(whole):
    """Sums of whole numbers are exact whatever their order, sums of tenths are not."""
    tenths = bootstrap_interval([value / 10 for value in whole], resamples=400)
    assert tenths == pytest.approx([end / 10 for end in bootstrap_interval(whole, resamples=400)], abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "least"), [(20, 0.915), (50, 0.93), (100, 0.935)])
def test_the_interval_covers_the_mean_of_normal_data_nineteen_times_in_twenty(n, least):
    """2,000 samples: the standard error of a coverage of 0.95 is 0.005."""
    generator = np.random.default_rng(9)
    intervals = [bootstrap_interval(generator.normal(3, 2, n), resamples=1000, seed=run) for run in range(2000)]
    covered = np.mean([low <= 3 <= high for low, high in intervals])
    assert least <= covered <= 0.965


def test_ten_thousand_resamples_of_five_hundred_cases_take_less_than_half_a_second():
    values = np.random.default_rng(10).beta(8, 2, 500)
    bootstrap_interval(values[:10])
    seconds = []
    for _ in range(5):
        start = time.process_time()
        bootstrap_interval(values)
        seconds.append(time.process_time() - start)
    assert min(seconds) < 0.5


def test_the_exact_test_is_that_of_scipy_without_ties():
    for n in (1, 2, 5, 6, 12, 30, 50):
        differences = np.random.default_rng(n).normal(0.3, 1, n)
        expected = stats.wilcoxon(differences, method="exact").pvalue
        assert wilcoxon_p(differences) == pytest.approx(expected, rel=1e-9)


def by_enumeration(differences):
    """The share of all ways to set the signs of the differences whose rank sum lies as far from the middle."""
    ranks = stats.rankdata(np.abs(differences))[np.array(differences) != 0]
    observed = sum(rank for rank, d in zip(ranks, [d for d in differences if d], strict=True) if d > 0)
    middle = ranks.sum() / 2
    sums = [np.dot(ranks, signs) for signs in itertools.product((0, 1), repeat=len(ranks))]
    return np.mean([abs(each - middle) >= abs(observed - middle) - 1e-9 for each in sums])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
def test_with_ties_and_zeros_the_p_is_the_share_of_all_signs(differences):
    assert wilcoxon_p(differences) == pytest.approx(by_enumeration(differences), abs=1e-12)


def test_beyond_the_exact_count_the_p_is_scipys_by_pratt():
    generator = np.random.default_rng(11)
    differences = np.round(generator.normal(0.05, 1, 2 * EXACT_UP_TO), 1)
    assert 0 < np.count_nonzero(differences == 0) < EXACT_UP_TO
    expected = stats.wilcoxon(differences, zero_method="pratt", correction=False, method="approx").pvalue
    assert wilcoxon_p(differences) == pytest.approx(expected, rel=1e-9)


def test_the_exact_and_the_normal_p_meet():
    differences = np.random.default_rng(12).normal(0.15, 1, EXACT_UP_TO)
    normal = stats.wilcoxon(differences, method="approx").pvalue
    assert wilcoxon_p(differences) == pytest.approx(normal, rel=0.02)


def test_what_differs_by_rounding_alone_is_a_tie():
    assert 0.3 - 0.2 != 0.2 - 0.1
    assert wilcoxon_p([0.3 - 0.2, -(0.2 - 0.1), 0.5]) == wilcoxon_p([1, -1, 5])
    assert wilcoxon_p([0.1 + 0.2 - 0.3, 1.0, 2.0]) == wilcoxon_p([0, 1, 2])


def test_no_difference_is_no_finding_and_no_case_is_refused():
    assert wilcoxon_p([0.0] * 20) == 1
    with pytest.raises(ValueError, match="no differences"):
        wilcoxon_p([])


@pytest.mark.parametrize(("n", "p"), [(0, 1), (1, 1), (2, 0.5), (3, 0.25), (5, 0.0625), (6, 0.03125)])
def test_the_smallest_p_is_that_of_differences_all_one_way(n, p):
    assert smallest_p(n) == p
    if n:
        assert wilcoxon_p(np.arange(1, n + 1)) == p


def test_the_rank_biserial_correlation_says_how_one_sided_the_ranks_are():
    assert rank_biserial([1, 2, 3]) == 1
    assert rank_biserial([-1, -2, -3]) == -1
    assert rank_biserial([0, 0]) == rank_biserial([]) == 0
    # Ranks 1, 2, 3 of which 1 and 3 are positive: (4 - 2) / 6.
    assert rank_biserial([0.1, -0.2, 0.3]) == pytest.approx(1 / 3)


def test_half_the_t_interval_is_scipys():
    values = SAMPLES["ten"]
    interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert t_half_width(values) == pytest.approx((interval.high - interval.low) / 2)
    assert t_half_width([0.4]) is None


def test_half_widths_are_those_known_for_dice():
    """SD 0.13: 0.047 at n = 29, 0.033 at n = 58 with the normal quantile, a little more with Student's."""
    for n, known in ((29, 0.047), (58, 0.033)):
        values = stats.zscore(np.arange(n), ddof=1) * 0.13
        assert known < t_half_width(values) < known + 0.003


@pytest.mark.parametrize(
    ("raw", "adjusted"),
    [
        # Sorted 0.005 0.01 0.03 0.04, times 4 3 2 1: 0.02 0.03 0.06 0.04, of which the last rises to 0.06.
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        # The example in the documentation of stdlib's padjust, which follows R's p.adjust.
        ([0.319, 0.201, 0.4, 0.374, 0.113], [0.957, 0.804, 0.957, 0.957, 0.565]),
        ([0.6, 0.7], [1.0, 1.0]),
        ([0.02], [0.02]),
        ([0.02, 0.02, 0.02], [0.06, 0.06, 0.06]),
        ([], []),
    ],
)
def test_holms_correction_is_that_worked_by_hand(raw, adjusted):
    assert holm(raw) == pytest.approx(adjusted)


def test_a_test_that_could_not_be_made_does_not_count_in_the_family():
    assert holm([0.02, None, 0.03]) == [pytest.approx(0.04), None, pytest.approx(0.04)]


@pytest.mark.parametrize("wrong", [-0.1, 1.5, math.nan])
def test_what_is_no_p_value_is_refused(wrong):
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.5, wrong])


P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=12)


@given(P_VALUES)
def test_correction_never_lowers_a_p_and_keeps_the_order(raw):
    adjusted = holm(raw)
    assert all(p <= q <= min(1, p * len(raw)) for p, q in zip(raw, adjusted, strict=True))
    in_order = [adjusted[place] for place in np.argsort(raw, kind="stable")]
    assert in_order == sorted(in_order)


@given(P_VALUES)
def test_correction_rejects_what_the_stepwise_procedure_rejects(raw):
    """The procedure as Holm tells it: compare in order with level / (m - k), stop at the first that fails."""
    rejected = set()
    for k, place in enumerate(np.argsort(raw, kind="stable")):
        if raw[place] * (len(raw) - k) >= 0.05:
            break
        rejected.add(int(place))
    assert {place for place, p in enumerate(holm(raw)) if p < 0.05} == rejected


def test_statistics_need_no_slow_import():
    code = (
        "import sys\n"
        "from brats_pipeline.metrics import comparison, joining, ranking, statistics, subgroups\n"
        "heavy = {'torch', 'monai', 'pandas', 'scipy.stats'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def bca_of_patients(values_of, draws, confidence=0.95):
    """The limits over these draws of whole patients, in exact fractions up to the normal quantiles."""
    sums, counts = [sum(own) for own in values_of], [len(own) for own in values_of]
    means = sorted(Fraction(sum(sums[i] for i in draw), sum(counts[i] for i in draw)) for draw in draws)
    mean = Fraction(sum(sums), sum(counts))
    below = Fraction(sum(each < mean for each in means) + sum(each <= mean for each in means), 2 * len(means))
    jackknife = [Fraction(sum(sums) - s, sum(counts) - c) for s, c in zip(sums, counts, strict=True)]
    centre = Fraction(sum(jackknife), len(jackknife))
    acceleration = float(sum((centre - each) ** 3 for each in jackknife)) / (
        6 * float(sum((centre - each) ** 2 for each in jackknife)) ** 1.5
    )
    bias = stats.norm.ppf(float(below))
    tails = stats.norm.ppf([(1 - confidence) / 2, (1 + confidence) / 2])
    levels = stats.norm.cdf(bias + (bias + tails) / (1 - acceleration * (bias + tails)))
    return tuple(np.quantile([float(each) for each in means], levels))


def test_whole_patients_are_drawn_as_a_hand_draws_them():
    values_of = [[Fraction(tenth, 10) for tenth in own] for own in ((9, 8, 9), (5,), (7, 6), (2, 3, 1, 3), (8,))]
    values = [float(value) for own in values_of for value in own]
    patients = [number for number, own in enumerate(values_of) for _ in own]
    found = bootstrap_interval(values, patients=patients, resamples=100_000)
    every_draw = itertools.product(range(len(values_of)), repeat=len(values_of))
    assert found == pytest.approx(bca_of_patients(values_of, every_draw), abs=0.01)
    assert bootstrap_interval(values[::-1], patients=patients[::-1], resamples=100_000) == found


def test_patients_of_many_visits_are_left_out_with_all_of_them():
    random = np.random.default_rng(13)
    seldom = [random.integers(3, 10, visits).tolist() for visits in random.integers(1, 3, 18)]
    values_of = [[Fraction(tenth, 10) for tenth in own] for own in ([9] * 12, [9] * 10, *seldom)]
    values_of.sort(key=lambda own: (sum(own), len(own)))
    values = [float(value) for own in values_of for value in own]
    patients = [number for number, own in enumerate(values_of) for _ in own]
    (draws,) = resampled(20, resamples=2000, seed=3)
    found = bootstrap_interval(values, patients=patients, resamples=2000, seed=3)
    assert found == pytest.approx(bca_of_patients(values_of, draws.tolist()), rel=1e-9)


def test_patients_of_one_value_each_give_the_interval_of_the_values():
    values = SAMPLES["Dice with misses"].tolist()
    assert bootstrap_interval(values, patients=range(len(values))) == bootstrap_interval(values)


def test_time_points_that_are_copies_make_no_interval_narrower():
    values = SAMPLES["normal"].tolist()
    alone = bootstrap_interval(values)
    copied = bootstrap_interval(values * 4, patients=[*range(len(values))] * 4)
    assert copied == pytest.approx(alone, rel=1e-9)
    low, high = bootstrap_interval(values * 4)
    assert high - low < 0.6 * (alone[1] - alone[0])


def test_with_patients_the_interval_covers_the_mean_and_with_cases_alone_it_does_not():
    """Twenty-five patients of one to six time points that share most of their score: 95 % is promised."""
    random = np.random.default_rng(9)
    inside = {"patients": 0, "cases": 0}
    trials = 200
    for seed in range(trials):
        sizes = random.integers(1, 7, 25)
        patients = np.repeat(np.arange(25), sizes)
        values = random.normal(0, 1, 25)[patients] + random.normal(0, 0.3, patients.size)
        for name, owners in (("patients", patients.tolist()), ("cases", None)):
            low, high = bootstrap_interval(values, patients=owners, resamples=400, seed=seed)
            inside[name] += low <= 0 <= high
    assert inside["patients"] / trials > 0.88
    assert inside["cases"] / trials < 0.8


def test_one_patient_has_no_interval_and_every_value_needs_its_patient():
    assert bootstrap_interval([0.1, 0.9, 0.5], patients=["a", "a", "a"]) is None
    assert bootstrap_interval([0.1, 0.9, math.nan], patients=["a", "a", "b"]) is None
    with pytest.raises(ValueError, match="2 patients for 3 values"):
        bootstrap_interval([0.1, 0.9, 0.5], patients=["a", "b"])


@pytest.mark.parametrize("values", [[0.2, 0.4, 0.3], [0.1, 0.3, 0.2], [0.7, 0.9, 0.8]])
def test_patients_whose_means_differ_by_rounding_alone_are_equal(values):
    interval = bootstrap_interval(values, patients=["A", "A", "B"])
    assert interval == pytest.approx((values[2], values[2]))
