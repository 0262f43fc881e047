"""Any file that holds one volume, as an image of nibabel: NIfTI, MetaImage (``.mha``) and NRRD. No torch.

What is said here of a file's place in the world is in RAS millimetres, whichever way the file says it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from brats_pipeline.errors import PipelineError
from transforms.decoding import Body, Stream, opened, read_values
from transforms.metaimage import BEGINNINGS, read_mha_start
from transforms.nifti import image_of, peek_nifti, read_nifti, same_grid, spacing_mm
from transforms.nrrd import MAGIC, read_nrrd_start
from transforms.world import FARTHEST, Affine

NIFTI_LONGEST_SIDE = 32767
SMALLEST_SIDE_MM, LARGEST_SIDE_MM = 0.01, 100.0
LARGEST_FIELD_MM = 2000.0
"""What surrounds a head is smaller; another spacing of the network would make more voxels of it than memory holds."""
UNITS = {1: "metres", 3: "micrometres"}
"""Units of length of NIfTI that are not those of the pipeline."""


def read_scan(path: str | os.PathLike[str], *, narrow: bool = False) -> nib.Nifti1Image:
    """Read a file whole, as :func:`transforms.nifti.read_nifti` does; what it holds tells its format, not its name.

    Of another format than NIfTI the image has the header that a NIfTI file in its place would have: qform (where the
    axes are at right angles) and sform in scanner coordinates, millimetres.

    Raises:
        PipelineError: the file cannot be read, or is none of these formats; the message says why.
    """
    path = Path(path)
    with opened(path) as file:
        begun = _foreign_start(file, path)
        if begun is not None:
            affine, body, packed = begun
            file.seek(body.offset)
            stream = Stream(file, path, packing="zlib" if packed else "")
            values = read_values(stream, Body(body.shape, body.dtype, 0), begun=0, narrow=narrow)
            return image_of(values, _header(affine, body))
    return read_nifti(path, narrow=narrow)


def read_scan_header(path: str | os.PathLike[str]) -> nib.Nifti1Image:
    """As :func:`transforms.nifti.read_header`, of any format of :func:`read_scan`."""
    return peek_scan(path)[0]


def peek_scan(path: str | os.PathLike[str]) -> tuple[nib.Nifti1Image, bool]:
    """As :func:`transforms.nifti.peek_nifti`; the length of a packed ``.mha`` or ``.nrrd`` is not known beforehand."""
    path = Path(path)
    with opened(path) as file:
        begun = _foreign_start(file, path)
        if begun is not None:
            affine, body, packed = begun
            length = file.seek(0, 2)
            image = image_of(np.broadcast_to(np.zeros((), body.dtype), body.shape), _header(affine, body))
            return image, packed or length == body.promised
    return peek_nifti(path)


def _foreign_start(file: Any, path: Path) -> tuple[Affine, Body, bool] | None:
    """Affine, voxels and packing of a file that is no NIfTI file; None of one that may be."""
    start = file.read(16)
    file.seek(0)
    stream = Stream(file, path, packing="")
    if start.startswith(MAGIC):
        return read_nrrd_start(stream)
    if start.startswith(BEGINNINGS):
        return read_mha_start(stream)
    return None


def _header(affine: Affine, body: Body) -> Any:
    """The NIfTI header of a volume from elsewhere."""
    wide = max(body.shape) > NIFTI_LONGEST_SIDE
    header: Any = nib.Nifti2Header() if wide else nib.Nifti1Header()
    header.set_data_shape(body.shape)
    header.set_data_dtype(body.dtype.newbyteorder("="))
    header.set_sform(affine, 1)
    header.set_qform(affine, 1)
    if not same_grid(body.shape, affine, body.shape, header.get_qform()):
        header.set_qform(None, 0)
    header.set_xyzt_units("mm")
    return header


def implausible(image: nib.Nifti1Image) -> str | None:
    """What is wrong with the voxel sides of a file for a scan of a head, if anything.

    Args:
        image: read by :func:`read_scan` or :func:`read_scan_header`, with an affine that is not singular.
    """
    units = UNITS.get(int(image.header["xyzt_units"]) & 7)
    if units is not None:
        return f"the header measures in {units}; write the file again in millimetres"
    sides = spacing_mm(image.affine)
    fields = sides * image.shape[:3] if len(image.shape) >= 3 else sides
    if sides.min() < SMALLEST_SIDE_MM or sides.max() > LARGEST_SIDE_MM or fields.max() > LARGEST_FIELD_MM:
        return (
            f"voxels of {_by(sides)} mm make a field of view of {_by(fields)} mm; sides of {SMALLEST_SIDE_MM:g} to "
            f"{LARGEST_SIDE_MM:g} mm and at most {LARGEST_FIELD_MM:g} mm are needed: correct the header"
        )
    return None


def placing_note(image: nib.Nifti1Image) -> str | None:
    """What a person should know of how a NIfTI header places its voxels, if anything: which of two statements holds.

    The sform holds where its code is above 0, else the qform; where neither has a code the voxel sides alone are told.
    """
    header = image.header
    qform, sform = int(header["qform_code"]), int(header["sform_code"])
    if qform <= 0 and sform <= 0:
        return (
            "neither qform nor sform is set, so the header does not say which side is left; "
            f"{''.join(nib.aff2axcodes(image.affine))} is assumed"
        )
    if min(qform, sform) <= 0 or len(image.shape) < 3:
        return None
    other = _qform(header)
    if other is not None and same_grid(image.shape[:3], image.affine, image.shape[:3], other):
        return None
    return (
        f"qform (code {qform}) and sform (code {sform}) place the voxels "
        f"{'' if other is None else f'up to {_apart_mm(image, other):.4g} mm '}apart; the sform holds"
    )


def _qform(header: Any) -> npt.NDArray[Any] | None:
    """The affine of the qform; None where its numbers make none."""
    try:
        affine: npt.NDArray[Any] = header.get_qform()
    except Exception:  # a quaternion of no rotation
        return None
    return affine if (np.abs(affine) <= FARTHEST).all() else None  # nor is NaN


def _apart_mm(image: nib.Nifti1Image, other: npt.NDArray[Any]) -> float:
    corners = np.array(np.meshgrid(*[(0, side - 1) for side in image.shape[:3]], indexing="ij")).reshape(3, -1)
    apart = (image.affine - other) @ np.vstack([corners, np.ones(8)])
    return float(np.linalg.norm(apart[:3], axis=0).max())


def _by(values: npt.NDArray[Any]) -> str:
    return "x".join(f"{value:.4g}" for value in values)


def check_placed(path: str | os.PathLike[str], image: nib.Nifti1Image) -> None:
    """Refuse a file whose voxel sides are not those of a head.

    Raises:
        PipelineError: as :func:`implausible` tells.
    """
    if defect := implausible(image):
        raise PipelineError(f"{path}: {defect}")
