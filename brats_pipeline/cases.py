"""Cases: what a folder of scans holds, found without configuration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Source:
    """Where one image comes from.

    Args:
        paths: one file, or the ordered files of a slice stack.
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
