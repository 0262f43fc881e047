"""The DICOM series that a prepared case was made from."""

from __future__ import annotations

from pathlib import Path

from brats_pipeline.prepare.native import read_record


def source_series(case: Path) -> tuple[Path, ...] | None:
    """The files of the DICOM series that the reference of a prepared case (its T1c) was read from, in order of slices.

    Args:
        case: folder of the prepared case.

    Returns:
        The files as they were called then; None where the reference was no DICOM series.

    Raises:
        PipelineError: the folder is no prepared case.
    """
    record = read_record(case)
    origin = record["inputs"][record["reference"]]
    if "dicom" not in origin:
        return None
    return tuple(Path(origin["path"], name) for name in origin["dicom"]["files"])
