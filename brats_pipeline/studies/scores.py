"""Tables of scores: read from the evaluation of an arm, and averaged over its seeds."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from brats_pipeline.errors import PipelineError
from brats_pipeline.metrics import COUNTED, RegionScore

_COUNTS = ("tp", "fp", "fn", "tn")
_LESIONS = ("lesions_tp", "lesions_fp", "lesions_fn")
_TEXTS = ("case_id", "region")
_OPTIONAL = tuple(field.name for field in fields(RegionScore) if field.default is None and field.name not in _LESIONS)


def read_scores(path: Path) -> tuple[RegionScore, ...]:
    """The rows of a ``cases.csv``.

    Raises:
        PipelineError: the file is no such table.
    """

    def value(name: str, text: str) -> Any:
        if name in _TEXTS:
            return text
        if name in _COUNTS:
            return int(text)
        if text == "":
            return None if name in _LESIONS or name in _OPTIONAL else math.nan
        return int(text) if name in _LESIONS else float(text)

    try:
        with path.open(encoding="utf-8", newline="") as file:
            return tuple(
                RegionScore(**{name: value(name, text) for name, text in row.items()}) for row in csv.DictReader(file)
            )
    except (OSError, ValueError, TypeError) as error:
        raise PipelineError(f"{path}: is no table of scores ({error}); remove its folder and merge again") from error


def mean_rows(seeds: Sequence[Sequence[RegionScore]]) -> tuple[RegionScore, ...]:
    """Case by case the mean over the seeds; counts (:data:`COUNTED`) are those of the first seed."""
    if len(seeds) < 2:
        return tuple(seeds[0]) if seeds else ()
    averaged = [field.name for field in fields(RegionScore) if field.name not in (*_TEXTS, *COUNTED)]
    means = []
    for rows in zip(*seeds, strict=True):
        changed = {}
        for name in averaged:
            values = [getattr(row, name) for row in rows]
            changed[name] = None if None in values else sum(values) / len(values)
        means.append(replace(rows[0], **changed))
    return tuple(means)
