"""Whole cases: one that cannot be loaded is told with its reason, and the others come in order, loaded ahead."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.transforms import Compose, Transform

from brats_pipeline.data.cohort import CohortDataset, CohortLoader, raise_failures
from brats_pipeline.errors import PipelineError


class Load(Transform):
    """Pretends to load a case: a cube that holds its number; case 9 is broken, case 8 is a defect of the code."""

    def __init__(self) -> None:
        self.loaded: list[int] = []

    def __call__(self, item: dict[str, Any]) -> dict[str, Any]:
        number = int(item["number"])
        self.loaded.append(number)
        if number == 9:
            raise PipelineError("the file is truncated")
        if number == 8:
            raise ZeroDivisionError("a defect")
        return {**item, "image": torch.full((1, 2, 2, 2), float(number))}


def items(*numbers: int) -> list[dict[str, Any]]:
    return [{"case_id": f"case {number}", "number": number} for number in numbers]


def test_in_a_cohort_a_broken_case_becomes_its_reason() -> None:
    data = CohortDataset(items(0, 9, 1), Compose([Load()]))
    assert data[1] == {"case_id": "case 9", "failure": "the file is truncated"}
    assert "failure" not in data[0]
    assert "failure" not in data[2]


def test_a_defect_of_the_code_is_told_from_one_of_the_data_by_its_type_and_leaves_a_traceback(
    caplog: pytest.LogCaptureFixture,
) -> None:
    data = CohortDataset(items(0, 8), Compose([Load()]))
    with caplog.at_level("DEBUG", logger="brats_pipeline.data.cohort"):
        assert data[1] == {"case_id": "case 8", "failure": "ZeroDivisionError: a defect"}
    (record,) = (record for record in caplog.records if record.name == "brats_pipeline.data.cohort")
    assert record.levelname == "DEBUG"
    assert "case 8" in record.getMessage()
    assert record.exc_info


def test_an_item_with_a_defect_is_a_failure_that_nobody_tries_to_load() -> None:
    data = CohortDataset([items(0)[0] | {"defect": "lacks t2"}], Compose([Load()]))
    assert data[0] == {"case_id": "case 0", "failure": "lacks t2"}
    assert data.transform.transforms[0].loaded == []


def test_failures_are_raised_together_and_none_is_no_error() -> None:
    raise_failures({})
    with pytest.raises(PipelineError, match=r"2 cases failed.*a: lacks t2; b: is torn"):
        raise_failures({"a": "lacks t2", "b": "is torn"})


def test_of_processes_that_share_a_cohort_none_ends_the_others_over_a_failure(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    raise_failures({"a": "lacks t2"})
    assert "1 cases failed, the others are finished: a: lacks t2" in caplog.text
    monkeypatch.setattr("torch.distributed.is_initialized", lambda: True)
    with pytest.raises(PipelineError, match="lacks t2"):
        raise_failures({"a": "lacks t2"})


def test_a_case_says_what_its_files_hold(tmp_path: Path) -> None:
    contents = [b"one", b"two"]
    for number, content in enumerate(contents):
        (tmp_path / str(number)).write_bytes(content)
    paths = [str(tmp_path / str(number)) for number in range(2)]
    (case,) = CohortDataset([items(0)[0] | {"image": paths}], Compose([Load()]))
    assert case["image_sha256"].split("\n") == [hashlib.sha256(content).hexdigest() for content in contents]
    assert 0 <= case["load_seconds"] < 10


def names(batches: Any) -> list[str]:
    return [name for batch in batches for name in batch["case_id"]]


@pytest.mark.parametrize("ahead", [1, 3, 20])
def test_cases_come_in_order_and_again_in_every_epoch(ahead: int) -> None:
    loader = CohortLoader(CohortDataset(items(*range(7)), Compose([Load()])), ahead=ahead, batch_size=1)
    for _ in range(2):
        assert names(loader) == [f"case {number}" for number in range(7)]


def test_as_many_cases_are_loaded_at_a_time_as_asked_for_and_no_more() -> None:
    together = threading.Barrier(3, timeout=10)
    load = Load()

    def meet(item: dict[str, Any]) -> dict[str, Any]:
        if item["number"] < 3:
            together.wait()  # passes only where three threads load at once
        return item

    loader = iter(CohortLoader(CohortDataset(items(*range(9)), Compose([load, meet])), ahead=3, batch_size=1))
    assert next(loader)["number"].tolist() == [0]
    assert len(load.loaded) <= 4
    loader.close()


def test_a_broken_case_comes_in_its_place() -> None:
    loader = CohortLoader(CohortDataset(items(0, 9, 1), Compose([Load()])), batch_size=1)
    assert [batch.get("failure") for batch in loader] == [None, ["the file is truncated"], None]


def test_an_error_of_the_data_set_is_raised_where_its_batch_is_due() -> None:
    class Broken(CohortDataset):
        def _transform(self, index: int) -> Any:
            if index == 2:
                raise MemoryError
            return super()._transform(index)

    batches = iter(CohortLoader(Broken(items(0, 1, 2, 3), Compose([Load()])), batch_size=1))
    assert [next(batches)["number"].tolist() for _ in range(2)] == [[0], [1]]
    with pytest.raises(MemoryError):
        next(batches)


def test_loading_nothing_ahead_is_refused() -> None:
    with pytest.raises(ValueError, match="ahead is 0"):
        CohortLoader(CohortDataset(items(0), Compose([Load()])), ahead=0)
