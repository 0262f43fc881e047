"""Lesions one by one: drawings, and the figures that the official scripts of 2023 and 2024 give for synthetic pairs."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from brats_pipeline.metrics import EMPTY_RULES, RULES, CaseScore, LesionScore, Rules, measure_case, score_miss
from brats_pipeline.metrics.lesions import components, dilated, joined_across, numbered, touching
from transforms.labels import CONVENTIONS

FROZEN = json.loads(Path(__file__).with_name("lesionwise_official.json").read_text())
"""What the official scripts, transcribed by hand from public copies, gave for :func:`pair` in numpy 1.26, pandas 1.5
and surface-distance 0.1 (2023: eval.py; 2024: metrics_GLI.py, metrics_PED.py, metrics_MEN_RT.py of the last revision
and metrics_MET.py of the last but one, which has no RC and the penalty 374). Keys: rules, pair, spacing, region."""

SPACINGS = {"mm": (1.0, 1.0, 1.0), "aniso": tuple(float(np.float32(side)) for side in (0.8, 1.25, 2.0))}
"""The scripts read voxel sides from a NIfTI header, in single precision."""


def box(labels: np.ndarray, start: tuple[int, ...], size: tuple[int, ...], value: int) -> None:
    labels[tuple(slice(a, a + b) for a, b in zip(start, size, strict=True))] = value


def glioma(labels: np.ndarray, shift: int) -> None:
    """Two lesions of three tissues: a cavity beside one; a necrosis that joins two enhancing parts in the other."""
    box(labels, (4, 4 + shift, 4), (14, 13, 12), 2)
    box(labels, (7, 7, 6 + shift), (8, 7, 6), 3)
    box(labels, (9 + shift, 9, 8), (3, 3, 3), 1)
    box(labels, (18, 6, 6), (4, 6 + shift, 5), 4)
    box(labels, (26, 30, 24), (14 - shift, 12, 10), 2)
    box(labels, (27, 32, 26), (4, 4, 4), 3)
    box(labels, (31, 32, 26), (3, 5, 4), 1)
    box(labels, (34, 32, 26 + shift), (4, 4, 3), 3)


def specks(labels: tuple[np.ndarray, np.ndarray]) -> None:
    """Boxes on both sides of the thresholds 2, 10, 20 and 50, once in both masks and once in one."""
    sizes = [
        (1, 1, 1),
        (1, 1, 2),
        (1, 1, 3),
        (1, 2, 5),
        (1, 1, 11),
        (2, 2, 5),
        (3, 1, 7),
        (2, 5, 5),
        (1, 3, 17),
        (3, 3, 6),
    ]
    for number, size in enumerate(sizes):
        value, column, row = (3, 1, 2, 4)[number % 4], 3 + 15 * (number % 3), 3 + 12 * (number // 3)
        for mask in labels:
            box(mask, (column, row, 4), size, value)
        box(labels[number % 2], (column, row, 25), size, value)


def noise(shape: tuple[int, ...]) -> list[np.ndarray]:
    """Ragged tissues that touch and break up; the two maps share most of it."""
    random = np.random.default_rng(7)

    def smooth(field: np.ndarray) -> np.ndarray:
        for axis in range(3):
            field = sum(np.roll(field, step, axis) for step in (-2, -1, 0, 1, 2))
        return field / field.std()

    base = smooth(random.normal(size=shape))
    maps = []
    for _ in range(2):
        field = base + 0.5 * smooth(random.normal(size=shape))
        inner = smooth(random.normal(size=shape))
        labels = np.zeros(shape, np.uint8)
        labels[field > 1.6] = 2
        labels[(field > 1.6) & (inner > 0.3)] = 1
        labels[(field > 1.9) & (inner < 0.2)] = 3
        labels[(field > 1.6) & (inner < -1.3)] = 4
        maps.append(labels)
    return maps


def pair(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and reference, with 4 for a cavity."""
    if name == "noise":
        reference, prediction = noise((30, 28, 26))
        return prediction, reference
    reference, prediction = (np.zeros((48, 52, 44), np.uint8) for _ in range(2))
    if name == "specks":
        specks((prediction, reference))
    elif name != "nothing":
        for labels, shift in ((reference, 0), (prediction, 1)):
            glioma(labels, shift)
        box(reference, (4, 40, 4), (5, 5, 5), 3)  # missed
        box(reference, (14, 42, 6), (4, 4, 4), 3)  # split in two by the prediction
        box(prediction, (13, 42, 6), (2, 4, 4), 3)
        box(prediction, (17, 42, 6), (3, 4, 4), 3)
        box(prediction, (40, 4, 34), (6, 5, 4), 2)  # false positives, one of them a voxel
        prediction[44, 46, 4] = 3
        box(prediction, (20, 46, 36), (4, 4, 3), 4)
    if name == "only reference":
        prediction[:] = 0
    if name == "only prediction":
        reference[:] = 0
    return prediction, reference


