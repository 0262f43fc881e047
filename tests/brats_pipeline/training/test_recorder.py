"""The recorder on a network of one weight: what a checkpoint holds and what it refuses."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from brats_pipeline.errors import PipelineError
from brats_pipeline.training.train import train
from brats_pipeline.weights import read_checkpoint, write_checkpoint


def test_a_checkpoint_holds_plain_values_that_load_without_running_code(run: Path) -> None:
    content = torch.load(run / "models" / "last.pt", weights_only=True)
    assert {"network", "optimizer", "lr_scheduler", "history", "best", "epoch", "schema_version"} == set(content)
    assert content["epoch"] == len(content["history"]) == 4


def test_the_best_score_is_the_highest_of_the_curves(run: Path) -> None:
    content = read_checkpoint(run / "models" / "last.pt")
    assert content["best"] == max(row["val_dice"] for row in content["history"] if "val_dice" in row)


@pytest.mark.parametrize("damage", ["truncated", "another network", "incomplete"])
def test_a_checkpoint_that_cannot_be_continued_is_refused_and_kept(run: Path, tmp_path: Path, damage: str) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    last = copy / "models" / "last.pt"
    content = read_checkpoint(last)
    if damage == "truncated":
        last.write_bytes(last.read_bytes()[:1000])
    elif damage == "another network":
        write_checkpoint(last, {**content, "network": {"weight": torch.zeros(1)}})
    else:
        write_checkpoint(last, {name: value for name, value in content.items() if name != "history"})
    before = last.read_bytes()
    with pytest.raises(PipelineError, match=r"last\.pt: (this is no state dict|cannot be continued)"):
        train("brats_glioma_3d", copy, resume=True, device="cpu", overrides={"max_epochs": 6})
    assert last.read_bytes() == before
