"""Figures of a study: arms beside each other, their curves, and one case as every arm sees it."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from brats_pipeline.report.charts import _CHANNELS, _EDGE, _bare, _canvas
from brats_pipeline.report.overlay import COLOURS, OTHER_COLOUR, draw_outline

Plane = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
MARKERS = ("", "o", "s", "^", "D", "v")
"""Of the arms that share a colour, in this order: the first has none."""
ACROSS = 4
"""Panels beside each other in the picture of a case."""


def arms_chart(dice: Mapping[str, Mapping[str, float]], arms: Sequence[str]) -> Figure | None:
    """Dice of every case under every arm; a thin line joins the marks of one case.

    Args:
        dice: case to arm to its mean Dice over the regions.
        arms: from left to right.
    """
    if not dice or not arms:
        return None
    figure = _canvas(max(4.6, 1.5 * len(arms) + 1.2), 3.4)
    axes = figure.add_subplot()
    places = np.arange(len(arms))
    for row in dice.values():
        axes.plot(places, [row[arm] for arm in arms], color="#c8c8c8", linewidth=0.7, zorder=1)
    for place, arm in enumerate(arms):
        values = np.array([row[arm] for row in dice.values()])
        colour = _CHANNELS[place % len(_CHANNELS)]
        axes.scatter(
            np.full(values.size, place), values, s=24, color=colour, edgecolors=_EDGE, linewidths=0.6, zorder=3
        )
        axes.hlines(np.median(values), place - 0.25, place + 0.25, color=_EDGE, linewidth=2, zorder=4)
    axes.set_xticks(places, [arm.replace("_", "_\n") if len(arm) > 14 else arm for arm in arms], fontsize=8)
    axes.set(xlim=(-0.5, len(arms) - 0.5), ylim=(-0.02, 1.02), ylabel="Dice, mean over the regions")
    axes.set_title(f"n = {len(dice)} case{'' if len(dice) == 1 else 's'}; bars are medians", fontsize=8.5)
    _bare(axes)
    return figure


def curves_chart(curves: Mapping[str, Sequence[Mapping[str, Sequence[float]]]]) -> Figure | None:
    """Loss and, where anything was validated, mean validation Dice by epoch of every training.

    An arm has a colour of its own, or shares it and has a marker of its own.

    Args:
        curves: arm to the columns of each of its ``curves.csv``; ``val_loss`` and ``val_dice`` where they are.
    """
    if not any(curves.values()):
        return None
    validated = any(np.isfinite(columns.get("val_dice", ())).any() for runs in curves.values() for columns in runs)
    figure = _canvas(9.2 if validated else 4.9, 3.4)
    panels = figure.subplots(1, 2 if validated else 1, squeeze=False)[0]
    loss = panels[0]
    drawn = (("val_loss", (0, (4, 2)), loss), ("val_dice", "-", panels[-1]))
    for number, (arm, runs) in enumerate(curves.items()):
        colour = _CHANNELS[number % len(_CHANNELS)]
        own = MARKERS[number // len(_CHANNELS) % len(MARKERS)]
        for order, columns in enumerate(runs):
            epochs = np.array(columns["epoch"], dtype=float)
            label = arm if order == 0 else None
            loss.plot(
                epochs, columns["loss"], color=colour, linewidth=1.2, label=label, marker=own, markersize=4,
                markevery=max(1, len(epochs) // 8),
            )  # fmt: skip
            for name, style, axes in drawn:
                values = np.array(columns.get(name, ()), dtype=float)
                known = np.isfinite(values)
                if known.any():
                    marker = own or ("." if known.sum() < (30 if len(curves) <= len(_CHANNELS) else 2) else None)
                    axes.plot(
                        epochs[known], values[known], color=colour, linestyle=style, linewidth=1.2, marker=marker,
                        markersize=4 if own else None, markevery=max(1, int(known.sum()) // 8) if own else None,
                        label=label if axes is not loss else None,
                    )  # fmt: skip
    dashed = any("val_loss" in columns for runs in curves.values() for columns in runs)
    loss.set(xlabel="epoch", ylabel="loss (dashed: validation)" if dashed else "training loss")
    runs_shown = sum(len(runs) for runs in curves.values())
    loss.set_title(f"n = {runs_shown} training{'' if runs_shown == 1 else 's'}", fontsize=8.5)
    if validated:
        panels[-1].set(xlabel="epoch", ylabel="validation Dice", ylim=(0, 1))
    for axes in panels:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        _bare(axes)
    figure.legend(*loss.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=8)
    return figure


def case_picture(
    image: Plane,
    reference: Mapping[str, Mask],
    predictions: Mapping[str, Mapping[str, Mask] | None],
    *,
    dice: Mapping[str, float],
    window: tuple[float, float],
    aspect: float = 1.0,
) -> bytes:
    """Draw one slice: the image, the reference on it, and the prediction of every arm.

    Args:
        image: ``(rows, columns)``.
        reference: region to mask, the widest first.
        predictions: arm to its regions; None for an arm that has no prediction.
        dice: arm to the Dice of the whole case, mean over the regions.
        window: grey values shown as black and white.
        aspect: height of a pixel by its width.

    Returns:
        A JPEG.
    """
    panels: list[tuple[str, Mapping[str, Mask] | None]] = [("image", None), ("reference", reference)]
    panels += [(arm, masks) for arm, masks in predictions.items()]
    down = -(-len(panels) // ACROSS)
    across = min(ACROSS, len(panels))
    rows, columns = image.shape
    cell = 9.6 / ACROSS
    tall = cell * rows * aspect / columns
    title = 0.26
    figure = Figure(figsize=(cell * across, (tall + title) * down), facecolor="black")
    FigureCanvasAgg(figure)
    share = 1 / down
    extent = (0.0, float(columns), float(rows), 0.0)
    for number, (name, masks) in enumerate(panels):
        row, column = divmod(number, across)
        bottom = 1 - share * (row + 1)
        axes = figure.add_axes((column / across, bottom, 1 / across, share * tall / (tall + title)))
        axes.imshow(image, cmap="gray", vmin=window[0], vmax=window[1], extent=extent, aspect="auto")
        for region, mask in (masks or {}).items():
            draw_outline(axes, mask, extent, colors=COLOURS.get(region, OTHER_COLOUR), linewidths=1.2)
        axes.set(xlim=(0, columns), ylim=(rows, 0))
        axes.axis("off")
        told = name if name not in dice else f"{name}: Dice {dice[name]:.2f}"
        if name in predictions and masks is None:
            told = f"{name}: no prediction"
        axes.set_title(told, color="#e6e6e6", fontsize=8, pad=3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="jpeg", dpi=130, facecolor="black", pil_kwargs={"quality": 84})
    return buffer.getvalue()
