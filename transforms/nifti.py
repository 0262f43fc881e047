"""NIfTI files in and out: fast gzip, strict checks, atomic writes. No torch.

Reading decompresses with ISA-L (:mod:`isal`), which releases the interpreter lock, so that the files of a case decode
in threads; where it is not installed, with Python's own gzip. Writing keeps the header of the file that a label map
belongs to.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from brats_pipeline.errors import PipelineError
from brats_pipeline.files import write_atomically

try:
    from isal import igzip
except ImportError:  # the same functions, slower
    import gzip as igzip  # type: ignore[no-redef]

SUFFIXES = (".nii.gz", ".nii")
GRID_TOLERANCE = 0.1
"""Two grids are one when no corner voxel lies further apart than this share of the smallest voxel side."""
STRAIGHT = 1e-4
"""Direction cosines below this turn no axis by a tenth of a voxel over a thousand voxels."""


def strip_suffix(name: str) -> str:
    """File name without ``.nii`` or ``.nii.gz``, in any case: ``"A-t1c.NII.GZ"`` to ``"A-t1c"``."""
    for suffix in SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def is_nifti_name(name: str) -> bool:
    """Whether the name ends as a NIfTI file does, in any case."""
    return name.lower().endswith(SUFFIXES)


def read_nifti(path: str | os.PathLike[str]) -> nib.Nifti1Image:
    """Read a whole NIfTI-1 or NIfTI-2 file into memory.

    Args:
        path: ``.nii`` or ``.nii.gz``.

    Returns:
        The image; ``numpy.asanyarray(image.dataobj)`` gives its voxels.

    Raises:
        PipelineError: the file is missing, empty, truncated, or no NIfTI file; the message says which.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = error.strerror or error
        raise PipelineError(f"{path}: cannot be read ({reason}); check the path and its rights") from error
    if not content:
        raise PipelineError(f"{path}: the file is empty; copy or download it again")
    if content[:2] == b"\x1f\x8b":
        try:
            content = igzip.decompress(content)
        except Exception as error:  # gzip, zlib and ISA-L each raise kinds of their own
            raise PipelineError(
                f"{path}: the gzip stream is truncated or damaged ({error}); copy or download the file again"
            ) from error
    kind = _image_class(content, path)
    try:
        image = kind.from_bytes(content)
        if not image.shape or min(image.shape) < 1:
            raise ValueError(f"shape {image.shape}")
        proxy: Any = image.dataobj  # the header's own vox_offset is reset while reading
        expected = int(proxy.offset) + math.prod(map(int, image.shape)) * int(proxy.dtype.itemsize)
    except Exception as error:  # nibabel raises many kinds for a header that makes no sense
        raise PipelineError(f"{path}: the NIfTI header cannot be used ({error}); write the file again") from error
    if len(content) < expected:
        raise PipelineError(
            f"{path}: the header promises {expected} bytes, the file holds {len(content)}: truncated, copy it again"
        )
    return image


def read_header(path: str | os.PathLike[str]) -> nib.Nifti1Image:
    """Read the header of a NIfTI file alone; of a compressed one only the first bytes are decoded.

    As in :func:`read_nifti` the content says whether the file is compressed, not its name.

    Returns:
        An image whose header, shape and affine can be used, and whose voxels cannot.

    Raises:
        PipelineError: the file is missing or no NIfTI file.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            stream: Any = igzip.GzipFile(fileobj=file) if packed else file
            kind = _image_class(stream.read(8), path)
            stream.seek(0)
            return kind.from_stream(stream)
    except PipelineError:
        raise
    except Exception as error:  # nibabel and gzip raise many kinds
        raise PipelineError(f"{path}: the NIfTI header cannot be read ({error}); copy or write it again") from error


def _image_class(content: bytes, path: Path) -> type[nib.Nifti1Image]:
    """NIfTI-1 or NIfTI-2 by the header's own length, its first four bytes in either byte order."""
    size = content[:4]
    for kind, length in ((nib.Nifti1Image, 348), (nib.Nifti2Image, 540)):
        if size in (length.to_bytes(4, "little"), length.to_bytes(4, "big")):
            return kind
    raise PipelineError(f"{path}: this is no NIfTI file (it starts with {content[:8]!r}); give a .nii or .nii.gz file")


