"""The tables of a study as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from brats_pipeline.studies.figures import Figures
from brats_pipeline.studies.plan import Plan

MISSING = "missing.csv"
TABLES = ("arms.csv", "comparison.csv", "ranking.csv", MISSING)
"""Those that a study may have."""


def tables(plan: Plan, figures: Figures) -> dict[str, str]:
    """The tables of a study as CSV: file name to content; the budget stands in every row."""
    found = {
        "arms.csv": _arms(plan, figures),
        "comparison.csv": _comparison(plan, figures),
        "ranking.csv": _ranking(plan, figures),
    }
    return found | ({MISSING: _missing(plan, figures)} if plan.missing else {})


def _arms(plan: Plan, figures: Figures) -> str:
    metrics = list(dict.fromkeys([*plan.metrics, *plan.compare]))
    kinds = ("mean", "interval_low", "interval_high", "median", "q1", "q3")
    header = ["arm", "region", "n", *(f"{metric}_{kind}" for metric in metrics for kind in kinds), "network"]
    header += ["parameters", "trainings", "trainings_done", "epochs", "training_seconds", "segment_seconds_per_case"]
    rows: list[list[Any]] = []
    for arm in figures.arms:
        for region in dict.fromkeys(region for region, _ in arm.figures):
            row: list[Any] = [arm.name, region, arm.n]
            for metric in metrics:
                figure = arm.figures[region, metric]
                low, high = figure.interval_95 or (None, None)
                spread = figure.spread
                row += [None if spread is None else spread.mean, low, high]
                row += [None] * 3 if spread is None else [spread.median, spread.q1, spread.q3]
            row += [arm.network, arm.parameters, arm.units, arm.units_done, " ".join(map(str, arm.epochs))]
            rows.append([*row, arm.training_seconds, arm.segment_seconds, arm.test_loss])
    return _csv(plan, [*header, "test_loss"], rows)


def _comparison(plan: Plan, figures: Figures) -> str:
    header = ["arm", "reference", "region", "metric", "n", "mean_difference", "interval_low", "interval_high"]
    header += ["median_difference", "p_value", "p_holm", "rank_biserial", "higher", "equal", "lower", "in_words"]
    rows: list[list[Any]] = []
    for each in figures.compared:
        result = each.comparison
        low, high = result.interval_95 or (None, None)
        row = [each.arm, each.reference, each.region, each.metric, result.n, result.mean_difference, low, high]
        row += [result.median_difference, result.p_value, each.adjusted_p, result.rank_biserial]
        rows.append([*row, result.higher, result.equal, result.lower, each.sentence])
    return _csv(plan, header, rows)


def _ranking(plan: Plan, figures: Figures) -> str:
    runs = () if figures.ranking is None else figures.ranking.runs
    header = ["rank", "arm", "mean_rank", *(f"share_of_rank_{number}" for number in range(1, len(runs) + 1))]
    rows = [[run.rank, run.name, run.mean_rank, *(run.shares or [None] * len(runs))] for run in runs]
    return _csv(plan, header, rows)


def _missing(plan: Plan, figures: Figures) -> str:
    header = ["arm", "without", "region", "metric", "n", "mean", "mean_difference", "interval_low", "interval_high"]
    rows: list[list[Any]] = []
    for each in figures.missing:
        found = each.comparison
        low, high = found.interval_95 or (None, None)
        row = [each.arm, each.modality, each.region, each.metric, found.n, each.mean, found.mean_difference, low, high]
        rows.append([*row, found.p_value, each.adjusted_p])
    return _csv(plan, [*header, "p_value", "p_holm"], rows)


def _csv(plan: Plan, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    def cell(value: Any, column: str) -> str:
        if value is None or value != value:
            return ""
        if column in ("p_value", "p_holm"):
            return f"{value:.3g}"
        return f"{value:.6f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*header, "budget"])
    writer.writerows([*map(cell, row, header), plan.budget_in_words] for row in rows)
    return text.getvalue()
