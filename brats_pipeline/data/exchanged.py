"""Whether two modalities of a scan have changed places: as each other they would resemble the training more.

A scan is a row of numbers, the grey values of each modality at some quantiles and the mutual information of each pair.
Its distance to the training is that of the row to the rows of the training, in standard deviations of each number. The
same row with two modalities exchanged has another distance; the ratio of the two says which reading fits better.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from brats_pipeline.data.looks import LEAST_BITS, Look

Row = npt.NDArray[np.float64]

EVERY = 4
"""Of the quantiles, every so many; neighbours say the same."""
LEAST_SPREAD = np.array([0.05, 0.1])
"""Smallest standard deviation of a grey value and of a logarithm of information: few cases agree by chance."""
STEADY = 4.0
"""Added to both distances: a ratio of two small ones says nothing."""
FEWEST = 5
"""Cases with every modality below which nothing is known of the spread."""


def row_of(look: Look, modalities: Sequence[str]) -> Row:
    """The numbers of a scan, NaN for what is missing.

    Args:
        look: of the scan.
        modalities: what each place in the row stands for, as names of ``look``; two exchanged make another reading.
    """
    numbers: list[float] = []
    for name in modalities:
        grey = look.quantiles.get(name)
        count = len(range(2, 31, EVERY))
        numbers += [np.nan] * count if grey is None else list(grey[2:31:EVERY])
    for one, other in itertools.combinations(modalities, 2):
        bits = look.information.get((one, other), look.information.get((other, one)))
        numbers.append(np.nan if bits is None else float(np.log(max(LEAST_BITS, bits))))
    return np.array(numbers)


@dataclass(frozen=True)
class Usual:
    """Mean and standard deviation of the rows of a training.

    Args:
        mean: of each number.
        spread: standard deviation of each number.
        modalities: in their order.
    """

    mean: Row
    spread: Row
    modalities: tuple[str, ...]

    @classmethod
    def of(cls, rows: Sequence[Row], modalities: Sequence[str]) -> Usual:
        """Of some rows without NaN, at least one."""
        table = np.array(rows)
        return cls(table.mean(axis=0), table.std(axis=0), tuple(modalities))

    def distance(self, row: Row) -> float:
        """Mean square of the grey values' deviations for each modality, and the sum of those of the information."""
        count = len(self.modalities)
        pairs = count * (count - 1) // 2
        grey = len(row) - pairs
        least = np.repeat(LEAST_SPREAD, [grey, pairs])
        squares = ((row - self.mean) / np.hypot(self.spread, least)) ** 2
        return float(squares[:grey].mean() * count + squares[grey:].sum())

    def exchanged(self, look: Look) -> tuple[float, tuple[str, str]] | None:
        """How many times as well the best exchange of two modalities fits, and which; None where one is missing."""
        row = row_of(look, self.modalities)
        if len(self.modalities) < 2 or np.isnan(row).any():
            return None
        as_given = STEADY + self.distance(row)
        ratios = {
            pair: as_given / (STEADY + self.distance(row_of(look, _exchange(self.modalities, *pair))))
            for pair in itertools.combinations(self.modalities, 2)
        }
        best = max(ratios, key=lambda pair: ratios[pair])
        return ratios[best], best


def _exchange(names: Sequence[str], one: str, other: str) -> list[str]:
    places = {one: other, other: one}
    return [places.get(name, name) for name in names]


def largest_left_out(looks: Sequence[Look], modalities: Sequence[str]) -> tuple[Usual | None, float]:
    """What is usual in a training, and the largest ratio of its own cases, each compared with the others.

    Returns:
        None and 1 where fewer than :data:`FEWEST` cases have every modality.
    """
    whole = [(look, row) for look in looks if not np.isnan(row := row_of(look, modalities)).any()]
    if len(whole) < FEWEST or len(modalities) < 2:
        return None, 1.0
    largest = 1.0
    for number, (look, _) in enumerate(whole):
        others: list[Any] = [row for place, (_, row) in enumerate(whole) if place != number]
        found = Usual.of(others, modalities).exchanged(look)
        largest = max(largest, 1.0 if found is None else found[0])
    return Usual.of([row for _, row in whole], modalities), largest
