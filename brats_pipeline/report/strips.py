"""Pictures of a patient whose scan is slices: a strip of axial slices, each as image, reference and prediction.

The slices are shown as they are stored; nothing in their files says which side is left.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from brats_pipeline.report.overlay import COLOURS, OTHER_COLOUR, draw_outline, grey_window

Mask = npt.NDArray[np.bool_]

MOST = 6
"""Slices shown of one patient."""

_ROWS = ("FLAIR", "reference", "prediction")


def chosen_slices(reference: Mask, prediction: Mask | None) -> list[int]:
    """The slices worth a picture, from the bottom up.

    Evenly spread through the tumour of the reference (of the prediction where the reference is empty), among them the
    one with the largest tumour, and the one with the most false positives.

    Args:
        reference: ``(x, y, z)``.
        prediction: ``(x, y, z)``; None where there is none.
    """
    guess = np.zeros_like(reference) if prediction is None else prediction
    area = (reference if reference.any() else guess).sum(axis=(0, 1))
    false_positives = (guess & ~reference).sum(axis=(0, 1))
    worst = {int(false_positives.argmax())} if false_positives.any() else set()
    shown = np.flatnonzero(area)
    if not shown.size:
        return [reference.shape[2] // 2]
    largest = int(area.argmax())
    for wanted in range(min(MOST, shown.size), 0, -1):
        spread = [int(shown[round(place)]) for place in np.linspace(0, shown.size - 1, wanted)]
        spread[min(range(wanted), key=lambda place: abs(spread[place] - largest))] = largest
        if len(worst.union(spread)) <= MOST:
            break
    return sorted(worst.union(spread))


def _head(image: npt.NDArray[Any], masks: Sequence[Mask]) -> tuple[slice, slice]:
    """Columns and rows that hold the head and every mask, with a small margin."""
    inside = (image > 0.1 * image.max()).mean(axis=2) > 0.05  # a spike in one slice of many is no head
    for mask in masks:
        inside |= mask.any(axis=2)
    box = []
    for axis in range(2):
        line = np.flatnonzero(inside.any(axis=1 - axis))
        start, stop = (int(line[0]), int(line[-1]) + 1) if line.size else (0, inside.shape[axis])
        box.append(slice(max(0, start - 3), min(inside.shape[axis], stop + 3)))
    return box[0], box[1]


def _title(name: str, expected: Mask, guess: Mask | None) -> str:
    """Number of a slice, and the Dice of what is drawn on it."""
    numbers = re.findall(r"\d+", name)
    number = f"slice {numbers[-1] if numbers else name}"
    if guess is None:
        return number
    size = int(expected.sum() + guess.sum())
    return f"{number}: Dice {2 * int((expected & guess).sum()) / size:.2f}" if size else f"{number}: both empty"


def strip_figure(
    image: npt.NDArray[Any], reference: Mask, prediction: Mask | None, *, region: str, names: Sequence[str]
) -> bytes:
    """Draw a strip of slices; under each slice its reference and its prediction as contours.

    Args:
        image: ``(x, y, z)``, x along the columns of a slice and y along its rows.
        reference: on the grid of the image.
        prediction: on the grid of the image; None where there is none.
        region: what is drawn; sets the colour of the prediction.
        names: of the slices; each ends in its number.

    Returns:
        A JPEG.
    """
    masks = [reference] if prediction is None else [reference, prediction]
    places = chosen_slices(reference, prediction)
    across, down = box = _head(image, masks)
    low, high = grey_window(image)
    wide, high_px = across.stop - across.start, down.stop - down.start
    cell = 1.7  # inches across a slice
    tall = cell * high_px / wide
    title = 0.24
    # Always as wide as the longest strip, so that slices of all patients have one size.
    figure = Figure(figsize=(cell * MOST, (tall * len(_ROWS)) + title), facecolor="black")
    FigureCanvasAgg(figure)
    total = tall * len(_ROWS) + title
    colour = COLOURS.get(region, OTHER_COLOUR)
    extent = (0.0, float(wide), float(high_px), 0.0)
    for column, place in enumerate(places):
        for row, what in enumerate(_ROWS):
            bottom = (tall * (len(_ROWS) - 1 - row)) / total
            axes = figure.add_axes((column / MOST, bottom, 1 / MOST, tall / total))
            axes.imshow(image[box][:, :, place].T, cmap="gray", vmin=low, vmax=high, extent=extent)
            expected = reference[box][:, :, place].T
            guess = None if prediction is None else prediction[box][:, :, place].T
            if what == "reference":
                draw_outline(axes, expected, extent, colors="white", linewidths=1.1)
            elif what == "prediction" and guess is not None:
                draw_outline(axes, guess, extent, colors=colour, linewidths=1.3)
            axes.set(xlim=(0, wide), ylim=(high_px, 0), xticks=[], yticks=[])
            axes.axis("off")
            if row == 0:
                axes.set_title(_title(names[place], expected, guess), color="#d9d9d9", fontsize=8, pad=3)
            if column == 0:
                text = "no prediction" if what == "prediction" and prediction is None else what
                axes.text(0.02, 0.98, text, transform=axes.transAxes, color="#d9d9d9", fontsize=8, va="top")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="jpeg", dpi=130, facecolor="black", pil_kwargs={"quality": 82})
    return buffer.getvalue()
