"""From finished units to scored arms: the predictions of all folds together, one evaluation per arm and seed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from brats_pipeline.data.datalist import read_whole_datalist
from brats_pipeline.errors import PipelineError
from brats_pipeline.evaluation.evaluate import evaluate
from brats_pipeline.evaluation.manifest import read_manifest
from brats_pipeline.files import file_sha256, write_atomically
from brats_pipeline.metrics import RegionScore
from brats_pipeline.predictions import files_by_case
from brats_pipeline.studies.opening import DATALIST, PATIENTS
from brats_pipeline.studies.plan import Arm, Plan
from brats_pipeline.studies.scores import mean_rows, read_scores
from brats_pipeline.studies.source import data_folder
from brats_pipeline.studies.units import Unit, tested, units_of

TOLD = ".told.json"
"""What an evaluation was asked for, beside it."""


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
        missing: modality to the rows of the same cases segmented without it.
        missing_homes: seed and modality to the folder of the evaluation of these.
    """

    arm: Arm
    units: tuple[Unit, ...]
    folds: tuple[int, ...]
    rows: tuple[RegionScore, ...]
    seeds: Mapping[int, Path]
    without: Mapping[str, str]
    missing: Mapping[str, tuple[RegionScore, ...]] = field(default_factory=dict)
    missing_homes: Mapping[tuple[int, str], Path] = field(default_factory=dict)

    @property
    def finished(self) -> tuple[Unit, ...]:
        """Units that are done."""
        return tuple(unit for unit in self.units if unit.state == "done")

    @property
    def unfinished(self) -> tuple[Unit, ...]:
        """Units that are not done."""
        return tuple(unit for unit in self.units if unit.state != "done")

    @property
    def homes(self) -> dict[str, Path]:
        """Name to folder of all its evaluations."""
        whole = {f"{self.arm.name}/seed{seed}": home for seed, home in self.seeds.items()}
        less = {f"{self.arm.name}/seed{seed} without {name}": home for (seed, name), home in self.missing_homes.items()}
        return whole | less


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
    scorer = _Scorer(
        out=out,
        listing=read_whole_datalist(out / DATALIST),
        data=data_folder(record, out),
        rules=plan.rules,
        convention=record.get("convention"),
        workers=workers,
        images=images,
        score=score,
        on_arm=on_arm,
    )
    units = units_of(plan, out)
    return [scorer.arm(arm, [unit for unit in units if unit.arm.name == arm.name], plan) for arm in plan.arms]


@dataclass(frozen=True)
class _Scorer:
    """Scores predictions by the rules of a study; the arguments are those of :func:`gather`, and where its data lie."""

    out: Path
    listing: Mapping[str, Any]
    data: Path
    rules: str | None
    convention: str | None
    workers: int
    images: bool
    score: bool
    on_arm: Callable[[str], None]

    def arm(self, arm: Arm, units: Sequence[Unit], plan: Plan) -> Scored:
        """All that is finished of an arm."""
        done = [unit for unit in units if unit.state == "done"]
        folds = [fold for fold in plan.folds.test if sum(unit.fold == fold for unit in done) == len(arm.seeds)]
        by_seed = {seed: own for seed in arm.seeds if (own := [unit for unit in done if unit.seed == seed])}
        homes = {seed: self.out / "arms" / arm.name / f"seed{seed}" for seed in by_seed}
        rows = {seed: self.rows(own, homes[seed]) for seed, own in by_seed.items()}
        missing: dict[str, tuple[RegionScore, ...]] = {}
        missing_homes: dict[tuple[int, str], Path] = {}
        for modality in _left_out(done, plan) if plan.missing and folds else ():
            less = {}
            for seed, own in by_seed.items():
                home = missing_homes[seed, modality] = homes[seed] / "missing" / modality
                less[seed] = self.rows(own, home, modality)
            missing[modality] = self.mean(less, folds)
        return Scored(
            arm=arm,
            units=tuple(units),
            folds=tuple(folds),
            rows=self.mean(rows, folds),
            seeds=homes,
            without={case: why for unit in done for case, why in unit.read().get("segment_failed", {}).items()},
            missing=missing,
            missing_homes=missing_homes,
        )

    def mean(self, by_seed: Mapping[int, Sequence[RegionScore]], folds: Sequence[int]) -> tuple[RegionScore, ...]:
        """Over the seeds, of the cases of these folds."""
        wanted = {item["case_id"] for fold in folds for item in tested(self.listing, fold)}
        return mean_rows([[row for row in rows if row.case_id in wanted] for rows in by_seed.values() if folds])

    def rows(self, units: Sequence[Unit], home: Path, modality: str | None = None) -> tuple[RegionScore, ...]:
        """Score the predictions of an arm and seed, those without a modality where one is named."""
        names = {item["case_id"] for unit in units for item in tested(self.listing, unit.fold)}
        if self.score:
            less = "" if modality is None else f", without {modality}"
            self.on_arm(f"{units[0].arm.name}, seed {units[0].seed}{less}")
            folders = [unit.predictions if modality is None else unit.predictions_without(modality) for unit in units]
            if not _collect(folders, home / "predictions", names):
                raise PipelineError(
                    f"{units[0].arm.name}: its networks segmented no case{less}: {units[0].marker} says why"
                )
            self.evaluate(home, names, images=self.images and modality is None)
        return read_scores(home / "cases.csv")

    def evaluate(self, home: Path, names: set[str], *, images: bool) -> None:
        """Write an evaluation, unless it is there."""
        predictions = home / "predictions"
        told = {"images": images, "rules": self.rules, "convention": self.convention}
        if _is_scored(home, names, predictions, told):
            return
        evaluate(
            predictions,
            self.data,
            home,
            rules=self.rules,
            convention=self.convention,
            only=names,
            patients=self.out / PATIENTS,
            workers=self.workers,
            images=images,
        )
        write_atomically(home / TOLD, json.dumps(told))


def _left_out(units: Sequence[Unit], plan: Plan) -> list[str]:
    """The modalities, or pairs of them, that every one of these units has segmented without."""
    told = [unit.read().get("missing") or [] for unit in units]
    shared = [name for name in told[0] if all(name in each for each in told)] if told else []
    return [name for name in shared if name.count("+") < plan.missing]


def _collect(sources: Sequence[Path], folder: Path, names: set[str]) -> bool:
    """Link the label maps of the folds into one folder, copied where links are not possible; whether there are any."""
    wanted: dict[Path, Path] = {}
    for source in sources:
        for case_id, paths in files_by_case(source).items():
            if case_id in names:
                wanted |= {folder / path.relative_to(source): path for path in paths}
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
    return bool(wanted)


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
