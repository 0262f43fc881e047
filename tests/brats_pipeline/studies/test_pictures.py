"""The picture of a case in a study: its labels are read as they were scored."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from brats_pipeline.cases import Case, find_cases
from brats_pipeline.evaluation.evaluate import evaluate
from brats_pipeline.metrics import RULES
from brats_pipeline.studies import pictures
from brats_pipeline.studies.pictures import picture_of


@pytest.fixture
def scored(make_cohort: Callable[..., Path], tmp_path: Path) -> Case:
    """A case labelled as in 2023, scored by the rules of 2024 against a copy of its own label map."""
    cohort = make_cohort(layout="brats2023", cases=1)
    (case,) = find_cases(cohort)
    assert case.label is not None
    (tmp_path / "predictions").mkdir()
    shutil.copy(case.label.paths[0], tmp_path / "predictions" / f"{case.case_id}.nii.gz")
    evaluate(tmp_path / "predictions", cohort, tmp_path, rules="brats2024-gli", images=False)
    return replace(case, convention="brats2023")


def test_rules_that_read_the_labels_by_a_later_convention_have_their_picture(
    scored: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = {}

    def keep(image: object, reference: object, predictions: object, **how: object) -> bytes:
        drawn.update(reference=reference, predictions=predictions)
        return b""

    monkeypatch.setattr(pictures, "case_picture", keep)
    found = picture_of(
        scored, {"arm": tmp_path}, rules=RULES["brats2024-gli"], dice={"arm": 1.0}, convention="brats2023"
    )
    assert found is not None
    assert {*drawn["reference"]} == {*RULES["brats2024-gli"].regions}
    assert drawn["reference"]["WT"].any()
    for region, mask in drawn["reference"].items():
        assert np.array_equal(drawn["predictions"]["arm"][region], mask), region
