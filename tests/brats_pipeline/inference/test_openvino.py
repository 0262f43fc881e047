"""OpenVINO: what holds for the other engines holds for it, seen in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize("speed", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_openvino_passes_what_other_engines_pass(speed: str, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    alone = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", str(tmp_path / "tests")]
    done = subprocess.run(
        [*alone, "-k", "[openvino", "-m", speed, str(Path(__file__).parent)],
        env={**os.environ, "BRATS_PIPELINE_ENGINE": "openvino"},
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout
