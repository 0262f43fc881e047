"""Label conventions: which number means which tissue, and which tissues make a region.

One table for both directions (labels to regions, regions to labels). A convention lists its tissues from the outermost
to the innermost region; a region is a set of labels. Regions are nested, ET in TC in WT.

Sources: BraTS 2017-2022 (Menze et al. 2015; Bakas et al. 2017, 2018; Baid et al. 2021, arXiv:2107.02314), BraTS 2023
(ET became 3), Medical Segmentation Decathlon Task01 (Antonelli et al. 2022, its own order), BraTS 2024 glioma
post-treatment (4 = resection cavity, outside WT), paediatric (4 = edema), metastases and meningioma radiotherapy, and
the LGG MRI Segmentation set (Buda et al. 2019; one binary mask of the FLAIR abnormality).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

MODALITIES = ("t1c", "t1", "t2", "flair")
"""Channel order of every image tensor; the keys of :attr:`Case.images`."""

REGIONS = ("TC", "WT", "ET")
"""Channel order of every region tensor (that of MONAI's BraTS transform)."""

TABLE_ORDER = ("WT", "TC", "ET")
"""Order in which tables print the regions."""


@dataclass(frozen=True)
class Convention:
    """What the numbers of a label map mean.

    Args:
        name: the name used on the command line and in datalists.
        tissues: label value to tissue name; 0 is background and not listed.
        regions: region name to the label values it joins.
    """

    name: str
    tissues: Mapping[int, str]
    regions: Mapping[str, frozenset[int]]

    @property
    def values(self) -> frozenset[int]:
        """Every value that a label map of this convention may hold, 0 included."""
        return frozenset(self.tissues) | {0}

    def written(self, region: str) -> int:
        """The label written where ``region`` is the innermost region: the lowest value no smaller region holds."""
        own = self.regions[region]
        inner = frozenset[int]().union(*(other for other in self.regions.values() if other < own))
        return min(own - inner)

    def widest_first(self) -> tuple[str, ...]:
        """Region names in painting order: a later region overwrites an earlier, wider one."""
        return tuple(sorted(self.regions, key=lambda region: -len(self.regions[region])))


def _convention(name: str, tissues: str, **regions: str) -> Convention:
    """Build a row of the table from ``"1 NCR, 2 ED"`` and ``WT="1 2"``."""
    pairs = (entry.split(maxsplit=1) for entry in tissues.split(","))
    return Convention(
        name=name,
        tissues={int(value): tissue for value, tissue in pairs},
        regions={region: frozenset(map(int, values.split())) for region, values in regions.items()},
    )


CONVENTIONS: Mapping[str, Convention] = {
    row.name: row
    for row in (
        _convention("brats2017", "1 NCR/NET, 2 ED, 4 ET", TC="1 4", WT="1 2 4", ET="4"),
        _convention("brats2023", "1 NCR, 2 ED, 3 ET", TC="1 3", WT="1 2 3", ET="3"),
        _convention("msd", "1 ED, 2 NCR/NET, 3 ET", TC="2 3", WT="1 2 3", ET="3"),
        _convention("brats2024-gli", "1 NETC, 2 SNFH, 3 ET, 4 RC", TC="1 3", WT="1 2 3", ET="3"),
        _convention("brats2024-ped", "1 ET, 2 NET, 3 CC, 4 ED", TC="1 2 3", WT="1 2 3 4", ET="1"),
        _convention("brats2024-met", "1 NETC, 2 SNFH, 3 ET, 4 RC", TC="1 3", WT="1 2 3", ET="3"),
        _convention("men-rt", "1 GTV", GTV="1"),
        _convention("lgg", "1 FLAIR abnormality", WT="1"),
    )
}


USUAL = ("brats2023", "lgg", "men-rt")
"""For each set of regions the convention of today."""


def convention(name: str) -> Convention:
    """Look a convention up by name.

    Raises:
        ValueError: the name is not in the table; the message lists the known ones.
    """
    try:
        return CONVENTIONS[name]
    except KeyError:
        raise ValueError(f"unknown label convention {name!r}; known: {', '.join(CONVENTIONS)}") from None


def usual_convention(regions: Sequence[str]) -> str:
    """The convention in which these regions are written for a caller who names none.

    Raises:
        ValueError: no convention has just these regions.
    """
    for name in USUAL:
        if set(CONVENTIONS[name].regions) == set(regions):
            return name
    raise ValueError(f"no label convention has the regions {', '.join(regions)}; name the convention of each case")


def misfit(name: str, regions: Sequence[str]) -> str | None:
    """Why label maps of a convention cannot be made of these regions, if so: each must have the regions of the other.

    A region that the convention does not know would be lost, and a tissue that no region marks would never be written.

    Args:
        name: of the convention.
        regions: names of the regions that a network marks.
    """
    known = convention(name).regions
    if set(known) == set(regions):
        return None
    fitting = [other for other, row in CONVENTIONS.items() if set(row.regions) == set(regions)]
    return (
        f"the label convention {name} has the regions {', '.join(known)}, and this bundle marks {', '.join(regions)}; "
        f"conventions that fit: {', '.join(fitting) or 'none'}"
    )
