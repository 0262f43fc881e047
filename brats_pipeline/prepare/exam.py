"""What an exam is made of: which file is which modality, and which of them the others are brought to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from brats_pipeline.cases import Case, find_cases
from brats_pipeline.cases.integrity import link_notes, placing_notes
from brats_pipeline.cases.stacks import is_stack
from brats_pipeline.dicom.choosing import choose_series
from brats_pipeline.dicom.finding import Series, holds_dicom
from brats_pipeline.dicom.reading import read_only_series, read_series
from brats_pipeline.dicom.stacks import stack_of, thinned
from brats_pipeline.errors import CaseError, PipelineError
from brats_pipeline.prepare.images import read_image
from transforms.labels import MODALITIES

Scan = Path | Series
"""Where a scan is: a file, or a DICOM series."""
REFERENCE_ORDER = MODALITIES
"""The first of these that an exam has is its reference: T1c, else T1, T2, FLAIR."""


@dataclass(frozen=True)
class Exam:
    """One examination as it came.

    Args:
        case_id: names the files that are made of it.
        files: modality to its scan, in the order of :data:`REFERENCE_ORDER`.
    """

    case_id: str
    files: Mapping[str, Scan]

    @property
    def reference(self) -> str:
        """The modality that the others are brought to."""
        return next(iter(self.files))


def find_exam(given: Path | Mapping[str, Scan], case_id: str) -> Exam:
    """Say which scan is which modality.

    Args:
        given: a folder of NIfTI files whose names tell, or of DICOM files whose headers tell, or modality to a file, a
            folder with one DICOM series, or a series.
        case_id: name of the case where the names of the files do not tell it.

    Raises:
        PipelineError: the folder holds no case or several, slices or 4-D files, two files for one modality, or DICOM
            series that leave open which is which.
    """
    if isinstance(given, Mapping):
        if unknown := sorted(set(given) - set(MODALITIES)):
            raise PipelineError(f"unknown modality {', '.join(unknown)}; known are {', '.join(MODALITIES)}")
        files = {name: _scan(given[name]) for name in REFERENCE_ORDER if name in given}
    elif holds_dicom(Path(given)):
        files = dict(choose_series(Path(given)).chosen)
    else:
        cases = find_cases(Path(given))
        if len(cases) > 1:
            ids = ", ".join(case.case_id for case in cases[:3])
            raise PipelineError(f"{given}: holds {len(cases)} exams ({ids}, ...); prepare them one by one")
        (case,) = cases
        case_id, files = case.case_id if _named_by_files(case) else case_id, {}
        for name, source in case.images.items():
            if source.channel is not None or is_stack(source):
                raise PipelineError(f"{given}: {name} is no volume in a file of its own; give one file per modality")
            if len(source.paths) > 1:
                twins = ", ".join(path.name for path in source.paths)
                raise CaseError(case_id, f"has {len(source.paths)} files for {name}: {twins}; keep one")
            files[name] = source.paths[0]
    if not files:
        raise PipelineError(f"{given}: no scan was given; at least one of {', '.join(MODALITIES)} is needed")
    return Exam(case_id, files)


def _named_by_files(case: Case) -> bool:
    """Whether the names of the files tell the case, which is else called as the folder that they lie in."""
    paths = [path for source in case.images.values() for path in source.paths]
    names = [name for path in paths for name in (path.name, path.parent.name)]  # archives unpack into A_t1.nii/A.nii
    return case.layout != "plain" or any(name.startswith((f"{case.case_id}-", f"{case.case_id}_")) for name in names)


def _scan(given: Scan) -> Scan:
    """A folder stands for the one series in it."""
    if isinstance(given, Series):
        return given
    return read_only_series(Path(given)) if Path(given).is_dir() else Path(given)


def read_exam(exam: Exam) -> dict[str, sitk.Image]:
    """Read every scan of an exam.

    Raises:
        CaseError: a scan cannot be used, or two modalities are the same scan.
    """
    images: dict[str, sitk.Image] = {}
    for name, scan in exam.files.items():
        try:
            images[name] = read_series(scan) if isinstance(scan, Series) else read_image(scan)
        except PipelineError as error:
            raise CaseError(exam.case_id, f"{name}: {error}") from error
        for other in list(images)[:-1]:
            if _same_voxels(images[other], images[name]):
                raise CaseError(
                    exam.case_id,
                    f"{name} ({scan.name}) holds the same voxels as {other} ({exam.files[other].name}); "
                    f"give the scan that {name} is, or leave it out",
                )
    return images


def file_notes(exam: Exam, *, links: bool, atlas: Path | None = None) -> list[str]:
    """What a person should know of the files of an exam, one sentence each.

    How their headers place the voxels, for what is written from them says nothing of it any more, and odd links; of a
    DICOM series, that slices may be missing between those that are there.

    Args:
        exam: whose files these are.
        links: the files were found in a folder, which links may leave.
        atlas: the scan to whose space everything is brought.
    """
    files = {name: scan for name, scan in exam.files.items() if isinstance(scan, Path)}
    placed = placing_notes(files if atlas is None else {**files, "atlas": atlas})
    series = {name: scan for name, scan in exam.files.items() if isinstance(scan, Series)}
    gaps = [
        f"{name}: {said}" for name, scan in series.items() if (said := thinned(stack_of(scan.instances, scan.name)))
    ]
    return placed + gaps + (link_notes(files) if links else [])


def _same_voxels(one: sitk.Image, other: sitk.Image) -> bool:
    if one.GetSize() != other.GetSize():
        return False
    return np.array_equal(sitk.GetArrayViewFromImage(one), sitk.GetArrayViewFromImage(other))
