"""What an evaluation found: the figures of a cohort, and how ``summary.json`` tells them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from brats_pipeline.metrics import (
    PER_PATIENT,
    RESAMPLES,
    Calibration,
    LesionScore,
    RegionScore,
    RegionSummary,
    Rules,
    SliceGroup,
    SliceScore,
    enhancing_twice,
    headline,
    slice_headline,
)
from brats_pipeline.metrics.calibration import VOXELS_IN_WORDS
from brats_pipeline.report import PartRow

SCHEMA_VERSION = 2
"""2: ``slices.copied_channels`` instead of ``copies_of_flair``; ``intervals``, ``parts`` and ``et_twice`` are new."""


@dataclass(frozen=True)
class Evaluation:
    """What :func:`brats_pipeline.evaluate` found and wrote.

    Args:
        rules: how it was scored.
        scores: one row per case and region, by case id and then in the order of the rules.
        regions: the cohort in one summary per region.
        conventions: label convention of the references to that of the predictions scored against them.
        missing: cases without a prediction; each counts as a miss.
        failed: case to the reason why it could not be scored; counted as a miss where its reference is usable.
        unmatched: predictions without a reference, not scored.
        out: folder of ``cases.csv``, ``summary.json`` and ``report.html``.
        slices: one row per slice, by case id and then from the bottom up; empty for volumes.
        groups: slices in figures, for all patients and for those that lack no sequence; empty for volumes.
        copied: patient to the modalities whose channel is a copy of another; those that have none are left out.
        patients: case to the patient it belongs to.
        parts: Dice in parts of the cohort, such as cases without ET; empty for slices.
        lesions: one row per lesion, by case id and then by region; empty where the rules score none.
        calibration: whether probabilities mean what they say; None where none were saved.
    """

    rules: Rules
    scores: tuple[RegionScore, ...]
    regions: tuple[RegionSummary, ...]
    conventions: Mapping[str, str]
    missing: tuple[str, ...]
    failed: Mapping[str, str]
    unmatched: tuple[str, ...]
    out: Path
    slices: tuple[SliceScore, ...] = ()
    groups: tuple[SliceGroup, ...] = ()
    copied: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    patients: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[PartRow, ...] = ()
    lesions: tuple[LesionScore, ...] = ()
    calibration: Calibration | None = None

    @property
    def complete(self) -> bool:
        """Whether every case had a prediction that could be scored."""
        return not self.missing and not self.failed

    def table(self) -> list[list[str]]:
        """The headline figures for printing: a header, and one row per region or per way to average slices."""
        return slice_headline(self.groups) if self.groups else headline(self.regions)


def _interval_facts(evaluation: Evaluation) -> dict[str, Any]:
    """How the intervals came about: what was drawn, how often, from which seed."""
    cases = {row.case_id for row in evaluation.scores}
    patients = {evaluation.patients.get(case_id, case_id) for case_id in cases}
    unit = "patient" if len(patients) < len(cases) else "case"
    facts = {"of": "mean", "confidence": 0.95, "method": "BCa bootstrap", "resamples": RESAMPLES, "seed": 0}
    return facts | {"drawn": unit, "cases": len(cases), "patients": len(patients)}


def summary_of(evaluation: Evaluation, used: Mapping[str, str]) -> dict[str, Any]:
    """What ``summary.json`` holds.

    Args:
        evaluation: what was found.
        used: software name to version.
    """
    summary = {
        "schema_version": SCHEMA_VERSION,
        "rules": asdict(evaluation.rules) | {"in_words": list(evaluation.rules.sentences())},
        "conventions": [
            {"references": reference, "predictions": prediction}
            for reference, prediction in sorted(evaluation.conventions.items())
        ],
        "regions": {region.region: asdict(region) for region in evaluation.regions},
        "missing": list(evaluation.missing),
        "failed": dict(evaluation.failed),
        "unmatched": list(evaluation.unmatched),
        "intervals": _interval_facts(evaluation),
        "parts": [asdict(part) for part in evaluation.parts],
        "versions": dict(used),
    }
    if "ET" in evaluation.rules.regions:
        twice = enhancing_twice(evaluation.scores, patients=evaluation.patients)
        summary["et_twice"] = [asdict(figures) for figures in twice]
    if evaluation.groups:
        copied = {case_id: list(modalities) for case_id, modalities in evaluation.copied.items()}
        summary["slices"] = {
            "copied_channels": copied,
            "headline": PER_PATIENT,
            "groups": [asdict(group) for group in evaluation.groups],
        }
    if (calibration := evaluation.calibration) is not None:
        summary["calibration"] = {
            "in_words": VOXELS_IN_WORDS,
            "without": dict(calibration.without),
            "regions": {region: asdict(found) for region, found in calibration.regions.items()},
        }
    return summary
