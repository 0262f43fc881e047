"""Metrics of the logits, against sums by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents

from brats_pipeline.training.handlers import ClipGradients
from brats_pipeline.training.logit_metrics import MeanLoss, PooledDice, TrainingLoss


def measured(metric: Any, batches: list[Any], epochs: int = 1) -> float:
    """Run the metric in an engine that fires the events of MONAI's."""

    def process(engine: Engine, batch: Any) -> Any:
        engine.state.output = batch
        engine.fire_event(IterationEvents.FORWARD_COMPLETED)
        engine.fire_event(IterationEvents.LOSS_COMPLETED)
        return batch

    engine = Engine(process)
    engine.register_events(*IterationEvents)
    metric.attach(engine, "value")
    engine.run(batches, max_epochs=epochs)
    return float(engine.state.metrics["value"])


def batch(logits: list[float], target: list[float], **more: Any) -> dict[str, Any]:
    """Two regions of as many voxels as half the numbers."""
    pred, label = (torch.tensor(values, dtype=torch.float32).reshape(1, 2, -1) for values in (logits, target))
    return {"pred": pred, "label": label, **more}


def test_dice_takes_the_voxels_of_all_batches_together() -> None:
    batches = [batch([1, -1, 3, 3], [1, 1, 0, 1]), batch([2, 2, -1, -1], [1, 0, 0, 1])]
    # region 1: 3 predicted, 3 in the reference, 2 in both; region 2: 2, 2 and 1.
    assert measured(PooledDice(), batches) == pytest.approx((2 * 2 / 6 + 2 * 1 / 4) / 2)


def test_every_epoch_is_measured_anew() -> None:
    batches = [batch([1, -1, 3, 3], [1, 1, 0, 1])]
    assert measured(PooledDice(), batches, epochs=3) == measured(PooledDice(), batches)


def test_a_region_that_is_nowhere_counts_as_right_and_a_false_one_as_wrong() -> None:
    assert measured(PooledDice(), [batch([1, 1, -1, -1], [1, 1, 0, 0])]) == 1.0
    assert measured(PooledDice(), [batch([1, 1, 1, -1], [1, 1, 0, 0])]) == 0.5


def test_of_several_levels_the_finest_is_measured() -> None:
    one = batch([1, -1, 3, 3], [1, 1, 0, 1])
    assert measured(PooledDice(), [{**one, "pred": [one["pred"], torch.zeros(1, 2, 1)]}]) == measured(
        PooledDice(), [one]
    )


def test_the_mean_loss_is_that_of_the_batches() -> None:
    loss = torch.nn.MSELoss()
    batches = [batch([1, 2, 3, 4], [1, 1, 1, 1]), batch([1, 1, 1, 1], [1, 1, 1, 1])]
    assert measured(MeanLoss(loss), batches) == pytest.approx((14 / 4 + 0) / 2)


def test_the_training_loss_is_the_mean_of_the_trainers_own() -> None:
    batches = [{"loss": torch.tensor(value)} for value in (1.0, 2.0, 6.0)]
    assert measured(TrainingLoss(), batches, epochs=2) == pytest.approx(3.0)


def test_gradients_are_scaled_down_together_but_never_up() -> None:
    network = torch.nn.Linear(2, 1)
    for norm, expected in ((50.0, 5.0), (0.1, 0.1)):
        network.weight.grad = torch.tensor([[3.0, 4.0]]) * norm / 5
        network.bias.grad = torch.zeros(1)
        ClipGradients(network, max_norm=5.0).clip()
        assert float(network.weight.grad.norm()) == pytest.approx(expected, rel=1e-4)
        assert float(network.weight.grad[0, 1] / network.weight.grad[0, 0]) == pytest.approx(4 / 3)
    with pytest.raises(ValueError, match="clip_norm is 0"):
        ClipGradients(network, max_norm=0)


def test_the_optimizer_sees_the_clipped_gradients(toy: Callable[..., Any]) -> None:
    plain = toy(epochs=1)
    norms: list[float] = []

    def look(engine: Any) -> None:
        norms.append(float(torch.cat([p.grad.flatten() for p in plain.network.parameters()]).norm()))

    ClipGradients(plain.network, max_norm=0.01).attach(plain.trainer)
    plain.trainer.add_event_handler(Events.ITERATION_COMPLETED, look)
    plain.run()
    assert norms == pytest.approx([0.01, 0.01], rel=1e-3)
