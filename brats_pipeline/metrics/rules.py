"""Rules of scoring by name: which regions, which label maps, what empty regions count, what a lesion is.

Sources: the challenges' public evaluation code of 2023 and 2024 (Saluja et al.; Kazerooni et al. 2023 and Moawad et
al. 2023 describe it; Baid et al. 2021, arXiv:2107.02314 for the regions); the ranking of BraTS 2020 as in Isensee et
al. 2020 (arXiv:2011.00848); for slices the volume-wise Dice of Buda et al. 2019 (arXiv:1906.03720). Where the official
code does something odd, it is followed and named here and in ``docs/reference/metrics.md``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from brats_pipeline.metrics.empties import EMPTY_RULES, EmptyRule

Definition = Literal["elements", "voxels"]
"""What a surface consists of: area-weighted surface elements (surface-distance) or border voxels (MedPy)."""


@dataclass(frozen=True)
class LesionRules:
    """How lesions are told apart, matched and averaged.

    Args:
        dilation: steps by which a lesion is dilated (18 neighbours a step); parts that meet then are one lesion.
        threshold_mm3: lesions of the reference that are not larger do not count.
        dilation_of: exceptions, region to steps.
        threshold_of: exceptions, region to mm3.
        merged_predictions: whether parts of the prediction are merged by dilation too (2024); else every connected
            component stands alone (2023).
        small_predictions: how predicted lesions are dropped before scoring: those of no more *voxels* than the
            threshold says mm3, those of no more *mm3*, or *none* of them.
        false_positives: whether predicted lesions without a counterpart lower the scores.
        tissues: region to other regions, in order; lesions that touch the same lesion of another region are one.
        nsd_voxel_mm: tolerances of the voxel-surface NSD; empty where there is none.
    """

    dilation: int
    threshold_mm3: float
    dilation_of: tuple[tuple[str, int], ...] = ()
    threshold_of: tuple[tuple[str, float], ...] = ()
    merged_predictions: bool = False
    small_predictions: Literal["none", "voxels", "mm3"] = "none"
    false_positives: bool = True
    tissues: tuple[tuple[str, tuple[str, ...]], ...] = ()
    nsd_voxel_mm: tuple[float, ...] = ()

    def steps(self, region: str) -> int:
        """Dilation of a region."""
        return dict(self.dilation_of).get(region, self.dilation)

    def smallest_mm3(self, region: str) -> float:
        """Volume at or below which a lesion of a region does not count."""
        return dict(self.threshold_of).get(region, self.threshold_mm3)

    def sentences(self, penalty: str) -> tuple[str, ...]:
        """The rules in words.

        Args:
            penalty: distance of a missed or invented lesion, in words.
        """

        def with_exceptions(usual: str, others: tuple[tuple[str, float], ...]) -> str:
            return usual + "".join(f", {region} {value:g}" for region, value in others)

        joined = "are joined alike" if self.merged_predictions else "are its connected components (26 neighbours)"
        dropped = {
            "none": "predicted lesions count whatever their size",
            "voxels": "predicted lesions of no more voxels than that threshold are removed before scoring",
            "mm3": "predicted lesions at or below that volume are removed before scoring",
        }[self.small_predictions]
        average = (
            "over the lesions of the reference and the false positives, which score Dice 0 and HD95"
            if self.false_positives
            else "over the lesions of the reference; false positives are listed and cost nothing. A missed one has HD95"
        )
        lines = [
            "Lesions: parts of the reference that meet when dilated (steps of 18 neighbours: "
            f"{with_exceptions(str(self.dilation), self.dilation_of)}) are one; lesions of the prediction {joined}.",
            "A reference lesion is scored against the union of all predicted lesions that touch its dilation; "
            f"reference lesions at or below {with_exceptions(f'{self.threshold_mm3:g}', self.threshold_of)} mm³ do not "
            "count, "
            f"{dropped}.",
            f"Lesion-wise Dice and HD95: means {average} {penalty}; nothing to count: Dice 1 and HD95 0.",
        ]
        if self.tissues:
            names = ", ".join(region for region, _ in self.tissues)
            lines.append(
                f"Lesions of {names} that touch the same lesion of another tissue are one, as in the official code."
            )
        if self.nsd_voxel_mm:
            lines.append(
                "nsd_voxel: share of the border voxels within the tolerance of the border of the other mask, mean of "
                "both sides. Columns named legacy: the whole region after small predicted lesions are removed."
            )
        return tuple(lines)


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
        surface: what the surfaces consist of between which distances are measured.
        lesions: how lesions are scored one by one; None where they are not.
    """

    name: str
    regions: tuple[str, ...]
    conventions: tuple[str, ...]
    empties: EmptyRule
    percentile: float = 95.0
    slices: bool = False
    surface: Definition = "elements"
    lesions: LesionRules | None = None

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
                "Intervals: 95 %, of the mean over patients by the BCa bootstrap, 10,000 resamples; too narrow "
                "below about 20 patients.",
                *self.empties.sentences(),
            )
        if self.surface == "elements":
            distances = (
                f"HD95: the larger of the two directed {self.percentile:g}th percentiles of the distance between "
                "surface elements, weighted by their area, in mm. ASSD: mean over the area of both surfaces. "
                "NSD: share of the area of both surfaces within the tolerance of the other."
            )
        else:
            distances = (
                f"HD95: the {self.percentile:g}th percentile of the distances between border voxels, both directions "
                "pooled, in mm (the definition of MedPy). ASSD: their mean, pooled alike. NSD: share of the "
                "border voxels within the tolerance of the other border, mean of both directions."
            )
        said = self.empties.one_hd95_mm
        penalty = "the diagonal of the array in voxels" if said is None else f"{said:g} mm"
        return (
            f"Regions: {', '.join(self.regions)}, scored over the whole volume, one score per case and region.",
            distances,
            *(self.lesions.sentences(penalty) if self.lesions else ()),
            *self.empties.sentences(),
        )


