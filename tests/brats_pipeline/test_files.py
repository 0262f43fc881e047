"""Files are whole or not there; what a killed process left goes, and nothing else does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from brats_pipeline.errors import PipelineError
from brats_pipeline.files import remove_leftovers, write_atomically

KILLED = """
import os, signal, sys
from brats_pipeline import files
files.os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)
files.write_atomically(sys.argv[1], b"half")
"""


def test_what_a_killed_write_left_is_removed_and_what_lies_beside_it_stays(tmp_path: Path) -> None:
    others = [".last.pt", "last.pt.a1b2c3d4", ".model.pt.a1b2c3d4", ".last.pt.notes.txt"]
    for name in others:
        (tmp_path / name).write_text("mine")
    subprocess.run([sys.executable, "-c", KILLED, tmp_path / "last.pt"], check=False)
    assert len(list(tmp_path.iterdir())) == len(others) + 1
    remove_leftovers(tmp_path / "last.pt")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)
    remove_leftovers(tmp_path / "nowhere" / "last.pt")


def test_no_file_takes_the_place_of_a_device_or_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(PipelineError, match="pipe is a device or a pipe"):
        write_atomically(tmp_path / "pipe", b"whole")
    assert (tmp_path / "pipe").is_fifo()
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]
