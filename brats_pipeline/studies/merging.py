"""The report of a study from what is there: what is missing is said, what is compared is the same cases."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from brats_pipeline.data.datalist import item_case, read_whole_datalist
from brats_pipeline.evaluation.manifest import relative, versions, write_manifest
from brats_pipeline.files import file_sha256, write_atomically
from brats_pipeline.metrics import RegionScore, Rules, rules_named
from brats_pipeline.metrics.ranking import Ranking
from brats_pipeline.metrics.statistics import RESAMPLES
from brats_pipeline.predictions import files_by_case
from brats_pipeline.report.headline import notable_cases
from brats_pipeline.report.study import ArmFigures, Compared, StudyPage, write_study_report
from brats_pipeline.studies.comparing import arm_figures, compare_arms, rank_arms, shared_rows
from brats_pipeline.studies.gathering import Scored, gather
from brats_pipeline.studies.opening import DATALIST
from brats_pipeline.studies.pictures import picture_of
from brats_pipeline.studies.plan import FULL, Plan, as_json
from brats_pipeline.studies.running import read_curves
from brats_pipeline.studies.source import data_folder

SCHEMA_VERSION = 1
TABLES = ("arms.csv", "comparison.csv", "ranking.csv")


@dataclass(frozen=True)
class Merged:
    """A study in figures.

    Args:
        arms: those that have figures.
        compared: each arm against the reference arm.
        ranking: of the arms, or None.
        missing: what is not there, a sentence each.
        report: the HTML file.
    """

    arms: tuple[ArmFigures, ...]
    compared: tuple[Compared, ...]
    ranking: Ranking | None
    missing: tuple[str, ...]
    report: Path

    @property
    def complete(self) -> bool:
        """Whether every arm was tested on every case."""
        return not self.missing


def merge(
    plan: Plan,
    out: Path,
    record: Mapping[str, Any],
    *,
    workers: int = 1,
    images: bool = True,
    resamples: int = RESAMPLES,
    on_arm: Callable[[str], None] = lambda name: None,
) -> Merged:
    """Score the finished units, compare the arms and write the report of the study.

    Args:
        plan: the study.
        out: its folder.
        record: from :func:`open_study`.
        workers: processes that score.
        images: whether reports show the scans.
        resamples: of every bootstrap.
        on_arm: called with the name of each arm and seed before it is scored.

    Raises:
        PipelineError: predictions or references cannot be scored, or a file cannot be written.
    """
    scored = gather(plan, out, record, workers=workers, images=images, on_arm=on_arm)
    rows = shared_rows(scored)
    arms, compared, ranking = figures_of(plan, out, scored, rows, resamples=resamples)
    missing = _missing(plan, scored, rows)
    for name, text in tables(plan, arms, compared, ranking).items():
        write_atomically(out / name, text)
    rules = _rules(scored)
    if rules is not None:
        page = _page(plan, out, scored, rows, arms, compared, ranking, missing, rules, images=images)
        write_study_report(out, page)
    summary = {
        "schema_version": SCHEMA_VERSION,
        "study": as_json(plan),
        "rules": None if rules is None else rules.name,
        "cases": sorted({row.case_id for own in rows.values() for row in own}),
        "arms": [_plain(arm) for arm in arms],
        "compared": [asdict(each) for each in compared],
        "ranking": None if ranking is None else asdict(ranking),
        "missing": list(missing),
        "versions": versions(),
    }
    write_atomically(out / "summary.json", json.dumps(summary, indent=2) + "\n")
    _write_manifest(plan, out, record, scored, images=images)
    return Merged(tuple(arms), tuple(compared), ranking, tuple(missing), out / "report.html")


def figures_of(
    plan: Plan,
    out: Path,
    scored: Sequence[Scored],
    rows: Mapping[str, Sequence[RegionScore]],
    *,
    resamples: int = RESAMPLES,
) -> tuple[list[ArmFigures], list[Compared], Ranking | None]:
    """The figures of a study: arms, comparisons and ranking."""
    patients = {item["case_id"]: item["patient_id"] for item in read_whole_datalist(out / DATALIST)["training"]}
    patients = {row.case_id: patients[row.case_id] for own in rows.values() for row in own}
    return (
        arm_figures(plan, scored, rows, patients=patients, resamples=resamples),
        compare_arms(plan, rows, patients=patients, resamples=resamples),
        rank_arms(plan, rows, patients=patients, resamples=resamples),
    )


def _plain(arm: ArmFigures) -> dict[str, Any]:
    """An arm's figures as JSON: region to metric to figures."""
    told = asdict(arm)
    told["figures"] = {}
    for (region, metric), figures in arm.figures.items():
        told["figures"].setdefault(region, {})[metric] = asdict(figures)
    return told


