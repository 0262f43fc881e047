"""Which modalities a study leaves out of the tested cases, to see what they are worth."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations


def left_out(modalities: Sequence[str], at_once: int) -> list[str]:
    """Every choice of so many modalities or fewer that leaves at least one, as ``t1c`` and ``t1c+t2``.

    Args:
        modalities: of the network.
        at_once: how many are left out together at most.
    """
    most = min(at_once, len(modalities) - 1)
    return ["+".join(chosen) for number in range(1, most + 1) for chosen in combinations(modalities, number)]


def still_to_leave_out(done: Sequence[str] | None, at_once: int) -> bool:
    """Whether a study that leaves out so many at once asks for more than what was done.

    Args:
        done: names as of :func:`left_out`; None where nothing was.
        at_once: how many are left out together at most.
    """
    if done is None:
        return at_once > 0
    return not set(left_out([name for name in done if "+" not in name], at_once)) <= set(done)
