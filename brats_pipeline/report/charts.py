"""Figures of a report. Every one says how many cases it shows, and names the units of its axes.

Colours are those of Okabe and Ito (2008); regions differ by marker too, so that a copy in grey can be read.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from brats_pipeline.metrics import RegionScore
from brats_pipeline.report.confusion import OUTSIDE, Confusion
from brats_pipeline.report.overlay import COLOURS, OTHER_COLOUR

_EDGE = "#333333"
_MARKERS = {"WT": "o", "TC": "s", "ET": "^", "NETC": "P", "NET": "P", "SNFH": "v", "ED": "v", "RC": "X", "CC": "X"}
_DOT = {"edgecolors": _EDGE, "linewidths": 0.6, "zorder": 3, "clip_on": False}
_CHANNELS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def _canvas(width: float = 4.6, height: float = 3.3) -> Figure:
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _bare(axes: Axes, grid: str = "y") -> None:
    if grid == "both":
        axes.grid(color="#e3e3e3", linewidth=0.7)
    else:
        axes.grid(axis="y", color="#e3e3e3", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)


def _style(region: str) -> tuple[str, str]:
    return COLOURS.get(region, OTHER_COLOUR), _MARKERS.get(region, "D")


def _plain_log(axes: Axes, values: Sequence[float], which: str) -> None:
    """A logarithmic axis with ticks written as plain numbers."""
    low = max(min(values), 1e-3)
    ticks = [10.0**power for power in range(-3, 5) if low / 10 < 10.0**power < max(values) * 10]
    axis = axes.xaxis if which == "x" else axes.yaxis
    if which == "x":
        axes.set_xscale("log")
    else:
        axes.set_yscale("log")
    axis.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    axis.set_minor_locator(NullLocator())


def strip_chart(
    scores: Sequence[RegionScore], regions: Sequence[str], metric: str, label: str, *, ticks: Sequence[float] | None
) -> Figure:
    """One dot per case and region, on a box from the first to the third quartile with the median in it.

    Args:
        scores: all rows.
        regions: from left to right.
        metric: the column.
        label: of the axis, with its unit.
        ticks: marks of a logarithmic axis that starts at 0; None for an axis from 0 to 1.
    """
    figure = _canvas()
    axes = figure.add_subplot()
    random = np.random.default_rng(0)
    names = []
    for place, region in enumerate(regions):
        values = np.array([getattr(row, metric) for row in scores if row.region == region], dtype=float)
        values = values[np.isfinite(values)]
        names.append(f"{region}\nn = {values.size}")
        if not values.size:
            continue
        aside = random.uniform(-0.15, 0.15, values.size) if values.size > 1 else np.zeros(1)
        colour, marker = _style(region)
        axes.scatter(place + aside, values, s=26, color=colour, marker=marker, **_DOT)  # type: ignore[arg-type]
        q1, median, q3 = np.quantile(values, (0.25, 0.5, 0.75))
        axes.fill_between([place - 0.27, place + 0.27], q1, q3, color="#efefef", linewidth=0, zorder=1)
        axes.hlines([q1, q3], place - 0.27, place + 0.27, color="#8c8c8c", linewidth=0.8, zorder=2)
        axes.hlines(median, place - 0.27, place + 0.27, color=_EDGE, linewidth=2, zorder=2)
    axes.set_xticks(range(len(regions)), names)
    axes.set_xlim(-0.5, len(regions) - 0.5)
    axes.set_ylabel(label)
    if ticks is None:
        axes.set_ylim(0, 1)
    else:
        axes.set_yscale("symlog", linthresh=1, linscale=0.4)
        axes.set_yticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylim(0, ticks[-1])
    _bare(axes)
    return figure


def dice_by_volume(scores: Sequence[RegionScore], regions: Sequence[str]) -> Figure | None:
    """Dice against the region's volume in the reference; cases whose reference lacks the region are left out."""
    figure = _canvas()
    axes = figure.add_subplot()
    seen: list[float] = []
    for region in regions:
        own = [row for row in scores if row.region == region and row.reference_ml > 0]
        if own:
            colour, marker = _style(region)
            volumes = [row.reference_ml for row in own]
            axes.scatter(
                volumes,
                [row.dice for row in own],
                s=26,
                color=colour,
                marker=marker,
                label=f"{region} (n = {len(own)})",
                **_DOT,  # type: ignore[arg-type]
            )
            seen += volumes
    if not seen:
        return None
    _plain_log(axes, seen, "x")
    axes.set(ylim=(0, 1), xlabel="reference volume (ml)", ylabel="Dice")
    axes.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, borderaxespad=0.7)
    _bare(axes, "both")
    return figure


