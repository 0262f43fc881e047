"""Counts and the scores that follow, on drawings small enough to count by hand."""

from __future__ import annotations

import math

import pytest

from brats_pipeline.metrics import Counts, dice, iou, precision, recall, specificity


def test_scores_follow_from_counts():
    counts = Counts(tp=3, fp=1, fn=2, tn=4)
    assert counts.predicted == 4
    assert counts.reference == 5
    assert dice(counts) == pytest.approx(6 / 9)
    assert iou(counts) == pytest.approx(3 / 6)
    assert precision(counts) == pytest.approx(3 / 4)
    assert recall(counts) == pytest.approx(3 / 5)
    assert specificity(counts) == pytest.approx(4 / 5)


def test_dice_and_iou_tell_the_same_story():
    counts = Counts(tp=7, fp=5, fn=3, tn=85)
    overlap = iou(counts)
    assert dice(counts) == pytest.approx(2 * overlap / (1 + overlap))


@pytest.mark.parametrize(
    ("counts", "undefined"),
    [
        (Counts(tp=0, fp=0, fn=0, tn=9), {dice, iou, precision, recall}),
        (Counts(tp=0, fp=0, fn=4, tn=5), {precision}),
        (Counts(tp=0, fp=4, fn=0, tn=5), {recall}),
        (Counts(tp=9, fp=0, fn=0, tn=0), {specificity}),
    ],
)
def test_what_has_no_denominator_is_not_a_number(counts, undefined):
    for score in (dice, iou, precision, recall, specificity):
        assert math.isnan(score(counts)) == (score in undefined), score.__name__
