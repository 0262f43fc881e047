"""The settings that are tried: for each region every combination of a few values, the plainest first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

PLAIN_THRESHOLD = 0.5


@dataclass(frozen=True)
class RegionSettings:
    """What becomes of the probabilities of one region.

    Args:
        threshold: of the probability.
        fill_holes: whether holes are filled.
        smallest_component: voxels of the smallest part that is kept.
        keep_largest: whether the largest part is all that is kept.
        smallest_et: voxels of the smallest ET that is kept; 0 for every other region.
    """

    threshold: float = PLAIN_THRESHOLD
    fill_holes: bool = False
    smallest_component: int = 0
    keep_largest: bool = False
    smallest_et: int = 0

    def in_words(self) -> str:
        """Such as ``>= 0.4, parts >= 50``."""
        words = [f">= {self.threshold:g}"]
        words += ["holes filled"] if self.fill_holes else []
        words += [f"parts >= {self.smallest_component}"] if self.smallest_component else []
        words += ["largest part alone"] if self.keep_largest else []
        words += [f"none below {self.smallest_et}"] if self.smallest_et else []
        return ", ".join(words)

    def steps_from(self, other: RegionSettings) -> tuple[float, ...]:
        """How far from another choice this one is: the number of changes, then what they may cost, then their size.

        Keeping the largest part alone comes last: it takes every second tumour of a patient, whatever its size.
        """
        changes = [getattr(self, name) != getattr(other, name) for name in self.__dataclass_fields__]
        distance = round(abs(self.threshold - other.threshold), 6)
        return sum(changes), self.keep_largest, distance, self.smallest_component, self.smallest_et


Settings = Mapping[str, RegionSettings]
"""Region to its settings."""


@dataclass(frozen=True)
class Grid:
    """The values that are tried.

    Args:
        thresholds: of the probability.
        smallest_components: voxels, of every region.
        smallest_ets: voxels, of all of ET together.
        fill_holes: whether filling holes is tried.
        keep_largest: whether keeping the largest part alone is tried.

    Raises:
        ValueError: a threshold that is no probability, or a negative size.
    """

    thresholds: tuple[float, ...] = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
    smallest_components: tuple[int, ...] = (0, 10, 25, 50, 100, 200, 500, 1000)
    smallest_ets: tuple[int, ...] = (0, 25, 50, 100, 200, 500, 1000)
    fill_holes: bool = True
    keep_largest: bool = True

    def __post_init__(self) -> None:
        if not self.thresholds or not all(0 < value < 1 for value in self.thresholds):
            raise ValueError(f"thresholds are {self.thresholds}; give numbers between 0 and 1")
        if min(*self.smallest_components, *self.smallest_ets, 0) < 0:
            raise ValueError("sizes are numbers of voxels; give 0 or more")

    def options(self, region: str, base: RegionSettings) -> tuple[RegionSettings, ...]:
        """All that is tried for a region: what is in force first, then from the nearest to the farthest from it."""
        every = {
            RegionSettings(*values)
            for values in product(
                self.thresholds,
                (False, True) if self.fill_holes else (False,),
                self.smallest_components,
                (False, True) if self.keep_largest else (False,),
                self.smallest_ets if region == "ET" else (0,),
            )
        }
        others = sorted(every - {base}, key=lambda one: (one.steps_from(base), one.threshold, one.fill_holes))
        return (base, *others)


def settings_in_force(configuration: Mapping[str, Any], regions: tuple[str, ...]) -> dict[str, RegionSettings]:
    """What a bundle's configuration says, region by region.

    Args:
        configuration: the ids of ``inference.yaml``.
        regions: of its network's channels, in their order.

    Raises:
        ValueError: another number of values than of regions, or an expression instead of a value.
    """

    def each(name: str, usual: Any) -> list[Any]:
        value = configuration.get(name, usual)
        values = value if isinstance(value, list) else [value] * len(regions)
        if len(values) != len(regions):
            raise ValueError(f"{name} has {len(values)} values for {len(regions)} regions ({', '.join(regions)})")
        if wrong := [one for one in values if not isinstance(one, int | float)]:
            raise ValueError(f"{name} is {wrong[0]!r}; tuning needs it as a plain value")
        return values

    columns = zip(
        each("threshold", PLAIN_THRESHOLD),
        each("fill_holes", False),
        each("smallest_component", 0),
        each("keep_largest", False),
        strict=True,
    )
    smallest_et = int(configuration.get("smallest_et", 0))
    return {
        region: RegionSettings(*values, smallest_et if region == "ET" else 0)
        for region, values in zip(regions, columns, strict=True)
    }
