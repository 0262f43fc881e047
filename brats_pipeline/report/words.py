"""How figures and facts are put into words, the same in every form of a report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from brats_pipeline.metrics import Spread
from brats_pipeline.metrics.subgroups import GroupFigures
from transforms.labels import CONVENTIONS

MEANINGS = {
    **{"WT": "whole tumour", "TC": "tumour core", "ET": "enhancing tumour", "NETC": "non-enhancing tumour core"},
    **{"SNFH": "surrounding FLAIR hyperintensity", "RC": "resection cavity", "CC": "cystic component", "ED": "oedema"},
    "GTV": "gross tumour volume",
}
"""Regions in words."""


def meanings(regions: Sequence[str]) -> str:
    """What the regions' names stand for; ``WT whole tumour, TC tumour core``."""
    return ", ".join(f"{region} {MEANINGS[region]}" if region in MEANINGS else region for region in regions)


def decimal(value: float | None, digits: int) -> str:
    """A figure with so many decimals; a dash where it is not defined."""
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def p_value(p: float | None) -> str:
    """A p-value with four decimals, never a flat zero; a dash where there is none."""
    return "< 0.0001" if p is not None and p < 0.0001 else decimal(p, 4)


def mean_interval(figures: GroupFigures, digits: int) -> str:
    """Mean and the 95 % interval of the mean."""
    if figures.spread is None:
        return "-"
    mean = decimal(figures.spread.mean, digits)
    if figures.interval_95 is None:
        return mean
    low, high = figures.interval_95
    return f"{mean} [{low:.{digits}f}, {high:.{digits}f}]"


def median_quartiles(spread: Spread | None, digits: int) -> str:
    """Median with the first and the third quartile."""
    if spread is None:
        return "-"
    return f"{spread.median:.{digits}f} [{spread.q1:.{digits}f}, {spread.q3:.{digits}f}]"


def _meaning(name: str) -> str:
    return f"{name} ({', '.join(f'{value} {tissue}' for value, tissue in CONVENTIONS[name].tissues.items())})"


def interval_note(cases: int, patients: int, noun: str = "case") -> str:
    """What the 95 % intervals were made from.

    Args:
        cases: that are scored.
        patients: that they belong to.
        noun: what a case is called.
    """
    unit = f"{noun}s"
    if patients < cases:
        whole = f"{patients} patient{'' if patients == 1 else 's'} with {cases} time points"
        unit = f"patients ({whole}, drawn together)"
    return (
        f"In brackets after a mean: its 95 % interval by the BCa bootstrap over {unit}, 10,000 resamples; too narrow "
        f"below about 20 {unit.split()[0]}."
    )


def convention_sentences(conventions: Mapping[str, str]) -> list[str]:
    """What the labels of both sides were taken to mean: the references' convention to that of their predictions."""
    return [
        f"Label maps: references and predictions follow {_meaning(reference)}."
        if reference == prediction
        else f"Label maps: references follow {_meaning(reference)}, their predictions {_meaning(prediction)}; "
        "each side was read by its own convention."
        for reference, prediction in sorted(conventions.items())
    ]


def plain_warnings(missing: Sequence[str], failed: Mapping[str, str], unmatched: Sequence[str]) -> list[str]:
    """What went wrong, a sentence each."""
    warnings = []
    if missing:
        warnings.append(f"{len(missing)} without a prediction, counted as a miss in every region: {', '.join(missing)}")
    warnings += [f"{case_id}: {reason}" for case_id, reason in failed.items()]
    if unmatched:
        plural = "" if len(unmatched) == 1 else "s"
        warnings.append(f"{len(unmatched)} prediction{plural} without a reference, not scored: {', '.join(unmatched)}")
    return warnings
