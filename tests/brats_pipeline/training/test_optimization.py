"""Optimizers and schedules by name: MONAI's and torch's own schedules are the oracles."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.optimizers import WarmupCosineSchedule
from torch.optim.lr_scheduler import MultiStepLR

from brats_pipeline.training.optimization import OPTIMIZERS, SCHEDULES, make_optimizer, make_schedule

EPOCHS, STEPS = 10, 7


def an_optimizer(lr: float = 0.4) -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def rates(optimizer: torch.optim.Optimizer, schedule: Any, steps: int, *, every: int = 1) -> list[float]:
    """The learning rate of each step; the schedule moves after every so many."""
    seen = []
    for step in range(1, steps + 1):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if step % every == 0:
            schedule.step()
    return seen


def of(name: str, **settings: Any) -> list[float]:
    optimizer = an_optimizer()
    return rates(optimizer, make_schedule(name, optimizer, epochs=EPOCHS, steps_per_epoch=STEPS, **settings), 70)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.35])
def test_cosine_is_monais(share: float) -> None:
    theirs = an_optimizer()
    warmup = max(1, int(share * EPOCHS * STEPS + 1e-9))
    schedule = WarmupCosineSchedule(theirs, warmup_steps=warmup, t_total=EPOCHS * STEPS, warmup_multiplier=0.1)
    assert of("cosine", warmup_share=share) == pytest.approx(rates(theirs, schedule, 70), rel=1e-12)


def test_steps_are_torchs_multi_step() -> None:
    theirs = an_optimizer()
    schedule = MultiStepLR(theirs, milestones=[3, 8], gamma=0.1)
    assert of("steps", drop_epochs=[3, 8]) == pytest.approx(rates(theirs, schedule, 70, every=STEPS))


def test_polynomial_falls_from_the_whole_to_nothing() -> None:
    seen = of("polynomial")
    assert seen == pytest.approx([0.4 * (1 - step / 70) ** 0.9 for step in range(70)])


def test_constant_stays_and_a_warm_up_rises_in_a_line_from_a_tenth() -> None:
    assert of("constant") == [0.4] * 70
    assert of("constant", warmup_share=0.1)[:9] == pytest.approx(
        [0.4 * (0.1 + 0.9 * i / 7) for i in range(7)] + [0.4] * 2
    )


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_resumed_schedule_goes_on_and_may_be_longer(name: str) -> None:
    def build(epochs: int) -> tuple[torch.optim.Optimizer, Any]:
        optimizer = an_optimizer()
        return optimizer, make_schedule(name, optimizer, epochs=epochs, steps_per_epoch=7, drop_epochs=[2, 4])

    first, schedule = build(4)
    rates(first, schedule, 14)
    later, resumed = build(6)
    later.load_state_dict(first.state_dict())
    resumed.load_state_dict(schedule.state_dict())
    whole, uninterrupted = build(6)
    expected = rates(whole, uninterrupted, 42)
    assert rates(later, resumed, 28)[1:] == pytest.approx(expected[15:])


def test_adam_adds_weight_decay_to_the_gradient_and_adamw_does_not() -> None:
    made = {
        name: make_optimizer(name, [torch.nn.Parameter(torch.ones(1))], lr=0.1, weight_decay=0.5) for name in OPTIMIZERS
    }
    for optimizer in made.values():
        (parameter,) = optimizer.param_groups[0]["params"]
        parameter.grad = torch.zeros(1)
        optimizer.step()
    value = {name: float(optimizer.param_groups[0]["params"][0].detach()) for name, optimizer in made.items()}
    assert value["adamw"] == pytest.approx(1 - 0.1 * 0.5)
    assert value["adam"] == pytest.approx(1 - 0.1)  # the first step of Adam is as long as the learning rate
    assert value["sgd"] == pytest.approx(1 - 0.1 * 0.5 * 1.99)  # Nesterov: gradient and momentum of it


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "cosinus"}, "schedule is 'cosinus'; known: cosine, polynomial, steps, constant"),
        ({"name": "steps"}, "needs drop_epochs"),
        ({"name": "cosine", "warmup_share": 1.0}, "warmup_share is 1.0"),
        ({"name": "cosine", "warmup_share": -0.1}, "warmup_share is -0.1"),
    ],
)
def test_an_impossible_schedule_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_schedule(settings.pop("name"), an_optimizer(), epochs=2, steps_per_epoch=2, **settings)


def test_an_unknown_optimizer_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="optimizer_name is 'lion'; known: adamw, adam, sgd"):
        make_optimizer("lion", [torch.nn.Parameter(torch.zeros(1))], lr=1.0)
