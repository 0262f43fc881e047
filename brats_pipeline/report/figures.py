"""The plots of an evaluation's report: which ones the data give, what they are called, and their files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from brats_pipeline.files import write_atomically
from brats_pipeline.metrics import Calibration, RegionScore, Rules
from brats_pipeline.report import charts, reliability
from brats_pipeline.report.casepage import CasePage, embedded
from brats_pipeline.report.confusion import joined

CAPTIONS = {
    "dice": "Dice of every case by region",
    "hd95": "HD95 of every case by region",
    "dice_by_volume": "Dice against the volume in the reference",
    "volumes": "Predicted minus reference volume against their mean",
    "confusion": "Tissues of the reference against those of the prediction",
    "calibration": "Reliability diagram of every region",
    "training": "Training loss and validation Dice by epoch",
}
"""Name of a plot to what it shows."""


def drawn(
    *,
    rules: Rules,
    scores: Sequence[RegionScore],
    pages: Sequence[CasePage],
    curves: Mapping[str, Mapping[str, Sequence[float]]],
    calibration: Calibration | None,
) -> dict[str, Figure]:
    """The figures that these data give, by the name of their files."""
    regions = rules.regions
    figures: dict[str, Figure | None] = {"dice": charts.strip_chart(scores, regions, "dice", "Dice", ticks=None)}
    if not rules.slices:
        # Without a fixed penalty the axis ends where the largest distance does.
        end = rules.empties.one_hd95_mm or max([row.hd95_mm for row in scores if np.isfinite(row.hd95_mm)] or [1.0])
        ticks = [tick for tick in (0, 1, 2, 5, 10, 20, 50, 100, 200, 500) if tick < end] + [round(end, 1)]
        figures["hd95"] = charts.strip_chart(scores, regions, "hd95_mm", "HD95 (mm)", ticks=ticks)
        figures["dice_by_volume"] = charts.dice_by_volume(scores, regions)
        figures["volumes"] = charts.volume_agreement(scores, regions)
    confusion = joined([page.confusion for page in pages if page.confusion is not None], regions)
    figures["confusion"] = None if confusion is None else charts.confusion_chart(confusion)
    figures["training"] = charts.training_chart(curves)
    figures["calibration"] = None if calibration is None else reliability.reliability_chart(calibration)
    return {name: figure for name, figure in figures.items() if figure is not None}


def written(figures: Mapping[str, Figure], folder: Path) -> dict[str, str]:
    """Write every plot as PNG and SVG.

    Args:
        figures: by name.
        folder: to write to.

    Returns:
        Name to the plot as a data address.

    Raises:
        PipelineError: a file cannot be written.
    """
    addresses = {}
    for name, figure in figures.items():
        files = charts.rendered(figure)
        for ending, content in files.items():
            write_atomically(folder / f"{name}.{ending}", content)
        addresses[name] = embedded(files["svg"], "svg+xml")
    return addresses
