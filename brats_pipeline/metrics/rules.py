"""Rules of scoring by name: which regions, which label maps, what empty regions count.

Sources: BraTS 2023 glioma challenge and its public evaluation code (Kazerooni et al. 2023; Baid et al. 2021,
arXiv:2107.02314 for the regions); for slices the volume-wise Dice of Buda et al. 2019 (arXiv:1906.03720).
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
        slices: whether they score slices without a voxel size, by overlap alone.
    """

    name: str
    regions: tuple[str, ...]
    conventions: tuple[str, ...]
    empties: EmptyRule
    percentile: float = 95.0
    slices: bool = False

    def sentences(self) -> tuple[str, ...]:
        """The rules in words, for reports."""
        if self.slices:
            return (
                "Region: WT, here the abnormality on FLAIR. Slices carry no voxel size, so nothing is measured in mm "
                "or ml.",
                "Dice per patient volume (slices pooled): pixels are counted over all slices of a patient, then one "
                "Dice is taken; the mean is over patients. IoU, precision and recall likewise.",
                "Mean Dice per tumour slice: one Dice for each slice whose reference shows tumour; the mean is over "
                "all such slices of the cohort.",
                "Mean Dice per slice (empty slices counted): one Dice for every slice, "
                f"{self.empties.both_overlap:g} where reference and prediction are empty and "
                f"{self.empties.one_overlap:g} where one is; the mean is over all slices of the cohort.",
                "Dice pooled over the cohort: the pixels of all patients counted together; large tumours weigh more. "
                "A patient without a usable prediction counts with an empty one.",
                "Intervals: 95 % percentile bootstrap over patients, 10,000 resamples.",
                *self.empties.sentences(),
            )
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
        Rules(name="lgg", regions=("WT",), conventions=("lgg",), empties=EMPTY_RULES["overlap"], slices=True),
    )
}


def usual_rules(*, slices: bool) -> Rules:
    """The rules for a cohort when none are named: those of slices, or those of volumes."""
    return next(rules for rules in RULES.values() if rules.slices == slices)


def rules_named(name: str) -> Rules:
    """Look rules up by name.

    Raises:
        ValueError: the name is not in the table; the message lists the known ones.
    """
    try:
        return RULES[name]
    except KeyError:
        raise ValueError(f"unknown rules {name!r}; known: {', '.join(RULES)}") from None