def measured(prediction: np.ndarray | None, reference: np.ndarray, rules: Rules, spacing=(1.0, 1.0, 1.0)) -> CaseScore:
    convention = CONVENTIONS[rules.conventions[0]]
    return measure_case(
        prediction,
        reference,
        case_id="A",
        spacing_mm=spacing,
        prediction_convention=convention,
        reference_convention=convention,
        rules=rules,
    )


@pytest.mark.parametrize("key", sorted({key.rsplit("|", 1)[0] for key in FROZEN}))
def test_the_official_scripts_give_the_same_figures(key):
    name, kind, spacing = key.split("|")
    rules = RULES[name]
    prediction, reference = pair(kind)
    if "2023" in name:
        prediction, reference = (
            np.where(labels == 4, 0, labels).astype(np.uint8) for labels in (prediction, reference)
        )
    elif name == "brats2024-men-rt":
        prediction, reference = ((labels == 3).astype(np.uint8) for labels in (prediction, reference))
    elif name == "brats2024-met":  # the figures are those of the revision before
        assert rules.lesions is not None
        joined = replace(rules.lesions, tissues=(("ET", ("NETC",)),))
        rules = replace(rules, regions=("WT", "TC", "ET"), empties=EMPTY_RULES["brats2023"], lesions=joined)
    for row in measured(prediction, reference, rules, SPACINGS[spacing]).regions:
        for column, value in FROZEN[f"{key}|{row.region}"].items():
            assert getattr(row, column) == pytest.approx(value, rel=1e-7, abs=1e-7), f"{row.region} {column}"


def in_full(mask: np.ndarray, *, least: int) -> np.ndarray:
    """Lesions as the script for metastases numbers them: parts that meet after one dilation, larger than ``least``."""
    grown, _ = ndimage.label(ndimage.binary_dilation(mask, ndimage.generate_binary_structure(3, 2)), np.ones((3, 3, 3)))
    numbers = np.where(mask, grown, 0)
    return np.where(np.bincount(numbers.ravel())[numbers] > least, numbers, 0)


def hd95_by_surface_distance(reference: np.ndarray, prediction: np.ndarray, spacing) -> float:
    """What the surface-distance package says; it still calls SciPy by names that SciPy warns about."""
    from surface_distance import metrics

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return metrics.compute_robust_hausdorff(metrics.compute_surface_distances(reference, prediction, spacing), 95)


def metastases_in_full(prediction: np.ndarray, reference: np.ndarray, spacing) -> dict[str, float]:
    """The lesion-wise scores of the last revision for metastases, over whole volumes, lesion by lesion."""
    penalty = math.hypot(*reference.shape)
    guesses, lesions = in_full(prediction, least=2), in_full(reference, least=0)
    dices, distances, used, found = [], [], {0}, []
    for number in np.unique(lesions[lesions > 0]):
        lesion = lesions == number
        zone = ndimage.binary_dilation(lesion, ndimage.generate_binary_structure(3, 2))
        partners = set(np.unique(guesses[zone]).tolist()) - {0}
        used |= partners
        if lesion.sum() * math.prod(spacing) <= 2:
            continue
        union = np.isin(guesses, list(partners)) & (guesses > 0)
        found.append(bool(partners))
        dices.append(2 * (union & lesion).sum() / (union.sum() + lesion.sum()))
        distances.append(hd95_by_surface_distance(lesion, union, spacing) if partners else penalty)
    alone = len(set(np.unique(guesses).tolist()) - used)
    n = len(dices) + alone
    return {
        "lesionwise_dice": sum(dices) / n if n else 1.0,
        "lesionwise_hd95_mm": (sum(distances) + alone * penalty) / n if n else 0.0,
        "lesions_tp": sum(found),
        "lesions_fp": alone,
        "lesions_fn": len(found) - sum(found),
    }


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("kind", ["many", "specks", "noise", "only reference", "only prediction", "nothing"])
def test_metastases_are_scored_region_by_region_as_in_the_last_revision(kind, spacing):
    prediction, reference = pair(kind)
    values = {"WT": (1, 2, 3), "TC": (1, 3), "ET": (3,), "RC": (4,)}
    rows = measured(prediction, reference, RULES["brats2024-met"], SPACINGS[spacing]).regions
    assert [row.region for row in rows] == list(values)
    for row in rows:
        sides = (np.isin(labels, values[row.region]) for labels in (prediction, reference))
        for column, value in metastases_in_full(*sides, SPACINGS[spacing]).items():
            assert getattr(row, column) == pytest.approx(value, rel=1e-7, abs=1e-7), f"{row.region} {column}"


