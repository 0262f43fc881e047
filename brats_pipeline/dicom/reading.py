"""The voxels of a series, where the headers put them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from brats_pipeline.dicom.finding import Series, find_series
from brats_pipeline.dicom.headers import number_of, text_of, uid_name
from brats_pipeline.dicom.stacks import FEWEST, Instance, Stack, stack_of
from brats_pipeline.errors import PipelineError

PLAIN = ("1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2")
"""Transfer syntaxes without compression."""
MOST_VOXELS = 1024**3
"""More than this is no scan of a head."""


def read_series(series: Series) -> sitk.Image:
    """Read a series: ``(columns, rows, slices)``, float32, rescaled as its headers say.

    Pixels are decoded by GDCM, slice by slice; order and place of the slices are those of :func:`stack_of`.

    Raises:
        PipelineError: a file cannot be decoded, the slices are no straight and complete stack, or the scan is empty.
    """
    stack = stack_of(series.instances, series.name)
    if np.prod(stack.size, dtype=float) > MOST_VOXELS:
        raise PipelineError(f"{series.name}: would have {'x'.join(map(str, stack.size))} voxels; give a scan of a head")
    values = np.empty(stack.size[::-1], np.float32)
    for place, each in enumerate(stack.slices):
        values[place] = _pixels(each, stack, series.name)
    if not np.isfinite(values).all():
        raise PipelineError(f"{series.name}: holds voxels that are NaN or infinite; export the series again")
    if values.min() == values.max():
        raise PipelineError(f"{series.name}: is {values.flat[0]:g} in every voxel; give a scan")
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(stack.spacing_mm)
    image.SetOrigin(stack.origin)
    image.SetDirection(stack.axes.ravel().tolist())
    return image


def read_only_series(folder: Path) -> Series:
    """The one series of a folder.

    Raises:
        PipelineError: the folder holds none, or several that could be meant.
    """
    found = find_series(folder)
    volumes = [each for each in found.series if len(each.instances) >= FEWEST] or list(found.series)
    if len(volumes) > 1:
        listed = ", ".join(f"{each.number} ({each.description or 'no description'})" for each in volumes[:6])
        raise PipelineError(
            f"{folder}: holds {len(volumes)} series: {listed}; give the folder of one, or the folder of the exam and "
            "choose by number, as in: prepare EXAM --t1c NUMBER"
        )
    return volumes[0]


def slices_in_order(series: Series) -> tuple[Path, ...]:
    """The files of a series, first slice to last. Raises as :func:`stack_of`."""
    return tuple(each.path for each in stack_of(series.instances, series.name).slices)


def _pixels(each: Instance, stack: Stack, name: str) -> np.ndarray:
    """One slice, ``(rows, columns)``."""
    if number_of(each.header, "SamplesPerPixel") not in (1, None):
        raise PipelineError(f"{name}: {each.path.name} holds colours; a scan of one number per voxel is needed")
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(each.path))
    reader.SetOutputPixelType(sitk.sitkFloat32)
    warned = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.GlobalWarningDisplayOff()
    try:
        image = reader.Execute()
    except RuntimeError as error:
        raise PipelineError(f"{name}: {each.path.name} cannot be decoded; {_why(each)}") from error
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(warned)
    values: np.ndarray = sitk.GetArrayFromImage(image)
    values = values.reshape(values.shape[-2:]) if values.size == values.shape[-2] * values.shape[-1] else values
    if values.shape != (stack.size[1], stack.size[0]):
        raise PipelineError(
            f"{name}: {each.path.name} does not hold the pixels that its header promises; copy it again"
        )
    return values


def _why(each: Instance) -> str:
    """The likely reason, and what to do."""
    syntax = text_of(each.header.file_meta, "TransferSyntaxUID")
    if syntax and syntax not in PLAIN:
        return (
            f"its pixels are compressed ({uid_name(syntax)}) or damaged: export the series uncompressed (explicit VR "
            "little endian), or decompress it with gdcmconv --raw"
        )
    return "the file is truncated or damaged: copy or export it again"
