"""What counts of an arm that is not finished."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from brats_pipeline.metrics import COLUMNS, csv_text
from brats_pipeline.studies.gathering import gather
from brats_pipeline.studies.opening import open_study
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
