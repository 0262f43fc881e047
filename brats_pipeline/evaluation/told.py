"""What ``segment`` said of the predictions that are scored: modalities left out, scans unlike the training."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path

RECORD = "run.json"
MOST = 20
"""Sentences in a report; the record holds all of them."""


def told_by_segment(predictions: Path, case_ids: Collection[str]) -> list[str]:
    """One sentence for each thing that a reader of the scores should know; none without a record of ``segment``.

    Args:
        predictions: folder of the predictions.
        case_ids: those that are scored.
    """
    try:
        cases = json.loads((predictions / RECORD).read_text(encoding="utf-8"))["cases"]
        told = [
            sentence
            for case_id, state in sorted(cases.items())
            if case_id in case_ids
            for sentence in _sentences(case_id, state)
        ]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    more = len(told) - MOST
    return told if more <= 0 else [*told[:MOST], f"{more} more of these stand in {RECORD} of the predictions"]


def _sentences(case_id: str, state: dict[str, list[str]]) -> list[str]:
    missing = state.get("missing") or []
    without = [f"{case_id} was segmented without {', '.join(missing)}"] if missing else []
    return without + [f"{case_id} is unlike the training: {each}" for each in state.get("unlike") or []]
