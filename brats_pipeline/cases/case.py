"""What a case is: one examination of one patient, and the files its images come from. Standard library only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from transforms.labels import MODALITIES


@dataclass(frozen=True)
class Source:
    """Where one image comes from.

    Args:
        paths: one file, or the ordered files of a slice stack. Where several files claim the same place all are here,
            and the case has a defect (:func:`brats_pipeline.cases.listing_defects`).
        channel: the channel within a file that holds several modalities, else None.
    """

    paths: tuple[Path, ...]
    channel: int | None = None


@dataclass(frozen=True)
class Case:
    """One examination of one patient.

    Args:
        case_id: unique within a cohort; predictions are named by it.
        patient_id: cases of one patient never stand on two sides of a split.
        images: modality (``t1c``, ``t1``, ``t2``, ``flair``) to its source, in that order.
        label: the label map, where there is one.
        layout: the naming scheme it was recognised by.
        convention: name of the label convention, once decided.
    """

    case_id: str
    patient_id: str
    images: Mapping[str, Source]
    label: Source | None
    layout: str
    convention: str | None = None


def missing_modalities(case: Case, wanted: Sequence[str] = MODALITIES) -> tuple[str, ...]:
    """The wanted modalities that a case does not have, in the order of ``wanted``."""
    return tuple(modality for modality in wanted if modality not in case.images)


def without_labels(cases: Iterable[Case]) -> list[Case]:
    """The same cases as if nobody had marked their tumours yet."""
    return [replace(case, label=None) for case in cases]


def case_list_sha256(case_ids: Iterable[str]) -> str:
    """Fingerprint of a list of cases, whatever its order: SHA-256 of the sorted ids, one per line."""
    return hashlib.sha256("\n".join(sorted(case_ids)).encode()).hexdigest()
