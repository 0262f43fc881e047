"""The series of a folder: every MR image below it, grouped, and what else lies there by name."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from brats_pipeline.dicom.headers import (
    DEFLATED,
    DIRECTORY,
    MR_IMAGE,
    MULTI_FRAME_MR,
    need,
    number_of,
    numbers_of,
    read_header,
    text_of,
    uid_name,
)
from brats_pipeline.dicom.stacks import Instance
from brats_pipeline.errors import PipelineError
from brats_pipeline.files import is_dicom
from transforms.nifti import is_volume_name

if TYPE_CHECKING:
    from pydicom import Dataset

STANDARD = "1.2.840.10008."
"""Begins every identifier that the DICOM standard gives away."""
SPLIT = 1e-2
"""Slices whose direction cosines differ by more belong to different stacks of one series."""


@dataclass(frozen=True)
class Series:
    """One stack of MR images: a series, or a part of one that mixes several.

    Args:
        uid: SeriesInstanceUID.
        number: SeriesNumber as shown; parts of one series are ``5a``, ``5b``.
        instances: its files with their headers, in no order.
    """

    uid: str
    number: str
    instances: tuple[Instance, ...]

    @property
    def header(self) -> Dataset:
        """That of its first file."""
        return self.instances[0].header

    @property
    def description(self) -> str:
        return text_of(self.header, "SeriesDescription") or text_of(self.header, "ProtocolName")

    @property
    def folder(self) -> Path:
        """The deepest folder that holds all its files."""
        return Path(os.path.commonpath([each.path.parent for each in self.instances]))

    @property
    def name(self) -> str:
        """For messages."""
        told = f" ({self.description})" if self.description else ""
        return f"series {self.number}{told} in {self.folder}"

    @property
    def spacing_mm(self) -> tuple[float, float, float] | None:
        """Voxel sides as the headers have them, columns, rows, slices; None where they say nothing."""
        sides = numbers_of(self.header, "PixelSpacing", 2)
        axes = numbers_of(self.header, "ImageOrientationPatient", 6)
        places = [numbers_of(each.header, "ImagePositionPatient", 3) for each in self.instances]
        if sides is None or axes is None or any(place is None for place in places):
            return None
        along = np.unique(np.round(np.array(places) @ np.cross(axes[:3], axes[3:]), 3))
        return (sides[1], sides[0], float(np.median(np.diff(along)))) if len(along) > 1 else None


@dataclass(frozen=True)
class Folder:
    """What a folder holds.

    Args:
        root: the folder.
        series: by number.
        aside: why files were set aside, to how many of them: ``{"Segmentation Storage": 1, "no DICOM file": 2}``.
    """

    root: Path
    series: tuple[Series, ...]
    aside: dict[str, int]


def holds_dicom(folder: Path) -> bool:
    """Whether a folder is one of DICOM files: it holds one, and no volume in one file."""
    found = False
    for path in _files(Path(folder)):
        if is_volume_name(path.name):
            return False
        found = found or is_dicom(path)
    return found


def find_series(folder: Path) -> Folder:
    """Group the MR images below a folder into series, whatever the files are called.

    Files that are no MR images (other DICOM objects, texts) are set aside and counted by what they are; a DICOMDIR is
    passed over. One series that mixes stacks (orientations, echoes, time points, kinds of image) is several.

    Raises:
        PipelineError: there is no such folder, it holds no MR image, or a damaged DICOM file, which may be a slice that
            nobody would miss; pydicom is missing.
    """
    need("pydicom")
    folder = Path(folder)
    if not folder.is_dir():
        raise PipelineError(f"{folder}: is no folder; give the folder of an exam")
    aside: Counter[str] = Counter()
    damaged: list[Path] = []
    groups: dict[str, list[Instance]] = defaultdict(list)
    for path in _files(folder):
        instance = _instance(path, folder, aside, damaged)
        if instance is not None:
            groups[text_of(instance.header, "SeriesInstanceUID")].append(instance)
    if damaged:
        raise PipelineError(
            f"{folder}: {len(damaged)} DICOM file{'s are' if len(damaged) > 1 else ' is'} truncated or damaged (first "
            f"{damaged[0].relative_to(folder)}) and may be part of a scan; copy them again, or take them out"
        )
    if not groups:
        told = ", ".join(f"{count} x {what}" for what, count in sorted(aside.items())) or "no files"
        raise PipelineError(f"{folder}: holds no MR image (found: {told}); give the folder of an MR exam")
    series = [stack for uid, instances in groups.items() for stack in _parts(uid, instances)]
    return Folder(folder, tuple(sorted(series, key=_by_number)), dict(aside))


def _files(folder: Path) -> list[Path]:
    """Every file below a folder in one order; links to folders are not followed."""
    found = []
    for root, subfolders, names in os.walk(folder):
        subfolders.sort()
        found += [Path(root, name) for name in sorted(names)]
    return found


def _instance(path: Path, root: Path, aside: Counter[str], damaged: list[Path]) -> Instance | None:
    """An MR image; anything else is counted by what it is, or listed as damaged."""
    if path.name.startswith(".") or path.name.upper() == "DICOMDIR":
        return None
    if path.is_symlink() and not path.resolve().is_relative_to(root.resolve()):
        aside["link that leaves the folder"] += 1
    elif not is_dicom(path):
        aside["no DICOM file"] += 1
    elif _is_deflated(path):
        aside["deflated file"] += 1
    else:
        try:
            header = read_header(path)
        except PipelineError:
            damaged.append(path)
            return None
        kinds = {text_of(header, "SOPClassUID"), _kind_before_header(header)} - {""}
        kind = kinds.pop() if len(kinds) == 1 else ""  # told twice, and once alone in old files
        if kind in (MR_IMAGE, *MULTI_FRAME_MR):
            if all(text_of(header, keyword) for keyword in ("SOPClassUID", "SeriesInstanceUID", "Rows", "Columns")):
                return Instance(path, header)
            damaged.append(path)
        elif (name := _kind_name(kind)) is None:
            damaged.append(path)
        elif kind != DIRECTORY:
            aside[name] += 1
    return None


def _is_deflated(path: Path) -> bool:
    """Whether the file says that it is zipped as a whole: what comes out of it has no bound."""
    with path.open("rb") as file:
        return DEFLATED.encode() in file.read(1024)


def _kind_name(uid: str) -> str | None:
    """What a SOP class is called, also one of a vendor's own; None where it is none."""
    if re.fullmatch(r"[0-9]+(\.[0-9]+)+", uid) is None:
        return None
    name = uid_name(uid)
    if name != uid:
        return name
    return None if uid.startswith(STANDARD) else f"vendor's own object ({uid})"