def _rules(scored: Sequence[Scored]) -> Rules | None:
    """The rules that the arms were scored by."""
    for home in (home for arm in scored for home in arm.seeds.values()):
        return rules_named(json.loads((home / "summary.json").read_text(encoding="utf-8"))["rules"]["name"])
    return None


def _missing(plan: Plan, scored: Sequence[Scored], rows: Mapping[str, Sequence[RegionScore]]) -> list[str]:
    sentences = []
    for arm in scored:
        if not arm.unfinished:
            continue
        states = [
            f"seed {unit.seed}, fold {unit.fold} {unit.state}"
            + (f" ({unit.read()['reason']})" if unit.state == "failed" else "")
            for unit in arm.unfinished
        ]
        count = f"{len(arm.unfinished)} of {len(arm.units)} trainings are not done"
        begun = "" if arm.folds else "; the arm is in no table"
        sentences.append(f"{arm.arm.name}: {count}: {'; '.join(states)}{begun}")
    begun_arms = [arm for arm in scored if arm.folds]
    left_out = set().union(*({row.case_id for row in arm.rows} for arm in begun_arms)) if begun_arms else set()
    common = {row.case_id for own in rows.values() for row in own}
    if left_out - common:
        sentences.append(
            f"{len(left_out - common)} cases were not tested by every arm yet and are left out of all tables; "
            f"{len(common)} remain"
        )
    if begun_arms and plan.reference not in rows:
        sentences.append(f"{plan.reference} is the reference arm and not done, so that nothing is compared")
    for arm in scored:
        sentences += [
            f"{arm.arm.name}: {case_id} could not be segmented and counts as a miss ({reason})"
            for case_id, reason in sorted(arm.without.items())
        ]
    return sentences


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


def _page(
    plan: Plan,
    out: Path,
    scored: Sequence[Scored],
    rows: Mapping[str, Sequence[RegionScore]],
    arms: Sequence[ArmFigures],
    compared: Sequence[Compared],
    ranking: Ranking | None,
    missing: Sequence[str],
    rules: Rules,
    *,
    images: bool,
) -> StudyPage:
    dice = _mean_dice(rows)
    every_row = [row for own in rows.values() for row in own]
    notable = notable_cases(every_row)
    pictures = []
    if images and rows:
        cases = {item["case_id"]: item_case(item) for item in read_whole_datalist(out / DATALIST)["training"]}
        homes = {arm.arm.name: next(iter(arm.seeds.values())) for arm in scored if arm.arm.name in rows}
        for case_id in notable:
            case = cases[case_id]
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
        regions=rules.regions,
        metrics=plan.metrics,
        arms=tuple(arms),
        warnings=tuple(missing),
        compared=tuple(compared),
        ranking=ranking,
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


