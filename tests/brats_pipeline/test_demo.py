"""The demo: the whole loop, and its honesty about a network that learned nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from brats_pipeline import demo
from brats_pipeline.bundles import bundle_path, weights_path
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
    said = capsys.readouterr()
    assert "has not learned enough" in said.err
    assert (tmp_path / "demo" / "report" / "report.html").is_file()
    comes_with_weights = weights_path(bundle_path(demo.BUNDLE)).is_file()
    assert (tmp_path / "demo" / "shipped" / "report" / "report.html").is_file() == comes_with_weights
    assert ("passed over: brats_glioma_3d comes without weights" in said.out) != comes_with_weights


@pytest.mark.slow
def test_the_network_learns_whatever_the_defaults_of_the_bundle_become(tmp_path: Path) -> None:
    """``make demo`` fails where it does not: two minutes on two cores."""
    assert run(["demo", "-o", str(tmp_path / "demo"), "-q"]) == 0


def test_without_weights_the_last_step_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "weights_path", lambda bundle: tmp_path / "absent.pt")
    said: list[str] = []
    assert demo._with_real_weights(tmp_path / "shipped", seed=0, say=said.append) is None
    assert said == [
        "6/6  passed over: brats_glioma_3d comes without weights here, as in every wheel; a checkout has them"
    ]
    assert not (tmp_path / "shipped").exists()


def test_a_folder_with_other_things_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(PipelineError, match="holds no demo"):
        demo.run_demo(tmp_path, seed=0, quiet=True, say=print)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_what_is_no_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").write_text("mine")
    for name in ("link", "file"):
        with pytest.raises(PipelineError, match=f"{name} is no folder"):
            demo.run_demo(tmp_path / name, seed=0, quiet=True, say=print)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "mine"
