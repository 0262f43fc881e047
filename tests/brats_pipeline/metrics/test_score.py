"""Rows per case and region: drawings, empty regions, conventions, misses."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest

from brats_pipeline.errors import CaseError
from brats_pipeline.metrics import COLUMNS, RULES, missed_row, rules_named, score_case, score_miss, summarise
from transforms.labels import CONVENTIONS

RULE = RULES["brats2023-gli"]
V2017, V2023 = CONVENTIONS["brats2017"], CONVENTIONS["brats2023"]


def drawn(*rows: str) -> np.ndarray:
    """A label map one voxel thick, drawn with digits and dots."""
    return np.array([[[0 if sign == "." else int(sign)] for sign in row] for row in rows], np.uint8)


def score(prediction, reference, prediction_convention=V2023, reference_convention=V2023, spacing=(1.0, 1.0, 1.0)):
    rows = score_case(
        prediction,
        reference,
        case_id="A",
        spacing_mm=spacing,
        prediction_convention=prediction_convention,
        reference_convention=reference_convention,
        rules=RULE,
    )
    return {row.region: row for row in rows}


def test_a_drawing_is_counted_as_a_person_counts_it():
    reference = drawn(
        ".......",
        ".2222..",
        ".2133..",
        ".2222..",
    )
    prediction = drawn(
        ".......",
        "..2222.",
        "..1133.",
        "..2222.",
    )
    rows = score(prediction, reference, spacing=(10.0, 10.0, 20.0))
    whole, core, enhancing = rows["WT"], rows["TC"], rows["ET"]
    assert list(rows) == ["WT", "TC", "ET"]
    assert (whole.tp, whole.fp, whole.fn, whole.tn) == (9, 3, 3, 13)
    assert (core.tp, core.fp, core.fn, core.tn) == (3, 1, 0, 24)
    assert (enhancing.tp, enhancing.fp, enhancing.fn, enhancing.tn) == (1, 1, 1, 25)
    assert whole.dice == pytest.approx(0.75)
    assert core.recall == 1
    assert core.precision == pytest.approx(0.75)
    assert enhancing.iou == pytest.approx(1 / 3)
    assert enhancing.specificity == pytest.approx(25 / 26)
    assert whole.reference_ml == pytest.approx(24)
    assert core.predicted_ml == pytest.approx(8)
    assert whole.hd95_mm == pytest.approx(10)


NOTHING, SOMETHING = drawn("...."), drawn(".23.")


@pytest.mark.parametrize(
    ("prediction", "reference", "overlap", "hd95"),
    [
        (NOTHING, NOTHING, 1.0, 0.0),
        (SOMETHING, NOTHING, 0.0, 374.0),
        (NOTHING, SOMETHING, 0.0, 374.0),
        (SOMETHING, SOMETHING, 1.0, 0.0),
    ],
)
def test_empty_regions_score_what_the_rule_says(prediction, reference, overlap, hd95):
    for row in score(prediction, reference).values():
        assert (row.dice, row.iou, row.precision, row.recall, row.hd95_mm) == (*(overlap,) * 4, hd95)


def test_regions_are_judged_one_by_one():
    rows = score(drawn(".222."), drawn(".223."))
    assert rows["WT"].dice == 1
    assert (rows["ET"].dice, rows["ET"].hd95_mm) == (0, 374)


def test_a_missed_tumour_is_not_ignored():
    rows = score_miss(SOMETHING, case_id="A", spacing_mm=(1, 1, 1), reference_convention=V2023, rules=RULE)
    assert [(row.dice, row.hd95_mm, row.fn) for row in rows] == [(0, 374, 2), (0, 374, 1), (0, 374, 1)]
    assert all(math.isnan(row.predicted_ml) for row in rows)


def test_a_missing_prediction_is_no_correct_answer_for_an_empty_region():
    rows = score_miss(drawn(".22."), case_id="A", spacing_mm=(1, 1, 1), reference_convention=V2023, rules=RULE)
    assert [(row.region, row.dice, row.hd95_mm) for row in rows] == [("WT", 0, 374), ("TC", 0, 374), ("ET", 0, 374)]


def test_each_side_is_read_by_its_own_convention():
    rows = score(drawn(".123.."), drawn(".124.."), V2023, V2017)
    assert [row.dice for row in rows.values()] == [1, 1, 1]


@pytest.mark.parametrize("side", ["prediction", "reference"])
def test_a_label_outside_the_convention_is_refused_by_name(side):
    maps = {"prediction": SOMETHING, "reference": SOMETHING, side: drawn(".27.")}
    with pytest.raises(CaseError, match=f"the {side} holds the label 7"):
        score(maps["prediction"], maps["reference"])


def test_a_crop_changes_nothing_but_the_true_negatives():
    random = np.random.default_rng(0)
    prediction, reference = (random.integers(0, 4, (6, 7, 5)).astype(np.uint8) for _ in range(2))
    small = score(prediction, reference)
    large = score(np.pad(prediction, 9), np.pad(reference, 9))
    for region in RULE.regions:
        for column in COLUMNS:
            if column not in ("tn", "specificity"):
                assert getattr(small[region], column) == getattr(large[region], column), column


def test_columns_stand_in_the_agreed_order():
    expected = (
        "case_id region dice iou precision recall specificity hd95_mm assd_mm nsd_0p5mm nsd_1mm nsd_2mm "
        "reference_ml predicted_ml tp fp fn tn lesionwise_dice lesionwise_hd95_mm lesions_tp lesions_fp lesions_fn"
    )
    assert list(COLUMNS) == expected.split()


def test_rules_say_what_they_count():
    text = " ".join(rules_named("brats2023-gli").sentences())
    assert "374" in text
    assert "95th percentile" in text
    with pytest.raises(ValueError, match="known: brats2023-gli"):
        rules_named("brats1999")


def test_a_summary_leaves_no_case_out():
    rows = [
        row
        for case_id, prediction in (("A", SOMETHING), ("B", NOTHING))
        for row in score_case(
            prediction,
            SOMETHING,
            case_id=case_id,
            spacing_mm=(1, 1, 1),
            prediction_convention=V2023,
            reference_convention=V2023,
            rules=RULE,
        )
    ]
    whole = summarise(rows, ("WT",))[0]
    assert (whole.n, whole.n_without_reference) == (2, 0)
    assert (whole.metrics["dice"].mean, whole.metrics["hd95_mm"].mean) == (0.5, 187)
    assert whole.metrics["dice"].sd == pytest.approx(math.sqrt(0.5))
    assert whole.metrics["dice"].q1 == 0.25


def test_scoring_needs_neither_torch_nor_pandas():
    code = (
        "import sys, brats_pipeline.metrics\n"
        "heavy = {'torch', 'monai', 'pandas', 'matplotlib', 'sklearn'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["brats2023-gli", "brats2024-gli", "brats2024-ped", "brats2020"])
def test_a_miss_made_from_another_runs_row_is_the_miss_of_the_case_itself(name):
    rules = RULES[name]
    convention = CONVENTIONS[rules.conventions[0]]
    random = np.random.default_rng(3)
    reference, prediction = (random.choice([0, 0, 0, *convention.values], (9, 8, 7)).astype(np.uint8) for _ in range(2))
    given = {"case_id": "A", "spacing_mm": (2.0, 2.0, 2.0), "reference_convention": convention, "rules": rules}
    scored = score_case(prediction, reference, prediction_convention=convention, **given)
    made = [missed_row(row, rules=rules) for row in scored]
    assert list(map(repr, made)) == list(map(repr, score_miss(reference, **given)))


def test_a_miss_that_costs_the_diagonal_cannot_be_made_from_a_row():
    rules = RULES["brats2024-met"]
    convention = CONVENTIONS["brats2024-met"]
    labels = np.ones((3, 3, 3), np.uint8)
    row = score_miss(labels, case_id="A", spacing_mm=(1, 1, 1), reference_convention=convention, rules=rules)[0]
    with pytest.raises(ValueError, match="diagonal"):
        missed_row(row, rules=rules)
