"""A study's report checked: its files by their hashes, its arms by scoring again, its tables by comparing again."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from brats_pipeline.evaluation.manifest import read_manifest
from brats_pipeline.evaluation.verification import Verification, verify_report
from brats_pipeline.files import file_sha256
from brats_pipeline.studies.comparing import shared_rows
from brats_pipeline.studies.figures import figures_of
from brats_pipeline.studies.gathering import gather
from brats_pipeline.studies.opening import RECORD
from brats_pipeline.studies.reading import read_plan
from brats_pipeline.studies.tables import tables


def verify_study(out: str | Path, *, workers: int = 1) -> Verification:
    """Check the files of a study by their hashes, score every arm again, and make the tables again.

    Args:
        out: folder of the study.
        workers: processes that score.

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
        found = verify_report(out / folder, workers=workers)
        files += [f"{name}: {sentence}" for sentence in found.files]
        figures += [f"{name}: {sentence}" for sentence in found.figures]
        versions += found.versions
    plan = read_plan(out / "study.yaml", call["budget"])
    record = json.loads((out / RECORD).read_text(encoding="utf-8"))
    scored = gather(plan, out, record, score=False)
    for name, again in tables(plan, figures_of(plan, out, scored, shared_rows(scored))).items():
        stated = (out / name).read_text(encoding="utf-8") if (out / name).is_file() else ""
        figures += _differences(name, stated, again)
    return Verification(out, tuple(files), tuple(figures), tuple(dict.fromkeys(versions)))


def _differences(name: str, stated: str, again: str) -> Iterator[str]:
    for number, (said, found) in enumerate(zip_longest(stated.splitlines(), again.splitlines()), start=1):
        if said != found:
            yield f"{name}, line {number}: is {said or 'missing'}; the scores of the arms give {found or 'none'}"
