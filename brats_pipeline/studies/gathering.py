"""From finished units to scored arms: the predictions of all folds together, one evaluation per arm and seed."""

from __future__ import annotations

import csv
import json
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from brats_pipeline.data.datalist import read_whole_datalist
from brats_pipeline.errors import PipelineError
from brats_pipeline.evaluation.evaluate import evaluate
from brats_pipeline.evaluation.manifest import read_manifest
from brats_pipeline.files import file_sha256, write_atomically
from brats_pipeline.metrics import RegionScore
from brats_pipeline.predictions import files_by_case
from brats_pipeline.studies.opening import DATALIST
from brats_pipeline.studies.plan import Arm, Plan
from brats_pipeline.studies.source import data_folder
from brats_pipeline.studies.units import Unit, tested, units_of

TOLD = ".told.json"
"""What an evaluation was asked for, beside it."""
_COUNTS = ("tp", "fp", "fn", "tn")
_LESIONS = ("lesions_tp", "lesions_fp", "lesions_fn")
_TEXTS = ("case_id", "region")
_OPTIONAL = tuple(field.name for field in fields(RegionScore) if field.default is None and field.name not in _LESIONS)


@dataclass(frozen=True)
class Scored:
    """An arm as far as it got.

    Args:
        arm: the arm.
        units: of the arm, finished or not.
        folds: tested by every seed of the arm.
        rows: one per case and region of these folds; the mean over the seeds where there are several.
        seeds: seed to the folder of its evaluation.
        without: case to the reason why no network of the arm could segment it; it counts as a miss.
    """

    arm: Arm
    units: tuple[Unit, ...]
    folds: tuple[int, ...]
    rows: tuple[RegionScore, ...]
    seeds: Mapping[int, Path]
    without: Mapping[str, str]

    @property
    def unfinished(self) -> tuple[Unit, ...]:
        """Units that are not done."""
        return tuple(unit for unit in self.units if unit.state != "done")


def gather(
    plan: Plan,
    out: Path,
    record: Mapping[str, Any],
    *,
    workers: int = 1,
    images: bool = True,
    score: bool = True,
    on_arm: Callable[[str], None] = lambda name: None,
) -> list[Scored]:
    """Score every arm that has a finished fold.

    Args:
        plan: the study.
        out: its folder.
        record: from :func:`open_study`.
        workers: processes that score.
        images: whether the reports of the arms show the scans.
        score: False: read the scores that are there, and write nothing.
        on_arm: called with the name of each arm and seed before it is scored.

    Raises:
        PipelineError: predictions or references cannot be scored.
    """
    listing = read_whole_datalist(out / DATALIST)
    units = units_of(plan, out)
    found = []
    for arm in plan.arms:
        own = [unit for unit in units if unit.arm.name == arm.name]
        done = [unit for unit in own if unit.state == "done"]
        folds = [fold for fold in plan.folds.test if sum(unit.fold == fold for unit in done) == len(arm.seeds)]
        by_seed: dict[int, tuple[RegionScore, ...]] = {}
        homes: dict[int, Path] = {}
        for seed in arm.seeds:
            finished = [unit for unit in done if unit.seed == seed]
            if not finished:
                continue
            home = out / "arms" / arm.name / f"seed{seed}"
            names = {item["case_id"] for unit in finished for item in tested(listing, unit.fold)}
            if score:
                on_arm(f"{arm.name}, seed {seed}")
                _score(finished, home, names, plan, record, workers=workers, images=images)
            by_seed[seed] = read_scores(home / "cases.csv")
            homes[seed] = home
        wanted = {item["case_id"] for fold in folds for item in tested(listing, fold)}
        rows = [[row for row in by_seed[seed] if row.case_id in wanted] for seed in arm.seeds if folds]
        without = {case_id: why for unit in done for case_id, why in unit.read().get("segment_failed", {}).items()}
        found.append(Scored(arm, tuple(own), tuple(folds), _mean_rows(rows), homes, without))
    return found


def _score(
    units: Sequence[Unit],
    home: Path,
    names: set[str],
    plan: Plan,
    record: Mapping[str, Any],
    *,
    workers: int,
    images: bool,
) -> None:
    """Bring the predictions of an arm and seed together and score them, unless that is done."""
    predictions = home / "predictions"
    _collect(units, predictions, names)
    told = {"images": images, "rules": plan.rules, "convention": record.get("convention")}
    if not _is_scored(home, names, predictions, told):
        evaluate(
            predictions,
            data_folder(record, home.parents[2]),
            home,
            rules=plan.rules,
            convention=record.get("convention"),
            only=names,
            workers=workers,
            images=images,
        )
        write_atomically(home / TOLD, json.dumps(told))


def _collect(units: Sequence[Unit], folder: Path, names: set[str]) -> None:
    """Link the label maps of the folds into one folder, copied where links are not possible."""
    wanted: dict[Path, Path] = {}
    for unit in units:
        for case_id, paths in files_by_case(unit.predictions).items():
            if case_id in names:
                wanted |= {folder / path.relative_to(unit.predictions): path for path in paths}
    if not wanted:
        raise PipelineError(f"{units[0].arm.name}: its networks segmented no case: {units[0].marker} says why")
    for path in [path for path in folder.rglob("*") if path.is_file()] if folder.is_dir() else ():
        if path not in wanted or not path.samefile(wanted[path]):
            path.unlink()
    for path, source in wanted.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            try:
                os.link(source, path)
            except OSError:
                shutil.copyfile(source, path)


def _is_scored(home: Path, names: set[str], predictions: Path, told: Mapping[str, Any]) -> bool:
    """Whether the evaluation in a folder is of these cases, files and rules."""
    try:
        if json.loads((home / TOLD).read_text(encoding="utf-8")) != dict(told):
            return False
        manifest = read_manifest(home)
    except (PipelineError, OSError, ValueError):
        return False
    if manifest["call"]["only"] != sorted(names):
        return False
    scored = {name: sha256 for files in manifest["predictions"].values() for name, sha256 in files.items()}
    there = [path for path in predictions.rglob("*") if path.is_file()]
    return {os.path.relpath(path.resolve(), home.resolve()): file_sha256(path) for path in there} == scored


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


def _mean_rows(seeds: Sequence[Sequence[RegionScore]]) -> tuple[RegionScore, ...]:
    """Case by case the mean over the seeds; counts are those of the first seed."""
    if len(seeds) < 2:
        return tuple(seeds[0]) if seeds else ()
    averaged = [field.name for field in fields(RegionScore) if field.name not in (*_TEXTS, *_COUNTS, *_LESIONS)]
    means = []
    for rows in zip(*seeds, strict=True):
        changed = {}
        for name in averaged:
            values = [getattr(row, name) for row in rows]
            changed[name] = None if None in values else sum(values) / len(values)
        means.append(replace(rows[0], **changed))
    return tuple(means)
