"""What can be wrong with the files of a case and their grids. Each defect is one sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, TiffImagePlugin

from brats_pipeline.errors import PipelineError
from transforms.nifti import describe_grid, same_grid
from transforms.scans import check_placed, peek_scan, placing_note, read_scan, read_scan_header
from transforms.slices import BITS_PER_SAMPLE, opened

Grid = tuple[tuple[int, ...], npt.NDArray[Any]]
"""Shape and ``(4, 4)`` affine of a file."""


def read_grid(path: Path) -> Grid:
    """Shape and affine from the first bytes of a file; the rest is read only where its length is not as promised.

    Raises:
        PipelineError: the file is missing, truncated, no volume, or its voxel sides are not those of a head.
    """
    image, whole = peek_scan(path)
    if not whole:  # packed in several parts, or damaged
        image = read_scan(path, narrow=True)
    if has_usable_grid(image.shape[:3], image.affine):
        check_placed(path, image)
    return image.shape, image.affine


def placing_notes(files: Mapping[str, Path]) -> list[str]:
    """What a person should know of how headers place their voxels, one sentence for the images that share it.

    Args:
        files: image to the file of its volume; one that cannot be read is left out.
    """
    said: dict[str, list[str]] = {}
    for name, path in files.items():
        try:
            note = placing_note(read_scan_header(path))
        except PipelineError:
            continue
        if note is not None:
            said.setdefault(note, []).append(name)
    return [f"{', '.join(names)}: {note}" for note, names in said.items()]


def link_notes(files: Mapping[str, Path]) -> list[str]:
    """A link that leads out of the folder while other files of the case lie in it, one sentence for each.

    Cohorts that are all links into a store are usual, and said nothing of.

    Args:
        files: image to its file.
    """
    led = {name: path.resolve() for name, path in files.items() if path.is_symlink()}
    out = [name for name, real in led.items() if not real.is_relative_to(files[name].parent.resolve())]
    if len(out) == len(files):
        return []
    return [f"{name} is a link that leads out of the case's folder, to {led[name]}; others are files" for name in out]


def has_usable_grid(shape: tuple[int, ...], affine: npt.NDArray[Any]) -> bool:
    """Whether a file has three axes, and voxels of a size and direction."""
    return len(shape) == 3 and bool(np.isfinite(affine).all()) and bool(abs(np.linalg.det(affine[:3, :3])) > 1e-9)


def grid_defects(grids: Mapping[str, Grid]) -> list[str]:
    """Axes that are not three, voxels without a size, and images that do not share one grid with the first."""
    defects = []
    sound: dict[str, Grid] = {}
    for name, (shape, affine) in grids.items():
        if len(shape) != 3:
            defects.append(f"{name} has shape {'x'.join(map(str, shape))}; three axes are needed")
        elif not has_usable_grid(shape, affine):
            defects.append(f"{name} has no usable voxel size or orientation in its header")
        else:
            sound[name] = shape, affine
    first = next(iter(sound), None)
    for name, grid in sound.items():
        if first is not None and not same_grid(*sound[first], *grid):
            remedy = (
                "resample it to theirs"
                if name == "label"
                else "`brats-pipeline prepare` brings the scans of an exam to one"
            )
            defects.append(
                f"{name} and {first} lie on different grids: {name} {describe_grid(*grid)}; "
                f"{first} {describe_grid(*sound[first])}; {remedy}"
            )
    return defects


SLICE_MODES = {"RGB": "3 channels of 8 bits", "L": "1 channel of 8 bits", "1": "1 channel of 1 bit"}
"""What a slice (the first) and a mask (the others) may hold, by Pillow's names."""


def _pixel_words(image: Image.Image) -> str:
    """What a picture holds. Its tags tell: Pillow opens colours of 16 bits as if they had 8."""
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    bits = max(tags.get(BITS_PER_SAMPLE, (8,)))
    if bits <= 8 and image.mode in SLICE_MODES:
        return SLICE_MODES[image.mode]
    channels = len(image.getbands())
    return f"{channels} channel{'s' if channels > 1 else ''} of {bits} bits" + (
        " (palette)" if image.mode == "P" else ""
    )


def read_slice_header(path: Path) -> tuple[str, tuple[int, int]]:
    """What a slice file holds in words, and its columns and rows; its pixels are not decoded.

    Raises:
        PipelineError: as :func:`transforms.slices.opened`.
    """
    with opened(path) as image:
        return _pixel_words(image), image.size


def slice_defects(name: str, paths: Sequence[Path], allowed: Sequence[str]) -> tuple[list[str], set[tuple[int, int]]]:
    """Defects that show in the headers of slice files, one sentence for each kind, and the sizes of the sound ones.

    Args:
        name: what the files are, for the message.
        paths: in the order of the slices.
        allowed: keys of :data:`SLICE_MODES`.
    """
    unreadable, odd = [], []
    sized: dict[tuple[int, int], list[Path]] = {}
    words = " or ".join(SLICE_MODES[mode] for mode in allowed)
    for path in paths:
        try:
            held, size = read_slice_header(path)
        except PipelineError as error:
            unreadable.append(str(error))
            continue
        if held not in words.split(" or "):
            odd.append(f"{path}: {name} of {held}; {words} needed, convert it")
        else:
            sized.setdefault(size, []).append(path)
    defects = [
        kind[0] + (f" (and {len(kind) - 1} more)" if len(kind) > 1 else "") for kind in (unreadable, odd) if kind
    ]
    if len(sized) > 1:
        first, second = (f"{size[0]}x{size[1]} ({sized[size][0].name})" for size in list(sized)[:2])
        defects.append(f"{name} files of different sizes: {first}, {second}; all slices of a patient need one size")
    return defects, set(sized)
