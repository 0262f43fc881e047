"""The demo: the whole loop, and its honesty about a network that learned nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from brats_pipeline import demo
from brats_pipeline.cli import run
from brats_pipeline.errors import PipelineError


@pytest.mark.slow
def test_a_network_that_learned_nothing_is_called_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hardly = {"max_epochs": 1, "patches_per_epoch": 2, "val_interval": 1}
    monkeypatch.setattr(demo, "SETTINGS", demo.SETTINGS | hardly)
    monkeypatch.setattr(demo, "CASES", 8)
    assert run(["demo", "-o", str(tmp_path / "demo"), "-q"]) == 1
    assert "has not learned enough" in capsys.readouterr().err
    assert (tmp_path / "demo" / "report" / "report.html").is_file()


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(PipelineError, match="holds no demo"):
        demo.run_demo(tmp_path, seed=0, quiet=True, say=print)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"
