"""The recorder on a network of one weight: what a checkpoint holds and what it refuses."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from brats_pipeline.errors import PipelineError
from brats_pipeline.training.optimization import rate_factor
from brats_pipeline.training.train import train
from brats_pipeline.weights import read_checkpoint, write_checkpoint


def test_a_checkpoint_holds_plain_values_that_load_without_running_code(run: Path) -> None:
    content = torch.load(run / "models" / "last.pt", weights_only=True)
    state = {"network", "optimizer", "optimizer_class", "lr_scheduler"}
    assert {*state, "history", "best", "epoch", "schema_version"} == set(content)
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


def resumed(training: Any) -> Any:
    training.recorder.attach(training.trainer)
    training.recorder.resume()
    return training


def test_a_resumed_training_obeys_the_settings_of_today(toy: Callable[..., Any]) -> None:
    toy(epochs=2).run()
    again = toy(epochs=4, lr=0.3)
    again.optimizer.param_groups[0]["weight_decay"] = 0.5
    group = resumed(again).optimizer.param_groups[0]
    assert group["weight_decay"] == 0.5
    assert group["lr"] == pytest.approx(0.3 * rate_factor(4, name="cosine", steps=8))
    assert len(again.optimizer.state) == 2, "the moments go on"


def test_the_same_settings_leave_the_optimizer_as_it_was(toy: Callable[..., Any]) -> None:
    first = toy(epochs=3)
    first.run()
    assert resumed(toy(epochs=3)).optimizer.state_dict()["param_groups"] == first.optimizer.state_dict()["param_groups"]


@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_another_optimizer_is_refused_in_words(toy: Callable[..., Any], kind: Any) -> None:
    toy(epochs=2).run()
    again = toy(epochs=4)
    again.recorder.optimizer = kind(again.network.parameters(), lr=0.1)
    with pytest.raises(PipelineError, match=rf"optimizer_name asks for {kind.__name__}, the run was begun with AdamW"):
        resumed(again)
