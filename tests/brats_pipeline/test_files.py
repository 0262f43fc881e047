"""What a killed process left of a file goes, and nothing else does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from brats_pipeline.files import remove_leftovers

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
