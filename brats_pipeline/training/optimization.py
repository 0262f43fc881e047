"""Optimizers and learning-rate schedules by name; both made to be named in a bundle's YAML."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial

import torch
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import LambdaLR

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "adamw": AdamW,
    "adam": Adam,
    "sgd": partial(SGD, momentum=0.99, nesterov=True),  # as nnU-Net (Isensee et al. 2021)
}
SCHEDULES = ("cosine", "polynomial", "steps", "constant")
WARMUP_FROM = 0.1
"""The share of the learning rate that a warm-up starts from."""


def make_optimizer(
    name: str, params: Iterable[torch.nn.Parameter], *, lr: float, weight_decay: float = 0.0
) -> Optimizer:
    """The optimizer of this name: ``adamw``, ``adam``, or ``sgd`` with Nesterov momentum 0.99.

    Args:
        name: as above.
        params: of the network.
        lr: learning rate, before the schedule.
        weight_decay: decoupled from the gradient for ``adamw``, else added to it.

    Raises:
        ValueError: unknown name.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer_name is {name!r}; known: {', '.join(OPTIMIZERS)}")
    return OPTIMIZERS[name](params, lr=lr, weight_decay=weight_decay)


def rate_factor(step: int, *, name: str, steps: int, warmup: int = 0, drops: Sequence[int] = ()) -> float:
    """What the learning rate is multiplied by before a step.

    First it rises in a line from a tenth. Then, where x goes from 0 to 1 over the rest: ``cosine`` is
    (1 + cos(pi x)) / 2, ``polynomial`` (1 - x)^0.9 (as nnU-Net), ``steps`` a tenth more often for each drop that is
    behind, ``constant`` 1.

    Args:
        step: steps taken so far.
        name: of the schedule.
        steps: of the whole training.
        warmup: steps of the rise.
        drops: steps after which ``steps`` falls.
    """
    if step < warmup:
        return WARMUP_FROM + (1 - WARMUP_FROM) * (step / warmup)
    x = min(1.0, (step - warmup) / max(1, steps - warmup))
    if name == "cosine":
        return max(0.0, 0.5 * (1.0 + math.cos(math.pi * x)))
    if name == "polynomial":
        return float((1 - x) ** 0.9)
    if name == "steps":
        return float(0.1 ** sum(step >= drop for drop in drops))
    return 1.0


def make_schedule(
    name: str,
    optimizer: Optimizer,
    *,
    epochs: int,
    steps_per_epoch: int,
    warmup_share: float = 0.0,
    drop_epochs: Sequence[int] = (),
) -> LambdaLR:
    """The schedule of this name (:func:`rate_factor`), to be stepped after every step of the optimizer.

    Its state dict holds no number of steps, so that a resumed run may ask for more epochs than before.

    Args:
        name: ``cosine``, ``polynomial``, ``steps`` or ``constant``.
        optimizer: whose learning rate is scheduled.
        epochs: of the whole training.
        steps_per_epoch: of the optimizer.
        warmup_share: part of all steps that the rise takes, from 0 up to but not 1; above 0 at least one step.
        drop_epochs: for ``steps``, the epochs after which the learning rate falls to a tenth.

    Raises:
        ValueError: unknown name, or a number out of range.
    """
    if name not in SCHEDULES:
        raise ValueError(f"schedule is {name!r}; known: {', '.join(SCHEDULES)}")
    if not 0 <= warmup_share < 1:
        raise ValueError(f"warmup_share is {warmup_share}; give a part of all steps, from 0 up to but not 1")
    if name == "steps" and not drop_epochs:
        raise ValueError("schedule steps needs drop_epochs, such as [30]: the epochs after which the rate falls")
    steps = epochs * steps_per_epoch
    warmup = max(1, math.floor(warmup_share * steps + 1e-9)) if warmup_share > 0 else 0
    drops = [epoch * steps_per_epoch for epoch in drop_epochs]
    return LambdaLR(optimizer, partial(rate_factor, name=name, steps=steps, warmup=warmup, drops=drops))
