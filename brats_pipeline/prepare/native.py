"""Back to where the scans came from: a label map of a prepared case on the grid of the original reference."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk

from brats_pipeline.errors import PipelineError
from brats_pipeline.prepare.grids import Grid
from brats_pipeline.prepare.images import array_of
from brats_pipeline.prepare.keeping import RECORD
from transforms.nifti import label_image, read_nifti, same_grid, voxels, write_nifti

SCHEMA_VERSION = 1


def is_prepared(folder: Path) -> bool:
    """Whether a case folder was written by :func:`brats_pipeline.prepare.prepare_case`."""
    return (Path(folder) / RECORD).is_file()


def read_record(folder: Path) -> dict[str, Any]:
    """What ``prepare.json`` of a case folder says.

    Raises:
        PipelineError: it is missing, damaged, or of another version.
    """
    path = Path(folder) / RECORD
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        version = record["schema_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PipelineError(
            f"{path}: cannot be used ({error}); give the folder that `brats-pipeline prepare` wrote"
        ) from error
    if version != SCHEMA_VERSION:
        raise PipelineError(f"{path}: has schema version {version}, {SCHEMA_VERSION} is needed; prepare the case again")
    return dict(record)


def to_native(label_map: Path, case: Path, out: Path) -> Path:
    """Write a label map of a prepared case on the grid of the original reference scan (its T1c, where it had one).

    Each label is carried over by itself with linear interpolation, and the voxel takes the one with the largest share,
    so that borders stay smooth where the grids are turned against each other. Outside the prepared field of view: 0.

    Args:
        label_map: on the grid of the prepared case.
        case: folder of the prepared case.
        out: ``.nii`` or ``.nii.gz``, written atomically with the header of the original scan.

    Returns:
        ``out``.

    Raises:
        PipelineError: the folder is no prepared case, or the label map lies on another grid or holds no labels.
    """
    record = read_record(case)
    grid, native = Grid.from_json(record["grid"]), Grid.from_json(record["native"]["grid"])
    image = read_nifti(label_map)
    if not same_grid(image.shape, image.affine, grid.size, grid.affine):
        raise PipelineError(
            f"{label_map}: lies on another grid than the prepared case {case} ({grid.describe()}); give the label map "
            "that was made from it"
        )
    labels = voxels(image)
    values = np.unique(labels)
    if values.min() < 0 or values.max() > 255 or not np.array_equal(values, np.rint(values)):
        raise PipelineError(f"{label_map}: holds values that are no labels (0 to 255, whole); give a label map")
    transform: sitk.Transform = sitk.Transform(3, sitk.sitkIdentity)
    if record["atlas"] is not None:
        transform = sitk.ReadTransform(str(Path(case) / record["atlas"]["transform"])).GetInverse()
    winner = _carried(labels, values, grid, native, transform)
    write_nifti(out, label_image(winner, _header(record, native)))
    return Path(out)


def _carried(labels: np.ndarray, values: np.ndarray, grid: Grid, native: Grid, transform: sitk.Transform) -> np.ndarray:
    """The label with the largest share in each voxel of the native grid; 0 where none has any."""
    winner = np.zeros(native.size, np.uint8)
    largest = np.zeros(native.size, np.float32)
    for value in values:  # in rising order: of equal shares the smaller label holds
        mask = sitk.GetImageFromArray(np.ascontiguousarray((labels == value).astype(np.float32).T))
        mask.SetSpacing(grid.spacing_mm)
        mask.SetOrigin(grid.origin)
        mask.SetDirection(grid.direction)
        share = array_of(native.resample(mask, transform))
        ahead = share > largest + 1e-6
        winner[ahead] = value
        largest[ahead] = share[ahead]
    return winner


def _header(record: dict[str, Any], native: Grid) -> nib.Nifti1Image:
    """An image with the header of the original reference, as it was."""
    content = base64.b64decode(record["native"]["header"])
    kind: Any = nib.Nifti2Image if len(content) == 540 else nib.Nifti1Image
    header: Any = kind.header_class(content)
    header.set_data_shape(native.size)
    image: nib.Nifti1Image = kind(np.zeros(native.size, np.uint8), None, header)
    return image
