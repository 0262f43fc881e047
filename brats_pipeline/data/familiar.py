"""What the scans of a training look like, kept as ``configs/fingerprint.json``, and how another scan differs from them.

Each limit is what the training's own cases differ by from the rest of the training, each left out once, times a margin.
So a training whose scans are of many kinds is surprised by little, and one of a single scanner by more. What is kept
are figures over all cases: no name, no scan.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brats_pipeline.data.exchanged import Usual, largest_left_out
from brats_pipeline.data.looks import QUANTILES, Look
from brats_pipeline.errors import PipelineError

Range = tuple[tuple[float, ...], tuple[float, ...]]
Grey = npt.NDArray[np.float64]

FINGERPRINT = "fingerprint.json"
"""Its name below ``configs/``."""
SCHEMA_VERSION = 1
SIDE = 1.25
"""Voxel sides beyond the training's by this factor are another spacing; extents of the head likewise."""
FEWER_ZEROS, MORE_ZEROS = 0.6, 0.25
"""Less background than this share of the training's least, more than its most by this."""
NO_BACKGROUND = 0.1
"""A training with less background than this was not stripped of the skull, and does not miss it."""
GREY_MARGIN, GREY_FLOOR = 1.6, 0.3
"""Of the distance of grey values; few cases may agree by chance, so the limit is never below the floor."""
MOVED_MARGIN, MOVED_FLOOR = 1.25, 1.0
"""Of the information after a move; where images lie on each other it is below 1."""
EXCHANGED_MARGIN, EXCHANGED_FLOOR = 1.4, 1.4
"""Of the ratio by which an exchange fits better."""


@dataclass(frozen=True)
class Familiar:
    """What a training saw.

    Args:
        cases: their number.
        modalities: that were looked at, in the order of the channels.
        spacing_mm: smallest and largest voxel sides towards left, posterior, superior; empty where files carry none.
        extent_mm: smallest and largest extent of the head along them.
        zeros: smallest and largest share of background in the box around the head.
        grey: modality to the mean of its grey values at :data:`brats_pipeline.data.looks.QUANTILES`.
        grey_farthest: modality to the largest distance of a case to the mean of the others.
        moved: modality to its largest share of information after a move.
        usual: rows for :mod:`brats_pipeline.data.exchanged`; None where there are too few cases.
        exchanged: largest ratio among the cases.
    """

    cases: int
    modalities: tuple[str, ...]
    spacing_mm: Range
    extent_mm: Range
    zeros: tuple[float, float]
    grey: Mapping[str, Grey]
    grey_farthest: Mapping[str, float]
    moved: Mapping[str, float]
    usual: Usual | None
    exchanged: float

    @classmethod
    def of(cls, looks: Sequence[Look], modalities: Sequence[str]) -> Familiar:
        """Of the looks of some cases.

        Raises:
            ValueError: there is none.
        """
        if not looks:
            raise ValueError("there is no case to be familiar with; give at least one")
        grey, farthest = {}, {}
        for name in modalities:
            table = np.array([look.quantiles[name] for look in looks if name in look.quantiles])
            if len(table):
                grey[name] = table.mean(axis=0)
                others = (table.sum(axis=0) - table) / max(1, len(table) - 1)
                farthest[name] = float(np.abs(table - others).mean(axis=1).max()) if len(table) > 1 else 0.0
        usual, exchanged = largest_left_out(looks, modalities)
        zeros = [look.zeros for look in looks]
        return cls(
            cases=len(looks),
            modalities=tuple(modalities),
            spacing_mm=_range([look.spacing_mm for look in looks if look.spacing_mm]),
            extent_mm=_range([look.extent_mm for look in looks if look.extent_mm]),
            zeros=(min(zeros), max(zeros)),
            grey=grey,
            grey_farthest=farthest,
            moved={
                name: max(look.moved[name] for look in looks if name in look.moved)
                for name in modalities
                if any(name in look.moved for look in looks)
            },
            usual=usual,
            exchanged=exchanged,
        )

    def limit_of_grey(self, name: str) -> float:
        """Largest distance of the grey values of a modality that is not told."""
        return max(GREY_FLOOR, GREY_MARGIN * self.grey_farthest[name])

    def limit_of_moved(self, name: str) -> float:
        """Largest share of information after a move that is not told."""
        return max(MOVED_FLOOR, MOVED_MARGIN * self.moved[name])

    def limit_of_exchanged(self) -> float:
        """Largest ratio by which an exchange may fit better untold."""
        return EXCHANGED_MARGIN * max(EXCHANGED_FLOOR, self.exchanged)

    def to_json(self) -> str:
        """As a JSON document."""
        usual = None if self.usual is None else {"mean": _short(self.usual.mean), "spread": _short(self.usual.spread)}
        document = {
            "schema_version": SCHEMA_VERSION,
            "about": "what the prepared scans of the training look like; segment names what differs from it",
            "cases": self.cases,
            "modalities": list(self.modalities),
            "spacing_mm": [_short(part) for part in self.spacing_mm],
            "extent_mm": [_short(part) for part in self.extent_mm],
            "zeros": _short(self.zeros),
            "quantiles": _short(QUANTILES),
            "grey": {name: _short(values) for name, values in self.grey.items()},
            "grey_farthest": {name: round(value, 4) for name, value in self.grey_farthest.items()},
            "moved": {name: round(value, 4) for name, value in self.moved.items()},
            "usual": usual,
            "exchanged": round(self.exchanged, 4),
        }
        return json.dumps(document, indent=1, allow_nan=False) + "\n"


def read_familiar(path: str | Path) -> Familiar | None:
    """What a bundle says its training saw; None where it says nothing.

    Raises:
        PipelineError: the file is damaged, or of another version.
    """
    try:
        told = json.loads(Path(path).read_text(encoding="utf-8"))
        if told["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"schema version {told['schema_version']}, {SCHEMA_VERSION} is needed")
        names = tuple(map(str, told["modalities"]))
        usual = told["usual"]
        low, high = told["zeros"]
        return Familiar(
            cases=int(told["cases"]),
            modalities=names,
            spacing_mm=_pair(told["spacing_mm"]),
            extent_mm=_pair(told["extent_mm"]),
            zeros=(float(low), float(high)),
            grey={name: np.array(values, dtype=np.float64) for name, values in told["grey"].items()},
            grey_farthest=dict(told["grey_farthest"]),
            moved=dict(told["moved"]),
            usual=None if usual is None else Usual(np.array(usual["mean"]), np.array(usual["spread"]), names),
            exchanged=float(told["exchanged"]),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PipelineError(
            f"{path}: cannot be used ({error}); restore it, or delete it to segment without a look at what differs"
        ) from error


def _range(rows: Sequence[Sequence[float]]) -> Range:
    return tuple(np.min(rows, axis=0).tolist()) if rows else (), tuple(np.max(rows, axis=0).tolist()) if rows else ()


def _pair(told: Sequence[Sequence[float]]) -> Range:
    low, high = told
    return tuple(map(float, low)), tuple(map(float, high))


def _short(values: Any) -> list[float]:
    return [round(float(value), 4) for value in values]
