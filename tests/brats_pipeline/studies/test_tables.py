"""The tables of a study: what a correction needs is not rounded away."""

from __future__ import annotations

import csv
import io
from types import SimpleNamespace
from typing import Any

import pytest

from brats_pipeline.metrics.comparison import compare_paired
from brats_pipeline.report.study import Compared
from brats_pipeline.report.words import p_value
from brats_pipeline.studies.tables import tables


def test_a_small_p_is_never_written_as_zero() -> None:
    first = {f"case{number:02}": 0.5 + 0.001 * number for number in range(40)}
    result = compare_paired(first, dict.fromkeys(first, 0.4), resamples=10)
    plan: Any = SimpleNamespace(metrics=(), compare=("dice",), missing=(), budget_in_words="full")
    compared = Compared("wide", "plain", "WT", "dice", result, 4 * (result.p_value or 0), "in words")
    figures: Any = SimpleNamespace(arms=(), compared=[compared], ranking=None, missing=())
    (row,) = csv.DictReader(io.StringIO(tables(plan, figures)["comparison.csv"]))
    assert result.p_value == pytest.approx(2.0**-39)
    assert float(row["p_value"]) == pytest.approx(2.0**-39, rel=0.005)
    assert float(row["p_holm"]) == pytest.approx(2.0**-37, rel=0.005)
    assert float(row["mean_difference"]) == pytest.approx(0.1195)
    assert row["budget"] == "full"


@pytest.mark.parametrize(("p", "said"), [(2.0**-39, "< 0.0001"), (0.0312, "0.0312"), (1.0, "1.0000"), (None, "-")])
def test_a_page_says_below_what_a_small_p_lies(p: float | None, said: str) -> None:
    assert p_value(p) == said
