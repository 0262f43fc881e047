"""Metrics of MONAI's engines that are taken from the logits, before any post-processing.

They attach as ignite's metrics do, cost a few sums per batch and wait for the device once per epoch. Under several
processes the epoch is that of all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch import Tensor

from brats_pipeline.training.distributed import sum_over_processes


class _OverEpoch:
    """Add a tensor per batch, and make one number of the sum behind the last."""

    event = IterationEvents.FORWARD_COMPLETED

    def __init__(self) -> None:
        self.sums: Tensor | None = None

    def attach(self, engine: Engine, name: str) -> None:
        """Register with a trainer or evaluator; the value appears as ``engine.state.metrics[name]``."""
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(self.event, self._add)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish, name)

    def _start(self, engine: Engine) -> None:
        self.sums = None

    @torch.no_grad()
    def _add(self, engine: Engine) -> None:
        assert isinstance(engine.state.output, dict)
        more = self.measure(engine.state.output)
        self.sums = more if self.sums is None else self.sums + more

    def _finish(self, engine: Engine, name: str) -> None:
        assert self.sums is not None
        engine.state.metrics[name] = self.result(sum_over_processes(self.sums))

    def measure(self, output: dict[str, Any]) -> Tensor:
        """What a batch adds."""
        raise NotImplementedError

    def result(self, sums: Tensor) -> float:
        """The number that all batches come to."""
        raise NotImplementedError


class TrainingLoss(_OverEpoch):
    """Mean over the steps of the loss that the trainer has computed."""

    event = IterationEvents.LOSS_COMPLETED

    def measure(self, output: dict[str, Any]) -> Tensor:
        return _counted(output["loss"])

    def result(self, sums: Tensor) -> float:
        return float(sums[0] / sums[1])


class MeanLoss(_OverEpoch):
    """Mean of a loss over the batches; with whole cases, one per batch, over the cases.

    Args:
        loss: takes logits and target ``(N, R, *spatial)``.
    """

    def __init__(self, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.loss = loss

    def measure(self, output: dict[str, Any]) -> Tensor:
        return _counted(self.loss(*_finest(output)))

    def result(self, sums: Tensor) -> float:
        return float(sums[0] / sums[1])


class PooledDice(_OverEpoch):
    """Dice of logits above 0, the voxels of an epoch taken together per region, then the mean over the regions.

    A region that is neither in the reference nor predicted counts as 1.
    """

    def measure(self, output: dict[str, Any]) -> Tensor:
        logits, target = _finest(output)
        predicted, reference = logits > 0, target > 0.5
        axes = (0, *range(2, logits.ndim))
        return torch.stack([(predicted & reference).sum(axes), predicted.sum(axes) + reference.sum(axes)])

    def result(self, sums: Tensor) -> float:
        both, either = sums.double()
        return float(torch.where(either > 0, 2 * both / either.clamp(min=1), 1.0).mean())


def _counted(value: Tensor) -> Tensor:
    return torch.stack([value.detach().double(), torch.ones((), dtype=torch.float64, device=value.device)])


def _finest(output: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Logits (the finest where there are several levels) and target, both plain tensors on one device."""
    logits = output["pred"][0] if isinstance(output["pred"], list) else output["pred"]
    return _plain(logits), _plain(output["label"]).to(logits.device)


def _plain(tensor: Tensor) -> Tensor:
    plain: Tensor = tensor.as_tensor() if hasattr(tensor, "as_tensor") else tensor
    return plain
