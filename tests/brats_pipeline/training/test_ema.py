"""The average of the weights, against the recursion by hand, and as a run keeps it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from brats_pipeline.errors import PipelineError
from brats_pipeline.training.ema import WeightAverage, average_of
from brats_pipeline.weights import read_checkpoint


def steps(average: WeightAverage, network: torch.nn.Linear, values: list[float]) -> None:
    for value in values:
        with torch.no_grad():
            network.weight.fill_(value)
        average.take_in()


def test_it_follows_the_recursion_with_a_decay_that_rises() -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    average = WeightAverage(network, decay=0.3)
    values = [4.0, 8.0, -2.0, 1.0, 0.0, 7.0]
    steps(average, network, values)
    expected = values[0]
    for taken, value in enumerate(values[1:], start=1):
        decay = min(0.3, (1 + taken) / (10 + taken))
        expected = decay * expected + (1 - decay) * value
    assert average.module.weight.item() == pytest.approx(expected, rel=1e-6)
    assert network.weight.item() == 7.0, "the network itself is not touched"


def test_a_short_run_forgets_its_beginning() -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    average = WeightAverage(network, decay=0.9999)
    steps(average, network, [1000.0] + [1.0] * 30)
    assert average.module.weight.item() == pytest.approx(1.0, abs=0.1), "0.9999 of each step would leave 997"


def test_what_the_network_was_before_its_first_step_has_no_say() -> None:
    network = torch.nn.Linear(1, 1, bias=False)
    average = WeightAverage(network, decay=0.9)
    with torch.no_grad():
        network.weight.fill_(5.0)  # weights that are loaded after the average was made
    average.take_in()
    assert average.module.weight.item() == 5.0


def test_running_statistics_are_averaged_too() -> None:
    network = torch.nn.BatchNorm1d(1)
    average = WeightAverage(network, decay=0.5)
    for value in (0.0, 10.0):
        network.running_mean.fill_(value)
        average.take_in()
    assert 0 < average.module.running_mean.item() < 10


def test_no_decay_is_no_average_and_a_decay_of_one_is_refused() -> None:
    assert average_of(torch.nn.Linear(1, 1), decay=0.0) is None
    for decay in (1.0, -0.1, 1.5):
        with pytest.raises(ValueError, match=r"ema_decay is .*; give a number below 1"):
            average_of(torch.nn.Linear(1, 1), decay=decay)


def test_a_run_keeps_the_average_and_validates_it(toy: Callable[..., Any]) -> None:
    training = toy(decay=0.9, epochs=3, best_by="loss", lr=0.01)
    training.run()
    kept = read_checkpoint(training.recorder.best_path)
    assert kept.keys() == training.network.state_dict().keys()
    assert torch.equal(kept["weight"], training.recorder.average.module.weight)
    assert not torch.equal(kept["weight"], training.network.weight)
    assert torch.equal(read_checkpoint(training.recorder.last_path)["network"]["weight"], training.network.weight)
    with torch.no_grad():
        losses = [
            torch.nn.functional.binary_cross_entropy_with_logits(training.recorder.average.module(image), label)
            for image, label in ((batch["image"], batch["label"]) for batch in training.evaluator.data_loader)
        ]
    assert training.recorder.history[-1]["val_loss"] == pytest.approx(float(torch.stack(losses).mean()), rel=1e-5)


def test_a_resumed_run_has_the_average_of_an_uninterrupted_one_bit_for_bit(
    toy: Callable[..., Any], tmp_path: Any
) -> None:
    whole = toy(decay=0.9, epochs=4, out=tmp_path / "whole")
    whole.run()
    begun = toy(decay=0.9, epochs=4)
    begun.trainer.add_event_handler(
        "EPOCH_COMPLETED", lambda engine: engine.terminate() if engine.state.epoch == 2 else None
    )
    begun.run()
    resumed = toy(decay=0.9, epochs=4)
    resumed.recorder.attach(resumed.trainer)
    resumed.recorder.resume()
    assert resumed.trainer.state.epoch == 2
    resumed.trainer.run()
    for name in ("model.pt", "last.pt"):
        one, other = (read_checkpoint(root / "models" / name) for root in (tmp_path / "whole", tmp_path / "toy"))
        one, other = ({**content.get("average", content), **content.get("network", {})} for content in (one, other))
        assert one.keys() == other.keys()
        assert all(torch.equal(one[key], other[key]) for key in one)


def test_an_average_is_not_begun_in_the_middle_of_a_run(toy: Callable[..., Any]) -> None:
    toy(epochs=1).run()
    later = toy(epochs=2, decay=0.9)
    later.recorder.attach(later.trainer)
    with pytest.raises(PipelineError, match="cannot be continued"):
        later.recorder.resume()
