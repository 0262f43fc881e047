"""Handlers of the trainer that MONAI has not."""

from __future__ import annotations

from ignite.engine import Engine
from monai.engines.utils import IterationEvents
from torch import nn


class ClipGradients:
    """Scale the gradients of a step down to a norm, before the optimizer sees them.

    Pascanu et al., ICML 2013, arXiv:1211.5063.

    Args:
        network: its parameters are taken together.
        max_norm: Euclidean norm that the gradients may have.

    Raises:
        ValueError: ``max_norm`` is not positive.
    """

    def __init__(self, network: nn.Module, *, max_norm: float) -> None:
        if not max_norm > 0:
            raise ValueError(f"clip_norm is {max_norm}; give a positive number such as 12, or null for no clipping")
        self.network = network
        self.max_norm = max_norm

    def attach(self, engine: Engine) -> None:
        """Register with the trainer."""
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self.clip)

    def clip(self, engine: Engine | None = None) -> None:
        """Scale the gradients that the network has now."""
        nn.utils.clip_grad_norm_(self.network.parameters(), self.max_norm)
