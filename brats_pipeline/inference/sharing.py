"""Many processes on one cohort: each takes its share of the cases, and needs to know nothing of the others."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from brats_pipeline.errors import PipelineError

T = TypeVar("T")


@dataclass(frozen=True)
class Share:
    """One of ``count`` equal shares; ``number`` counts from 1."""

    number: int = 1
    count: int = 1

    def of(self, cases: Sequence[T]) -> list[T]:
        """Every ``count``-th case, so that large ones at the end of a list do not all fall to one process."""
        return list(cases[self.number - 1 :: self.count])


def share_of(share: str | None) -> Share | None:
    """The share that was asked for, or that falls to this process of torchrun; None: all cases, alone.

    Args:
        share: ``"3/16"``, the third of sixteen; None looks at ``RANK`` and ``WORLD_SIZE``.

    Raises:
        PipelineError: the share does not exist.
    """
    if share is None:
        count = int(os.environ.get("WORLD_SIZE", "1"))
        return Share(int(os.environ.get("RANK", "0")) + 1, count) if count > 1 else None
    found = re.fullmatch(r"(\d+)/(\d+)", share)
    if found is None or not 1 <= int(found[1]) <= int(found[2]):
        raise PipelineError(f"the share is {share!r}; give which of how many, from 1/16 to 16/16")
    return Share(int(found[1]), int(found[2]))


def own_share(cases: Sequence[T], share: str | None = None) -> list[T]:
    """The cases of :func:`share_of`; made to be named in a bundle's YAML."""
    return (share_of(share) or Share()).of(cases)
