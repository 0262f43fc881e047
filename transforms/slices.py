"""Slices in TIFF files: the LGG MRI Segmentation set (Buda et al. 2019), read as volumes. No torch.

A patient of that set is a folder of 256x256 RGB slices (pre-contrast T1, FLAIR, post-contrast T1) with one mask each. A
slice is stored as rows and columns; here ``x`` runs along the columns and ``y`` along the rows, as in the volumes.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from brats_pipeline.errors import PipelineError
from brats_pipeline.files import write_atomically

CHANNELS = {"t1": 0, "flair": 1, "t1c": 2}
"""Modality to channel of a slice file."""

ACQUIRED_FIRST = ("flair", "t1c", "t1", "t2")
"""Of images that are equal bit for bit, the first in this order counts as acquired and the others as its copies."""

MASK_ON = 255
BITS_PER_SAMPLE = 258
"""Number of the TIFF tag."""

Slices = npt.NDArray[np.uint8]


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """The one picture of a slice file; its pixels are decoded when they are asked for, inside the block.

    Raises:
        PipelineError: the file is missing, no picture, damaged, or holds several; says which file it is.
    """
    try:
        with Image.open(path) as image:
            if getattr(image, "is_animated", False):
                raise PipelineError(f"{path}: holds more than one page; one slice per file is needed, split it")
            yield image
    except PipelineError:
        raise
    except Exception as error:  # Pillow lets errors of many kinds out where tags are damaged
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "it is no TIFF picture of a known kind" if unknown else getattr(error, "strerror", None) or error
        raise PipelineError(f"{path}: cannot be read as a TIFF slice ({reason}); copy or download it again") from error


def _read(path: Path) -> Slices:
    with opened(path) as image:
        bits = getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, (8,))
        image.load()
        array = np.asarray(image)
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * MASK_ON
    if array.dtype != np.uint8 or max(bits) > 8:  # Pillow opens 16-bit RGB as if it had 8 bits
        raise PipelineError(f"{path}: holds {max(bits)}-bit values, 8-bit slices are needed; convert it to uint8")
    return array


def _stack(paths: Sequence[Path]) -> list[Slices]:
    if not paths:
        raise ValueError("a slice stack needs at least one file")
    with ThreadPoolExecutor(max_workers=4) as pool:
        slices = list(pool.map(_read, paths))
    first = slices[0].shape
    for path, array in zip(paths, slices, strict=True):
        if array.shape != first:
            raise PipelineError(
                f"{path}: has shape {array.shape}, but {paths[0].name} of the same patient has {first}; "
                "all slices of a patient must have one size and one number of channels"
            )
    return slices


def read_slices(paths: Sequence[str | Path]) -> Slices:
    """Read the slices of a patient as one volume ``(3, x, y, z)``: t1, flair, t1c (:data:`CHANNELS`).

    Raises:
        PipelineError: a file is no 8-bit RGB slice, or sizes differ.
    """
    files = [Path(path) for path in paths]
    slices = _stack(files)
    if slices[0].ndim != 3 or slices[0].shape[2] != len(CHANNELS):
        raise PipelineError(
            f"{files[0]}: has shape {slices[0].shape}; needed are rows x columns x {len(CHANNELS)} channels "
            "(pre-contrast, FLAIR, post-contrast)"
        )
    return np.ascontiguousarray(np.stack(slices).transpose(3, 2, 1, 0))


def copied_sequences(volume: Slices) -> tuple[str, ...]:
    """The modalities whose channel equals another bit for bit: sequences that were missing and replaced.

    Of equal channels FLAIR counts as acquired, else T1c: a copy is never taken for T1.

    Args:
        volume: ``(3, x, y, z)`` of :func:`read_slices`.
    """
    order = sorted(CHANNELS, key=ACQUIRED_FIRST.index)
    return tuple(
        name
        for place, name in enumerate(order)
        if any(np.array_equal(volume[CHANNELS[name]], volume[CHANNELS[first]]) for first in order[:place])
    )


def read_mask(paths: Sequence[str | Path]) -> Slices:
    """Read the masks of a patient as one label map ``(x, y, z)`` of 0 and 1.

    Raises:
        PipelineError: a mask is not binary, or has several channels.
    """
    files = [Path(path) for path in paths]
    slices = _stack(files)
    if slices[0].ndim != 2:
        raise PipelineError(f"{files[0]}: a mask has one channel, this file has shape {slices[0].shape}")
    for path, array in zip(files, slices, strict=True):
        if not np.isin(array, (0, 1, MASK_ON)).all():
            odd = sorted(set(np.unique(array).tolist()) - {0, 1, MASK_ON})
            raise PipelineError(f"{path}: the mask holds {odd[:5]}; needed are 0 and {MASK_ON} alone")
    return np.ascontiguousarray((np.stack(slices) != 0).astype(np.uint8).transpose(2, 1, 0))


def write_masks(folder: str | Path, stems: Sequence[str], labels: Slices) -> list[Path]:
    """Write ``FOLDER/<stem>_mask.tif`` with 0 and 255 for every slice of a label map.

    Args:
        folder: of one patient; made when absent.
        stems: names of the image slices, in order.
        labels: ``(x, y, z)``, nonzero inside.

    Raises:
        PipelineError: the folder cannot be written.
    """
    if labels.ndim != 3 or labels.shape[2] != len(stems):
        raise ValueError(f"labels of shape {labels.shape} do not match {len(stems)} slices")
    written = []
    for number, stem in enumerate(stems):
        buffer = io.BytesIO()
        picture = (labels[:, :, number].T != 0).astype(np.uint8) * MASK_ON
        Image.fromarray(picture).save(buffer, format="TIFF")
        path = Path(folder) / f"{stem}_mask.tif"
        write_atomically(path, buffer.getvalue())
        written.append(path)
    return written