def drawn(*rows: str, depth: int = 4) -> np.ndarray:
    """A label map drawn with digits and dots, ``depth`` slices thick."""
    plane = np.array([[0 if sign == "." else int(sign) for sign in row] for row in rows], np.uint8)
    return np.repeat(plane[:, :, None], depth, axis=2)


GLI, MET = RULES["brats2023-gli"], RULES["brats2023-met"]


def of_region(score: CaseScore, region: str) -> list[LesionScore]:
    return [row for row in score.lesions if row.region == region]


def test_a_drawing_has_one_found_one_missed_and_one_invented_lesion():
    reference = drawn(
        "333...........",
        "333........333",
        "333........333",
    )
    prediction = drawn(
        "333...........",
        "333...........",
        "......333.....",
    )
    score = measured(prediction, reference, MET)
    rows = of_region(score, "ET")
    assert [(row.lesion, row.kind, row.counted) for row in rows] == [(1, "tp", True), (2, "fn", True), (3, "fp", True)]
    assert [row.dice for row in rows] == [pytest.approx(2 * 24 / (24 + 36)), 0, 0]
    assert [row.hd95_mm for row in rows] == [1, 374, 374]
    assert [row.reference_ml for row in rows] == pytest.approx([0.036, 0.024, 0])
    assert [row.predicted_ml for row in rows] == pytest.approx([0.024, 0, 0.012])
    et = score.regions[2]
    assert (et.lesions_tp, et.lesions_fp, et.lesions_fn) == (1, 1, 1)
    assert et.lesionwise_dice == pytest.approx(0.8 / 3)
    assert et.lesionwise_hd95_mm == pytest.approx((1 + 2 * 374) / 3)


@pytest.mark.parametrize(("gap", "lesions"), [(6, 1), (7, 2)])
def test_parts_of_the_reference_are_one_lesion_when_three_steps_from_each_side_meet(gap, lesions):
    reference = drawn("333" + "." * gap + "333", "333" + "." * gap + "333", depth=9)
    assert len(of_region(measured(reference, reference, GLI), "ET")) == lesions


@pytest.mark.parametrize(("depth", "counted"), [(5, False), (6, True)])
def test_a_lesion_must_be_larger_than_the_threshold(depth, counted):
    reference = drawn("33333", "33333", depth=depth)  # 50 or 60 mm3
    score = measured(reference, reference, GLI)
    assert [row.counted for row in of_region(score, "ET")] == [counted]
    assert score.regions[2].lesions_tp == int(counted)
    assert score.regions[2].lesionwise_dice == 1
    # Missed, the small one costs nothing: nothing to count scores 1 and 0.
    missed = measured(np.zeros_like(reference), reference, GLI).regions[2]
    assert (missed.lesionwise_dice, missed.lesionwise_hd95_mm) == ((0, 374) if counted else (1, 0))


def test_a_single_invented_voxel_counts_in_2023_and_not_in_2024():
    reference = drawn("333333" + "." * 9, "333333" + "." * 9, depth=5)
    prediction = reference.copy()
    prediction[1, 14, 4] = 3
    assert measured(prediction, reference, GLI).regions[2].lesionwise_dice == pytest.approx(1 / 2)
    row = measured(prediction, reference, RULES["brats2024-gli"]).regions[2]
    assert (row.region, row.lesionwise_dice, row.lesions_fp) == ("ET", 1, 0)
    assert row.legacy_dice == 1
    assert row.dice < 1  # the plain Dice still sees the voxel


def test_radiotherapy_meningiomas_are_not_charged_for_invented_lesions():
    rules = RULES["brats2024-men-rt"]
    reference = drawn("1111......", "1111......", "1111......", depth=9)
    prediction = drawn("1111...111", "1111...111", "1111...111", depth=9)
    (row,) = measured(prediction, reference, rules).regions
    assert (row.lesionwise_dice, row.lesions_fp) == (1, 1)
    (missed,) = measured(np.zeros_like(reference), reference, rules).regions
    assert missed.lesionwise_hd95_mm == missed.hd95_mm == pytest.approx(math.sqrt(3**2 + 10**2 + 9**2))


def test_extra_regions_belong_to_their_rules_alone():
    assert [row.region for row in measured(*pair("many"), RULES["brats2024-gli"]).regions] == list(
        RULES["brats2024-gli"].regions
    )
    regions = {name: set(rules.regions) - {"WT", "TC", "ET"} for name, rules in RULES.items()}
    assert {name: extra for name, extra in regions.items() if extra} == {
        "brats2024-gli": {"NETC", "SNFH", "RC"},
        "brats2024-ped": {"NETC", "CC", "ED"},
        "brats2024-met": {"RC"},
        "brats2024-men-rt": {"GTV"},
    }


