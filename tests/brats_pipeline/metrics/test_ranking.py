"""The ranking of the challenges, drawn by hand, and how sure its order is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from brats_pipeline.metrics.ranking import rank_runs


@dataclass(frozen=True)
class Scored:
    """As much of a row as is needed."""

    case_id: str
    region: str
    dice: float
    hd95_mm: float
    reference_ml: float = 1.0
    tp: int = 6
    fn: int = 4


def table(dice, hd95=None, region="WT"):
    """Rows of one region from values in the order of the cases."""
    hd95 = [5.0] * len(dice) if hd95 is None else hd95
    return [Scored(f"c{k}", region, d, h) for k, (d, h) in enumerate(zip(dice, hd95, strict=True))]


def ranks(ranking):
    return {run.name: (run.rank, run.mean_rank) for run in ranking.runs}


def test_a_ranking_is_that_drawn_by_hand():
    """
       Dice           rank     HD95          rank
       c0   c1        c0 c1    c0  c1        c0 c1    mean
    A  0.9  0.7        1  1     3   9         1  3    6/4
    B  0.8  0.6        2  3     4   2         2  1    8/4
    C  0.8  0.65       2  2     8   2         3  1    8/4
    """
    ranking = rank_runs(
        {"C": table([0.8, 0.65], [8, 2]), "B": table([0.8, 0.6], [4, 2]), "A": table([0.9, 0.7], [3, 9])}
    )
    assert ranks(ranking) == {"A": (1, 1.5), "B": (2, 2.0), "C": (2, 2.0)}
    assert [run.name for run in ranking.runs] == ["A", "B", "C"]
    assert (ranking.n, ranking.cells) == (2, 4)


def test_with_mean_ranks_equal_values_share_the_middle():
    """The same drawing: ties of B and C are 2.5 in Dice of c0 and 1.5 in HD95 of c1."""
    runs = {"C": table([0.8, 0.65], [8, 2]), "B": table([0.8, 0.6], [4, 2]), "A": table([0.9, 0.7], [3, 9])}
    ranking = rank_runs(runs, ties="average")
    assert ranks(ranking) == {"A": (1, 1.5), "B": (2, 9 / 4), "C": (2, 9 / 4)}


RUNS = st.integers(1, 4).flatmap(
    lambda cases: st.lists(
        st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=cases, max_size=cases),
        min_size=1,
        max_size=5,
    )
)


@settings(max_examples=60, deadline=None)
@given(RUNS, st.sampled_from(["min", "average"]))
def test_ranks_are_scipys_rankdata_averaged_and_ranked_again(values, ties):
    values = np.array(values, dtype=float)
    found = rank_runs({f"run{k}": table(own[:, 0], own[:, 1]) for k, own in enumerate(values)}, ties=ties, resamples=20)
    cells = np.stack([-values[:, :, 0], values[:, :, 1]]).transpose(0, 2, 1)
    means = stats.rankdata(cells, method=ties, axis=2).mean(axis=(0, 1))
    final = stats.rankdata(np.round(means, 9), method="min")
    assert ranks(found) == {
        f"run{k}": (rank, pytest.approx(mean)) for k, (rank, mean) in enumerate(zip(final, means, strict=True))
    }


def test_every_region_counts_alike():
    """B wins in ET by a hair, A in WT by far: ranks see no distance."""
    a = [*table([0.9], region="WT"), *table([0.50], region="ET")]
    b = [*table([0.1], region="WT"), *table([0.51], region="ET")]
    assert ranks(rank_runs({"A": a, "B": b}, metrics=["dice"])) == {"A": (1, 1.5), "B": (1, 1.5)}


def test_a_smaller_distance_is_better():
    ranking = rank_runs({"far": table([0.5], [9]), "near": table([0.5], [3])}, metrics=["hd95_mm"])
    assert [run.name for run in ranking.runs] == ["near", "far"]


def test_a_distance_that_is_not_defined_ranks_behind_every_one_that_is():
    ranking = rank_runs({"lost": table([0.5], [math.nan]), "far": table([0.5], [12])}, metrics=["hd95_mm"])
    assert ranks(ranking) == {"far": (1, 1.0), "lost": (2, 2.0)}


def test_rounding_makes_no_order():
    ranking = rank_runs({"A": table([0.1 + 0.2]), "B": table([0.3])}, metrics=["dice"])
    assert ranks(ranking) == {"A": (1, 1.0), "B": (1, 1.0)}


def test_what_no_run_defines_is_left_out_and_what_one_lacks_comes_last():
    a = table([0.5, 0.1, 0.2], [math.nan, math.nan, math.nan])
    b = table([0.4, math.nan, math.nan], [math.nan, math.nan, math.nan])
    c = table([0.3, 0.05, math.nan], [math.nan, math.nan, math.nan])
    ranking = rank_runs({"A": a, "B": b, "C": c})
    assert ranking.cells == 3
    assert ranks(ranking) == {"A": (1, 1.0), "B": (2, 7 / 3), "C": (2, 7 / 3)}


def all_draws(runs, place):
    """Share of all n**n draws of cases in which each run has a rank; by plain counting."""
    values = np.array(runs)
    n = values.shape[1]
    cells = stats.rankdata(-values, method="min", axis=0)
    hits = [stats.rankdata(cells[:, list(draw)].sum(axis=1), method="min") == place for draw in np.ndindex(*(n,) * n)]
    return np.mean(hits, axis=0)


def test_shares_are_those_of_all_draws_of_cases():
    values = [[0.9, 0.8, 0.2, 0.7], [0.8, 0.9, 0.6, 0.5], [0.1, 0.7, 0.7, 0.6]]
    ranking = rank_runs(dict(zip("ABC", map(table, values), strict=True)), metrics=["dice"], resamples=40_000)
    shares = {run.name: run.shares for run in ranking.runs}
    for place in (1, 2, 3):
        expected = all_draws(values, place)
        assert [shares[name][place - 1] for name in "ABC"] == pytest.approx(expected, abs=0.012)
    assert all(sum(own) == pytest.approx(1) for own in shares.values())


def test_a_run_that_always_wins_keeps_its_rank_in_every_draw():
    generator = np.random.default_rng(0)
    weak = generator.uniform(0.2, 0.6, (2, 30))
    ranking = rank_runs({"A": table(weak[0]), "B": table(weak[1]), "best": table([0.9] * 30)}, metrics=["dice"])
    assert ranking.runs[0].name == "best"
    assert ranking.runs[0].shares == (1.0, 0.0, 0.0)


def test_the_seed_decides_the_shares_and_the_order_of_rows_and_runs_does_not():
    generator = np.random.default_rng(1)
    values = generator.uniform(0, 1, (3, 12))
    runs = dict(zip("ABC", map(table, values), strict=True))
    turned = {name: runs[name][::-1] for name in "CBA"}
    assert rank_runs(runs, seed=3) == rank_runs(turned, seed=3)
    assert rank_runs(runs, seed=3).runs != rank_runs(runs, seed=4).runs


def test_a_single_case_has_no_shares_and_few_cases_a_warning():
    ranking = rank_runs({"A": table([0.9]), "B": table([0.8])})
    assert all(run.shares is None for run in ranking.runs)
    assert "the shares look too sure" in ranking.sentences()[1]
    few = rank_runs({"A": table([0.9] * 5), "B": table([0.8] * 5)})
    assert "With 5 cases" in few.sentences()[1]
    enough = rank_runs({"A": table([0.9] * 6), "B": table([0.8] * 6)})
    assert enough.sentences()[1] == "Shares of ranks: cases drawn with replacement, 10,000 times."
    assert "12 ranks a run, 6 cases" in enough.sentences()[0]


def test_what_cannot_be_ranked_is_refused():
    with pytest.raises(ValueError, match=r"B lacks c1, WT; join the runs first"):
        rank_runs({"A": table([0.9, 0.8]), "B": table([0.9])})
    with pytest.raises(ValueError, match="has no better side"):
        rank_runs({"A": table([0.9])}, metrics=["reference_ml"])
    for nothing in ({}, {"A": []}, {"A": table([math.nan], [math.nan])}):
        with pytest.raises(ValueError, match="no case, region and metric"):
            rank_runs(nothing)


def test_time_points_of_one_patient_are_drawn_together():
    alone = {"A": table([0.9, 0.2, 0.4]), "B": table([0.8, 0.6, 0.3])}
    double = {"A": table([0.9, 0.9, 0.2, 0.2, 0.4, 0.4]), "B": table([0.8, 0.8, 0.6, 0.6, 0.3, 0.3])}
    patients = {f"c{number}": f"p{number // 2}" for number in range(6)}
    ranking = rank_runs(double, patients=patients, resamples=2_000)
    assert ranking.runs == rank_runs(alone, resamples=2_000).runs
    assert (ranking.n, ranking.patients) == (6, 3)
    assert "6 cases of 3 patients" in ranking.sentences()[0]
    assert "patients anew" in ranking.sentences()[1]
