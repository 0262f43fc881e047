"""Pictures of a case: reference and prediction as contours on the scans, in three planes.

Shown in radiological convention, the patient's right on the left, whatever the orientation of the files. Colours are
those of Okabe and Ito (2008), which people with any colour vision can tell apart.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import Normal, Stroke

Mask = npt.NDArray[np.bool_]

COLOURS = {
    **{"WT": "#56B4E9", "TC": "#D55E00", "ET": "#F0E442"},
    **{"NETC": "#009E73", "NET": "#009E73", "SNFH": "#0072B2", "ED": "#0072B2", "RC": "#CC79A7", "CC": "#CC79A7"},
    "GTV": "#E69F00",
}
"""Region to its colour."""

OTHER_COLOUR = "#CC79A7"
"""Colour of every other region."""

_PLANES = ("axial", "coronal", "sagittal")
MODALITIES = {"flair": "FLAIR", "t1c": "T1c"}
_DASHES = (0, (3, 1.6))
_DARK_EDGE = [Stroke(linewidth=2.2, foreground=(0, 0, 0, 0.5)), Normal()]  # white stays visible on white
_LABEL: dict[str, Any] = {"color": "#d9d9d9", "fontsize": 9}


def _lps(array: npt.NDArray[Any], affine: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Turn and mirror the axes so that they grow towards Left, Posterior, Superior."""
    current = nib.orientations.io_orientation(affine)
    wanted = nib.orientations.axcodes2ornt(("L", "P", "S"))
    turn = nib.orientations.ornt_transform(current, wanted)
    turned: npt.NDArray[Any] = nib.orientations.apply_orientation(array, turn)
    return turned


def _lps_spacing(affine: npt.NDArray[Any]) -> tuple[float, ...]:
    """Voxel sides along Left, Posterior, Superior."""
    order = np.asarray(nib.orientations.io_orientation(affine))[:, 0].astype(int)
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    spacing = np.empty(3)
    spacing[order] = sides
    x, y, z = spacing
    return float(x), float(y), float(z)


def _plane(volume: npt.NDArray[Any], axis: int, place: int) -> npt.NDArray[Any]:
    """One slice of an LPS volume as it hangs on the light box: right on the left, front on the left, head up."""
    plane: npt.NDArray[Any] = np.take(volume, place, axis=axis).T
    return plane if axis == 2 else plane[::-1]


