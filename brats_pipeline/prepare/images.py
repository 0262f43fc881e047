"""Scans in and out of SimpleITK, through the same strict reader as everywhere else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import SimpleITK as sitk

from brats_pipeline.errors import PipelineError
from brats_pipeline.prepare.grids import FLIP, Grid
from transforms.nifti import same_grid, spacing_mm, voxels
from transforms.scans import check_placed, read_scan

Array = npt.NDArray[Any]

SHORTEST = 4
"""Fewer voxels than this along an axis are no volume."""


def read_image(path: Path) -> sitk.Image:
    """Read one scan: ``(x, y, z)`` in the file's own axes, float32.

    Raises:
        PipelineError: the file cannot be read, has not three axes, holds NaN or one value only, or its header gives no
            usable voxel size and direction, or none of a head.
    """
    image = read_scan(path, narrow=True)
    made = from_nifti(image, path)
    check_placed(path, image)
    return made


def from_nifti(image: nib.Nifti1Image, name: Path) -> sitk.Image:
    """An image of SimpleITK from one of nibabel; ``name`` is for messages. Raises as :func:`read_image`."""
    shape = image.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) != 3:
        what = f"{shape[-1]} volumes, one after the other" if len(shape) == 4 else f"{len(shape)} axes"
        raise PipelineError(
            f"{name}: has shape {'x'.join(map(str, image.shape))}, {what}; one volume with three axes is needed: give "
            "each modality as a file of its own"
        )
    if min(shape) < SHORTEST:
        raise PipelineError(
            f"{name}: has shape {'x'.join(map(str, shape))}; at least {SHORTEST} voxels along each axis are needed"
        )
    values = voxels(image).reshape(shape)
    if values.dtype.fields is not None or np.iscomplexobj(values):
        raise PipelineError(f"{name}: holds colours or complex numbers; a scan of one number per voxel is needed")
    values = values.astype(np.float32)
    if bad := int(values.size - np.isfinite(values).sum()):
        raise PipelineError(f"{name}: holds {bad} voxels that are NaN or infinite; write the file again without them")
    if values.min() == values.max():
        raise PipelineError(f"{name}: is {values.flat[0]:g} in every voxel; give a scan")
    return _with_affine(values, np.asarray(image.affine, np.float64), name)


def _with_affine(values: npt.NDArray[np.float32], affine: npt.NDArray[np.float64], name: Path) -> sitk.Image:
    """Wrap ``(x, y, z)`` in the grid of a NIfTI affine."""
    sides = spacing_mm(affine)
    if not np.isfinite(affine).all() or sides.min() <= 1e-6 or abs(np.linalg.det(affine[:3, :3] / sides)) < 1e-3:
        raise PipelineError(f"{name}: has no usable voxel size or orientation in its header; write the file again")
    turned = FLIP @ affine
    left, _, right = np.linalg.svd(turned[:3, :3] / sides)
    image = sitk.GetImageFromArray(np.ascontiguousarray(values.T))
    image.SetSpacing(sides.tolist())
    image.SetOrigin(turned[:3, 3].tolist())
    image.SetDirection((left @ right).ravel().tolist())  # the nearest axes at right angles
    if not same_grid(values.shape, Grid.of(image).affine, values.shape, affine):
        raise PipelineError(f"{name}: its axes are not at right angles to each other; resample it to a straight grid")
    return image


def array_of(image: sitk.Image) -> Array:
    """Voxels as ``(x, y, z)``."""
    values: Array = sitk.GetArrayFromImage(image).T
    return values


def like(image: sitk.Image, values: Array) -> sitk.Image:
    """Other voxels ``(x, y, z)`` on the grid of an image."""
    other = sitk.GetImageFromArray(np.ascontiguousarray(values.T))
    other.CopyInformation(image)
    return other


def nifti_of(values: Array, grid: Grid) -> nib.Nifti1Image:
    """Voxels ``(x, y, z)`` as NIfTI, in scanner coordinates (qform and sform code 1) and millimetres."""
    image = nib.Nifti1Image(values, grid.affine)
    image.set_qform(grid.affine, 1)
    image.set_sform(grid.affine, 1)
    image.header.set_xyzt_units("mm")
    return image


def whole_numbers(values: Array) -> bool:
    """Whether a scan can be kept as int16: whole numbers within its range, enough of them to be rounded again."""
    return bool(values.min() >= -32768 and 255 <= values.max() <= 32767 and np.array_equal(values, np.rint(values)))
