"""Which epoch is kept, and when a training ends early; on a training of milliseconds."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from brats_pipeline.errors import PipelineError
from brats_pipeline.weights import read_checkpoint


def staged(training: Any, dice: Sequence[float], losses: Sequence[float]) -> list[torch.Tensor]:
    """Let the validations come to these values; returns the weights of each epoch, as they come."""
    weights: list[torch.Tensor] = []

    def measure(engine: Any) -> None:
        epoch = engine.state.epoch
        engine.state.metrics["val_mean_dice"] = dice[epoch - 1]
        engine.state.metrics["val_loss"] = losses[epoch - 1]
        weights.append(training.network.weight.detach().clone())

    training.evaluator.add_event_handler("EPOCH_COMPLETED", measure)
    return weights


DICE, LOSSES = [0.2, 0.6, 0.5, 0.4, 0.7], [1.0, 0.9, 0.3, 0.5, 0.8]


@pytest.mark.parametrize(("best_by", "best"), [("dice", 5), ("loss", 3)])
def test_the_best_epoch_is_that_of_the_highest_dice_or_of_the_lowest_loss(
    toy: Callable[..., Any], best_by: str, best: int
) -> None:
    training = toy(epochs=5, best_by=best_by)
    weights = staged(training, DICE, LOSSES)
    training.run()
    assert torch.equal(read_checkpoint(training.recorder.best_path)["weight"], weights[best - 1])
    assert training.recorder.best_dice == 0.7, "whatever decides"


def test_the_table_holds_loss_and_dice_of_training_and_validation(toy: Callable[..., Any]) -> None:
    training = toy(epochs=4, interval=2)
    training.run()
    with (training.recorder.run_dir / "curves.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [bool(row["val_loss"]) for row in rows] == [False, True, False, True]
    assert all(0 <= float(row["train_dice"]) <= 1 for row in rows)
    logits = torch.cat([training.network(batch["image"]) for batch in training.evaluator.data_loader])
    labels = torch.cat([batch["label"] for batch in training.evaluator.data_loader])
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
    assert float(rows[-1]["val_loss"]) == pytest.approx(float(expected.detach()), rel=1e-4)


def test_it_stops_after_so_many_validations_without_a_better_one(toy: Callable[..., Any]) -> None:
    training = toy(epochs=5, early_stopping=2)
    weights = staged(training, DICE, LOSSES)
    training.run()
    assert training.trainer.state.epoch == 4, "epochs 3 and 4 were no better than 2"
    assert torch.equal(read_checkpoint(training.recorder.best_path)["weight"], weights[1])


def test_patience_counts_validations_not_epochs(toy: Callable[..., Any]) -> None:
    training = toy(epochs=8, interval=2, early_stopping=2)
    staged(training, [0, 0.5, 0, 0.4, 0, 0.3, 0, 0.9], [1.0] * 8)
    training.run()
    assert training.trainer.state.epoch == 6


def test_a_run_that_stopped_early_is_not_continued_unless_it_may_wait_longer(toy: Callable[..., Any]) -> None:
    first = toy(epochs=5, early_stopping=2)
    staged(first, DICE, LOSSES)
    first.run()
    before = first.recorder.last_path.read_bytes()
    again = toy(epochs=5, early_stopping=2)
    again.recorder.attach(again.trainer)
    again.recorder.resume()
    again.trainer.run()
    assert first.recorder.last_path.read_bytes() == before
    patient = toy(epochs=5, early_stopping=3)
    staged(patient, DICE, LOSSES)
    patient.recorder.attach(patient.trainer)
    patient.recorder.resume()
    patient.trainer.run()
    assert [row["epoch"] for row in patient.recorder.history] == [1, 2, 3, 4, 5]
    assert patient.recorder.best_dice == 0.7


@pytest.mark.parametrize("end", [2, 3, 4])
def test_waiting_goes_on_where_a_killed_run_left_it(toy: Callable[..., Any], end: int) -> None:
    killed = toy(epochs=5, early_stopping=2)
    staged(killed, DICE, LOSSES)
    killed.trainer.add_event_handler(
        "EPOCH_COMPLETED", lambda engine: engine.terminate() if engine.state.epoch == end else None
    )
    killed.run()
    resumed = toy(epochs=5, early_stopping=2)
    staged(resumed, DICE, LOSSES)
    resumed.recorder.attach(resumed.trainer)
    resumed.recorder.resume()
    resumed.trainer.run()
    assert [row["epoch"] for row in resumed.recorder.history] == [1, 2, 3, 4]


def test_without_validation_the_last_epoch_is_kept_and_nothing_stops(toy: Callable[..., Any]) -> None:
    training = toy(epochs=3, early_stopping=1)
    training.recorder.evaluator = None
    training.run()
    assert training.trainer.state.epoch == 3
    assert torch.equal(read_checkpoint(training.recorder.best_path)["weight"], training.network.weight)
    assert training.recorder.best_dice is None
    assert read_checkpoint(training.recorder.last_path)["best"] == -math.inf


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"best_by": "iou"}, "best_by is 'iou'; known: dice, loss"), ({"early_stopping": 0}, "early_stopping is 0")],
)
def test_an_impossible_choice_is_refused(toy: Callable[..., Any], settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        toy(**settings)


def test_a_validation_that_is_no_number_is_worse_than_every_other(toy: Callable[..., Any]) -> None:
    training = toy(epochs=4, early_stopping=3)
    weights = staged(training, [math.nan, 0.2, 0.6, math.nan], [1.0] * 4)
    training.run()
    assert torch.equal(read_checkpoint(training.recorder.best_path)["weight"], weights[2])
    assert training.trainer.state.epoch == 4
    assert training.recorder.best_dice == 0.6


def test_a_validation_loss_that_is_no_number_ends_the_training_at_the_epoch_before(toy: Callable[..., Any]) -> None:
    training = toy(epochs=4)
    weights = staged(training, DICE, [1.0, 0.9, math.nan, 0.5])
    with pytest.raises(PipelineError, match=r"validation loss became nan in epoch 3; the checkpoint .* is kept"):
        training.run()
    last = read_checkpoint(training.recorder.last_path)
    assert last["epoch"] == 2
    assert torch.equal(last["network"]["weight"], weights[1])


def test_a_weight_that_is_no_finite_number_is_never_kept(toy: Callable[..., Any]) -> None:
    training = toy(epochs=3, interval=5)

    def spoil(engine: Any) -> None:
        if engine.state.epoch == 2:
            training.network.bias.data.fill_(math.inf)

    training.trainer.add_event_handler("EPOCH_COMPLETED", spoil)
    with pytest.raises(PipelineError, match=r"a weight of bias is no finite number any more in epoch 2"):
        training.run()
    assert read_checkpoint(training.recorder.last_path)["epoch"] == 1
