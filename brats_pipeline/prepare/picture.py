"""Checkerboards: the reference and another scan in turns, so that an edge that does not go on is seen at once."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

Array = npt.NDArray[Any]

SQUARE_MM = 24.0
NAMES = {"t1c": "T1c", "t1": "T1", "t2": "T2", "flair": "FLAIR"}
_PLANES = ("axial", "coronal", "sagittal")
_ENDS = (("R", "L"), ("R", "L"), ("A", "P"))
"""What is on the left and on the right of each plane."""


def checkerboard(one: Array, other: Array, side: tuple[float, float]) -> Array:
    """Squares of one picture and of another in turns; ``side`` is that of a square in rows and columns."""
    rows, columns = (np.arange(count) // length for count, length in zip(one.shape, side, strict=True))
    return np.where((rows[:, None] + columns[None]) % 2 == 0, one, other)


def _shade(image: Array) -> Array:
    """Grey values from 0 to 1, between the 1st and 99th percentile of what is not background."""
    inside = image[image > image.min()]
    low, high = np.percentile(inside, (1, 99)) if inside.size else (0.0, 1.0)
    shade: Array = np.clip((image - low) / max(float(high - low), 1e-6), 0, 1)
    return shade


def _plane(volume: Array, axis: int, place: int) -> Array:
    """A slice of an LPS volume as it hangs on the light box: the patient's right on the left, head up."""
    plane: Array = np.take(volume, place, axis=axis).T
    return plane if axis == 2 else plane[::-1]


def checkerboards(
    reference: str, images: Mapping[str, Array], brain: Array | None, *, spacing_mm: tuple[float, ...]
) -> bytes:
    """Draw the reference, and a checkerboard of it with each other scan, in three planes through the middle.

    Args:
        reference: its name in ``images``.
        images: modality to ``(x, y, z)`` in LPS order, before the brain was taken out.
        brain: mask of the brain, drawn as a contour on the reference; None without one.
        spacing_mm: voxel sides.

    Returns:
        A PNG.
    """
    shades = {name: _shade(image) for name, image in images.items()}
    still = shades.pop(reference)
    mask = still > 0.15 if brain is None else brain > 0
    places = [int(np.round(np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))).mean())) for axis in range(3)]
    x_mm, y_mm, z_mm = (count * step for count, step in zip(still.shape, spacing_mm, strict=True))
    sizes = ((x_mm, y_mm), (x_mm, z_mm), (y_mm, z_mm))
    tallest, width = max(y_mm, z_mm), 2 * x_mm + y_mm
    figure = Figure(figsize=(10, 10 * tallest / width * (1 + len(shades))), facecolor="black")
    FigureCanvasAgg(figure)
    for row, (name, other) in enumerate([(reference, still), *shades.items()]):
        left = 0.0
        for plane, (axis, (across, down)) in enumerate(zip((2, 1, 0), sizes, strict=True)):
            height = down / tallest / (1 + len(shades))
            bottom = 1 - (row + 0.5) / (1 + len(shades)) - height / 2
            axes = figure.add_axes((left, bottom, across / width, height))
            left += across / width
            picture = _plane(still, axis, places[axis])
            extent = (0.0, across, down, 0.0)
            if name != reference:
                square = (SQUARE_MM * picture.shape[0] / down, SQUARE_MM * picture.shape[1] / across)
                picture = checkerboard(picture, _plane(other, axis, places[axis]), square)
            axes.imshow(picture, cmap="gray", vmin=0, vmax=1, extent=extent, interpolation="nearest")
            if name == reference and brain is not None:
                outline = _plane(brain, axis, places[axis]).astype(float)
                if 0 < outline.mean() < 1:
                    axes.contour(outline, levels=[0.5], colors="#E69F00", linewidths=1.0, extent=(0, across, 0, down))
            axes.axis("off")
            words = f"{NAMES[reference]}" if name == reference else f"{NAMES[reference]} / {NAMES[name]}"
            told = f"{words}, {_PLANES[plane]}"
            dark = {"facecolor": "black", "edgecolor": "none", "alpha": 0.6, "pad": 1.5}
            axes.text(0.01, 0.99, told, transform=axes.transAxes, color="#d9d9d9", fontsize=8, va="top", bbox=dark)
            for letter, at in zip(_ENDS[plane], (0.01, 0.99), strict=True):
                side: Any = "left" if at < 0.5 else "right"
                axes.text(at, 0.5, letter, transform=axes.transAxes, color="#d9d9d9", fontsize=9, ha=side, bbox=dark)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, facecolor="black")
    return buffer.getvalue()
