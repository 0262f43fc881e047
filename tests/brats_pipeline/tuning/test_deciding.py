"""What is chosen from tables of scores, and what is found out about the choice."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from brats_pipeline.tuning.deciding import CaseRow, choose, judge, left_out
from brats_pipeline.tuning.grid import Grid, RegionSettings, settings_in_force

PLAIN, LOW, HIGH = (RegionSettings(threshold) for threshold in (0.5, 0.4, 0.6))
OPTIONS = {"WT": (PLAIN, LOW, HIGH)}


def tables(*rows: tuple[float, ...]) -> dict[str, dict[str, tuple[float, ...]]]:
    return {f"case{number}": {"WT": row} for number, row in enumerate(rows)}


def own(held: dict[str, dict[str, tuple[float, ...]]]) -> dict[str, str]:
    return {case: case for case in held}


def test_the_highest_mean_is_chosen_and_of_distances_the_lowest() -> None:
    held = tables((0.5, 0.6, 0.7), (0.5, 0.7, 0.9), (0.5, 0.6, 0.8))
    assert choose(held, own(held), OPTIONS, lower=False)["WT"] == HIGH
    assert choose(held, own(held), OPTIONS, lower=True)["WT"] == PLAIN


def test_of_equals_the_first_is_chosen() -> None:
    held = tables((0.5, 0.6, 0.6), (0.5, 0.7, 0.7))
    assert choose(held, own(held), OPTIONS, lower=False)["WT"] == LOW


def test_a_gain_within_its_standard_error_changes_nothing() -> None:
    one_in_four = tables((0.5, 0.9, 0.5), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # mean 0.1, error 0.1
    assert choose(one_in_four, own(one_in_four), OPTIONS, lower=False)["WT"] == PLAIN
    steady = tables((0.5, 0.9, 0.55), (0.5, 0.5, 0.56), (0.5, 0.5, 0.55), (0.5, 0.5, 0.54))
    assert choose(steady, own(steady), OPTIONS, lower=False)["WT"] == HIGH


def test_patients_count_alike_whatever_the_number_of_their_scans() -> None:
    held = tables((0.5, 0.9, 0.5), (0.5, 0.9, 0.5), (0.5, 0.9, 0.5), (0.5, 0.4, 0.6), (0.5, 0.4, 0.6))
    patients = {"case0": "a", "case1": "a", "case2": "a", "case3": "b", "case4": "c"}
    assert choose(held, own(held), OPTIONS, lower=False)["WT"] == LOW
    assert choose(held, patients, OPTIONS, lower=False)["WT"] == HIGH


def test_a_patient_has_no_say_in_the_settings_that_it_is_scored_with() -> None:
    held = tables((0.5, 0.9, 0.6), (0.5, 0.5, 0.6), (0.5, 0.5, 0.6))
    told = left_out(held, {"case0": "a", "case1": "b", "case2": "b"}, OPTIONS, lower=False)
    assert [told[case]["WT"] for case in held] == [HIGH, LOW, LOW]


def test_a_lone_patient_is_scored_as_it_is() -> None:
    held = tables((0.5, 0.9, 0.6), (0.5, 0.9, 0.6))
    told = left_out(held, dict.fromkeys(held, "a"), OPTIONS, lower=False)
    assert [told[case]["WT"] for case in held] == [PLAIN, PLAIN]


@given(st.integers(2, 12), st.integers(0, 1000))
@hypothesis_settings(deadline=None, max_examples=50)
def test_what_is_in_force_wins_where_everything_scores_alike_and_scores_never_matter_in_their_order(
    cases: int, seed: int
) -> None:
    values = np.random.default_rng(seed).random((cases, 3))
    held = tables(*map(tuple, values))
    turned = dict(reversed(held.items()))
    assert choose(held, own(held), OPTIONS, lower=False) == choose(turned, own(held), OPTIONS, lower=False)
    level = tables(*((value, value, value) for value in values[:, 0]))
    assert choose(level, own(level), OPTIONS, lower=False)["WT"] == PLAIN


def rows(gains: list[float], before: float = 0.5) -> list[CaseRow]:
    return [
        CaseRow(f"case{number}", f"case{number}", "WT", before, before + gain, before + gain, "")
        for number, gain in enumerate(gains)
    ]


@pytest.mark.parametrize(("metric", "helps"), [("dice", True), ("hd95_mm", False)])
def test_higher_is_better_or_not(metric: str, helps: bool) -> None:
    found = judge(rows([0.1, 0.12, 0.09, 0.11, 0.1, 0.12, 0.08]), ["WT"], metric)
    assert found.helps is helps
    assert not any("includes 0" in sentence for sentence in found.sentences)


def test_an_interval_that_includes_0_is_told_in_words() -> None:
    found = judge(rows([0.1, -0.1, 0.08, -0.05, 0.02, -0.03, 0.01, 0.0]), ["WT"], "dice")
    assert not found.helps
    assert any("includes 0: it is not shown that tuning helps" in sentence for sentence in found.sentences)


def test_what_is_in_force_comes_first_then_the_least_change() -> None:
    grid = Grid((0.4, 0.5, 0.6), (0, 10, 50), (0, 25))
    base = RegionSettings(0.45, smallest_component=7)
    for region, count in (("WT", 36), ("ET", 72)):
        options = grid.options(region, base)
        assert options[0] == base
        assert len(options) == len(set(options)) == count + 1
    plain = grid.options("WT", RegionSettings())
    changes = [option.steps_from(RegionSettings())[0] for option in plain]
    assert changes == sorted(changes)
    assert plain.index(RegionSettings(smallest_component=10)) < plain.index(RegionSettings(keep_largest=True))


def test_the_configuration_tells_what_is_in_force() -> None:
    told = {"threshold": [0.4, 0.5, 0.6], "fill_holes": True, "smallest_et": 9}
    assert settings_in_force(told, ("TC", "WT", "ET")) == {
        "TC": RegionSettings(0.4, True),
        "WT": RegionSettings(0.5, True),
        "ET": RegionSettings(0.6, True, smallest_et=9),
    }
    with pytest.raises(ValueError, match="3 values for 1 regions"):
        settings_in_force(told, ("WT",))


@pytest.mark.parametrize("wrong", [{"thresholds": ()}, {"thresholds": (0.5, 1.0)}, {"smallest_components": (-1,)}])
def test_a_grid_that_cannot_be_meant_is_refused(wrong: dict[str, tuple[float, ...]]) -> None:
    with pytest.raises(ValueError, match=r"thresholds|sizes"):
        Grid(**wrong)  # type: ignore[arg-type]
