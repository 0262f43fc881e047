"""Probabilities of regions in files: one NumPy ``.npz`` per case, which needs no library of ours to be read. No torch.

An archive holds ``probabilities`` ``(R, *spatial)`` in float16, ``regions``, the name of each of its R channels, and,
where the scan has one, ``affine`` ``(4, 4)``, from voxels to millimetres. NIfTI knows no 16-bit floats.
"""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brats_pipeline.errors import PipelineError
from brats_pipeline.files import write_atomically

SUFFIX = ".npz"


@dataclass(frozen=True)
class Probabilities:
    """What a file of probabilities holds.

    Args:
        values: ``(R, *spatial)`` from 0 to 1.
        regions: name of each channel.
        affine: of the grid; None where the file does not tell.
    """

    values: npt.NDArray[np.floating[Any]]
    regions: tuple[str, ...]
    affine: npt.NDArray[np.float64] | None


def write_probabilities(
    path: str | os.PathLike[str],
    values: npt.NDArray[np.floating[Any]],
    *,
    regions: Sequence[str],
    affine: npt.NDArray[Any] | None = None,
) -> None:
    """Write probabilities atomically and compressed; equal bytes for equal values.

    Args:
        path: ends in ``.npz``.
        values: ``(R, *spatial)``; float16 keeps three digits.
        regions: name of each channel.
        affine: of the grid, where there is one.

    Raises:
        ValueError: there is not one name per channel.
        PipelineError: the folder cannot be written, or the disk is full.
    """
    if len(regions) != values.shape[0]:
        raise ValueError(f"{values.shape[0]} channels for {len(regions)} regions ({', '.join(regions)})")
    arrays: dict[str, npt.NDArray[Any]] = {
        "probabilities": values.astype(np.float16, copy=False),
        "regions": np.array(list(regions)),
    }
    if affine is not None:
        arrays["affine"] = np.asarray(affine, dtype=np.float64)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_atomically(path, buffer.getvalue())


def read_probabilities(path: str | os.PathLike[str]) -> Probabilities:
    """Read what :func:`write_probabilities` wrote, or another tool in the same form, in any float type.

    Raises:
        PipelineError: the file is missing or damaged, lacks an array, or holds what is no probability.
    """
    path = Path(path)
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            held = {name: archive[name] for name in ("probabilities", "regions")}
            affine = np.asarray(archive["affine"], dtype=np.float64) if "affine" in archive else None
    except OSError as error:
        raise PipelineError(f"{path}: cannot be read ({error.strerror or error}); segment the case again") from error
    except Exception as error:  # zipfile, zlib and NumPy each raise kinds of their own
        raise PipelineError(
            f"{path}: is no archive of `probabilities` and `regions` ({error}); segment the case again"
        ) from error
    values, names = held["probabilities"], held["regions"]
    regions = tuple(str(name) for name in names.ravel())
    if not np.issubdtype(values.dtype, np.floating) or values.ndim != 4 or values.size == 0:
        raise PipelineError(f"{path}: holds {values.dtype} {values.shape}; needed: floats (region, x, y, z)")
    if len(regions) != values.shape[0] or len(set(regions)) < len(regions):
        raise PipelineError(
            f"{path}: names the regions {', '.join(regions) or 'none'} for {values.shape[0]} channels; needed: one "
            "name for each"
        )
    if affine is not None and affine.shape != (4, 4):
        raise PipelineError(f"{path}: the affine has shape {affine.shape}, needed: (4, 4)")
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= 1):
        what = "NaN" if np.isnan(low) else f"values from {low:g} to {high:g}"
        raise PipelineError(f"{path}: holds {what}; probabilities lie from 0 to 1 (are these logits?)")
    return Probabilities(values, regions, affine)
