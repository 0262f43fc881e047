"""Claims and turns: one process at a time, and a killed one leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from brats_pipeline.errors import PipelineError
from brats_pipeline.locking import claimed, taking_turns

HOLD = """
import sys, time
from pathlib import Path
from brats_pipeline.locking import {lock}
with {lock}(Path(sys.argv[1])):
    print("in", flush=True)
    time.sleep(600)
"""


def holder(lock: str, folder: Path) -> subprocess.Popen[str]:
    """A process that holds a lock by now, and would for ten minutes."""
    arguments = [sys.executable, "-c", HOLD.format(lock=lock), str(folder)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "in\n"
    return process


def test_a_claim_of_a_killed_process_is_free_again(tmp_path: Path) -> None:
    with holder("claimed", tmp_path) as other:
        with claimed(tmp_path) as ours:
            assert not ours
        other.kill()
        other.wait()
        with claimed(tmp_path) as ours:
            assert ours


def test_the_second_waits_for_its_turn_and_gets_it_when_the_first_is_killed(tmp_path: Path) -> None:
    waiting, entered = threading.Event(), threading.Event()

    def second() -> None:
        with taking_turns(tmp_path, on_wait=waiting.set):
            entered.set()

    with holder("taking_turns", tmp_path) as other:
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(60)
        assert not entered.wait(0.2)
        other.kill()
        other.wait()
        assert entered.wait(60)
        thread.join()


def test_turns_hold_while_the_folder_comes_and_goes(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "study"
    inside: list[int] = []
    together = []

    def enter() -> None:
        for _ in range(200):
            with taking_turns(folder):
                inside.append(1)
                together.append(len(inside))
                inside.pop()

    often = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # so that a folder is made and taken away between any two steps of another thread
    try:
        threads = [threading.Thread(target=enter) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(often)
    assert together == [1] * 1200, "never two at a time, and nobody is turned away"


def test_what_was_written_stays_and_what_was_not_is_not_there(tmp_path: Path) -> None:
    with taking_turns(tmp_path / "empty"):
        pass
    assert not (tmp_path / "empty").exists()
    with taking_turns(tmp_path / "full"):
        (tmp_path / "full" / "study.json").write_text("{}")
    assert (tmp_path / "full" / "study.json").read_text() == "{}"


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PipelineError, match="cannot be written"), taking_turns(tmp_path / "file" / "study"):
        pass


def test_a_claim_leaves_nothing_where_nothing_was_written(tmp_path: Path) -> None:
    with claimed(tmp_path / "new" / "run"), claimed(tmp_path / "new" / "run") as second:
        assert not second
    assert not list(tmp_path.iterdir())
