"""Regions made plausible behind the threshold: nested, without holes, without specks. Every step is off by default.

The whole region at once, ET turned to NCR below a volume: BraTS teams since Isensee et al. 2018 (arXiv:1809.10483). The
largest part of a tumour alone: Buda et al. 2019 (arXiv:1906.03720).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from transforms.components import Mask, filled, find_components

WIDEST_FIRST = ("WT", "TC", "ET")
"""Regions of which each holds the next."""
OUTWARD, INWARD = "outward", "inward"


def nested(masks: Mapping[str, Mask], nesting: str = OUTWARD) -> dict[str, Mask]:
    """The same regions, ET in TC in WT.

    Args:
        masks: region to mask; regions of other names stay as they are.
        nesting: ``outward``: what is in a region is in every wider one, as in every label map. ``inward``: what is not
            in a region is in none of those inside it.
    """
    result = dict(masks)
    order = [region for region in WIDEST_FIRST if region in masks]
    if nesting == INWARD:
        for wide, narrow in pairwise(order):
            result[narrow] = result[narrow] & result[wide]
    else:
        for narrow, wide in pairwise(reversed(order)):
            result[wide] = result[wide] | result[narrow]
    return result


@dataclass(frozen=True)
class Cleaning:
    """What happens to the regions of a case, in this order; by default nothing at all.

    1. They are nested (:func:`nested`).
    2. The holes of a region are filled; a wider region gets what a narrower one was given.
    3. From the widest to the narrowest: a region keeps its parts of at least so many voxels, or its largest alone, and
       what was taken from a wider region is taken from it too.
    4. Where all of ET has fewer voxels than asked for, there is no ET; it stays part of TC, so its label becomes NCR.

    Doing it twice changes nothing, and step 2 alone adds voxels.

    Args:
        regions: name of each channel.
        nesting: ``outward`` or ``inward``.
        fill_holes: one for each region, as the two below.
        smallest_component: voxels; 0 keeps every part.
        keep_largest: of equals the first is kept.
        smallest_et: voxels; 0 keeps every ET.

    Raises:
        ValueError: an argument that cannot be meant.
    """

    regions: tuple[str, ...]
    nesting: str = OUTWARD
    fill_holes: tuple[bool, ...] = ()
    smallest_component: tuple[int, ...] = ()
    keep_largest: tuple[bool, ...] = ()
    smallest_et: int = 0

    def __post_init__(self) -> None:
        if self.nesting not in (OUTWARD, INWARD):
            raise ValueError(f"nesting is {self.nesting!r}; choose {OUTWARD} or {INWARD}")
        if self.smallest_et and "ET" not in self.regions:
            raise ValueError(f"smallest_et is {self.smallest_et}, and the regions are {', '.join(self.regions)}; set 0")
        _whole_number("smallest_et", self.smallest_et)
        for name, usual in (("fill_holes", False), ("smallest_component", 0), ("keep_largest", False)):
            values = getattr(self, name) or (usual,) * len(self.regions)
            if len(values) != len(self.regions):
                raise ValueError(
                    f"{name} has {len(values)} values for {len(self.regions)} regions ({', '.join(self.regions)}); "
                    "give one for all, or one for each"
                )
            for value in values:
                if name == "smallest_component":
                    _whole_number(name, value)
                elif not isinstance(value, bool):
                    raise ValueError(f"{name} is {value!r}; it is true or false")
            object.__setattr__(self, name, tuple(values))

    @property
    def off(self) -> bool:
        """Whether label maps come out as without it."""
        return self == Cleaning(self.regions)

    def __call__(self, masks: Sequence[Mask]) -> list[Mask]:
        """Clean the masks ``(x, y)`` or ``(x, y, z)`` of one case, one per region; those given stay as they are."""
        if len(masks) != len(self.regions):
            raise ValueError(f"got {len(masks)} masks for {len(self.regions)} regions ({', '.join(self.regions)})")
        if self.off:
            return list(masks)
        result = nested(dict(zip(self.regions, masks, strict=True)), self.nesting)
        for region, fill in zip(self.regions, self.fill_holes, strict=True):
            if fill:
                result[region] = filled(result[region])
        result = nested(result)
        smallest = dict(zip(self.regions, self.smallest_component, strict=True))
        largest = dict(zip(self.regions, self.keep_largest, strict=True))
        wider: Mask | None = None
        for region in sorted(self.regions, key=_place):
            if wider is not None and region in WIDEST_FIRST:
                result[region] = result[region] & wider
            if smallest[region] > 1 or largest[region]:
                parts = find_components(result[region])
                result[region] = parts.mask(parts.kept(smallest=smallest[region], largest=largest[region]))
            if region in WIDEST_FIRST:
                wider = result[region]
        if self.smallest_et and np.count_nonzero(result["ET"]) < self.smallest_et:
            result["ET"] = np.zeros_like(result["ET"])
        return [result[region] for region in self.regions]


def _place(region: str) -> int:
    """Where a region stands among those that hold each other; others come last."""
    return WIDEST_FIRST.index(region) if region in WIDEST_FIRST else len(WIDEST_FIRST)


def _whole_number(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{name} is {value!r}; give a whole number of voxels, 0 for none")


def _for_each(value: Any, regions: int) -> tuple[Any, ...]:
    """One value for all regions, or one for each."""
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value,) * regions


class CleanRegionsd(MapTransform):
    """Clean region masks ``(R, *spatial)`` as :class:`Cleaning` says; bit for bit as they are where all of it is off.

    Args:
        keys: the masks, nonzero inside.
        regions: the region of each channel.
        nesting: ``outward`` or ``inward``.
        fill_holes: one for all regions, or one for each in the order of the channels, as the two below.
        smallest_component: voxels of the smallest part of a region that is kept.
        keep_largest: whether the largest part of a region is all that is kept.
        smallest_et: voxels of the smallest ET that is kept, all of its parts together.

    Raises:
        ValueError: an argument that cannot be meant, or another number of values or channels than of regions.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        regions: Sequence[str],
        nesting: str = OUTWARD,
        fill_holes: bool | Sequence[bool] = False,
        smallest_component: int | Sequence[int] = 0,
        keep_largest: bool | Sequence[bool] = False,
        smallest_et: int = 0,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.cleaning = Cleaning(
            tuple(regions),
            nesting,
            _for_each(fill_holes, len(regions)),
            _for_each(smallest_component, len(regions)),
            _for_each(keep_largest, len(regions)),
            smallest_et,
        )

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            if not self.cleaning.off:
                result[key] = self._clean(result[key])
        return result

    def _clean(self, regions: torch.Tensor) -> torch.Tensor:
        plain = regions.as_tensor() if isinstance(regions, MetaTensor) else regions
        masks: npt.NDArray[np.bool_] = np.asarray((plain != 0).cpu())
        cleaned = torch.from_numpy(np.stack(self.cleaning(list(masks)))).to(plain)
        return MetaTensor(cleaned, meta=regions.meta) if isinstance(regions, MetaTensor) else cleaned
