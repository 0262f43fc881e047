"""The voxels of a case, whether its images are files of their own, channels of one file, or slices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brats_pipeline.cases.case import Case, Source
from brats_pipeline.cases.integrity import link_notes, placing_notes
from brats_pipeline.cases.stacks import is_stack, twin_defect
from brats_pipeline.errors import CaseError, PipelineError
from transforms.nifti import voxels
from transforms.scans import check_placed, read_scan
from transforms.slices import ACQUIRED_FIRST, read_mask, read_slices


@dataclass(frozen=True)
class Volume:
    """One image or label map.

    Args:
        values: ``(x, y, z)``, in the file's own type.
        affine: ``(4, 4)``; None for slices, which carry no voxel size.
    """

    values: npt.NDArray[Any]
    affine: npt.NDArray[Any] | None


def channel_defect(path: Path, shape: Sequence[int], channel: int) -> str | None:
    """What is wrong with the shape of a file that holds several modalities, if anything."""
    if len(shape) == 4 and channel < shape[3]:
        return None
    return f"{path}: has shape {'x'.join(map(str, shape))}; four axes are needed, the last with channel {channel}"


def read_volumes(case: Case, names: Sequence[str]) -> Iterator[tuple[str, Volume | PipelineError]]:
    """Read images of a case, and ``"label"`` where it is asked for, one after the other.

    Files that hold several images are read once. Images that the case does not have are left out.

    Returns:
        Each name in the order of ``names`` with its volume, or with the error that kept it from being read; an error
        of a file with several images comes once.
    """
    held: tuple[tuple[Path, ...], npt.NDArray[Any], npt.NDArray[Any] | None] | None = None
    broken: set[tuple[Path, ...]] = set()
    for name in names:
        source = case.label if name == "label" else case.images.get(name)
        if source is None or source.paths in broken:
            continue
        try:
            if defect := twin_defect(source, name):
                raise PipelineError(defect)
            if held is None or held[0] != source.paths:
                held = None  # let go of the last file before the next is read
                held = (source.paths, *_decode(source, mask=name == "label"))
            yield name, Volume(_channel(held[1], source), held[2])
        except PipelineError as error:
            broken.add(source.paths)
            yield name, error


def file_notes(case: Case, names: Sequence[str]) -> list[str]:
    """What a person should know of the files of some images of a case, one sentence each; nothing of slices.

    How their headers place the voxels (:func:`brats_pipeline.cases.integrity.placing_notes`), and odd links.
    """
    sources = {name: case.images[name] for name in names if name in case.images}
    files = {name: one.paths[0] for name, one in sources.items() if not is_stack(one)}
    return placing_notes(files) + link_notes(files)


def _decode(source: Source, *, mask: bool) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
    """All voxels of a source's files, and their affine."""
    if is_stack(source):
        # Channels come first from the slices and last from a file, where they are the slowest axis in memory.
        return (read_mask(source.paths) if mask else np.moveaxis(read_slices(source.paths), 0, -1)), None
    image = read_scan(source.paths[0], narrow=not mask)
    check_placed(source.paths[0], image)
    return voxels(image), image.affine


def _channel(values: npt.NDArray[Any], source: Source) -> npt.NDArray[Any]:
    if source.channel is None:
        return values
    if defect := channel_defect(source.paths[0], values.shape, source.channel):
        raise PipelineError(defect)
    channel: npt.NDArray[Any] = values[..., source.channel]
    return channel


def read_label(case: Case) -> Volume:
    """Read the label map of a case.

    Raises:
        PipelineError: it cannot be read.
        ValueError: the case has none.
    """
    for _, volume in read_volumes(case, ["label"]):
        if isinstance(volume, PipelineError):
            raise volume
        return volume
    raise ValueError(f"{case.case_id} has no label map")


def copied_modalities(case: Case) -> dict[str, str]:
    """The modalities whose voxels equal those of another bit for bit, each with that other one.

    In the LGG set a sequence that was not acquired was replaced by FLAIR. Which of two equal images counts as the copy
    says :data:`transforms.slices.ACQUIRED_FIRST`.

    Raises:
        CaseError: an image cannot be read.
    """
    acquired: dict[str, npt.NDArray[Any]] = {}
    copied: dict[str, str] = {}
    for name, volume in read_volumes(case, sorted(case.images, key=ACQUIRED_FIRST.index)):
        if isinstance(volume, PipelineError):
            raise CaseError(case.case_id, str(volume)) from volume
        twin = next((first for first, values in acquired.items() if np.array_equal(values, volume.values)), None)
        if twin is None:
            acquired[name] = volume.values
        else:
            copied[name] = twin
    return copied
