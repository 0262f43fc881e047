"""Datalists made from the cases of a cohort, with patient-grouped folds or with none."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from brats_pipeline.cases import Case, case_list_sha256, count_labels, settle_conventions
from brats_pipeline.cases.conventions import LabelCount
from brats_pipeline.cases.identity import Shared
from brats_pipeline.cases.layouts import modalities_of
from brats_pipeline.data.folds import shared_groups, stratified_folds
from brats_pipeline.data.items import case_items
from transforms.labels import MODALITIES, convention

SCHEMA_VERSION = 1


def comparable(sizes: Sequence[tuple[bool, float]]) -> list[float]:
    """Sizes in one unit as they are; where voxels and ml meet, the share of sizes of the same unit that are smaller."""
    if len({unit for unit, _ in sizes}) < 2:
        return [size for _, size in sizes]
    held = {unit: sorted(size for other, size in sizes if other == unit) for unit in (False, True)}
    return [held[unit].index(size) / len(held[unit]) for unit, size in sizes]


def split_cases(
    cases: Sequence[Case],
    *,
    folds: int = 5,
    seed: int = 0,
    name: str = "cohort",
    modalities: Sequence[str] | None = None,
    shared: Sequence[Shared] = (),
    workers: int = 2,
    on_case: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Split a cohort into folds by patient, stratified by the volume of the whole tumour and by institution.

    Args:
        cases: a cohort in any order; conventions that are still open are decided here. Cases without a label map are
            listed under ``testing``.
        folds: number of folds, at least 2.
        seed: the same seed and cases give the same folds.
        name: of the datalist.
        modalities: those that every case must have; by default those of the cohort's layouts.
        shared: pairs of cases that are one patient, from :func:`brats_pipeline.cases.identity.find_shared`; they stay
            in one fold. Pairs with a case of another cohort say nothing here.
        workers: threads that read label maps.
        on_case: called with the id of each case whose label map was read.

    Returns:
        The datalist, with absolute paths; :func:`write_datalist` writes it.

    Raises:
        PipelineError: there are fewer labelled patients than folds, or a convention is ambiguous.
        CaseError: a case lacks a modality, or its list of files has a defect, or its label map cannot be read.
    """
    if folds < 2:
        raise ValueError(f"folds must be at least 2, got {folds}")
    cases = sorted(cases, key=lambda case: case.case_id)
    layouts = {case.layout for case in cases}
    wanted = modalities
    if wanted is None:
        wanted = [name for name in MODALITIES if all(name in modalities_of(layout) for layout in layouts)]
    case_items(cases, modalities=wanted)  # refuse what cannot be listed before the label maps are read
    counts = count_labels(cases, workers=workers, on_case=on_case)
    cases = settle_conventions(cases, counts)
    labelled = [case for case in cases if case.label is not None]
    sizes = []
    for case in labelled:
        count = counts[case.case_id]
        if not isinstance(count, LabelCount):
            raise count
        row = convention(case.convention or "")
        sizes.append((count.voxel_ml is None, count.size(row.regions[row.widest_first()[0]])))
    fold_of = stratified_folds(labelled, comparable(sizes), shared_groups(labelled, shared), folds=folds, seed=seed)
    items = case_items(labelled, modalities=wanted)
    return {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        **_description(cases, wanted),
        "seed": seed,
        "folds": folds,
        "training": [item | {"fold": fold} for item, fold in zip(items, fold_of, strict=True)],
        "testing": case_items([case for case in cases if case.label is None], modalities=wanted),
    }


def unsplit_cases(
    cases: Sequence[Case], *, name: str = "cohort", modalities: Sequence[str] = MODALITIES
) -> dict[str, Any]:
    """The datalist of a cohort of which nothing is held out: all in one fold, so that a single patient will do.

    Args:
        cases: what to list; each needs a label map and a decided convention.
        name: of the datalist.
        modalities: those that every case must have.

    Raises:
        CaseError: a case lacks a modality, or its list of files has a defect.
    """
    cases = sorted(cases, key=lambda case: case.case_id)
    return {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        **_description(cases, modalities),
        "folds": 1,
        "training": [item | {"fold": 0} for item in case_items(cases, modalities=modalities)],
        "testing": [],
    }


def _description(cases: Sequence[Case], modalities: Sequence[str]) -> dict[str, Any]:
    """What a datalist says of its cases as a whole."""
    return {
        "layout": ", ".join(sorted({case.layout for case in cases})),
        "convention": ", ".join(sorted({case.convention or "" for case in cases})),
        "modalities": list(modalities),
        "case_list_sha256": case_list_sha256(case.case_id for case in cases),
    }
