"""Data sets and loader: seeded patches, named cases, and errors that are heard."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from monai.transforms import Compose, RandSpatialCropd, Transform

from brats_pipeline.data.datasets import CaseDataset, PatchDataset, PrefetchLoader
from brats_pipeline.errors import CaseError, PipelineError
from transforms.slice_stack import SliceMajord


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
        return {**item, "image": torch.arange(1000.0).reshape(1, 10, 10, 10) + 1000 * number}


def items(*numbers: int) -> list[dict[str, Any]]:
    return [{"case_id": f"case {number}", "number": number} for number in numbers]


def patches(*numbers: int, seed: int = 0, length: int = 12) -> PatchDataset:
    crop = RandSpatialCropd("image", roi_size=[4, 4, 4], random_size=False)
    return PatchDataset(items(*numbers), Compose([Load(), crop]), patches_per_epoch=length, seed=seed)


def test_a_patch_depends_on_seed_epoch_and_number_alone() -> None:
    one, other = patches(0, 1, 2), patches(0, 1, 2)
    forwards = [one[number]["image"] for number in range(12)]
    backwards = [other[number]["image"] for number in reversed(range(12))][::-1]
    assert all(torch.equal(first, second) for first, second in zip(forwards, backwards, strict=True))


def test_epochs_and_seeds_draw_other_patches() -> None:
    one, other = patches(0, 1, 2), patches(0, 1, 2, seed=1)
    first = [float(one[number]["image"][0, 0, 0, 0]) for number in range(12)]
    one.set_epoch(2)
    second = [float(one[number]["image"][0, 0, 0, 0]) for number in range(12)]
    assert first != second
    assert first != [float(other[number]["image"][0, 0, 0, 0]) for number in range(12)]
    assert len(set(first)) > 6


def test_every_case_is_drawn_equally_often_even_where_epochs_are_shorter_than_the_cohort() -> None:
    data = patches(0, 1, 2, 3, 4, length=2)
    drawn: Counter[int] = Counter()
    for epoch in range(1, 6):
        data.set_epoch(epoch)
        drawn.update(data[number]["number"] for number in range(2))
    assert drawn == dict.fromkeys(range(5), 2)


def test_every_case_is_loaded_once() -> None:
    data = patches(0, 1, 2)
    for number in range(12):
        data[number]
    assert sorted(data.transform.transforms[0].loaded) == [0, 1, 2]


def test_the_cache_keeps_the_layout_that_preprocessing_chose() -> None:
    class SeeStrides(RandSpatialCropd):
        def __call__(self, item: Any, lazy: bool | None = None) -> dict[str, Any]:
            return {**item, "strides": item["image"].stride()}

    see = SeeStrides("image", roi_size=[4, 4, 4])
    data = PatchDataset(items(0), Compose([Load(), SliceMajord("image"), see]), patches_per_epoch=1)
    assert data[0]["strides"] == (100, 10, 1, 100)


def test_a_patch_of_a_broken_case_names_the_case() -> None:
    with pytest.raises(CaseError, match="case 9: the file is truncated"):
        patches(9)[0]


def test_patches_of_nothing_are_refused() -> None:
    with pytest.raises(PipelineError, match="no case to train on"):
        patches()
    with pytest.raises(ValueError, match="at least 1"):
        patches(0, length=0)
    with pytest.raises(IndexError):
        patches(0)[12]


def test_in_validation_a_broken_case_is_an_error_that_names_it() -> None:
    data = CaseDataset(items(0, 9), Compose([Load()]))
    assert data[0]["number"] == 0
    with pytest.raises(CaseError, match="case 9: the file is truncated"):
        data[1]


def test_validation_cases_are_loaded_once() -> None:
    data = CaseDataset(items(0, 1), Compose([Load()]))
    for _ in range(3):
        assert [data[0]["number"], data[1]["number"]] == [0, 1]
    assert sorted(data.transform.transforms[0].loaded) == [0, 1]


def test_the_loader_gives_every_batch_in_order() -> None:
    loader = PrefetchLoader(CaseDataset(items(0, 1, 2, 3, 4), Compose([Load()])), batch_size=2, num_workers=0)
    for _ in range(2):  # every epoch anew
        assert [batch["number"].tolist() for batch in loader] == [[0, 1], [2, 3], [4]]


@pytest.mark.parametrize(("number", "kind"), [(9, PipelineError), (8, RuntimeError)])
def test_an_error_in_the_loaders_thread_is_raised_and_no_end_of_the_data(number: int, kind: type[Exception]) -> None:
    loader = PrefetchLoader(patches(0, number, length=8), batch_size=1, num_workers=0)
    with pytest.raises(kind):
        list(loader)


def test_a_loader_may_be_left_early() -> None:
    loader = PrefetchLoader(patches(0, 1), batch_size=1, num_workers=0)
    for batch in loader:
        assert np.prod(batch["image"].shape) == 64
        break
    assert len(list(loader)) == 12
