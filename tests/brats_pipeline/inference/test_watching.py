"""Exams that arrive in a folder: segmented once they are whole, once each, and again when they change."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from brats_pipeline.errors import PipelineError
from brats_pipeline.inference.result import Segmentation
from brats_pipeline.inference.watching import watch

CASES = ["BraTS2021_00001", "BraTS2021_00002"]


class World:
    """A folder, a clock that moves only when the watcher waits, and things that happen at its ticks."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.time = 1_000_000.0
        self.events: list[Any] = []

    def sleep(self, seconds: float) -> None:
        self.time += seconds
        if not self.events:
            raise KeyboardInterrupt
        event = self.events.pop(0)
        if event is not None:
            for path in [*(changed := event()).rglob("*"), changed]:
                os.utime(path, (self.time, self.time))

    def rounds(self, out: Path, **arguments: Any) -> Iterator[Segmentation]:
        with pytest.raises(KeyboardInterrupt):
            yield from watch(
                self.folder, out, settle=5, every=3, sleep=self.sleep, now=lambda: self.time, device="cpu", **arguments
            )


@pytest.fixture
def world(tmp_path: Path) -> World:
    (tmp_path / "arriving").mkdir()
    return World(tmp_path / "arriving")


def test_a_case_is_segmented_once_when_its_files_have_come_to_rest(
    world: World, cohort: Path, run: Path, predictions: Path, tmp_path: Path
) -> None:
    waited: list[float] = []
    world.events = [
        lambda: shutil.copytree(cohort / CASES[0], world.folder / CASES[0]),
        None,
        None,
        lambda: shutil.copytree(cohort / CASES[1], world.folder / CASES[1]),
        None,
        None,
        None,
    ]
    seen = []
    for result in world.rounds(tmp_path / "out", bundle=run):
        seen.append(result.done)
        waited.append(world.time - 1_000_000)
    assert seen == [[CASES[0]], [CASES[1]]]
    assert waited == [9, 18], "arrived at 3 and 12, and lay still for at least 5 seconds"
    for name in CASES:
        assert (tmp_path / "out" / f"{name}.nii.gz").read_bytes() == (predictions / f"{name}.nii.gz").read_bytes()


def test_a_bad_case_is_told_once_and_tried_again_when_it_was_mended(
    world: World, cohort: Path, run: Path, tmp_path: Path
) -> None:
    def spoilt() -> Path:
        case = shutil.copytree(cohort / CASES[0], world.folder / CASES[0])
        scan = case / f"{CASES[0]}_t2.nii.gz"
        scan.write_bytes(scan.read_bytes()[:500])
        return case

    def mended() -> Path:
        shutil.copy(cohort / CASES[0] / f"{CASES[0]}_t2.nii.gz", world.folder / CASES[0])
        return world.folder / CASES[0]

    world.events = [spoilt, None, None, None, None, mended, None, None, None]
    results = list(world.rounds(tmp_path / "out", bundle=run))
    assert [set(result.failed) for result in results] == [{CASES[0]}, set()]
    assert [result.done for result in results] == [[], [CASES[0]]]


def test_what_keeps_a_folder_from_being_read_is_told_once_and_nothing_is_lost(
    world: World, cohort: Path, run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    twice = world.folder / "again" / CASES[0]

    def arrives_twice() -> Path:
        shutil.copytree(cohort / CASES[0], world.folder / CASES[0])
        shutil.copytree(cohort / CASES[0], twice)
        return world.folder

    def goes() -> Path:
        shutil.rmtree(twice.parent)
        return world.folder

    world.events = [arrives_twice, None, None, None, goes, None, None, None]
    results = list(world.rounds(tmp_path / "out", bundle=run))
    assert [result.done for result in results] == [[CASES[0]]]
    (told,) = [message for message in caplog.messages if "until this is mended" in message]
    assert f"two cases are called {CASES[0]}" in told


def test_a_case_that_is_refused_is_told_once_and_does_not_keep_others_waiting(
    world: World, cohort: Path, run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def first_arrives() -> Path:
        return shutil.copytree(cohort / CASES[0], world.folder / CASES[0])

    def first_is_tidied_away_and_second_arrives() -> Path:
        shutil.move(world.folder / CASES[0], world.folder / "seen" / CASES[0])
        return shutil.copytree(cohort / CASES[1], world.folder / CASES[1])

    world.events = [first_arrives, None, None, first_is_tidied_away_and_second_arrives, None, None, None, None]
    results = list(world.rounds(tmp_path / "out", bundle=run))
    assert [result.done for result in results] == [[CASES[0]], [CASES[1]]]
    (told,) = [message for message in caplog.messages if "already holds a prediction" in message]
    assert told.startswith(f"{CASES[0]}: ")


def test_shares_of_a_folder_that_is_watched_are_refused(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PipelineError, match="let one process watch it"):
        next(watch(world.folder, tmp_path / "out", share="1/2"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(PipelineError, match="let one process watch it"):
        next(watch(world.folder, tmp_path / "out"))


def test_what_cannot_be_watched_is_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="no such folder to watch"):
        next(watch(tmp_path / "nowhere", tmp_path / "out"))
    with pytest.raises(PipelineError, match="lies within the watched folder"):
        next(watch(world.folder, world.folder / "out"))
