"""Four ways to average Dice over slices, on drawn slices."""

from __future__ import annotations

import math

import numpy as np
import pytest

from brats_pipeline.metrics import (
    RULES,
    SliceScore,
    rules_named,
    score_case,
    score_miss,
    score_slices,
    slice_headline,
    summarise_slices,
    usual_rules,
)
from transforms.labels import CONVENTIONS

LGG = RULES["lgg"]


def drawn(*slices: str) -> np.ndarray:
    """A mask from pictures of its slices: rows apart by blanks, # is inside."""
    grids = [[[pixel == "#" for pixel in row] for row in picture.split()] for picture in slices]
    return np.array(grids).transpose(2, 1, 0)


# Patient A: half of the tumour found; a false alarm; nothing anywhere. Patient B: all found; nothing anywhere.
A_REFERENCE = drawn("##.. ##.. ....", ".... .... ....", ".... .... ....")
A_PREDICTION = drawn("#... #... ....", "...# .... ....", ".... .... ....")
B_REFERENCE = drawn(".... .##. ....", ".... .... ....")
A_NAMES, B_NAMES = ("a1", "a2", "a3"), ("b1", "b2")


def rows_of(prediction: np.ndarray, reference: np.ndarray, case_id: str):
    return score_case(
        prediction.astype(np.uint8),
        reference.astype(np.uint8),
        case_id=case_id,
        spacing_mm=None,
        prediction_convention=CONVENTIONS["lgg"],
        reference_convention=CONVENTIONS["lgg"],
        rules=LGG,
    )


@pytest.fixture
def cohort():
    rows = [*rows_of(A_PREDICTION, A_REFERENCE, "A"), *rows_of(B_REFERENCE, B_REFERENCE, "B")]
    slices = [
        *score_slices(A_PREDICTION, A_REFERENCE, case_id="A", names=A_NAMES, rules=LGG),
        *score_slices(B_REFERENCE, B_REFERENCE, case_id="B", names=B_NAMES, rules=LGG),
    ]
    return rows, slices


def test_every_slice_is_counted_by_itself(cohort):
    assert cohort[1] == [
        SliceScore("A", "a1", pytest.approx(2 / 3), tp=2, fp=0, fn=2, tn=8),
        SliceScore("A", "a2", 0, tp=0, fp=1, fn=0, tn=11),
        SliceScore("A", "a3", 1, tp=0, fp=0, fn=0, tn=12),
        SliceScore("B", "b1", 1, tp=2, fp=0, fn=0, tn=10),
        SliceScore("B", "b2", 1, tp=0, fp=0, fn=0, tn=12),
    ]


def test_a_patient_is_one_row_of_pooled_slices_without_mm_and_ml(cohort):
    a, b = cohort[0]
    assert (a.tp, a.fp, a.fn, a.tn) == (2, 1, 2, 31)
    assert (a.dice, a.iou, a.precision, a.recall) == pytest.approx((4 / 7, 2 / 5, 2 / 3, 1 / 2))
    assert b.dice == 1
    assert all(math.isnan(value) for row in (a, b) for value in (row.hd95_mm, row.reference_ml, row.predicted_ml))


def test_the_four_averages_differ_and_are_kept_apart(cohort):
    (group,) = summarise_slices(*cohort, incomplete=())
    assert (group.patients, group.slices, group.tumour_slices) == (2, 5, 2)
    assert group.per_patient["dice"].mean == pytest.approx((4 / 7 + 1) / 2)
    assert group.dice_per_tumour_slice.mean == pytest.approx((2 / 3 + 1) / 2)
    assert group.dice_per_slice.mean == pytest.approx((2 / 3 + 0 + 1 + 1 + 1) / 5)
    assert group.pooled == pytest.approx({"dice": 8 / 11, "iou": 4 / 7, "precision": 4 / 5, "recall": 4 / 6})


def test_each_average_is_printed_under_its_name(cohort):
    header, *rows = slice_headline(summarise_slices(*cohort, incomplete=()))
    assert header == ["", "all patients (2)"]
    figures = {row[0]: row[1] for row in rows}
    assert figures["Dice per patient volume (slices pooled)"].startswith("0.786 ±")
    assert figures["Mean Dice per tumour slice"].startswith("0.833 ±")
    assert figures["Mean Dice per slice (empty slices counted)"].startswith("0.733 ±")
    assert figures["Dice pooled over the cohort"] == "0.727"
    assert rows[0][0] == "Dice per patient volume (slices pooled)"


