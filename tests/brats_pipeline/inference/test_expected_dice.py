"""Expected Dice: the score of hand-drawn masks, the rising fit, cases left out, and what is not claimed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from brats_pipeline.errors import PipelineError
from brats_pipeline.inference.expected_dice import (
    MIN_CASES,
    ExpectedDice,
    RegionFit,
    dice_of,
    fit_expected_dice,
    fit_region,
    makers,
    read_expected_dice,
    soft_dice,
    write_expected_dice,
)


def test_the_score_of_a_hand_drawn_mask() -> None:
    p = np.array([0.9, 0.6, 0.2])
    assert soft_dice(p, np.array([True, True, False])) == pytest.approx(2 * 1.5 / (2 + 1.7))
    assert soft_dice(np.array([1.0, 0.0]), np.array([True, False])) == 1
    assert soft_dice(p, np.zeros(3, dtype=bool)) is None


def test_a_score_needs_a_mask_of_the_same_shape() -> None:
    with pytest.raises(ValueError, match=r"\(3,\) for a mask of shape \(2,\)"):
        soft_dice(np.zeros(3), np.zeros(2, dtype=bool))


def test_where_probabilities_are_right_the_score_is_the_mean_dice_of_drawn_references() -> None:
    generator = np.random.default_rng(0)
    p = generator.random(4000)
    mask = p >= 0.5
    drawn = [dice_of(mask, generator.random(4000) < p) for _ in range(200)]
    assert soft_dice(p, mask) == pytest.approx(np.mean(drawn), abs=0.002)


def test_dice_of_two_empty_masks_is_one_and_of_one_empty_mask_zero() -> None:
    empty, full = np.zeros(4, dtype=bool), np.ones(4, dtype=bool)
    assert (dice_of(empty, empty), dice_of(empty, full), dice_of(full, full)) == (1, 0, 1)


def pool_adjacent_violators(values: list[float]) -> list[float]:
    """Isotonic regression of equally weighted values in order, by the textbook's own steps."""
    blocks: list[list[float]] = []
    for value in values:
        blocks.append([value])
        while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
            last = blocks.pop()
            blocks[-1] += last
    return [float(np.mean(block)) for block in blocks for _ in block]


def noisy(n: int, seed: int = 0) -> list[tuple[float | None, float]]:
    generator = np.random.default_rng(seed)
    scores = np.sort(generator.uniform(0.5, 1, n))
    return [(float(s), float(np.clip(1.6 * s - 0.7 + generator.normal(0, 0.05), 0, 1))) for s in scores]


def test_the_fit_is_the_textbooks_isotonic_regression() -> None:
    cases = noisy(30)
    fit = fit_region(cases)
    assert fit is not None
    expected = pool_adjacent_violators([dice for _, dice in cases])
    assert [fit.expect(score) for score, _ in cases] == pytest.approx(expected)
    assert np.all(np.diff(fit.dice) >= 0)
    assert fit.expect(0.0) == fit.dice[0]
    assert fit.expect(1.0) == fit.dice[-1]


def test_the_error_is_that_of_cases_the_fit_has_not_seen() -> None:
    cases = noisy(12, seed=3)
    fit = fit_region(cases)
    assert fit is not None
    misses = []
    for left in range(12):
        others = [case for number, case in enumerate(cases) if number != left]
        line = pool_adjacent_violators([dice for _, dice in others])
        said = np.interp(cases[left][0], [score for score, _ in others], line)
        misses.append(abs(said - cases[left][1]))
    assert fit.mean_absolute_error == pytest.approx(np.mean(misses))
    seen = np.mean([abs(fit.expect(score) - dice) for score, dice in cases])
    assert fit.mean_absolute_error > seen


def test_a_score_that_says_nothing_is_no_better_than_the_mean() -> None:
    generator = np.random.default_rng(1)
    blind = fit_region([(float(generator.random()), float(generator.random())) for _ in range(60)])
    telling = fit_region(noisy(60))
    assert blind is not None
    assert telling is not None
    assert blind.mean_absolute_error > 0.9 * blind.of_the_mean
    assert telling.mean_absolute_error < 0.4 * telling.of_the_mean


