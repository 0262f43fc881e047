"""A label map as DICOM SEG, in the frame of the series that it belongs to.

One binary segment for each tissue of the label convention (PS3.3, A.51), coded as in :mod:`brats_pipeline.dicom.codes`,
coloured as in :mod:`transforms.slicer`, with references to the slices of the series.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

import brats_pipeline
from brats_pipeline.dicom.codes import (
    ABNORMAL,
    BRAIN,
    LEARNED,
    REGION_CODES,
    REGION_WORDS,
    TISSUE_CODES,
    TISSUE_WORDS,
    Triple,
)
from brats_pipeline.dicom.confidentiality import declare, geometry_alone, with_required
from brats_pipeline.dicom.headers import MR_IMAGE, need, read_header, silent, text_of
from brats_pipeline.dicom.stacks import Instance, Stack, stack_of
from brats_pipeline.errors import PipelineError
from brats_pipeline.files import is_dicom, write_atomically
from transforms.labels import Convention, convention
from transforms.nifti import describe_grid, read_nifti, same_grid, voxels
from transforms.slicer import COLOURS

if TYPE_CHECKING:
    from highdicom.seg import SegmentDescription
    from pydicom import Dataset

NAME = "brats-pipeline"
REGION_COLOURS = {"WT": COLOURS["ED"], "TC": COLOURS["GTV"], "ET": COLOURS["ET"], "GTV": COLOURS["GTV"]}
SERIES_NUMBER = 9001
"""Of the segmentation: above those that scanners give."""


def write_dicom_seg(
    label_map_path: str | Path,
    series: str | Path | Sequence[str | Path],
    out_path: str | Path,
    *,
    convention: str,
    regions: Sequence[str] = (),
    series_uid: str | None = None,
    deidentify: bool = False,
) -> Path:
    """Write a label map as a DICOM segmentation of the series on whose grid it lies.

    Args:
        label_map_path: NIfTI on the grid of the series; its axes may be in another order or direction.
        series: the files of one series, or a folder that holds it.
        out_path: the ``.dcm`` to write, whole or not at all.
        convention: what the labels mean.
        regions: regions to add as segments of their own, which overlap the tissues. By default none; where a
            convention has one tissue, that is its region.
        series_uid: SeriesInstanceUID, where the folder holds several series.
        deidentify: leave out what names the patient and change every identifier and time
            (:mod:`brats_pipeline.dicom.confidentiality`); such a file no longer refers to the original series.

    Returns:
        ``out_path``.

    Raises:
        ValueError: the convention is unknown, or has no such region.
        PipelineError: highdicom is missing, the series or the label map cannot be used, the label map lies on another
            grid or holds values that the convention does not know, or the file cannot be written.
    """
    table = _table(convention, regions)
    need("highdicom")
    stack = stack_of(_instances(series, series_uid), _name(series))
    labels = _labels_on(Path(label_map_path), stack, table, _name(series))
    headers = [each.header for each in stack.slices]
    if "FrameOfReferenceUID" not in headers[0]:
        raise PipelineError(
            f"{_name(series)}: has no FrameOfReferenceUID, which ties a segmentation to its scan; write NIfTI instead"
        )
    headers = geometry_alone(headers) if deidentify else headers
    with_required(headers, stack.spacing_mm[2])
    buffer = io.BytesIO()
    try:
        with silent():
            made = _segmentation(labels, headers, stack, table, regions)
            if deidentify:
                declare(made)
            made.save_as(buffer, enforce_file_format=True)
    except (ValueError, TypeError, AttributeError, LookupError) as error:
        raise PipelineError(
            f"{_name(series)}: what its headers say of patient or study cannot be written again ({error}); leave it "
            "out with --deidentify, or write NIfTI"
        ) from error
    write_atomically(out_path, buffer.getvalue())
    return Path(out_path)


def names_nobody(path: str | Path) -> bool:
    """Whether a DICOM segmentation says that what names the patient was left out of it.

    Raises:
        PipelineError: pydicom is missing, or the file is no DICOM file.
    """
    need("pydicom")
    import pydicom

    try:
        header = pydicom.dcmread(path, specific_tags=["PatientIdentityRemoved"])
    except (pydicom.errors.InvalidDicomError, OSError, EOFError) as error:
        raise PipelineError(f"{path}: is no DICOM file ({error}); delete it, and it is made again") from error
    return bool(header.get("PatientIdentityRemoved") == "YES")


def _table(name: str, regions: Sequence[str]) -> Convention:
    table = convention(name)
    if unknown := sorted(set(regions) - set(table.regions)):
        raise ValueError(f"the convention {name} has no region {', '.join(unknown)}; it has {', '.join(table.regions)}")
    return table


def _name(series: str | Path | Sequence[str | Path]) -> str:
    if isinstance(series, str | Path):
        return str(series)
    return str(Path(series[0]).parent) if series else "the series"


def _instances(series: str | Path | Sequence[str | Path], series_uid: str | None) -> list[Instance]:
    """The MR images of one series, with whole headers."""
    name = _name(series)
    if isinstance(series, str | Path):
        folder = Path(series)
        if not folder.is_dir():
            raise PipelineError(f"{folder}: is no folder; give the folder of the DICOM series that was segmented")
        files = sorted(path for path in folder.rglob("*") if is_dicom(path))
    else:
        files = [Path(path) for path in series]
        if gone := [path for path in files if not path.is_file()]:
            raise PipelineError(
                f"{gone[0]}: is not there any more ({len(gone)} of {len(files)} slices); give the folder of the "
                "series (--dicom-series)"
            )
    found = [Instance(path, read_header(path, None)) for path in files]
    found = [each for each in found if text_of(each.header, "SOPClassUID").startswith(MR_IMAGE)]
    uids = sorted({text_of(each.header, "SeriesInstanceUID") for each in found})
    if series_uid is None and len(uids) > 1:
        raise PipelineError(f"{name}: holds {len(uids)} series; give the folder of the one that was segmented")
    if series_uid is not None and series_uid not in uids:
        raise PipelineError(
            f"{name}: does not hold the series {series_uid}; give the folder of the one that was segmented"
        )
    return [each for each in found if series_uid in (None, text_of(each.header, "SeriesInstanceUID"))]


def _labels_on(path: Path, stack: Stack, table: Convention, name: str) -> npt.NDArray[np.uint8]:
    """The label map as ``(columns, rows, slices)`` of a series.

    Raises:
        PipelineError: it lies on another grid, or holds values that the convention does not know.
    """
    image = read_nifti(path)
    affine = np.asarray(image.affine, np.float64)
    if len(image.shape) == 3 and abs(np.linalg.det(affine[:3, :3])) > 1e-9:
        turned = nib.orientations.io_orientation(np.linalg.inv(stack.affine) @ affine)
        if not np.isnan(turned).any():
            image = image.as_reoriented(turned)
    if not same_grid(image.shape, np.asarray(image.affine), stack.size, stack.affine):
        raise PipelineError(
            f"{path}: lies on {describe_grid(image.shape, affine)}, the series {name} on "
            f"{describe_grid(stack.size, stack.affine)}; give the series that was segmented, and where the case was "
            "made by `brats-pipeline prepare` its label map on the original grid (--native)"
        )
    values = voxels(image)
    if foreign := sorted(set(np.unique(values).tolist()) - table.values):
        listed = ", ".join(f"{value:g}" for value in foreign[:3])
        raise PipelineError(f"{path}: holds the value {listed}, which the convention {table.name} does not know")
    return values.astype(np.uint8)


def _segmentation(
    labels: npt.NDArray[np.uint8], headers: Sequence[Dataset], stack: Stack, table: Convention, regions: Sequence[str]
) -> Any:
    """The DICOM object; frame ``i`` belongs to slice ``i``."""
    import highdicom as hd
    from pydicom.uid import ExplicitVRLittleEndian

    frames = labels.T  # (slices, rows, columns)
    added = [] if len(table.tissues) == 1 else list(regions)  # one tissue is its region
    masks = [frames == value for value in sorted(table.tissues)]
    masks += [np.isin(frames, sorted(table.regions[region])) for region in added]
    told = [
        *((TISSUE_WORDS[tissue], TISSUE_CODES[tissue], COLOURS[tissue]) for _, tissue in sorted(table.tissues.items())),
        *((REGION_WORDS[region], REGION_CODES[region], REGION_COLOURS[region]) for region in added),
    ]
    columns_mm, rows_mm, slices_mm = stack.spacing_mm
    logger = logging.getLogger("highdicom.seg.sop")
    quiet = logger.level
    logger.setLevel(logging.ERROR)  # that a segmentation without a tumour is empty is no news
    try:
        return hd.seg.Segmentation(
            source_images=headers,
            pixel_array=np.stack(masks, axis=-1).astype(np.uint8),
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[_described(number, *each) for number, each in enumerate(told, start=1)],
            series_instance_uid=hd.UID(),
            series_number=SERIES_NUMBER,
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer=NAME,
            manufacturer_model_name=NAME,
            software_versions=brats_pipeline.__version__,
            device_serial_number="0",
            series_description="Brain tumour segmentation, research use only",
            content_label="BRAIN_TUMOUR",
            content_description=f"labels of {table.name}",
            content_creator_name=None,
            transfer_syntax_uid=ExplicitVRLittleEndian,
            pixel_measures=hd.PixelMeasuresSequence(
                pixel_spacing=[rows_mm, columns_mm],
                slice_thickness=slices_mm,
                spacing_between_slices=slices_mm,
            ),
        )
    finally:
        logger.setLevel(quiet)


def _described(number: int, label: str, code: Triple, colour: tuple[int, int, int]) -> SegmentDescription:
    import highdicom as hd
    from highdicom.color import CIELabColor

    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=label,
        segmented_property_category=hd.sr.CodedConcept(*ABNORMAL),
        segmented_property_type=hd.sr.CodedConcept(*code),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=NAME, family=hd.sr.CodedConcept(*LEARNED), version=brats_pipeline.__version__
        ),
        anatomic_regions=[hd.sr.CodedConcept(*BRAIN)],
        display_color=CIELabColor.from_rgb(*colour),
    )
