"""Headers of DICOM files: pydicom where it is installed, and numbers that may be missing or damaged."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brats_pipeline.errors import PipelineError

if TYPE_CHECKING:
    from pydicom import Dataset

MR_IMAGE = "1.2.840.10008.5.1.4.1.1.4"
MULTI_FRAME_MR = ("1.2.840.10008.5.1.4.1.1.4.1", "1.2.840.10008.5.1.4.1.1.4.4")
"""Enhanced MR, and series that were joined to one file afterwards."""
DIRECTORY = "1.2.840.10008.1.3.10"
"""The table of contents of a disc, DICOMDIR."""
DEFLATED = "1.2.840.10008.1.2.1.99"

TAGS = (
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "SeriesDescription",
    "ProtocolName",
    "Modality",
    "ImageType",
    "InstanceNumber",
    "EchoNumbers",
    "EchoTime",
    "RepetitionTime",
    "InversionTime",
    "FlipAngle",
    "ScanningSequence",
    "SequenceName",
    "MRAcquisitionType",
    "TemporalPositionIdentifier",
    "ContrastBolusAgent",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "PixelSpacing",
    "SliceThickness",
    "SpacingBetweenSlices",
    "ImagePositionPatient",
    "ImageOrientationPatient",
)
"""What telling series apart and placing their voxels needs; nothing that names a patient."""


def need(library: str) -> None:
    """Refuse where a library of the DICOM extra is not installed.

    Raises:
        PipelineError: it is not.
    """
    from importlib.util import find_spec

    if find_spec(library) is None:
        raise PipelineError(
            f'DICOM needs {library}, which is not installed; install it with: pip install "brats-pipeline[dicom]"'
        )


@contextmanager
def silent() -> Iterator[None]:
    """No word of values against the letter of the standard: scanners write them, and each is judged where used."""
    logger = logging.getLogger("pydicom")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def read_header(path: Path, tags: Sequence[str] | None = TAGS) -> Dataset:
    """Everything before the pixels of one file.

    Args:
        path: a DICOM file.
        tags: keywords to keep; None keeps all.

    Raises:
        PipelineError: the file cannot be read or is damaged.
    """
    need("pydicom")
    import pydicom

    try:
        with silent():
            header = pydicom.dcmread(
                path, stop_before_pixels=True, force=True, specific_tags=list(tags) if tags else None
            )
            for keyword in TAGS:
                header.get(keyword)  # pydicom reads a value when it is first asked for
            for keyword in ("MediaStorageSOPClassUID", "TransferSyntaxUID"):
                header.file_meta.get(keyword)
        return header
    except Exception as error:  # pydicom raises many kinds for a damaged file
        raise PipelineError(f"{path}: the DICOM header is damaged ({error}); export the file again") from error


def uid_name(uid: str) -> str:
    """What an identifier of the standard is called; the identifier itself where it is none."""
    from pydicom.uid import UID

    with silent():
        return str(UID(uid).name)


def text_of(header: Dataset, keyword: str) -> str:
    """A value as text; several are joined by a backslash, as DICOM writes them. Empty where there is none."""
    value: Any = header.get(keyword)
    if value is None:
        return ""
    if not isinstance(value, str) and hasattr(value, "__iter__"):
        return "\\".join(map(str, value)).strip()
    return str(value).strip()


def numbers_of(header: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """So many finite numbers, or None."""
    value: Any = header.get(keyword)
    values = [value] if isinstance(value, int | float | str) else value
    try:
        found = tuple(float(each) for each in values)
    except (TypeError, ValueError):
        return None
    return found if len(found) == count and all(map(math.isfinite, found)) else None


def number_of(header: Dataset, keyword: str) -> float | None:
    """One finite number, or None."""
    found = numbers_of(header, keyword, 1)
    return found[0] if found else None