def _kind_before_header(header: Dataset) -> str:
    """The SOP class by the lines that stand before the header."""
    return text_of(header.file_meta, "MediaStorageSOPClassUID") if hasattr(header, "file_meta") else ""


def _parts(uid: str, instances: Sequence[Instance]) -> list[Series]:
    """The stacks that one series mixes."""
    axes: list[np.ndarray] = []
    stacks: dict[tuple[object, ...], list[Instance]] = defaultdict(list)
    for each in instances:
        stacks[(_direction(each, axes), *_kind(each.header))].append(each)
    number = number_of(instances[0].header, "SeriesNumber")
    shown = "?" if number is None else f"{number:.0f}"
    ordered = sorted(stacks.values(), key=_first_place)
    if len(ordered) == 1:
        return [Series(uid, shown, tuple(instances))]
    return [Series(uid, shown + _letters(place), tuple(stack)) for place, stack in enumerate(ordered)]


def _direction(each: Instance, known: list[np.ndarray]) -> int:
    """Number of the orientation that a slice has; a new one is added to those known. -1 without one."""
    found = numbers_of(each.header, "ImageOrientationPatient", 6)
    if found is None:
        return -1
    for place, other in enumerate(known):
        if np.abs(np.subtract(found, other)).max() <= SPLIT:
            return place
    known.append(np.array(found))
    return len(known) - 1


def _kind(header: Dataset) -> tuple[object, ...]:
    """What tells apart the stacks of one series: echo, time point, kind of image."""
    echo = text_of(header, "EchoNumbers")
    time = number_of(header, "EchoTime")
    return (
        echo or (None if time is None else round(time)),
        text_of(header, "TemporalPositionIdentifier"),
        text_of(header, "ImageType"),
    )


def _first_place(stack: Sequence[Instance]) -> tuple[float, str]:
    numbers = [number_of(each.header, "InstanceNumber") for each in stack]
    return min((number for number in numbers if number is not None), default=0.0), str(stack[0].path)


def _letters(place: int) -> str:
    """``a`` to ``z``, then ``aa``."""
    return ("" if place < 26 else _letters(place // 26 - 1)) + chr(ord("a") + place % 26)


def _by_number(series: Series) -> tuple[float, str, str]:
    number = number_of(series.header, "SeriesNumber")
    return (float("inf") if number is None else number, series.uid, series.number.rjust(20))