def places_of(mask: Mask) -> tuple[int, int, int]:
    """Along each axis the slice that holds most of the mask; the middle where there is none."""
    if not mask.any():
        x, y, z = (side // 2 for side in mask.shape)
        return x, y, z
    x, y, z = (int(mask.sum(axis=tuple({0, 1, 2} - {axis})).argmax()) for axis in range(3))
    return x, y, z


def grey_window(image: npt.NDArray[Any]) -> tuple[float, float]:
    """Grey values shown as black and white: 1st to 99.5th percentile of what is not background."""
    inside = image[np.isfinite(image) & (image != image.flat[0])]
    if inside.size == 0:
        return 0.0, 1.0
    low, high = np.percentile(inside, (1, 99.5))
    if low == high:  # one grey value all over: show it against the background
        low, high = sorted((float(image.flat[0]), float(high)))
    return float(low), float(high)


def head_box(images: Sequence[npt.NDArray[Any]], masks: Sequence[Mask]) -> tuple[slice, ...]:
    """The box that holds the head and every mask, with a small margin."""
    head = np.zeros(images[0].shape, bool)
    for image in images:
        head |= image > image.flat[0]
    for mask in masks:
        head |= mask
    box = []
    for axis in range(3):
        line = np.flatnonzero(head.any(axis=tuple({0, 1, 2} - {axis})))
        start, stop = (int(line[0]), int(line[-1]) + 1) if line.size else (0, head.shape[axis])
        box.append(slice(max(0, start - 3), min(head.shape[axis], stop + 3)))
    return tuple(box)


def draw_outline(axes: Axes, mask: Mask, extent: tuple[float, float, float, float], **style: Any) -> None:
    """Draw the border of a two-dimensional mask; nothing where it is empty."""
    if mask.any():
        padded = np.pad(mask, 1).astype(np.float32)
        width, height = extent[1] / mask.shape[1], extent[2] / mask.shape[0]
        x = (np.arange(padded.shape[1]) - 0.5) * width
        y = (np.arange(padded.shape[0]) - 0.5) * height
        lines = axes.contour(x, y, padded, levels=[0.5], **style)
        lines.set_path_effects(_DARK_EDGE)


def overlay_figure(
    images: Mapping[str, npt.NDArray[Any]],
    reference: Mapping[str, Mask] | None,
    prediction: Mapping[str, Mask] | None,
    *,
    affine: npt.NDArray[Any],
    below: Sequence[str] = (),
    kind: str = "jpeg",
) -> bytes:
    """Draw reference and prediction as contours on three planes of each image.

    The planes pass through the slices that hold most of the widest region of the reference, of the prediction where
    the reference is empty. Solid white is the reference, dashed colour the prediction; solid colour where there is
    nothing to compare it with.

    Args:
        images: modality to ``(x, y, z)``; one row each.
        reference: region to mask, on the grid of the images; the first is the widest. None where there is none.
        prediction: region to mask; None where there is none.
        affine: ``(4, 4)``, of that grid.
        below: lines of text under the legend.
        kind: ``jpeg`` or ``png``.

    Returns:
        The picture's file.

    Raises:
        ValueError: no image is given, or neither masks.
    """
    if not images or (reference is None and prediction is None):
        raise ValueError("overlay_figure needs at least one image, and masks of one side")
    turned = {name: _lps(np.nan_to_num(np.asarray(image, np.float32)), affine) for name, image in images.items()}
    expected = {region: _lps(mask, affine) for region, mask in (reference or {}).items()}
    predicted = {region: _lps(mask, affine) for region, mask in (prediction or {}).items()}
    spacing = _lps_spacing(affine)
    box = head_box(list(turned.values()), [*expected.values(), *predicted.values()])
    windows = {name: grey_window(image) for name, image in turned.items()}
    turned = {name: image[box] for name, image in turned.items()}
    expected = {region: mask[box] for region, mask in expected.items()}
    predicted = {region: mask[box] for region, mask in predicted.items()}
    widest = next(iter(expected or predicted))
    lead = expected if widest in expected and (expected[widest].any() or not predicted) else predicted
    places = places_of(lead[widest])

    x_mm, y_mm, z_mm = (side * step for side, step in zip(next(iter(turned.values())).shape, spacing, strict=True))
    sizes = ((x_mm, y_mm), (x_mm, z_mm), (y_mm, z_mm))
    width = sum(size[0] for size in sizes)
    tallest = max(y_mm, z_mm)
    inches = 9.6 / width
    legend = 0.32 + 0.2 * len(below)
    figure = Figure(figsize=(9.6, inches * tallest * len(turned) + legend), facecolor="black")
    FigureCanvasAgg(figure)
    height = float(figure.get_size_inches()[1])
    legend_share = legend / height
    dashes: Any = [_DASHES if reference is not None else "solid"]
    row_share = (1 - legend_share) / len(turned)
    for row, (name, image) in enumerate(turned.items()):
        left = 0.0
        for plane, (axis, (across, down)) in enumerate(zip((2, 1, 0), sizes, strict=True)):
            share = across / width
            bottom = 1 - row_share * (row + 1) + row_share * (1 - down / tallest) / 2
            axes = figure.add_axes((left, bottom, share, row_share * down / tallest))
            left += share
            extent = (0.0, across, down, 0.0)
            low, high = windows[name]
            picture = _plane(image, axis, places[axis])
            axes.imshow(picture, cmap="gray", vmin=low, vmax=high, extent=extent, interpolation="bilinear")
            for region in expected:
                draw_outline(axes, _plane(expected[region], axis, places[axis]), extent, colors="white", linewidths=1.1)
            for inside, (region, mask) in zip(reversed(range(len(predicted))), predicted.items(), strict=True):
                colour = COLOURS.get(region, OTHER_COLOUR)
                draw_outline(
                    axes,
                    _plane(mask, axis, places[axis]),
                    extent,
                    colors=colour,
                    # Where regions share a border, the wider one shows beside the one that lies on it.
                    linewidths=1.4 if reference is not None else (1.2, 3.2, 1.8)[min(inside, 2)],
                    linestyles=dashes,
                )
            axes.set(xlim=(0, across), ylim=(down, 0), xticks=[], yticks=[])
            axes.axis("off")
            if plane == 0:
                axes.text(0.02, 0.98, MODALITIES.get(name, name), transform=axes.transAxes, **_LABEL, va="top")
            if row == 0:
                axes.text(0.98, 0.98, _PLANES[plane], transform=axes.transAxes, **_LABEL, va="top", ha="right")
            if plane < 2:
                axes.text(0.01, 0.5, "R", transform=axes.transAxes, **_LABEL, va="center")
    handles = [] if reference is None else [Line2D([], [], color="white", linewidth=1.2, label="reference")]
    for region in predicted:
        colour = COLOURS.get(region, OTHER_COLOUR)
        label = region if reference is None else f"predicted {region}"
        handles.append(Line2D([], [], color=colour, linewidth=1.5, linestyle=dashes[0], label=label))
    if prediction is None:
        handles.append(Line2D([], [], linestyle="none", label="no prediction"))
    figure.legend(
        handles=handles,
        loc="lower center",
        bbox_to_anchor=(0.5, 0.2 * len(below) / height),
        ncols=len(handles),
        frameon=False,
        labelcolor="white",
        fontsize=9 if len(handles) < 6 else 8,
        columnspacing=2.0 if len(handles) < 6 else 1.2,
        borderaxespad=0.1,
    )
    for number, line in enumerate(reversed(below)):
        loud: dict[str, Any] = (
            {"color": "#E69F00", "fontsize": 11} if line.isupper() else {"color": "#d9d9d9", "fontsize": 8}
        )
        figure.text(0.5, (0.07 + 0.2 * number) / height, line, ha="center", va="bottom", **loud)
    buffer = io.BytesIO()
    quality = {"pil_kwargs": {"quality": 82}} if kind == "jpeg" else {"metadata": {"Software": None}}
    figure.savefig(buffer, format=kind, dpi=130, facecolor="black", **quality)
    return buffer.getvalue()