def test_patients_who_lack_a_sequence_are_left_out_of_the_second_group(cohort):
    everyone, whole = summarise_slices(*cohort, incomplete=["B"])
    assert (everyone.patients, whole.patients) == (2, 1)
    assert whole.per_patient["dice"].mean == pytest.approx(4 / 7)
    assert whole.pooled["dice"] == pytest.approx(4 / 7)
    assert whole.slices == 3


def test_a_missing_prediction_is_a_miss_in_every_slice_and_never_a_correct_empty_one():
    slices = score_slices(None, A_REFERENCE, case_id="A", names=A_NAMES, rules=LGG)
    assert [row.dice for row in slices] == [0, 0, 0]
    (row,) = score_miss(
        A_REFERENCE.astype(np.uint8), case_id="A", spacing_mm=None, reference_convention=CONVENTIONS["lgg"], rules=LGG
    )
    assert (row.dice, row.fn, row.tp) == (0, 4, 0)
    assert math.isnan(row.hd95_mm)


def test_patients_without_any_tumour_have_no_tumour_slices():
    nothing = np.zeros_like(B_REFERENCE)
    slices = score_slices(nothing, nothing, case_id="B", names=B_NAMES, rules=LGG)
    (group,) = summarise_slices(rows_of(nothing, nothing, "B"), slices, incomplete=())
    assert group.dice_per_tumour_slice is None
    assert group.pooled["dice"] is None
    assert group.per_patient["dice"].mean == 1
    assert ["Dice pooled over the cohort", "-"] in slice_headline([group])


def test_a_group_that_is_empty_prints_no_figures(cohort):
    _, whole = summarise_slices(*cohort, incomplete=["A", "B"])
    assert whole.patients == 0
    assert {row[1] for row in slice_headline([whole])[1:]} <= {"-", "- ± -"}


def test_the_interval_of_the_mean_covers_it_and_narrows_with_patients():
    random = np.random.default_rng(0)

    def interval(count: int) -> tuple[float, float]:
        rows = []
        for index in range(count):
            reference = np.zeros((20, 20, 1), bool)
            reference[:10] = True
            prediction = np.zeros_like(reference)
            prediction[: int(random.integers(3, 11))] = True
            rows += rows_of(prediction, reference, f"case{index}")
        (group,) = summarise_slices(rows, [], incomplete=())
        low, high = group.dice_interval_95
        assert low < group.per_patient["dice"].mean < high
        # As wide as the normal interval, to a tenth or so: the bootstrap knows no (n - 1).
        half = 1.96 * group.per_patient["dice"].sd / count**0.5
        assert high - low == pytest.approx(2 * half, rel=0.15)
        return low, high

    few, many = interval(12), interval(48)
    assert many[1] - many[0] < few[1] - few[0]


def test_two_patients_have_no_interval(cohort):
    (group,) = summarise_slices(*cohort, incomplete=())
    assert group.dice_interval_95 is None


def test_slices_have_rules_of_their_own():
    assert rules_named("lgg").regions == ("WT",)
    assert usual_rules(slices=True).name == "lgg"
    assert usual_rules(slices=False).name == "brats2023-gli"
    said = " ".join(LGG.sentences())
    assert "HD95" not in said
    assert "None" not in said


@pytest.mark.parametrize(
    ("prediction", "names", "message"),
    [(A_PREDICTION[:, :, :2], A_NAMES, "one shape"), (A_PREDICTION, B_NAMES, "2 names for 3 slices")],
)
def test_masks_that_do_not_belong_together_are_refused(prediction, names, message):
    with pytest.raises(ValueError, match=message):
        score_slices(prediction, A_REFERENCE, case_id="A", names=names, rules=LGG)


def test_time_points_are_volumes_of_one_patient(cohort):
    (group,) = summarise_slices(*cohort, incomplete=(), patients={"A": "one", "B": "one"})
    assert (group.patients, group.volumes) == (1, 2)
    assert slice_headline([group])[0] == ["", "all patients (1, 2 volumes)"]
