"""The report of a study from what is there: what is missing is said, what is compared is the same cases."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from brats_pipeline.evaluation.manifest import fingerprint, read_manifest, relative, versions, write_manifest
from brats_pipeline.files import file_sha256, write_atomically
from brats_pipeline.metrics import RegionScore, Rules, rules_named
from brats_pipeline.metrics.ranking import Ranking
from brats_pipeline.metrics.statistics import RESAMPLES
from brats_pipeline.report.study import ArmFigures, Compared, write_study_report
from brats_pipeline.studies.comparing import shared_rows
from brats_pipeline.studies.figures import Figures, figures_of
from brats_pipeline.studies.gathering import Scored, gather
from brats_pipeline.studies.opening import DATALIST, forget_report
from brats_pipeline.studies.page import page_of
from brats_pipeline.studies.plan import Plan, as_json
from brats_pipeline.studies.source import data_folder
from brats_pipeline.studies.tables import TABLES, tables

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Merged:
    """A study in figures.

    Args:
        arms: those that have figures.
        compared: each arm against the reference arm.
        ranking: of the arms, or None.
        missing: what is not there, a sentence each.
        report: the HTML file; None where no arm has a finished fold, so that there is none.
    """

    arms: tuple[ArmFigures, ...]
    compared: tuple[Compared, ...]
    ranking: Ranking | None
    missing: tuple[str, ...]
    report: Path | None

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
    figures = figures_of(plan, out, scored, rows, resamples=resamples)
    missing = tuple(what_is_missing(plan, scored, rows))
    written = tables(plan, figures)
    for name in TABLES:
        if name in written:
            write_atomically(out / name, written[name])
        else:
            (out / name).unlink(missing_ok=True)
    rules = rules_of(scored)
    forget_report(out)
    if rules is not None:
        page = page_of(plan, out, scored, rows, figures, warnings=missing, rules=rules, images=images)
        write_study_report(out, page)
    write_atomically(out / "summary.json", summary_text(plan, rules, rows, figures, missing))
    _write_manifest(plan, out, record, scored, images=images)
    return Merged(figures.arms, figures.compared, figures.ranking, missing, out / "report.html" if rules else None)


def summary_text(
    plan: Plan,
    rules: Rules | None,
    rows: Mapping[str, Sequence[RegionScore]],
    figures: Figures,
    missing: Sequence[str],
) -> str:
    """The content of ``summary.json``.

    Args:
        plan: the study.
        rules: that the arms were scored by; None where none was.
        rows: from :func:`shared_rows`.
        figures: made of these.
        missing: what is not there, a sentence each.
    """
    summary = {
        "schema_version": SCHEMA_VERSION,
        "study": as_json(plan),
        "rules": None if rules is None else rules.name,
        "cases": sorted({row.case_id for own in rows.values() for row in own}),
        **figures.as_json(),
        "missing": list(missing),
        "versions": versions(),
    }
    return json.dumps(summary, indent=2) + "\n"


def rules_of(scored: Sequence[Scored]) -> Rules | None:
    """The rules that the arms were scored by."""
    for home in (home for arm in scored for home in arm.seeds.values()):
        return rules_named(json.loads((home / "summary.json").read_text(encoding="utf-8"))["rules"]["name"])
    return None


def what_is_missing(plan: Plan, scored: Sequence[Scored], rows: Mapping[str, Sequence[RegionScore]]) -> list[str]:
    """What a study lacks, a sentence each; nothing where every arm was tested on every case."""
    sentences = []
    for arm in scored:
        lacking = [unit for unit in arm.finished if unit.lacks(plan)]
        if lacking:
            sentences.append(
                f"{arm.arm.name}: {len(lacking)} of {len(arm.units)} trainings still lack what the study asks for "
                "beside their scores (test loss, cases without a modality); run it again"
            )
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
    if rows and plan.reference not in rows:
        sentences.append(f"{plan.reference} is the reference arm and not done, so that nothing is compared")
    for arm in scored:
        sentences += [
            f"{arm.arm.name}: {case_id} could not be segmented and counts as a miss ({reason})"
            for case_id, reason in sorted(arm.without.items())
        ]
    return sentences


def _write_manifest(
    plan: Plan, out: Path, record: Mapping[str, Any], scored: Sequence[Scored], *, images: bool
) -> None:
    """What the report was made from; single predictions and references stand in the manifests of the arms."""
    reports = {name: home for arm in scored for name, home in arm.homes.items()}
    manifests = {name: read_manifest(home) for name, home in reports.items()}
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
            "weights_sha256": {unit.name: unit.read().get("weights_sha256") for arm in scored for unit in arm.finished},
            "predictions_sha256": {name: fingerprint(made["predictions"]) for name, made in manifests.items()},
        },
        dataset_sha256=next((made["dataset_sha256"] for made in manifests.values()), None),
        outputs=[name for name in names if (out / name).is_file()],
        seeds={"bootstrap": 0, "folds": plan.folds.seed},
    )
