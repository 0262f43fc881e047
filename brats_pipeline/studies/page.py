"""What the report of a study says: its figures, its curves, a few of its cases, and how it was done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from brats_pipeline.data.datalist import item_case, read_whole_datalist
from brats_pipeline.evaluation.manifest import versions
from brats_pipeline.metrics import RegionScore, Rules
from brats_pipeline.report.headline import notable_cases
from brats_pipeline.report.study import StudyPage
from brats_pipeline.studies.figures import Figures
from brats_pipeline.studies.gathering import Scored
from brats_pipeline.studies.opening import DATALIST
from brats_pipeline.studies.pictures import picture_of
from brats_pipeline.studies.plan import FULL, Plan
from brats_pipeline.studies.running import read_curves


def _mean_dice(rows: Mapping[str, Sequence[RegionScore]]) -> dict[str, dict[str, float]]:
    """Case to arm to the mean Dice over the regions, the cases in the order of their mean over the arms."""
    found: dict[str, dict[str, list[float]]] = {}
    for arm, own in rows.items():
        for row in own:
            found.setdefault(row.case_id, {}).setdefault(arm, []).append(row.dice)
    means = {
        case_id: {arm: float(np.nanmean(values)) for arm, values in by_arm.items()} for case_id, by_arm in found.items()
    }
    return dict(sorted(means.items(), key=lambda item: (float(np.mean(list(item[1].values()))), item[0])))


def page_of(
    plan: Plan,
    out: Path,
    scored: Sequence[Scored],
    rows: Mapping[str, Sequence[RegionScore]],
    figures: Figures,
    *,
    warnings: Sequence[str],
    rules: Rules,
    images: bool,
) -> StudyPage:
    """What the report says.

    Args:
        plan: the study.
        out: its folder.
        scored: its arms.
        rows: of the cases that are compared: arm to its rows.
        figures: made of these.
        warnings: what is missing, a sentence each.
        rules: that the arms were scored by.
        images: whether the report shows the scans.
    """
    dice = _mean_dice(rows)
    every_row = [row for own in rows.values() for row in own]
    notable = notable_cases(every_row)
    listed = {item["case_id"]: item for item in read_whole_datalist(out / DATALIST)["training"]}
    pictures = []
    if images and rows:
        homes = {arm.arm.name: next(iter(arm.seeds.values())) for arm in scored if arm.arm.name in rows}
        for case_id in notable:
            case = item_case(listed[case_id])
            picture = picture_of(case, homes, rules=rules, dice=dice[case_id], convention=case.convention or "")
            pictures += [] if picture is None else [picture]
    return StudyPage(
        title=plan.title,
        about=plan.about,
        notes=(*plan.notes, *notes_of_runs(scored)),
        budget=plan.budget_in_words,
        reduced=plan.budget != FULL,
        reference=plan.reference,
        rules=rules,
        noun="patient" if rules.slices else "case",
        patients=len({listed[case_id]["patient_id"] for case_id in dice}),
        regions=rules.regions,
        metrics=plan.metrics,
        arms=figures.arms,
        warnings=tuple(warnings),
        compared=figures.compared,
        ranking=figures.ranking,
        missing=figures.missing,
        curves={
            arm.arm.name: [columns for unit in arm.units if (columns := read_curves(unit.run / "curves.csv"))]
            for arm in scored
        },
        dice=dice,
        pictures=tuple(pictures),
        notable=notable,
        images=images,
        sentences=tuple(_how(plan, out)),
        versions=versions(),
    )


def notes_of_runs(scored: Sequence[Scored]) -> list[str]:
    """What the trainings found out about their data and a reader should know, each sentence once."""
    told = [unit.read().get("note") for arm in scored for unit in arm.units]
    return list(dict.fromkeys(note for note in told if note))


def _how(plan: Plan, out: Path) -> list[str]:
    listing = read_whole_datalist(out / DATALIST)
    patients = len({item["patient_id"] for item in listing["training"]})
    folds = plan.folds
    chosen = (
        "the fold behind the tested one chooses the epoch, the others train"
        if folds.validation == "next"
        else "all other folds train, and the last epoch is kept"
    )
    sentences = [
        f"{len(listing['training'])} cases of {patients} patients in {folds.k} folds, no patient in two; tested: fold "
        f"{', '.join(map(str, folds.test))}. While a fold is tested, no part of it trains or validates: {chosen}.",
        f"Every arm is compared with {plan.reference} over the same cases: Wilcoxon's signed-rank test, corrected by "
        "Holm over all arms and regions of a metric, and the interval of the mean paired difference by the BCa "
        "bootstrap. “Better” and “worse” stand only where the interval excludes 0 and the corrected p is below 0.05.",
    ]
    if any(len(arm.seeds) > 1 for arm in plan.arms):
        sentences.append("Where an arm has several seeds, the score of a case is the mean over them.")
    return sentences
