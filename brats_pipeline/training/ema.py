"""A moving average of a network's weights: it validates better than the weights of any single step.

Polyak and Juditsky, SIAM J. Control Optim. 1992; the exponential form and its warm-up as in Tarvainen and Valpola,
NeurIPS 2017, arXiv:1703.01780.
"""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine, Events
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


class WeightAverage(AveragedModel):
    """Exponential moving average of parameters and buffers; a MONAI handler that takes in every step.

    The first step is copied. After t steps the decay is ``min(decay, (1 + t) / (10 + t))``, so that a short run does
    not drag its random beginning along. ``.module`` is the averaged network.

    Args:
        network: to average; it is copied, not changed.
        decay: share of the average that a step leaves, above 0 and below 1.

    Raises:
        ValueError: ``decay`` is outside.
    """

    def __init__(self, network: nn.Module, *, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"ema_decay is {decay}; give a number below 1 such as 0.999, or 0 for no average")
        super().__init__(network, multi_avg_fn=self._mix, use_buffers=True)
        self.decay = decay
        self.source = [network]  # in a list, so that it is no part of this module

    def attach(self, engine: Engine) -> None:
        """Take in the network after every step of the trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.take_in)

    def take_in(self, engine: Engine | None = None) -> None:
        """Move the average towards the network as it is now."""
        self.update_parameters(self.source[0])

    def _mix(self, averaged: Any, current: Any, steps: Any) -> None:
        steps_before = int(self.n_averaged)  # on the CPU, where reading it waits for nothing
        decay = min(self.decay, (1 + steps_before) / (10 + steps_before))
        get_ema_multi_avg_fn(decay)(averaged, current, steps)  # type: ignore[no-untyped-call]


def average_of(network: nn.Module, *, decay: float) -> WeightAverage | None:
    """The :class:`WeightAverage` of a network, None where the decay is 0; made to be named in a bundle's YAML."""
    return None if decay == 0 else WeightAverage(network, decay=decay)