def voxels(image: nib.Nifti1Image) -> npt.NDArray[Any]:
    """Voxel values of an image, scaled where its header says so, in the file's own type otherwise."""
    return np.asanyarray(image.dataobj)


def spacing_mm(affine: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Voxel sides in millimetres of a ``(4, 4)`` affine."""
    sides: npt.NDArray[np.float64] = np.linalg.norm(np.asarray(affine, dtype=np.float64)[:3, :3], axis=0)
    return sides


def orientation(affine: npt.NDArray[Any]) -> str:
    """Direction in which each array axis grows, such as ``"LPS"`` (BraTS) or ``"RAS"``."""
    return "".join(code or "?" for code in nib.aff2axcodes(affine))


def same_grid(
    shape: tuple[int, ...], affine: npt.NDArray[Any], other_shape: tuple[int, ...], other_affine: npt.NDArray[Any]
) -> bool:
    """Whether two images share one voxel grid: equal shapes, and corners within :data:`GRID_TOLERANCE` of a voxel."""
    if tuple(shape) != tuple(other_shape):
        return False
    axes = [(0, side - 1) for side in shape[:3]]
    corners = np.array(np.meshgrid(*axes, indexing="ij")).reshape(3, -1)
    corners = np.vstack([corners, np.ones(corners.shape[1])])
    apart = np.linalg.norm(((np.asarray(affine) - np.asarray(other_affine)) @ corners)[:3], axis=0).max()
    return bool(apart <= GRID_TOLERANCE * spacing_mm(affine).min())


def describe_grid(shape: tuple[int, ...], affine: npt.NDArray[Any]) -> str:
    """One grid in words: ``"240x240x155 voxels of 1x1x1 mm, LPS, origin (0, -239, 0)"``.

    Axes that are not those of the scanner follow, so that grids which differ by a turn alone read differently.
    """
    sides = "x".join(f"{side:.4g}" for side in spacing_mm(affine))
    origin = ", ".join(f"{value:.4g}" for value in np.asarray(affine)[:3, 3])
    directions = (np.asarray(affine)[:3, :3] / spacing_mm(affine)).T
    straight = bool((np.sort(np.abs(directions), axis=1)[:, :2] < STRAIGHT).all())
    axes = ", ".join(f"({', '.join(f'{value:.3g}' for value in np.round(axis, 4) + 0.0)})" for axis in directions)
    turned = "" if straight else f", axes along {axes}"
    return f"{'x'.join(map(str, shape))} voxels of {sides} mm, {orientation(affine)}, origin ({origin}){turned}"


def write_nifti(path: str | os.PathLike[str], image: nib.Nifti1Image) -> None:
    """Write an image atomically: the file is whole or absent.

    Args:
        path: ends in ``.nii`` or ``.nii.gz`` (compressed with ISA-L level 1).
        image: what to write; its header goes with it.

    Raises:
        PipelineError: the folder cannot be written, or the disk is full.
    """
    path = Path(path)
    content = image.to_bytes()
    if path.name.lower().endswith(".gz"):
        content = igzip.compress(content, compresslevel=1, mtime=0)
    write_atomically(path, content)


def label_image(labels: npt.NDArray[np.uint8], like: nib.Nifti1Image) -> nib.Nifti1Image:
    """Wrap a label map in the header of the image it belongs to.

    Args:
        labels: ``(x, y, z)`` on the grid of ``like``.
        like: the input scan; its shape, affine, qform and sform with their codes, and units are kept to the bit.

    Raises:
        ValueError: the shapes differ.
    """
    if labels.shape != like.shape[:3]:
        raise ValueError(f"label map of shape {labels.shape} cannot take a header of shape {like.shape[:3]}")
    header = like.header.copy()
    header.set_data_shape(labels.shape)
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    header["cal_min"] = header["cal_max"] = 0
    header["descrip"] = b"label map by brats-pipeline, research use only"
    header["intent_code"] = 0
    header["aux_file"] = b""
    header.extensions.clear()
    # A constructor given an affine would rewrite the qform and sform; given None it keeps both as they stand.
    return type(like)(labels, None, header)
