"""The plots of a report: what they show, that they say how many cases, and that equal data give equal files."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from brats_pipeline.metrics import RegionScore
from brats_pipeline.report.charts import (
    confusion_chart,
    dice_by_volume,
    rendered,
    strip_chart,
    training_chart,
    volume_agreement,
)
from brats_pipeline.report.confusion import joined


def row(case_id: str, region: str = "WT", *, dice: float = 0.8, reference: float = 10.0, predicted: float = 9.0):
    return RegionScore(case_id, region, dice, dice, dice, dice, 1.0, 2.5, reference, predicted, 9, 1, 1, 90)


COHORT = [row("a", predicted=12.0), row("b", predicted=8.0), row("c", predicted=16.0), row("c", "ET", reference=0.0)]


def dots(axes) -> int:
    return sum(len(marks.get_offsets()) for marks in axes.collections if hasattr(marks, "get_sizes"))


def words(axes) -> str:
    legend = axes.get_legend()
    named = [text.get_text() for text in legend.get_texts()] if legend else []
    ticks = [tick.get_text() for tick in axes.get_xticklabels()]
    return " ".join([axes.get_title(), axes.get_xlabel(), axes.get_ylabel(), *named, *ticks])


def test_strips_show_every_defined_value_and_count_them():
    scores = [*COHORT, replace(COHORT[0], case_id="d", hd95_mm=math.nan)]
    axes = strip_chart(scores, ("WT", "ET"), "hd95_mm", "HD95 (mm)", ticks=[0, 1, 10]).axes[0]
    assert "WT\nn = 3" in words(axes)
    assert "ET\nn = 1" in words(axes)
    assert "(mm)" in words(axes)


def test_a_region_that_the_reference_lacks_has_no_place_on_a_volume_axis():
    axes = dice_by_volume(COHORT, ("WT", "ET")).axes[0]
    assert "WT (n = 3)" in words(axes)
    assert "ET" not in words(axes)
    assert dots(axes) == 3
    assert "(ml)" in words(axes)
    assert dice_by_volume([COHORT[-1]], ("ET",)) is None


def test_bias_and_limits_of_agreement_are_those_of_bland_and_altman():
    differences = [2.0, -2.0, 6.0]
    axes = volume_agreement(COHORT[:3], ("WT",)).axes[0]
    lines = sorted(line.get_ydata()[0] for line in axes.lines)
    bias, sd = np.mean(differences), np.std(differences, ddof=1)
    assert lines == pytest.approx(sorted([0, bias, bias - 1.96 * sd, bias + 1.96 * sd]))
    assert dots(axes) == 3
    assert "n = 3" in words(axes)
    assert "bias +2.0 ml" in words(axes)


def test_two_cases_have_no_limits_and_a_case_without_a_prediction_no_point():
    axes = volume_agreement([*COHORT[:2], row("d", predicted=math.nan)], ("WT",)).axes[0]
    assert [line.get_ydata()[0] for line in axes.lines] == [0]
    assert "n = 2" in words(axes)


def test_many_regions_stand_in_several_rows():
    regions = ("WT", "TC", "ET", "NETC", "SNFH", "RC")
    figure = volume_agreement([row(case, region) for case in "abc" for region in regions], regions)
    assert len(figure.axes) == 6
    assert figure.get_size_inches()[0] < 10


def test_the_confusion_of_tissues_says_its_cases_and_leaves_no_empty_row_out():
    table = joined([{("ED", "ED"): 3.0, ("ED", "none"): 1.0}, {("none", "ED"): 0.5}])
    axes = confusion_chart(table).axes[0]
    assert {text.get_text() for text in axes.texts} == {"75.0 %\n3.0 ml", "25.0 %\n1.0 ml", "100.0 %\n0.5 ml"}
    assert "n = 2" in words(axes)


def test_training_curves_leave_out_epochs_that_were_not_validated():
    curves = {
        "run": {"epoch": [1, 2, 3], "loss": [3, 2, 1], "val_dice": [math.nan, 0.5, 0.6], "val_dice_WT": [0.1] * 3}
    }
    loss, dice = training_chart(curves).axes
    assert [len(line.get_xdata()) for line in loss.lines] == [3]
    assert [line.get_xdata().tolist() for line in dice.lines] == [[2, 3], [1, 2, 3]]
    assert "run mean" in words(dice)
    assert "n = 1 run" in words(loss)
    assert training_chart({}) is None


def test_equal_data_give_equal_files():
    first, second = (rendered(dice_by_volume(COHORT, ("WT", "ET"))) for _ in range(2))
    assert first == second
    assert first["png"].startswith(b"\x89PNG")
    assert b"<svg" in first["svg"]
    assert b"<dc:date>" not in first["svg"]


def test_charts_that_stand_side_by_side_are_drawn_to_one_width_so_that_their_letters_have_one_size():
    tissues = ("NETC", "SNFH", "ET", "RC", "none")
    confusion = joined([{(one, other): 1.0 for one in tissues for other in tissues}])
    beside = strip_chart(COHORT, ("WT", "ET"), "dice", "Dice", ticks=None)
    assert confusion_chart(confusion).get_size_inches()[0] == beside.get_size_inches()[0]


def test_tissues_go_by_the_names_of_the_regions_that_are_scored():
    case = {("NCR", "ED"): 2.0, ("ED", "ED"): 6.0, ("none", "ET"): 1.0}
    usual, renamed = joined([case], ("WT", "TC", "ET")), joined([case], ("WT", "TC", "ET", "NETC", "SNFH", "RC"))
    assert usual.rows == ("ED", "NCR", "none")
    assert (renamed.rows, renamed.columns) == (("NETC", "SNFH", "none"), ("ET", "SNFH", "none"))
    assert renamed.ml.sum() == 9
