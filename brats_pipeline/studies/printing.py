"""What the command line prints of a study: states, headline figures, sentences."""

from __future__ import annotations

from pathlib import Path

from brats_pipeline.report.words import mean_interval
from brats_pipeline.studies.merging import Merged
from brats_pipeline.studies.reading import read_plan
from brats_pipeline.studies.study import Study
from brats_pipeline.studies.units import listed, units_of

DISCLAIMER = "Research software, not a medical device."


def units_table(study: str | Path, out: Path, budget: str) -> tuple[list[str], list[list[str]]]:
    """A header, and one row per training with its state.

    Raises:
        PipelineError: the study cannot be read.
    """
    units = units_of(read_plan(study, budget), Path(out).resolve())
    return ["number", "arm", "seed", "fold", "state", ""], list(listed(units))


def arms_table(merged: Merged) -> tuple[list[str], list[list[str]]]:
    """A header, and one row per arm with its mean Dice per region."""
    regions = list(dict.fromkeys(region for arm in merged.arms for region, _ in arm.figures))
    shown = list(dict.fromkeys(metric for arm in merged.arms for _, metric in arm.figures))[:1]
    header = ["arm", "cases", *(f"{region} {metric}, mean [95 %]" for region in regions for metric in shown)]
    rows = [
        [arm.name, str(arm.n), *(mean_interval(arm.figures[region, shown[0]], 3) for region in regions)]
        for arm in merged.arms
    ]
    return header, rows


def complaints(result: Study) -> list[str]:
    """What is missing, a sentence each."""
    if result.merged is not None:
        return list(result.merged.missing)
    return [f"{name} failed: {reason}" for name, reason in (result.progress.failed if result.progress else {}).items()]


def sentences(result: Study) -> list[str]:
    """What was found, and what to do next."""
    if result.merged is None:
        done = len(result.progress.done) if result.progress else 0
        return [f"{done} trainings done: {result.out}", "when every arm is done: the same command with --merge"]
    told = [result.plan.budget_in_words, *(each.sentence for each in result.merged.compared)]
    report = result.merged.report or "none, since no arm has a finished fold yet"
    return [*told, f"report: {report}", DISCLAIMER]