def test_without_a_prediction_every_lesion_is_missed_and_an_empty_region_too():
    reference = np.where(pair("many")[1] == 4, 0, pair("many")[1]).astype(np.uint8)
    lesions = measured(None, reference, GLI).lesions
    assert {row.kind for row in lesions} == {"fn"}
    rows = score_miss(
        np.zeros_like(reference),
        case_id="A",
        spacing_mm=(1, 1, 1),
        reference_convention=CONVENTIONS["brats2023"],
        rules=GLI,
    )
    assert {(row.lesionwise_dice, row.lesionwise_hd95_mm, row.lesions_fn) for row in rows} == {(0, 374, 0)}


masks = st.builds(
    lambda seed, sides, density: np.random.default_rng(seed).random(sides) < density,
    st.integers(0, 2**32 - 1),
    st.tuples(*[st.integers(1, 9)] * 3),
    st.floats(0.01, 0.6),
)


@settings(max_examples=60, deadline=None)
@given(mask=masks, steps=st.integers(1, 5))
def test_dilation_and_labels_are_those_of_scipy(mask, steps):
    around = ndimage.generate_binary_structure(3, 2)
    grown = ndimage.binary_dilation(mask, around, iterations=steps)
    np.testing.assert_array_equal(dilated(mask, steps), grown)
    labels, _ = ndimage.label(grown, np.ones((3, 3, 3)))
    lesions, zones = numbered(mask, steps=steps)
    np.testing.assert_array_equal(zones, labels)
    np.testing.assert_array_equal(lesions, labels * mask)
    np.testing.assert_array_equal(components(mask), ndimage.label(mask, np.ones((3, 3, 3)))[0])


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), sides=st.tuples(*[st.integers(1, 7)] * 3))
def test_lesions_touch_where_one_dilated_by_a_step_meets_the_other(seed, sides):
    labels = np.random.default_rng(seed).choice(3, sides, p=(0.7, 0.15, 0.15))
    first, second = components(labels == 1), components(labels == 2)
    around = ndimage.generate_binary_structure(3, 2)
    expected = [
        (one, other)
        for one in range(1, first.max() + 1)
        for other in range(1, second.max() + 1)
        if (ndimage.binary_dilation(first == one, around) & (second == other)).any()
    ]
    assert touching(first, second) == expected


def test_lesions_that_touch_one_lesion_of_another_tissue_become_one():
    mine = np.array([1, 0, 2, 0, 0, 3, 0, 4], np.int32).reshape(-1, 1, 1)
    theirs = np.array([0, 1, 0, 0, 0, 0, 2, 0], np.int32).reshape(-1, 1, 1)
    new = joined_across(mine, [theirs])
    assert new[1] == new[2]
    assert new[3] == new[4] != new[1]
    assert new[0] == 0


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), axes=st.sets(st.integers(0, 2), min_size=1))
def test_a_flipped_copy_scores_the_same(seed, axes):
    random = np.random.default_rng(seed)
    prediction, reference = (
        random.choice(4, (12, 11, 10), p=(0.9, 0.04, 0.03, 0.03)).astype(np.uint8) for _ in range(2)
    )
    flip = tuple(slice(None, None, -1) if axis in axes else slice(None) for axis in range(3))
    plain = measured(prediction, reference, MET, (1.0, 1.2, 2.0)).regions
    turned = measured(prediction[flip], reference[flip], MET, (1.0, 1.2, 2.0)).regions
    for one, other in zip(plain, turned, strict=True):
        for column in ("dice", "hd95_mm", "assd_mm", "nsd_1mm", "lesionwise_dice", "lesionwise_hd95_mm", "lesions_fp"):
            assert getattr(one, column) == pytest.approx(getattr(other, column)), column


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), name=st.sampled_from([name for name, rules in RULES.items() if rules.lesions]))
def test_a_perfect_prediction_has_only_perfect_lesions(seed, name):
    rules = RULES[name]
    values = [value for value in CONVENTIONS[rules.conventions[0]].values if value]
    labels = np.random.default_rng(seed).choice([0, *values], (14, 12, 10), p=[0.8, *[0.2 / len(values)] * len(values)])
    kept = replace(rules, lesions=replace(rules.lesions, small_predictions="none"))
    score = measured(labels.astype(np.uint8), labels.astype(np.uint8), kept)
    for row in score.regions:
        assert (row.dice, row.lesionwise_hd95_mm, row.lesions_fp, row.lesions_fn) == (1, 0, 0, 0)
    # Before 2024 the parts of one lesion are matched with all predicted parts in reach, its neighbour's included.
    if rules.lesions.merged_predictions:
        assert {row.lesionwise_dice for row in score.regions} == {1}
