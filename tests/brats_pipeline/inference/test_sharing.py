"""Shares of a cohort: together they are all of it, and processes that work at once end with one record."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from brats_pipeline.errors import PipelineError
from brats_pipeline.inference.segment import segment
from brats_pipeline.inference.sharing import Share, own_share, share_of


@given(cases=st.lists(st.integers()), count=st.integers(1, 20))
def test_every_case_falls_to_exactly_one_share_and_shares_differ_by_one_at_most(cases: list[int], count: int) -> None:
    parts = [Share(number, count).of(list(enumerate(cases))) for number in range(1, count + 1)]
    assert sorted(case for part in parts for case in part) == list(enumerate(cases))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("share", ["0/4", "5/4", "1/0", "3", "a/b", "-1/3", "1/3/5", ""])
def test_a_share_that_does_not_exist_is_refused(share: str) -> None:
    with pytest.raises(PipelineError, match="from 1/16 to 16/16"):
        share_of(share)


def test_under_torchrun_a_process_takes_its_own_share(monkeypatch: pytest.MonkeyPatch) -> None:
    assert share_of(None) is None
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RANK", "1")
    assert share_of(None) == Share(2, 3)
    assert own_share("abcdefg") == ["b", "e"]
    assert own_share("abcdefg", "1/1") == list("abcdefg")


def test_shares_of_one_folder_end_with_one_record_and_the_same_label_maps(
    cohort: Path, run: Path, predictions: Path, tmp_path: Path
) -> None:
    for number in (1, 2):
        result = segment([cohort], tmp_path / "out", bundle=run, device="cpu", share=f"{number}/2")
        assert len(result.done) == 3
    cases = json.loads((tmp_path / "out" / "run.json").read_text())["cases"]
    assert {name: case["status"] for name, case in cases.items()} == dict.fromkeys(cases, "done")
    assert len(cases) == 6
    for path in predictions.glob("*.nii.gz"):
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_torchrun_shares_the_cases_among_its_processes(
    cohort: Path, run: Path, predictions: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        "-m",
        "brats_pipeline",
    ]
    arguments = ["segment", str(cohort), "-o", str(out), "--bundle", str(run), "--device", "cpu"]
    subprocess.run([*command, *arguments], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300)
    cases = json.loads((out / "run.json").read_text())["cases"]
    assert {name: case["status"] for name, case in cases.items()} == dict.fromkeys(cases, "done")
    assert {path.name: path.read_bytes() for path in out.glob("*.nii.gz")} == {
        path.name: path.read_bytes() for path in predictions.glob("*.nii.gz")
    }
