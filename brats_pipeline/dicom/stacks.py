"""Slices to a volume: their order and their place, from ImagePositionPatient and ImageOrientationPatient alone.

What would put a voxel in the wrong place is refused: missing slices, unequal distances, two slices in one place, slices
of different sizes or orientations, a tilted gantry. DICOM counts millimetres towards Left, Posterior, Superior
(PS3.3, C.7.6.2), as SimpleITK does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from brats_pipeline.dicom.headers import MULTI_FRAME_MR, number_of, numbers_of, text_of
from brats_pipeline.errors import PipelineError

if TYPE_CHECKING:
    from pydicom import Dataset

Floats = npt.NDArray[np.float64]

FEWEST = 4
"""Fewer slices than this are no volume."""
TOLERANCE = 0.1
"""A slice may lie this share of the distance between slices from where it should, as grids may elsewhere."""
TURNED = 1e-3
"""Direction cosines that differ by more are two directions."""
THINNED = 1.5
"""Slices that lie further apart than so many times what their headers say may lack others between them."""
LONGEST_MM = 50.0
"""A voxel side above this is a mistake."""


@dataclass(frozen=True)
class Instance:
    """One slice: its file and what its header says."""

    path: Path
    header: Dataset


@dataclass(frozen=True)
class Stack:
    """Slices in order, first to last along the third axis.

    Args:
        slices: in order.
        size: columns, rows, slices.
        spacing_mm: sides of a voxel along columns, rows, slices.
        origin: centre of the first voxel, LPS millimetres.
        axes: ``(3, 3)``, a unit vector in each column: along a row, down a column, from slice to slice.
    """

    slices: tuple[Instance, ...]
    size: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    origin: tuple[float, float, float]
    axes: Floats

    @property
    def affine(self) -> Floats:
        """``(4, 4)``, voxel to RAS millimetres, as NIfTI has it."""
        affine = np.eye(4)
        affine[:3, :3] = self.axes * self.spacing_mm
        affine[:3, 3] = self.origin
        ras: Floats = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
        return ras


def stack_of(instances: Sequence[Instance], name: str) -> Stack:
    """Put the slices of one series into order and say where they lie.

    Args:
        instances: in any order.
        name: of the series, for messages.

    Raises:
        PipelineError: the slices are no straight, complete stack; the message says why.
    """
    if not instances:
        raise PipelineError(f"{name}: holds no image; give the folder of a series")
    _refuse_frames(instances, name)
    size, spacing, axes = _common(instances, name)
    positions = np.array([_position(each, name) for each in instances])
    along = positions @ axes[:, 2]
    order = np.argsort(along, kind="stable")
    slices = tuple(instances[place] for place in order)
    along, positions = along[order], positions[order]
    _refuse_twins(slices, along, name)
    if len(slices) < FEWEST:
        raise PipelineError(
            f"{name}: has {len(slices)} slice{'s' * (len(slices) > 1)}, at least {FEWEST} are needed; give a series "
            "that covers the head"
        )
    step_mm = _even_step(slices, along, name)
    _refuse_tilt(positions, axes, step_mm=step_mm, pixel_mm=min(spacing), name=name)
    first: list[float] = positions[0].tolist()
    return Stack(slices, (*size, len(slices)), (*spacing, step_mm), (first[0], first[1], first[2]), axes)


def thinned(stack: Stack) -> str | None:
    """What to say of slices that lie further apart than their headers mean, as where every second one was lost.

    Nothing puts a voxel in the wrong place then. A SpacingBetweenSlices below the SliceThickness may count from the
    edge of one slice to the edge of the next, against the standard.
    """
    header, step_mm = stack.slices[0].header, stack.spacing_mm[2]
    told, thickness = (number_of(header, keyword) for keyword in ("SpacingBetweenSlices", "SliceThickness"))
    if told is None or told <= 0 or step_mm < THINNED * told:
        return None
    if thickness and told < (1 - TOLERANCE) * thickness and abs(step_mm - thickness - told) <= TOLERANCE * step_mm:
        return None
    apart = f"its slices lie {step_mm:.4g} mm apart, and SpacingBetweenSlices is {told:.4g}"
    return f"{apart}: some between them may be missing"


def _refuse_frames(instances: Sequence[Instance], name: str) -> None:
    for each in instances:
        frames = number_of(each.header, "NumberOfFrames")
        if text_of(each.header, "SOPClassUID") in MULTI_FRAME_MR or (frames is not None and frames > 1):
            raise PipelineError(
                f"{name}: {each.path.name} holds many slices in one file (multi-frame, enhanced MR), one file for each "
                "slice is needed; export the series as classic MR images, or convert it to NIfTI with dcm2niix and "
                "give the files by --t1c --t1 --t2 --flair"
            )


def _common(instances: Sequence[Instance], name: str) -> tuple[tuple[int, int], tuple[float, float], Floats]:
    """Columns and rows, their spacing, and the axes, which all slices must share."""
    first = instances[0]
    size, spacing, axes = _plane(first, name)
    for each in instances[1:]:
        other_size, other_spacing, other_axes = _plane(each, name)
        if other_size != size:
            raise PipelineError(
                f"{name}: holds slices of different sizes, {_times(size)} ({first.path.name}) and {_times(other_size)} "
                f"({each.path.name}); one size is needed: give one series, in a folder of its own"
            )
        if not np.allclose(other_spacing, spacing, rtol=1e-3, atol=0):
            raise PipelineError(
                f"{name}: holds pixels of different sizes, {_times(spacing)} mm ({first.path.name}) and "
                f"{_times(other_spacing)} mm ({each.path.name}); give one series, in a folder of its own"
            )
        if np.abs(other_axes - axes).max() > TURNED:
            raise PipelineError(
                f"{name}: holds slices of different orientations ({first.path.name}, {each.path.name}); one is needed: "
                "give one series, in a folder of its own"
            )
    return size, spacing, axes


def _plane(each: Instance, name: str) -> tuple[tuple[int, int], tuple[float, float], Floats]:
    """Columns and rows of one slice, their spacing, and its axes."""
    where = f"{name}: {each.path.name}"
    rows, columns = (number_of(each.header, keyword) for keyword in ("Rows", "Columns"))
    if not rows or not columns or rows < 1 or columns < 1:
        raise PipelineError(f"{where} has no Rows and Columns; export the series again")
    sides = numbers_of(each.header, "PixelSpacing", 2)
    if sides is None or min(sides) <= 0 or max(sides) > LONGEST_MM:
        raise PipelineError(
            f"{where} has the PixelSpacing {text_of(each.header, 'PixelSpacing') or '(none)'}; two lengths "
            f"between 0 and {LONGEST_MM:g} mm are needed: export the series again"
        )
    cosines = numbers_of(each.header, "ImageOrientationPatient", 6)
    across, down = np.reshape(cosines if cosines is not None else [0.0] * 6, (2, 3))
    lengths = np.linalg.norm([across, down], axis=1)
    if cosines is None or np.abs(lengths - 1).max() > 1e-2 or abs(across @ down) > 1e-2:
        raise PipelineError(
            f"{where} has the ImageOrientationPatient {text_of(each.header, 'ImageOrientationPatient') or '(none)'}; "
            "two unit vectors at right angles are needed: export the series again"
        )
    across = across / lengths[0]
    down = down - (down @ across) * across  # to the last digit at right angles
    down /= np.linalg.norm(down)
    return (int(columns), int(rows)), (sides[1], sides[0]), np.stack([across, down, np.cross(across, down)], axis=1)


def _position(each: Instance, name: str) -> tuple[float, ...]:
    position = numbers_of(each.header, "ImagePositionPatient", 3)
    if position is None:
        raise PipelineError(
            f"{name}: {each.path.name} has no ImagePositionPatient, which gives its place; export the series again"
        )
    return position


def _refuse_twins(slices: Sequence[Instance], along: Floats, name: str) -> None:
    """Two slices in one place: a file copied twice, or several volumes in one series."""
    same = np.flatnonzero(np.diff(along) < 1e-3)
    if not len(same):
        return
    one, other = slices[same[0]], slices[same[0] + 1]
    copied = text_of(one.header, "SOPInstanceUID") == text_of(other.header, "SOPInstanceUID")
    what = "the same file twice" if copied else "several volumes in one series"
    raise PipelineError(
        f"{name}: {len(np.union1d(same, same + 1))} slices share a place with another ({one.path.name}, "
        f"{other.path.name}): {what}; one slice in each place is needed: keep one of each"
    )


def _even_step(slices: Sequence[Instance], along: Floats, name: str) -> float:
    """The one distance between neighbours, in millimetres."""
    steps = np.diff(along)
    usual = float(steps.min())
    gaps = np.rint(steps / usual)
    if gaps.max() > 1 and np.abs(steps / usual - gaps).max() <= TOLERANCE:
        place, lost = int(np.argmax(gaps > 1)), int((gaps - 1).sum())
        raise PipelineError(
            f"{name}: {lost} slice{'s are' if lost > 1 else ' is'} missing, the first after {slices[place].path.name} "
            f"({steps[place]:.4g} mm to the next, {usual:.4g} mm elsewhere); export or copy the series again"
        )
    even = float(along[-1] - along[0]) / (len(along) - 1)
    if np.abs(along - along[0] - even * np.arange(len(along))).max() > TOLERANCE * even:
        raise PipelineError(
            f"{name}: its slices lie {steps.min():.4g} to {steps.max():.4g} mm apart; equal distances are needed: "
            "export the series again, or give one that was not put together from several"
        )
    if even > LONGEST_MM:
        raise PipelineError(f"{name}: its slices lie {even:.4g} mm apart; at most {LONGEST_MM:g} mm can be used")
    return even


def _refuse_tilt(positions: Floats, axes: Floats, *, step_mm: float, pixel_mm: float, name: str) -> None:
    """Slices that slide sideways from one to the next: the axes are not at right angles."""
    way = positions[-1] - positions[0]
    straight = axes[:, 2] * step_mm * np.arange(len(positions))[:, None]
    off = positions - positions[0] - straight
    aside_mm = np.linalg.norm(off - np.outer(off @ axes[:, 2], axes[:, 2]), axis=1).max()
    if aside_mm > max(TOLERANCE * pixel_mm, 0.02):
        slide = np.linalg.norm(way - (way @ axes[:, 2]) * axes[:, 2])
        degrees = float(np.degrees(np.arctan2(slide, abs(way @ axes[:, 2]))))
        raise PipelineError(
            f"{name}: its slices are not stacked at right angles to their planes (gantry tilt of {degrees:.2g} "
            f"degrees, {aside_mm:.3g} mm aside); straight stacks are needed: straighten the series, as dcm2niix does, "
            "and give the NIfTI files by --t1c --t1 --t2 --flair"
        )


def _times(values: Sequence[float]) -> str:
    return "x".join(f"{value:.4g}" for value in values)