def test_cases_of_one_patient_are_left_out_together() -> None:
    cases = [(0.6 + 0.01 * number, 0.5 + 0.4 * (number % 2)) for number in range(12)]
    twins = [case for case in cases for _ in range(2)]
    alone = fit_region(twins)
    together = fit_region(twins, patients=[str(number // 2) for number in range(24)])
    single = fit_region(cases)
    assert alone is not None
    assert together is not None
    assert single is not None
    assert together.mean_absolute_error == pytest.approx(single.mean_absolute_error)
    assert alone.mean_absolute_error < together.mean_absolute_error
    assert fit_region(twins, patients=["one"] * 24) is None
    with pytest.raises(ValueError, match="3 patients for 24 cases"):
        fit_region(twins, patients=["a", "b", "c"])


def test_few_cases_say_nothing() -> None:
    assert fit_region(noisy(MIN_CASES)) is not None
    assert fit_region(noisy(MIN_CASES - 1)) is None
    assert fit_region([*noisy(MIN_CASES - 1), (None, 1.0), (None, 0.0)]) is None


def test_an_empty_mask_is_expected_as_good_as_empty_masks_were() -> None:
    fit = fit_region([*noisy(MIN_CASES), (None, 1.0), (None, 0.0), (None, 1.0)])
    assert fit is not None
    assert (fit.n, fit.n_empty) == (MIN_CASES, 3)
    assert fit.expect(None) == pytest.approx(2 / 3)
    without = fit_region(noisy(MIN_CASES))
    assert without is not None
    assert without.expect(None) is None


def volumes(n: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Cases of two regions in four voxels: the second region is never marked."""
    p = [np.array([[0.9, 0.8, 0.5 + number / 100, 0.1], [0.2, 0.1, 0, 0]]).reshape(2, 4, 1, 1) for number in range(n)]
    references = [
        np.array([[1, 1, number % 2, 0], [0, 0, 0, 0]], dtype=bool).reshape(2, 4, 1, 1) for number in range(n)
    ]
    return p, references


def test_cases_go_in_as_probabilities_and_references() -> None:
    p, references = volumes(12)
    found = fit_expected_dice(iter(p), iter(references), regions=["WT", "ET"])
    assert list(found.regions) == ["WT"]
    assert found.regions["WT"].n == 12
    assert found.of("ET", p[0][1], p[0][1] >= 0.5) is None
    expected = found.of("WT", p[0][0], p[0][0] >= 0.5)
    assert expected is not None
    assert 0.8 <= expected <= 1


def test_masks_as_they_are_written_count_rather_than_the_threshold() -> None:
    p, references = volumes(12)
    masks = [reference.copy() for reference in references]
    perfect = fit_expected_dice(p, references, regions=["WT", "ET"], masks=masks)
    assert perfect.regions["WT"].dice == (1.0,) * len(perfect.regions["WT"].dice)
    high = fit_expected_dice(p, references, regions=["WT", "ET"], threshold=[0.85, 0.5])
    assert high.regions["WT"].dice[-1] == pytest.approx(np.mean([2 / 3, 2 / 4] * 6), abs=0.1)


@pytest.mark.parametrize("more", ["p", "reference", "mask"])
def test_more_of_one_kind_than_of_another_is_refused(more: str) -> None:
    p, references = volumes(3)
    masks = [one.copy() for one in references]
    shorter = {"p": p, "reference": references, "mask": masks}
    for name, cases in shorter.items():
        if name != more:
            cases.pop()
    with pytest.raises(ValueError, match="more cases"):
        fit_expected_dice(p, references, regions=["WT", "ET"], masks=masks)


def test_a_calibration_comes_back_from_its_file(tmp_path: Path) -> None:
    fit = fit_region([*noisy(MIN_CASES), (None, 1.0)])
    assert fit is not None
    made = ExpectedDice({"WT": fit}, {"weights_sha256": ["a"], "tta": []}, 0.6)
    write_expected_dice(tmp_path / "configs" / "expected_dice.json", made)
    assert read_expected_dice(tmp_path / "configs" / "expected_dice.json") == made
    assert read_expected_dice(tmp_path / "none.json") is None


@pytest.mark.parametrize("text", ["", "[]", '{"regions": {"WT": {}}}', '{"regions": {}, "made_by": {}}'])
def test_a_damaged_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "expected_dice.json").write_text(text)
    with pytest.raises(PipelineError, match="is no calibration"):
        read_expected_dice(tmp_path / "expected_dice.json")


def test_corners_that_fall_are_refused(tmp_path: Path) -> None:
    bad = RegionFit(10, (0.8, 0.6), (0.5, 0.7), 0.1, 0.1, 0, None)
    write_expected_dice(tmp_path / "bad.json", ExpectedDice({"WT": bad}, {}))
    with pytest.raises(PipelineError, match="corners of WT"):
        read_expected_dice(tmp_path / "bad.json")


def test_what_made_probabilities_is_told_by_weights_and_mirror_images(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).write_text(name)
    one, two = tmp_path / "a", tmp_path / "b"
    assert makers([one, two]) == makers([two, one])
    assert makers(one) == makers([one]) != makers(two)
    assert makers(one, tta=[1, 0]) == makers(one, tta=[0, 1]) != makers(one)
