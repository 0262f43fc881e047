"""The curves of a training: one row of numbers per epoch, as a table and as a picture."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence

Row = Mapping[str, float]
COLOURS = ("#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def as_csv(history: Sequence[Row]) -> str:
    """One line per epoch; validation columns are empty where an epoch was not validated."""
    columns = list(dict.fromkeys(name for row in history for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()} for row in history
    )
    return text.getvalue()


def as_png(history: Sequence[Row], regions: Sequence[str]) -> bytes:
    """Loss of training and validation, and validation Dice, over the epochs.

    Args:
        history: the epochs.
        regions: whose Dice is drawn, from the columns ``val_dice_<region>``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    left.plot([row["epoch"] for row in history], [row["loss"] for row in history], color="#0072B2", label="training")
    left.set(title="loss", xlabel="epoch", ylabel="loss")
    validated = [row for row in history if "val_dice" in row]
    epochs = [row["epoch"] for row in validated]
    if any("val_loss" in row for row in validated):
        values = [row.get("val_loss", math.nan) for row in validated]
        left.plot(epochs, values, marker=".", color="black", label="validation")
        left.legend(frameon=False)
    for region, colour in zip(regions, COLOURS, strict=False):
        values = [row.get(f"val_dice_{region}", math.nan) for row in validated]
        right.plot(epochs, values, marker=".", color=colour, label=region)
    right.plot(epochs, [row["val_dice"] for row in validated], marker=".", color="black", label="mean")
    right.set(title="validation", xlabel="epoch", ylabel="Dice", ylim=(0, 1))
    if validated:
        right.legend(frameon=False)
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.set_xlim(0.5, max((row["epoch"] for row in history), default=1) + 0.5)
        axes.spines[["top", "right"]].set_visible(False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
