"""Parts of a cohort: who belongs to them, and their figures."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest

from brats_pipeline.cases.layouts import institution_of, patient_of
from brats_pipeline.metrics.statistics import bootstrap_interval
from brats_pipeline.metrics.subgroups import (
    AtLeast,
    Everyone,
    From,
    Lacking,
    Small,
    Without,
    case_facts,
    enhancing_twice,
    institution,
    summarise_groups,
    usual_groups,
)


@dataclass(frozen=True)
class Scored:
    """As much of a row as is needed; the reference has ``tp + fn`` voxels of 0.001 ml."""

    case_id: str
    region: str
    dice: float
    tp: int
    fn: int

    @property
    def reference_ml(self):
        return (self.tp + self.fn) * 0.001


class Slice(Scored):
    """A row of slices, which know no volume."""

    reference_ml = math.nan


#        case                     WT voxels, ET voxels, Dice of both
COHORT = {
    "Brats18_CBICA_AAB_1": (9000, 50, 0.1),
    "Brats18_CBICA_ABE_1": (8000, 0, 1.0),
    "Brats18_2013_2_1": (7000, 100, 0.7),
    "TCGA_CS_4942_19970222": (6000, 4000, 0.8),
    "TCGA_CS_4943_20000902": (500, 300, 0.9),
    "case7": (0, 0, 0.0),
    "case8": (400, 200, 0.6),
}


def rows(kind=Scored):
    return [
        kind(case_id, region, dice, tp=voxels // 2, fn=voxels - voxels // 2)
        for case_id, (whole, enhancing, dice) in COHORT.items()
        for region, voxels in (("WT", whole), ("ET", enhancing))
    ]


FACTS = case_facts(rows(), lacking={"case7": ("t1c",), "case8": ("t1", "t1c"), "stranger": ("t2",)})


@pytest.mark.parametrize(
    ("case_id", "site"),
    [
        ("TCGA_CS_4942_19970222", "CS"),
        ("TCGA-HT-7616", "HT"),
        ("tcga_dU_a5tw_19980228", "DU"),
        ("Brats18_CBICA_AAB_1", "CBICA"),
        ("Brats18_2013_2_1", "2013"),
        ("Brats17_TCIA_101_1", "TCIA"),
        ("Brats18_TCIA08_242_1", "TCIA08"),
        ("BraTS19_TMC_06290_1", "TMC"),
        ("BraTS20_Training_001", None),
        ("BraTS2021_00006", None),
        ("BraTS-GLI-00002-000", None),
        ("case7", None),
        ("TCGA_CS", None),
    ],
)
def test_the_institution_is_read_from_names_that_hold_it(case_id, site):
    assert institution(case_id) == site


@pytest.mark.parametrize("case_id", ["TCGA_CS_4942_19970222", "TCGA-HT-7616", "BraTS2021_00006", "case7"])
def test_barcodes_are_read_as_when_cases_are_found(case_id):
    assert institution(case_id) == institution_of(case_id)


def test_sites_are_the_start_of_the_patient_that_the_layout_tells():
    for case_id in ("Brats18_CBICA_AAB_1", "Brats18_2013_2_1", "Brats17_TCIA_101_1"):
        assert patient_of(case_id, "brats2017").split("_")[0] == institution(case_id)


def test_cases_without_a_region_are_those_whose_reference_is_empty():
    assert Without("ET").members(FACTS) == {"Brats18_CBICA_ABE_1", "case7"}
    assert Without("WT").members(FACTS) == {"case7"}
    assert Without("RC").members(FACTS) == frozenset()


def test_at_least_a_tenth_of_a_millilitre_includes_exactly_that():
    """A hundred voxels of 0.001 ml are 0.1 ml, though the product of the numbers may be a little less."""
    large = {"Brats18_2013_2_1", "TCGA_CS_4942_19970222", "TCGA_CS_4943_20000902", "case8"}
    assert AtLeast().members(FACTS) == large
    assert AtLeast(0.2).members(FACTS) == large - {"Brats18_2013_2_1"}
    assert AtLeast().members(case_facts(rows(Slice))) == frozenset()


def test_small_tumours_are_the_lower_third_of_the_tumours_there_are():
    """Six tumours; a case without tumour is not a small tumour."""
    assert Small().members(FACTS) == {"TCGA_CS_4943_20000902", "case8"}
    assert Small().members(case_facts(rows(Slice))) == {"TCGA_CS_4943_20000902", "case8"}
    assert Small(below_ml=6.5).members(FACTS) == {"TCGA_CS_4942_19970222", "TCGA_CS_4943_20000902", "case8"}
    assert Small(below_ml=6.5).members(case_facts(rows(Slice))) == frozenset()
    assert Small().members([]) == frozenset()


def test_tumours_of_one_size_are_not_small():
    same = case_facts([Scored(name, "WT", 1.0, tp=5, fn=0) for name in "abc"])
    assert Small().members(same) == frozenset()


def test_a_missing_sequence_is_told_by_any_or_by_name():
    assert Lacking().members(FACTS) == {"case7", "case8"}
    assert Lacking("t1").members(FACTS) == {"case8"}
    assert Lacking("t2").members(FACTS) == frozenset()


def test_the_usual_groups_are_those_that_the_cohort_has():
    names = [group.name for group in usual_groups(FACTS)]
    assert names == [
        "no ET in the reference",
        "small tumours (WT below the cohort's lower tertile)",
        "institution 2013",
        "institution CBICA",
        "institution CS",
        "a sequence is missing",
    ]
    plain = case_facts([Scored(name, region, 1.0, tp=5, fn=0) for name in "ab" for region in ("WT", "ET")])
    assert usual_groups(plain) == []


def test_definitions_are_equal_when_they_say_the_same():
    assert Small() == Small() != Small(below_ml=3)
    assert {From("CS"), From("CS")} == {From("CS")}
    assert Everyone().name == "all cases"
    assert Small(below_ml=2.5).name == "small tumours (WT below 2.5 ml)"
    assert Lacking("t1c").name == "t1c is missing"


def test_a_group_has_its_own_n_mean_and_interval():
    site, empty = summarise_groups(
        rows(), [From("CS"), From("XX")], cohort=FACTS, region="WT", metric="dice", resamples=500
    )
    assert (site.name, site.n, site.spread.n) == ("institution CS", 2, 2)
    assert site.spread.mean == pytest.approx(0.85)
    assert site.interval_95 == bootstrap_interval([0.8, 0.9], resamples=500)
    assert (empty.n, empty.spread, empty.interval_95) == (0, None, None)


def test_groups_come_from_references_so_a_miss_stays_in_its_group():
    missed = [Scored(row.case_id, row.region, 0.0, tp=0, fn=row.tp + row.fn) for row in rows()]
    assert [group.members(case_facts(missed)) for group in usual_groups(FACTS)[:-1]] == [
        group.members(FACTS) for group in usual_groups(FACTS)[:-1]
    ]


def test_enhancing_tumour_is_given_twice():
    everyone, large = enhancing_twice(rows())
    assert (everyone.name, everyone.n) == ("all cases", 7)
    assert everyone.spread.mean == pytest.approx(np.mean([0.1, 1.0, 0.7, 0.8, 0.9, 0.0, 0.6]))
    assert (large.name, large.n) == ("at least 0.1 ml of ET in the reference", 4)
    assert large.spread.mean == pytest.approx(np.mean([0.7, 0.8, 0.9, 0.6]))
    assert {everyone.region, large.region} == {"ET"}


def test_a_value_that_is_not_defined_is_not_counted_in_the_spread():
    some = [Scored("a", "WT", math.nan, 5, 0), Scored("b", "WT", 0.5, 5, 0)]
    figures = summarise_groups(some, [Everyone()], cohort=case_facts(some), region="WT", metric="dice")[0]
    assert (figures.n, figures.spread.n, figures.interval_95) == (2, 1, None)
