"""The datalist of a run, from a folder of cases or from a file, every case checked by its headers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from brats_pipeline.cases import decide_conventions, find_cases
from brats_pipeline.cases.patients import read_patients, with_patients
from brats_pipeline.data.datalist import (
    CONVENTION_IN_DATALIST,
    item_case,
    read_whole_datalist,
    split_cases,
    unsplit_cases,
)
from brats_pipeline.data.fingerprint import check_headers
from brats_pipeline.errors import CaseError, PipelineError


def datalist_for(
    data: str | Path | None,
    datalist: str | Path | None,
    *,
    convention: str | None,
    patients: str | Path | None,
    folds: int,
    fold: int | None,
    seed: int,
    wanted: Sequence[str],
) -> dict[str, Any]:
    """Find and check the cases of a run.

    Args:
        data: folder that holds the cases; they are split here.
        datalist: a file of ``split`` instead.
        convention: label convention of the reference in ``data``, where they leave it open.
        patients: CSV of case_id,patient_id for ``data`` whose names do not tell the patient.
        folds: number of folds made from ``data``.
        fold: the one that validates; None: nothing is held out.
        seed: of the split.
        wanted: modalities that every case must have.

    Raises:
        PipelineError: both or none of folder and file were given, or a case cannot be used; it is named.
    """
    if (data is None) == (datalist is None):
        raise PipelineError("give either a folder of cases (--data) or a datalist of `split` (--datalist)")
    if datalist is not None and patients is not None:
        raise PipelineError("a datalist names its patients already; give --patients to `split`, or train with --data")
    if datalist is not None and convention is not None:
        raise PipelineError(CONVENTION_IN_DATALIST)
    if datalist is not None:
        listing = read_whole_datalist(datalist)
        cases = [item_case(item) for item in listing["training"]]
    else:
        cases = find_cases(Path(str(data)))
        if patients is not None:
            cases = with_patients(cases, read_patients(patients))
        cases = decide_conventions(cases, convention)
    for case in cases:
        defects = check_headers(case, wanted=wanted)
        if case.label is None:
            defects = [*defects, "it has no label map, which training needs"]
        if defects:
            raise CaseError(case.case_id, "; ".join(defects))
    if datalist is not None:
        return listing
    if fold is None:
        return unsplit_cases(cases, modalities=wanted)
    return split_cases(cases, folds=folds, seed=seed, modalities=wanted)
