"""A study's report checked: its files by their hashes, its arms by scoring again, its tables by comparing again."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import zip_longest
from pathlib import Path
from typing import Any

from brats_pipeline.bundles import weights_path
from brats_pipeline.evaluation.manifest import read_manifest, relative
from brats_pipeline.evaluation.verification import (
    PAGES,
    Verification,
    page_differences,
    summary_differences,
    unlisted,
    verify_report,
)
from brats_pipeline.files import file_sha256
from brats_pipeline.report.study import write_study_report
from brats_pipeline.studies.comparing import shared_rows
from brats_pipeline.studies.figures import figures_of
from brats_pipeline.studies.gathering import Scored, gather
from brats_pipeline.studies.merging import rules_of, summary_text, what_is_missing
from brats_pipeline.studies.opening import DATALIST, RECORD
from brats_pipeline.studies.page import page_of
from brats_pipeline.studies.plan import Plan
from brats_pipeline.studies.reading import read_plan
from brats_pipeline.studies.tables import tables


def verify_study(out: str | Path, *, workers: int = 1, on_case: Callable[[str], None] | None = None) -> Verification:
    """Check the files of a study by their hashes, score every arm again, and make the tables again.

    Args:
        out: folder of the study.
        workers: processes that score.
        on_case: called with the id of each case that was scored again.

    Raises:
        PipelineError: there is no manifest, or an arm cannot be scored any more.
    """
    out = Path(out).resolve()
    manifest = read_manifest(out)
    call = manifest["call"]
    files = [
        f"{name} {'was changed after the report was written' if (out / name).is_file() else 'is gone'}"
        for name, sha256 in manifest["outputs"].items()
        if not (out / name).is_file() or file_sha256(out / name) != sha256
    ]
    figures: list[str] = []
    versions: list[str] = []
    for name, folder in call["reports"].items():
        found = verify_report(out / folder, workers=workers, on_case=on_case)
        files += [f"{name}: {sentence}" for sentence in found.files]
        figures += [f"{name}: {sentence}" for sentence in found.figures]
        versions += found.versions
    record = json.loads((out / RECORD).read_text(encoding="utf-8"))
    plan = read_plan(out / "study.yaml", call["budget"])
    plan = replace(plan, path=plan.path.with_name(record["study"]["file"]))  # as it was called by whoever began it
    scored = gather(plan, out, record, score=False)
    files += _strange_origins(plan, out, manifest, scored)
    rows = shared_rows(scored)
    compared = figures_of(plan, out, scored, rows)
    made = tables(plan, compared)
    for name, again in made.items():
        stated = (out / name).read_text(encoding="utf-8") if (out / name).is_file() else ""
        figures += _differences(name, stated, again)
    rules, missing = rules_of(scored), what_is_missing(plan, scored, rows)
    with tempfile.TemporaryDirectory(prefix="brats-pipeline-") as folder:
        place = Path(folder)
        (place / "summary.json").write_text(summary_text(plan, rules, rows, compared, missing), encoding="utf-8")
        figures += summary_differences(out / "summary.json", place / "summary.json")
        if rules is not None:
            page = page_of(plan, out, scored, rows, compared, warnings=missing, rules=rules, images=False)
            write_study_report(place, page)
            figures += [each for name in PAGES for each in page_differences(out / name, place / name)]
        written = [path.relative_to(place).as_posix() for path in sorted(place.rglob("*")) if path.is_file()]
    files += unlisted(manifest, [*made, *written])
    return Verification(out, tuple(files), tuple(figures), tuple(dict.fromkeys(versions)))


def _strange_origins(plan: Plan, out: Path, manifest: Mapping[str, Any], scored: Sequence[Scored]) -> Iterator[str]:
    """What the manifest says of plan, folds, networks and reports of arms, and is not so."""
    call = manifest["call"]
    if call["study_sha256"] != plan.sha256:
        yield "study.yaml is not the study that the report was made of"
    if call["datalist_sha256"] != file_sha256(out / DATALIST):
        yield f"{DATALIST} was changed after the report was written"
    homes = {name: relative(home, out) for arm in scored for name, home in arm.homes.items()}
    for name in sorted(homes.keys() ^ call["reports"].keys()):
        yield f"{name}: " + ("is not listed in the manifest" if name in homes else "is no part of the study")
    for unit in (unit for arm in scored for unit in arm.finished):
        weights = weights_path(unit.run)
        if weights.is_file() and file_sha256(weights) != call["weights_sha256"].get(unit.name):
            yield f"{unit.name}: its weights are not those that the report was made of"


def _differences(name: str, stated: str, again: str) -> Iterator[str]:
    for number, (said, found) in enumerate(zip_longest(stated.splitlines(), again.splitlines()), start=1):
        if said != found:
            yield f"{name}, line {number}: is {said or 'missing'}; the scores of the arms give {found or 'none'}"
