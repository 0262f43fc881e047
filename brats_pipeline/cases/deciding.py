"""Which label convention each case of a cohort follows, decided once from layout and label values."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from brats_pipeline.cases.case import Case
from brats_pipeline.cases.conventions import LabelCount, count_values, decide, kind_of, misfit, volume_of_voxel_ml
from brats_pipeline.cases.decathlon import missing_files
from brats_pipeline.cases.stacks import stack_defects, twin_defects
from brats_pipeline.cases.volumes import read_label
from brats_pipeline.errors import CaseError, PipelineError
from transforms.labels import CONVENTIONS


def listing_defects(case: Case) -> list[str]:
    """Defects that show in the list of a case's files.

    Files that are not there, two files for one modality or slice, slices and masks that do not match.
    """
    absent = [f"{path}: is named in dataset.json and not there; unpack it again" for path in missing_files(case)]
    images, masks = stack_defects(case)
    return [*absent, *twin_defects(case), *images, *masks]


def count_label(case: Case) -> LabelCount:
    """Read the label map of a case and count its values.

    Raises:
        CaseError: there is no label map, it cannot be read, or a value is no whole number.
    """
    if case.label is None:
        raise CaseError(case.case_id, "has no label map")
    try:
        label = read_label(case)
        counts = count_values(label.values)
    except PipelineError as error:
        raise CaseError(case.case_id, str(error)) from error
    return LabelCount(counts, volume_of_voxel_ml(label.affine))


def count_labels(
    cases: Sequence[Case], *, workers: int = 2, on_case: Callable[[str], None] | None = None
) -> dict[str, LabelCount | CaseError]:
    """Count the label values of many cases in threads; cases without a label map are left out.

    Args:
        cases: what to read.
        workers: number of threads.
        on_case: called with the id of each case that is done.

    Returns:
        Case id to its counts, or to the error that kept its label map from being read.
    """

    def count(case: Case) -> LabelCount | CaseError:
        try:
            return count_label(case)
        except CaseError as error:
            return error

    labelled = [case for case in cases if case.label is not None]
    counts: dict[str, LabelCount | CaseError] = {}
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for case, result in zip(labelled, pool.map(count, labelled), strict=True):
            counts[case.case_id] = result
            if on_case:
                on_case(case.case_id)
    return counts


def settle_conventions(
    cases: Sequence[Case],
    counts: Mapping[str, LabelCount | CaseError],
    *,
    set_aside: Callable[[PipelineError, Sequence[Case]], None] | None = None,
) -> list[Case]:
    """Decide the label convention of every case from label values that were read before.

    Cases of one kind (:func:`brats_pipeline.cases.conventions.kind_of`) are decided together. A label map that could
    not be read says nothing here; whoever reads it next names the defect.

    Args:
        cases: a whole cohort; a case that has its convention keeps it.
        counts: from :func:`count_labels`.
        set_aside: called with each refusal and the cases it is about, which are then left out of the result;
            without it the first refusal is raised.

    Raises:
        CaseError: a label map holds values that no reading of its kind knows.
        PipelineError: the convention of a group is ambiguous; the message prints the readings.
    """

    def refuse(error: PipelineError, about: Sequence[Case]) -> None:
        if set_aside is None:
            raise error
        set_aside(error, about)

    settled = {case.case_id: case for case in cases if case.convention is not None}
    groups: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        if case.convention is None:
            groups[kind_of(case.case_id, case.layout)].append(case)
    for kind, group in groups.items():
        values = {}
        good = []
        for case in group:
            count = counts.get(case.case_id)
            if isinstance(count, LabelCount):
                error = misfit(case.case_id, frozenset(count.voxels), kind)
                if error:
                    refuse(error, [case])
                    continue
                values[case.case_id] = frozenset(count.voxels)
            good.append(case)
        if not good:
            continue
        try:
            name = decide(kind, values, [case.case_id for case in good])
        except PipelineError as error:
            refuse(error, good)
            continue
        settled |= {case.case_id: replace(case, convention=name) for case in good}
    return [settled[case.case_id] for case in cases if case.case_id in settled]


def decide_conventions(
    cases: Sequence[Case],
    convention: str | None = None,
    *,
    workers: int = 2,
    on_case: Callable[[str], None] | None = None,
    set_aside: Callable[[PipelineError, Sequence[Case]], None] | None = None,
) -> list[Case]:
    """Give every case its label convention: the one named, else the one that the cohort's label maps tell.

    Args:
        cases: a whole cohort, since the values of one label map may fit several conventions.
        convention: name of a convention, for all cases; no file is read then.
        workers: threads that read label maps.
        on_case: called with the id of each case whose label map was read.
        set_aside: as in :func:`settle_conventions`; without it the first refusal is raised.

    Raises:
        PipelineError: the name is unknown, or a group of cases is ambiguous; the message prints the readings.
        CaseError: a label map holds values that no reading of its kind knows.
    """
    if convention is not None:
        if convention not in CONVENTIONS:
            raise PipelineError(f"unknown label convention {convention!r}; known: {', '.join(CONVENTIONS)}")
        return [replace(case, convention=convention) for case in cases]
    open_cases = [case for case in cases if case.convention is None]
    counts = count_labels(open_cases, workers=workers, on_case=on_case)
    return settle_conventions(cases, counts, set_aside=set_aside)