_NESTED = ("WT", "TC", "ET")
_VOXEL_NSD = (0.5, 1.0)


def _rules_2023(challenge: str, *, dilation: int, threshold_mm3: float) -> Rules:
    return Rules(
        name=f"brats2023-{challenge}",
        regions=_NESTED,
        conventions=("brats2023", "brats2017"),
        empties=EMPTY_RULES["brats2023"],
        lesions=LesionRules(dilation, threshold_mm3),
    )


RULES: Mapping[str, Rules] = {
    row.name: row
    for row in (
        _rules_2023("gli", dilation=3, threshold_mm3=50),
        _rules_2023("ssa", dilation=3, threshold_mm3=50),
        _rules_2023("ped", dilation=3, threshold_mm3=50),
        _rules_2023("men", dilation=1, threshold_mm3=50),
        _rules_2023("met", dilation=1, threshold_mm3=2),
        Rules(
            name="brats2024-gli",
            regions=(*_NESTED, "NETC", "SNFH", "RC"),
            conventions=("brats2024-gli",),
            empties=EMPTY_RULES["brats2024-gli"],
            lesions=LesionRules(
                dilation=3,
                # The official code asks for "SFNH" where it means SNFH, so SNFH keeps 3 steps and not 5.
                dilation_of=(("NETC", 5), ("RC", 5)),
                threshold_mm3=20,
                threshold_of=(("ET", 10),),
                merged_predictions=True,
                small_predictions="voxels",
                tissues=(
                    ("NETC", ("ET", "RC")),
                    ("ET", ("NETC", "RC")),
                    ("RC", ("ET", "NETC")),
                    ("SNFH", ("ET", "RC", "NETC")),
                ),
                nsd_voxel_mm=_VOXEL_NSD,
            ),
        ),
        Rules(
            name="brats2024-ped",
            regions=(*_NESTED, "NETC", "CC", "ED"),
            conventions=("brats2024-ped",),
            empties=EMPTY_RULES["brats2023"],
            lesions=LesionRules(
                dilation=5,
                threshold_mm3=10,
                merged_predictions=True,
                small_predictions="voxels",
                nsd_voxel_mm=_VOXEL_NSD,
            ),
        ),
        Rules(
            name="brats2024-met",
            regions=(*_NESTED, "RC"),
            conventions=("brats2024-met",),
            empties=EMPTY_RULES["voxel-diagonal"],
            # As the last published revision of the script has it; the one before scored no RC, wrote 374 and joined
            # lesions of ET across NETC.
            lesions=LesionRules(
                dilation=1,
                threshold_mm3=2,
                merged_predictions=True,
                small_predictions="voxels",
                nsd_voxel_mm=_VOXEL_NSD,
            ),
        ),
        Rules(
            name="brats2024-men-rt",
            regions=("GTV",),
            conventions=("men-rt",),
            empties=EMPTY_RULES["voxel-diagonal"],
            lesions=LesionRules(
                dilation=1,
                threshold_mm3=50,
                merged_predictions=True,
                small_predictions="mm3",
                false_positives=False,
                nsd_voxel_mm=_VOXEL_NSD,
            ),
        ),
        Rules(
            name="brats2020",
            regions=_NESTED,
            conventions=("brats2017", "brats2023"),
            empties=EMPTY_RULES["brats2020"],
            surface="voxels",
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