def volume_agreement(scores: Sequence[RegionScore], regions: Sequence[str]) -> Figure | None:
    """Predicted minus reference volume against their mean (Bland and Altman 1986), one panel per region.

    Bias and limits of agreement (bias ± 1.96 SD) are drawn from three cases on.
    """
    rows = {
        region: [
            row
            for row in scores
            if row.region == region and np.isfinite(row.predicted_ml) and row.reference_ml + row.predicted_ml > 0
        ]
        for region in regions
    }
    shown = [region for region in regions if rows[region]]
    if not shown:
        return None
    across = min(3, len(shown))
    down = -(-len(shown) // across)
    figure = _canvas(3.1 * across + 0.3, 3.1 if down == 1 else 2.6 * down)  # two rows leave room for others on paper
    for number, region in enumerate(shown, start=1):
        axes = figure.add_subplot(down, across, number)
        means = np.array([(row.reference_ml + row.predicted_ml) / 2 for row in rows[region]])
        differences = np.array([row.predicted_ml - row.reference_ml for row in rows[region]])
        colour, marker = _style(region)
        axes.axhline(0, color="#9a9a9a", linewidth=0.8)
        axes.scatter(means, differences, s=26, color=colour, marker=marker, **_DOT)  # type: ignore[arg-type]
        title = f"{region} (n = {means.size})"
        reach = float(np.abs(differences).max())
        if means.size >= 3:
            bias, sd = float(differences.mean()), float(differences.std(ddof=1))
            reach = max(reach, abs(bias) + 1.96 * sd)
            axes.axhline(bias, color=_EDGE, linewidth=1.4)
            for limit in (bias - 1.96 * sd, bias + 1.96 * sd):
                axes.axhline(limit, color=_EDGE, linewidth=1, linestyle=(0, (4, 2)))
            title += f"\nbias {bias:+.1f} ml, limits {bias - 1.96 * sd:+.1f} to {bias + 1.96 * sd:+.1f} ml"
        axes.set_title(title, fontsize=8.5)
        reach = 1.15 * reach or 1.0
        axes.set(ylim=(-reach, reach), xlabel="mean of both volumes (ml)")
        _plain_log(axes, means.tolist(), "x")
        if number % across == 1 or across == 1:
            axes.set_ylabel("predicted minus reference (ml)")
        _bare(axes, "both")
    return figure


def confusion_chart(confusion: Confusion) -> Figure:
    """Each tissue of the reference, shared out among what it was taken for."""
    rows, columns = len(confusion.rows), len(confusion.columns)
    figure = _canvas()  # as large as the chart beside it, so that the letters of both have one size
    axes = figure.add_subplot()
    share = confusion.share
    axes.imshow(np.nan_to_num(share), cmap="Blues", vmin=0, vmax=1, aspect="auto")
    for row in range(rows):
        for column in range(columns):
            value = share[row, column]
            if np.isnan(value) or confusion.rows[row] == confusion.columns[column] == OUTSIDE:
                continue
            ink = "white" if value > 0.55 else "black"
            text = f"{100 * value:.1f} %\n{confusion.ml[row, column]:.1f} ml"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=ink)
    axes.set_xticks(range(columns), confusion.columns)
    axes.set_yticks(range(rows), confusion.rows)
    axes.set(xlabel="tissue in the prediction", ylabel="tissue in the reference")
    axes.set_title(f"share of each row; n = {confusion.n} case{'' if confusion.n == 1 else 's'}", fontsize=8.5)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


def training_chart(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure | None:
    """Loss and validation Dice by epoch.

    Args:
        curves: name of a run to the columns of its ``curves.csv``: ``epoch``, ``loss``, and the validation Dice in
            columns whose name starts with ``val_dice``, NaN where an epoch was not validated.
    """
    if not curves:
        return None
    figure = _canvas(9.2, 3.2)
    loss, dice = figure.subplots(1, 2)
    styles = ("-", (0, (4, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)))
    for number, (name, columns) in enumerate(curves.items()):
        colour = _CHANNELS[number % len(_CHANNELS)]
        loss.plot(columns["epoch"], columns["loss"], color=colour, linewidth=1.4, label=name)
        measured = [column for column in columns if column.startswith("val_dice")]
        for column, style in zip(measured, styles, strict=False):
            values = np.array(columns[column], dtype=float)
            epochs = np.array(columns["epoch"], dtype=float)[np.isfinite(values)]
            line = values[np.isfinite(values)]
            tag = column.removeprefix("val_dice_").replace("val_dice", "mean")
            dice.plot(epochs, line, color=colour, linestyle=style, linewidth=1.4, label=f"{name} {tag}")
    loss.set(xlabel="epoch", ylabel="training loss")
    loss.set_title(f"n = {len(curves)} run{'' if len(curves) == 1 else 's'}", fontsize=8.5)
    dice.set(xlabel="epoch", ylabel="validation Dice", ylim=(0, 1))
    for axes in (loss, dice):
        axes.legend(frameon=False, fontsize=7)
        _bare(axes)
    return figure


def rendered(figure: Figure) -> dict[str, bytes]:
    """A figure as PNG and SVG, equal bytes for equal figures: file ending to content."""
    files = {}
    with matplotlib.rc_context({"svg.hashsalt": "report", "svg.fonttype": "path"}):
        for kind, silent in (("png", "Software"), ("svg", "Date")):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, dpi=160, metadata={silent: None})
            files[kind] = buffer.getvalue()
    return files
