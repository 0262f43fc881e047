"""Which scores of an arm a study takes up, finished or not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from brats_pipeline.metrics import COLUMNS, RegionScore, csv_text
from brats_pipeline.studies.gathering import gather
from brats_pipeline.studies.leaving import left_out
from brats_pipeline.studies.opening import open_study
from brats_pipeline.studies.plan import Folds
from brats_pipeline.studies.reading import read_plan
from brats_pipeline.studies.units import units_of
from tests.brats_pipeline.studies.test_comparing import row

STUDY = {
    "name": "small",
    "title": "A small study",
    "bundle": "brats_glioma_3d",
    "arms": [{"name": "plain", "network": "unet"}],
    "folds": {"k": 3, "test": [0, 1]},
    "seeds": [0, 1],
}


def test_a_fold_that_one_seed_alone_has_tested_does_not_count(cohort: Path, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(STUDY))
    plan, out = read_plan(tmp_path / "small.yaml"), tmp_path / "out"
    record = open_study(plan, out, data=cohort)
    listing = json.loads((out / "datalist.json").read_text())["training"]
    cases = [[item["case_id"] for item in listing if item["fold"] == fold] for fold in (0, 1)]
    for unit in units_of(plan, out):
        if (unit.seed, unit.fold) != (1, 1):
            unit.write(state="done")
    for seed, scored, dice in ((0, [*cases[0], *cases[1]], 0.5), (1, cases[0], 0.9)):
        home = out / "arms" / "plain" / f"seed{seed}"
        home.mkdir(parents=True)
        rows = [replace(row(0, "WT", dice), case_id=case_id) for case_id in scored]
        (home / "cases.csv").write_text(csv_text(rows, COLUMNS))
    (arm,) = gather(plan, out, record, score=False)
    assert arm.folds == (0,)
    assert {each.case_id: each.dice for each in arm.rows} == dict.fromkeys(cases[0], pytest.approx(0.7))
    assert [unit.name for unit in arm.unfinished] == ["plain, seed 1, fold 1"]


MODALITIES = ("t1c", "t2", "flair")


def score(case_id: str) -> RegionScore:
    values: dict[str, Any] = dict.fromkeys(("dice", "iou", "precision", "recall", "specificity"), 0.5)
    values |= {"hd95_mm": 3.0, "reference_ml": 1.0, "predicted_ml": 1.0, "tp": 10, "fp": 1, "fn": 2, "tn": 100}
    return RegionScore(case_id=case_id, region="WT", **values)


@pytest.mark.parametrize("asked", [0, 1, 2])
def test_a_plan_that_asks_for_less_takes_up_less_of_what_was_left_out(asked: int, tmp_path: Path) -> None:
    arm: Any = SimpleNamespace(name="plain", seeds=(0,))
    plan: Any = SimpleNamespace(arms=(arm,), folds=Folds(k=2, test=(0, 1)), missing=asked, rules=None)
    for unit in units_of(plan, tmp_path):
        unit.folder.mkdir(parents=True)
        unit.write(state="done", missing=left_out(MODALITIES, 2))
    item = {"patient_id": "somebody", "convention": "brats2023", "modalities": [], "image": []}
    listing = {"training": [{**item, "case_id": f"case{fold}", "fold": fold} for fold in (0, 1)]}
    (tmp_path / "datalist.json").write_text(json.dumps(listing))
    rows = tuple(score(f"case{fold}") for fold in (0, 1))
    for name in (".", *(f"missing/{name}" for name in left_out(MODALITIES, 2))):
        home = tmp_path / "arms" / "plain" / "seed0" / name
        home.mkdir(parents=True, exist_ok=True)
        (home / "cases.csv").write_text(csv_text(rows, COLUMNS))
    (scored,) = gather(plan, tmp_path, {"data": "data"}, score=False)
    assert scored.folds == (0, 1)
    assert scored.missing == dict.fromkeys(left_out(MODALITIES, asked), rows)
