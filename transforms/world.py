"""Numbers in the headers of MetaImage and NRRD, and the affine that they make. No torch."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Affine = npt.NDArray[np.float64]
LPS = np.diag([-1.0, -1.0, 1.0])
"""Turns millimetres towards Left, Posterior, Superior into those towards Right, Anterior, Superior, and back."""
FARTHEST = 1e12
"""Larger numbers place no voxels, and their squares are none."""
BLANKS = " \t\r"
"""What may stand around words; Python knows more blanks, which other readers take for letters."""
NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", re.ASCII)
"""As C writes numbers; Python reads ``1_5`` too."""
LONGEST_SIDE = 2**31
MOST_BYTES = 2**50
"""No scan is larger than a pebibyte."""


def numbers(text: str, count: int, *, commas: bool = False) -> list[float]:
    """``"1 0 -0.5"`` to three numbers up to :data:`FARTHEST`; with ``commas`` it is ``"1, 0, -0.5"``.

    Raises:
        ValueError: there is another number of them, or one is none.
    """
    words = [word.strip(BLANKS) for word in text.split(",")] if commas else _words(text)
    values = [float(word) for word in words if NUMBER.fullmatch(word)]
    if not len(words) == len(values) == count or not all(abs(value) <= FARTHEST for value in values):
        raise ValueError(f"{text!r} is not {count} numbers")
    return values


def sizes(text: str) -> tuple[int, ...]:
    """``"240 240 155"`` to the voxels along three axes.

    Raises:
        ValueError: these are not three whole numbers above 0.
    """
    words = _words(text)
    if len(words) != 3 or not all(word.isascii() and word.isdigit() and len(word) < 11 for word in words):
        raise ValueError(f"sizes {text!r}; three whole numbers are needed")
    found = tuple(map(int, words))
    if min(found) < 1 or max(found) > LONGEST_SIDE or math.prod(found) * 8 > MOST_BYTES:
        raise ValueError(f"sizes {text!r} are those of no scan")
    return found


def _words(text: str) -> list[str]:
    return [word for word in re.split(f"[{BLANKS}]", text) if word]


def affine_of(axes: Sequence[Sequence[float]] | Affine, origin: Sequence[float], *, world: Affine = LPS) -> Affine:
    """The ``(4, 4)`` affine in RAS millimetres.

    Args:
        axes: for each array axis, the step from one voxel to the next.
        origin: the centre of the first voxel.
        world: turns what these are told in into RAS.

    Raises:
        ValueError: the steps are zero, or lie in one plane.
    """
    steps: npt.NDArray[Any] = np.asarray(axes, dtype=np.float64)
    lengths = np.linalg.norm(steps, axis=1)
    if lengths.min() == 0 or not np.isfinite(lengths).all() or abs(np.linalg.det(steps / lengths[:, None])) < 1e-6:
        raise ValueError(f"the axes {steps.tolist()} place no voxels")
    affine = np.eye(4)
    affine[:3, :3] = world @ steps.T
    affine[:3, 3] = world @ np.asarray(origin, dtype=np.float64)
    return affine
