"""Segmentations that name nobody: the Basic Application Level Confidentiality Profile (DICOM PS3.15, Annex E).

Nothing is searched for and taken away: the segmentation is made from headers that hold geometry alone, so that what
names a patient never gets in. Times are made-up, and every unique identifier is a new one, the same wherever it occurs
in one file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydicom import Dataset

GEOMETRY = (
    "SOPClassUID",
    "Modality",
    "Rows",
    "Columns",
    "PixelSpacing",
    "SliceThickness",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "SOPInstanceUID",
    "SeriesInstanceUID",
    "StudyInstanceUID",
    "FrameOfReferenceUID",
)
"""What a segmentation needs of the scan it belongs to."""
IDENTIFIERS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "FrameOfReferenceUID")
EMPTIED = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)
"""Must be there, may be empty: patient and study."""
NO_DATE, NO_TIME = "19000101", "000000"


def with_required(headers: Sequence[Dataset], step_mm: float) -> None:
    """Give the headers empty patient and study entries where an export left them out, and the thickness of a slice."""
    for header in headers:
        if not header.get("SliceThickness"):
            header.SliceThickness = f"{step_mm:.6g}"
        for keyword in EMPTIED:
            if keyword not in header:
                setattr(header, keyword, "")


def geometry_alone(headers: Sequence[Dataset]) -> list[Dataset]:
    """Headers with geometry alone, new identifiers and nobody's name."""
    from pydicom import Dataset
    from pydicom.uid import generate_uid

    fresh: dict[str, str] = {}
    made = []
    for header in headers:
        bare = Dataset()
        for keyword in GEOMETRY:
            if (value := header.get(keyword)) is not None:
                if keyword in IDENTIFIERS:
                    value = fresh.setdefault(str(value), generate_uid(entropy_srcs=None))
                setattr(bare, keyword, value)
        bare.PatientName = bare.PatientID = "ANONYMOUS"
        made.append(bare)
    return made


def declare(segmentation: Dataset) -> None:
    """Make the times of a segmentation that was made from :func:`geometry_alone` up, and say what was done."""
    from pydicom import Dataset

    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator = "113100", "DCM"
    code.CodeMeaning = "Basic Application Confidentiality Profile"
    segmentation.PatientIdentityRemoved = "YES"
    segmentation.DeidentificationMethod = "brats-pipeline: made from geometry alone"
    segmentation.DeidentificationMethodCodeSequence = [code]
    segmentation.LongitudinalTemporalInformationModified = "REMOVED"
    for element in list(_every_element(segmentation)):
        if element.VR == "DA" and element.value:
            element.value = NO_DATE
        elif element.VR in ("TM", "DT") and element.value:
            element.value = NO_TIME if element.VR == "TM" else NO_DATE


def _every_element(dataset: Dataset) -> Iterator[Any]:
    for element in dataset:
        if element.VR == "SQ":
            for item in element.value:
                yield from _every_element(item)
        else:
            yield element
