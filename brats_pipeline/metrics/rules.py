"""Rules of scoring by name: which regions, which label maps, what empty regions count.

Sources: BraTS 2023 glioma challenge and its public evaluation code (Kazerooni et al. 2023; Baid et al. 2021,
arXiv:2107.02314 for the regions).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from brats_pipeline.metrics.empties import EMPTY_RULES, EmptyRule


@dataclass(frozen=True)
class Rules:
    """Everything about scoring that changes a number.

    Args:
        name: the name used on the command line and in reports.
        regions: the regions that are scored, in the order of tables.
        conventions: label conventions that a label map of this challenge may follow, likeliest first.
        empties: scores of empty regions.
        percentile: share of the surface, in percent, within HD95's distance.
    """

    name: str
    regions: tuple[str, ...]
    conventions: tuple[str, ...]
    empties: EmptyRule
    percentile: float = 95.0

    def sentences(self) -> tuple[str, ...]:
        """The rules in words, for reports."""
        return (
            f"Regions: {', '.join(self.regions)}, scored over the whole volume, one score per case and region.",
            f"HD95: the larger of the two directed {self.percentile:g}th percentiles of the distance between surface "
            "elements, weighted by their area, in mm.",
            *self.empties.sentences(),
        )


RULES: Mapping[str, Rules] = {
    row.name: row
    for row in (
        Rules(
            name="brats2023-gli",
            regions=("WT", "TC", "ET"),
            conventions=("brats2023", "brats2017"),
            empties=EMPTY_RULES["brats2023"],
        ),
    )
}


def rules_named(name: str) -> Rules:
    """Look rules up by name.

    Raises:
        ValueError: the name is not in the table; the message lists the known ones.
    """
    try:
        return RULES[name]
    except KeyError:
        raise ValueError(f"unknown rules {name!r}; known: {', '.join(RULES)}") from None
