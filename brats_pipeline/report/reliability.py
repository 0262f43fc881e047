"""Calibration as a reader meets it: a reliability diagram per region, a table, and whom it leaves out."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from brats_pipeline.metrics.calibration import BINS, VOXELS_IN_WORDS, Calibration, RegionCalibration
from brats_pipeline.report.charts import _DOT, _EDGE, _bare, _canvas, _style
from brats_pipeline.report.words import decimal

HEADER = ("Region", "n", "voxels", "ECE", "MCE", "Brier", "ECE per case: mean [95 %]", "median [quartiles]")

NOTES = (
    "Of the voxels that a calibrated network gives 0.8, eight in ten belong to the region: marks lie on the diagonal. "
    "Below it probabilities are too high, above it too low. "
    f"Marks are {BINS} bins of equal width, all cases pooled; the bars say how many voxels each bin holds, on a "
    "logarithmic axis.",
    "ECE: expected calibration error, the mean distance from the diagonal weighted by voxels (Naeini et al. 2015, "
    "Guo et al. 2017). MCE: the largest distance, maybe of a bin with few voxels. Brier: mean squared difference of "
    f"probability and truth. {VOXELS_IN_WORDS} Probabilities can be right over a cohort and wrong in single cases, so "
    "the ECE of single cases stands beside that of all voxels pooled.",
)


@dataclass(frozen=True)
class Section:
    """What a report says of calibration beside the diagram.

    Args:
        gaps: what the figures leave out, a sentence each.
        rows: one per region, in the columns of ``header``; none where no case takes part.
        notes: how to read it.
        header: names of the columns.
    """

    gaps: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str]
    header: Sequence[str] = HEADER


def section(calibration: Calibration, regions: Sequence[str], scored: Set[str]) -> Section:
    """Put the calibration of a cohort into words and a table.

    Args:
        calibration: of the cohort.
        regions: that were scored.
        scored: ids of the cases that were scored.
    """
    rows = _rows(calibration)
    return Section(_gaps(calibration, regions, scored), rows, NOTES if rows else ())


def _shown(calibration: Calibration) -> dict[str, RegionCalibration]:
    return {region: found for region, found in calibration.regions.items() if found.n}


def reliability_chart(calibration: Calibration) -> Figure | None:
    """Observed frequency against predicted probability, one panel per region, over a histogram of the voxels.

    None where no case takes part.
    """
    shown = _shown(calibration)
    if not shown:
        return None
    across = min(3, len(shown))
    down = -(-len(shown) // across)
    figure = _canvas(3.1 * across + 0.3, 4.3 * down)  # panels about as high as wide, in line with the bars below
    grid = figure.add_gridspec(2 * down, across, height_ratios=[3.0, 1.0] * down)
    for number, (region, found) in enumerate(shown.items()):
        row, column = divmod(number, across)
        curve = figure.add_subplot(grid[2 * row, column])
        counts = figure.add_subplot(grid[2 * row + 1, column], sharex=curve)
        colour, marker = _style(region)
        points = np.array([(each.mean_probability, each.observed) for each in found.bins if each.voxels])
        curve.plot([0, 1], [0, 1], color="#9a9a9a", linewidth=0.9, linestyle=(0, (4, 2)))
        curve.plot(points[:, 0], points[:, 1], color=_EDGE, linewidth=1.0, zorder=2)
        curve.scatter(points[:, 0], points[:, 1], s=26, color=colour, marker=marker, **_DOT)  # type: ignore[arg-type]
        curve.set(xlim=(0, 1), ylim=(0, 1))
        curve.tick_params(labelbottom=False)
        cases = f"n = {found.n} case{'' if found.n == 1 else 's'}"
        curve.set_title(f"{region} ({cases})\nECE {decimal(found.ece, 3)}, MCE {decimal(found.mce, 3)}", fontsize=8.5)
        voxels, lows = [each.voxels for each in found.bins], [each.low for each in found.bins]
        counts.bar(lows, voxels, 1 / len(lows), align="edge", color=colour, edgecolor=_EDGE, linewidth=0.6)
        counts.set_yscale("log")
        top = max(voxels)
        counts.set_ylim(0.7, 3 * top)
        ticks = [10**power for power in range(0, 12, 2 if top < 1e7 else 3) if 10**power <= 3 * top]
        counts.set_yticks(ticks, [f"{tick:,}" if tick < 10_000 else f"$10^{len(str(tick)) - 1}$" for tick in ticks])
        counts.yaxis.set_minor_locator(NullLocator())
        counts.set_xlabel("predicted probability")
        if column == 0:
            curve.set_ylabel("share inside the region")
            counts.set_ylabel("voxels")
        _bare(curve, "both")
        _bare(counts)
    return figure


def _rows(calibration: Calibration) -> list[list[str]]:
    """One row per region in the columns of :data:`HEADER`."""
    rows = []
    for region, found in _shown(calibration).items():
        per_case = found.ece_per_case
        interval, quartiles = "-", "-"
        if per_case is not None:
            interval = decimal(per_case.mean, 3)
            if per_case.mean_interval_95 is not None:
                interval += " [{:.3f}, {:.3f}]".format(*per_case.mean_interval_95)
            quartiles = f"{per_case.median:.3f} [{per_case.q1:.3f}, {per_case.q3:.3f}]"
        figures = [decimal(value, 3) for value in (found.ece, found.mce, found.brier)]
        rows.append([region, str(found.n), f"{found.voxels:,}", *figures, interval, quartiles])
    return rows


def _gaps(calibration: Calibration, regions: Sequence[str], scored: Set[str]) -> list[str]:
    """What the figures leave out, a sentence each."""
    sentences = []
    if calibration.without:
        part = len(scored - calibration.without.keys())
        why = "; ".join(f"{case_id}: {reason}" for case_id, reason in calibration.without.items())
        sentences.append(f"{part} of {len(scored)} cases take part. Left out: {why}.")
    if calibration.regions and (absent := [region for region in regions if region not in calibration.regions]):
        sentences.append(f"No probabilities of {', '.join(absent)}.")
    return sentences
