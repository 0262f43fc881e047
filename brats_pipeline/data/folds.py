"""Folds: which cases are held out together. No patient in two, tumours of every size and institution in each."""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from brats_pipeline.cases.case import Case
from brats_pipeline.cases.identity import Shared
from brats_pipeline.cases.layouts import institution_of
from brats_pipeline.errors import PipelineError

STRATA = 3
"""Patients are spread over the folds by terciles of tumour volume, or fewer strata where patients are few, and by
institution where the names tell it; institutions with fewer patients than folds are taken together."""


def shared_groups(cases: Sequence[Case], shared: Sequence[Shared]) -> dict[str, str]:
    """Case id to the group that stays together: a patient, or several that share a scan, named by the first of them."""
    parent = {case.patient_id: case.patient_id for case in cases}
    patient = {case.case_id: case.patient_id for case in cases}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for pair in shared:
        if pair.first in patient and pair.second in patient:
            first, second = sorted((root(patient[pair.first]), root(patient[pair.second])))
            parent[second] = first
    return {case_id: root(name) for case_id, name in patient.items()}


def stratified_folds(
    cases: Sequence[Case], sizes: Sequence[float], groups: Mapping[str, str], *, folds: int, seed: int
) -> list[int]:
    """The fold of each case: no group in two, sizes and institutions spread evenly.

    Args:
        cases: what to split.
        sizes: of the tumour of each case.
        groups: case id to the group that stays together.
        folds: number of folds.
        seed: decides among equal splits.

    Raises:
        PipelineError: there are fewer groups than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold  # type: ignore[import-untyped, unused-ignore]

    held: dict[str, list[float]] = defaultdict(list)
    site: dict[str, str] = {}
    for case, size in zip(cases, sizes, strict=True):
        held[groups[case.case_id]].append(size)
        site.setdefault(groups[case.case_id], institution_of(case.patient_id) or "")
    patients = sorted(held, key=lambda patient: (np.mean(held[patient]), patient))
    if len(patients) < folds:
        raise PipelineError(
            f"{folds} folds need {folds} patients with a label map, there are {len(patients)}; "
            f"ask for at most {len(patients)} folds or add cases"
        )
    # Each stratum of sizes holds at least as many patients as there are folds, so that every fold gets one of each.
    strata = min(STRATA, len(patients) // folds)
    many = {name for name, number in Counter(site.values()).items() if number >= folds}
    stratum = {
        patient: (rank * strata // len(patients), site[patient] if site[patient] in many else "")
        for rank, patient in enumerate(patients)
    }
    if max(Counter(stratum.values()).values()) < folds:  # patients are too few for both: sizes alone
        stratum = {patient: (size, "") for patient, (size, _) in stratum.items()}
    number_of = {told: number for number, told in enumerate(sorted(set(stratum.values())))}
    with warnings.catch_warnings():
        # A size at one institution may occur in fewer patients than there are folds: then some folds have none.
        warnings.filterwarnings("ignore", message="The least populated class", category=UserWarning)
        split = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(
            np.zeros(len(cases)),
            [number_of[stratum[groups[case.case_id]]] for case in cases],
            [groups[case.case_id] for case in cases],
        )
        chosen_of = [chosen for _, chosen in split]
    fold_of = np.empty(len(cases), dtype=int)
    for fold, chosen in enumerate(chosen_of):
        fold_of[chosen] = fold
    return fold_of.tolist()