def tables(
    plan: Plan, arms: Sequence[ArmFigures], compared: Sequence[Compared], ranking: Ranking | None
) -> dict[str, str]:
    """The tables of a study as CSV: file name to content; the budget stands in every row."""
    metrics = list(dict.fromkeys([*plan.metrics, *plan.compare]))
    kinds = ("mean", "interval_low", "interval_high", "median", "q1", "q3")
    header = ["arm", "region", "n", *(f"{metric}_{kind}" for metric in metrics for kind in kinds), "network"]
    header += ["parameters", "trainings", "trainings_done", "epochs", "training_seconds", "segment_seconds_per_case"]
    rows: list[list[Any]] = []
    for arm in arms:
        for region in dict.fromkeys(region for region, _ in arm.figures):
            row: list[Any] = [arm.name, region, arm.n]
            for metric in metrics:
                figure = arm.figures[region, metric]
                low, high = figure.interval_95 or (None, None)
                spread = figure.spread
                row += [None if spread is None else spread.mean, low, high]
                row += [None] * 3 if spread is None else [spread.median, spread.q1, spread.q3]
            row += [arm.network, arm.parameters, arm.units, arm.units_done, " ".join(map(str, arm.epochs))]
            rows.append([*row, arm.training_seconds, arm.segment_seconds, arm.test_loss])
    found = {"arms.csv": _csv(plan, [*header, "test_loss"], rows)}
    header = ["arm", "reference", "region", "metric", "n", "mean_difference", "interval_low", "interval_high"]
    header += ["median_difference", "p_value", "p_holm", "rank_biserial", "higher", "equal", "lower", "in_words"]
    rows = []
    for each in compared:
        result = each.comparison
        low, high = result.interval_95 or (None, None)
        row = [each.arm, each.reference, each.region, each.metric, result.n, result.mean_difference, low, high]
        row += [result.median_difference, result.p_value, each.adjusted_p, result.rank_biserial]
        rows.append([*row, result.higher, result.equal, result.lower, each.sentence])
    found["comparison.csv"] = _csv(plan, header, rows)
    runs = () if ranking is None else ranking.runs
    header = ["rank", "arm", "mean_rank", *(f"share_of_rank_{number}" for number in range(1, len(runs) + 1))]
    rows = [[run.rank, run.name, run.mean_rank, *(run.shares or [None] * len(runs))] for run in runs]
    found["ranking.csv"] = _csv(plan, header, rows)
    return found


def _csv(plan: Plan, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    def cell(value: Any) -> str:
        if value is None or value != value:
            return ""
        return f"{value:.6f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)

    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*header, "budget"])
    writer.writerows([*map(cell, row), plan.budget_in_words] for row in rows)
    return text.getvalue()


def _write_manifest(
    plan: Plan, out: Path, record: Mapping[str, Any], scored: Sequence[Scored], *, images: bool
) -> None:
    """What the report was made from; predictions and references stand in the manifests of the arms, hashed here."""
    reports = {f"{arm.arm.name}/seed{seed}": home for arm in scored for seed, home in arm.seeds.items()}
    names = [*TABLES, "summary.json", "report.html", "report.md", "study.yaml", DATALIST]
    names += sorted(path.relative_to(out).as_posix() for path in (out / "figures").glob("*"))
    names += [relative(home / "manifest.json", out) for home in reports.values()]
    write_manifest(
        out,
        call={
            "command": "study",
            "study_sha256": plan.sha256,
            "budget": plan.budget,
            "data": relative(data_folder(record, out), out),
            "data_sha256": record["data_sha256"],
            "datalist_sha256": file_sha256(out / DATALIST),
            "images": images,
            "reports": {name: relative(home, out) for name, home in reports.items()},
            "weights_sha256": {
                unit.name: unit.read().get("weights_sha256")
                for arm in scored
                for unit in arm.units
                if unit.state == "done"
            },
        },
        predictions={name: _flat(home / "predictions") for name, home in reports.items()},
        references={},
        outputs=[name for name in names if (out / name).is_file()],
        seeds={"bootstrap": 0, "folds": plan.folds.seed},
    )


def _flat(folder: Path) -> list[Path]:
    return sorted(path for paths in files_by_case(folder).values() for path in paths)
