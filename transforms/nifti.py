"""NIfTI files in and out: fast gzip, strict checks, atomic writes. No torch.

Reading decompresses with ISA-L (:mod:`isal`), which releases the interpreter lock, so that the files of a case decode
in threads; where it is not installed, with Python's own gzip (:mod:`transforms.decoding`). Writing keeps the header of
the file that a label map belongs to.
"""

from __future__ import annotations

import logging
import math
import os
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np
import numpy.typing as npt

from brats_pipeline.errors import PipelineError
from brats_pipeline.files import write_atomically
from transforms.decoding import GZIP, Body, Stream, opened, read_values
from transforms.world import FARTHEST, MOST_BYTES

try:
    from isal import igzip
except ImportError:  # the same functions, slower
    import gzip as igzip  # type: ignore[no-redef]

NIFTI_SUFFIXES = (".nii.gz", ".nii")
SUFFIXES = (*NIFTI_SUFFIXES, ".mha", ".nrrd")
"""Of the files that hold a volume, see :mod:`transforms.scans`."""
_unheard = logging.Logger("nibabel's remarks on headers")
_unheard.addHandler(logging.NullHandler())
GRID_TOLERANCE = 0.1
"""Two grids are one when no corner voxel lies further apart than this share of the smallest voxel side."""
STRAIGHT = 1e-4
"""Direction cosines below this turn no axis by a tenth of a voxel over a thousand voxels."""


def strip_suffix(name: str) -> str:
    """File name without the suffix of a volume, in any case: ``"A-t1c.NII.GZ"`` to ``"A-t1c"``."""
    for suffix in SUFFIXES:
        if name.lower().endswith(suffix):
            return name[: -len(suffix)]
    return name


def is_nifti_name(name: str) -> bool:
    """Whether the name ends as a NIfTI file does, in any case."""
    return name.lower().endswith(NIFTI_SUFFIXES)


def is_volume_name(name: str) -> bool:
    """Whether the name ends as a file does that holds a volume: NIfTI, ``.mha`` or ``.nrrd``, in any case."""
    return name.lower().endswith(SUFFIXES)


def read_nifti(path: str | os.PathLike[str], *, narrow: bool = False) -> nib.Nifti1Image:
    """Read a whole NIfTI-1 or NIfTI-2 file into memory, where its voxels lie once.

    Axes of one voxel behind the third are left out. A slope of 0, or one that is no number, scales nothing.

    Args:
        path: ``.nii`` or ``.nii.gz``; the content says whether it is compressed, not the name.
        narrow: values that take 8 bytes, and scaled ones, as float32.

    Returns:
        The image; :func:`voxels` gives its values.

    Raises:
        PipelineError: the file is missing, empty, truncated, longer than its header promises, too large for memory, or
            no NIfTI file with one real number per voxel; the message says which.
    """
    path = Path(path)
    with opened(path) as file:
        stream = _stream(file, path)
        header, body, begun = _read_start(stream)
        values = read_values(stream, body, begun=begun, narrow=narrow)
    return image_of(values, header)


def read_header(path: str | os.PathLike[str]) -> nib.Nifti1Image:
    """Read the header of a NIfTI file alone; of a compressed one only the first bytes are decoded.

    As in :func:`read_nifti` the content says whether the file is compressed, not its name.

    Returns:
        An image whose header, shape and affine can be used, and whose voxels cannot.

    Raises:
        PipelineError: the file is missing or no NIfTI file.
    """
    return peek_nifti(path)[0]


def peek_nifti(path: str | os.PathLike[str]) -> tuple[nib.Nifti1Image, bool]:
    """The header as of :func:`read_header`, and whether the length of the file is the one that it promises.

    Of a compressed file the last four bytes are believed, which say its length unless it was packed in several parts.
    """
    path = Path(path)
    with opened(path) as file:
        stream = _stream(file, path)
        header, body, _ = _read_start(stream)
        length, promised = stream.left, body.promised
        if stream.packing:
            file.seek(-4, 2)
            length, promised = int.from_bytes(file.read(4), "little"), body.promised % 2**32
    return image_of(np.broadcast_to(np.zeros((), body.dtype), body.shape), header), length == promised


def _stream(file: BinaryIO, path: Path) -> Stream:
    packed = file.read(2) == GZIP
    file.seek(0)
    return Stream(file, path, packing="gzip" if packed else "")


def _read_start(stream: Stream) -> tuple[Any, Body, int]:
    """The header at the beginning of a stream, how the voxels lie, and how many bytes were taken."""
    path = stream.path
    start = stream.take(8)
    kind, length = _image_class(start, path)
    start += stream.take(length - len(start))
    if start[344:347] == b"ni1" or start[4:7] == b"ni2":
        raise PipelineError(
            f"{path}: is one half of a pair (.hdr and .img), whose voxels lie in another file; write one .nii file"
        )
    try:
        header = kind.header_class(start, check=False)
        header.check_fix(logger=_unheard, error_level=40)  # mends what it can, such as negative voxel sides
        dtype, shape = header.get_data_dtype(), tuple(map(int, header.get_data_shape()))
        if not shape or min(shape) < 1:
            raise ValueError(f"shape {shape}")
        if math.prod(shape) * dtype.itemsize > MOST_BYTES:
            raise ValueError(f"the header promises {math.prod(shape) * dtype.itemsize} bytes, shape {shape}")
        slope, inter = header.get_slope_inter()
        offset = int(header.get_data_offset())
        if offset < length + 4:  # nibabel would take the header itself for voxels
            raise ValueError(f"its voxels begin at byte {offset}, {length + 4} or more is needed")
        affine = header.get_best_affine()
    except Exception as error:  # nibabel raises many kinds for a header that makes no sense
        raise PipelineError(f"{path}: the NIfTI header cannot be used ({error}); write the file again") from error
    if dtype.kind not in "iuf":
        raise PipelineError(f"{path}: holds colours or complex numbers; a scan of one number per voxel is needed")
    if not (np.abs(affine) <= FARTHEST).all():  # nor is NaN
        raise PipelineError(misplaced(path, affine))
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if shape != header.get_data_shape():  # which sets voxel sides behind the last axis to 1
        header.set_data_shape(shape)
    return header, Body(shape, dtype, offset, 1.0 if slope is None else slope, inter or 0.0), length


def misplaced(path: str | os.PathLike[str], affine: npt.NDArray[Any]) -> str:
    """What to say of a file whose affine is singular or holds no numbers."""
    rows = np.asarray(affine)[:3].tolist()
    return f"{path}: the affine of the header places no voxels ({rows}); write the file again"


def image_of(values: npt.NDArray[Any], header: Any) -> nib.Nifti1Image:
    """Voxels and the header that they came with, whose fields stay as they are but for shape and type."""
    kind: Any = nib.Nifti2Image if isinstance(header, nib.Nifti2Header) else nib.Nifti1Image
    header.set_data_dtype(values.dtype)
    image: nib.Nifti1Image = kind(values, header.get_best_affine(), header)
    return image


def _image_class(content: bytes, path: Path) -> tuple[Any, int]:
    """NIfTI-1 or NIfTI-2 by the header's own length, its first four bytes in either byte order."""
    size = content[:4]
    for kind, length in ((nib.Nifti1Image, 348), (nib.Nifti2Image, 540)):
        if size in (length.to_bytes(4, "little"), length.to_bytes(4, "big")):
            return kind, length
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
