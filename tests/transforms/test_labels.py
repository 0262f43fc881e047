"""The table of label conventions: regions nested, labels written, and nothing heavy behind it."""

import subprocess
import sys

import pytest

from transforms.labels import CONVENTIONS, MODALITIES, REGIONS, TABLE_ORDER, convention

NESTED = [name for name, row in CONVENTIONS.items() if set(REGIONS) <= set(row.regions)]

# As the challenges publish them: values of WT, of TC, of ET; and the label written in WT alone, in TC alone, in ET.
PUBLISHED = {
    "brats2017": ({1, 2, 4}, {1, 4}, {4}, (2, 1, 4)),
    "brats2023": ({1, 2, 3}, {1, 3}, {3}, (2, 1, 3)),
    "msd": ({1, 2, 3}, {2, 3}, {3}, (1, 2, 3)),
    "brats2024-gli": ({1, 2, 3}, {1, 3}, {3}, (2, 1, 3)),
    "brats2024-ped": ({1, 2, 3, 4}, {1, 2, 3}, {1}, (4, 2, 1)),
    "brats2024-met": ({1, 2, 3}, {1, 3}, {3}, (2, 1, 3)),
}
RESECTION_CAVITY = {"brats2024-gli": 4, "brats2024-met": 4}


def regions_of(row, value):
    return {region for region, values in row.regions.items() if value in values}


def test_the_table_holds_these_conventions():
    assert set(CONVENTIONS) == {*PUBLISHED, "men-rt", "lgg"}
    assert set(NESTED) == set(PUBLISHED)


def test_the_orders_are_those_of_monai_and_of_the_papers():
    assert MODALITIES == ("t1c", "t1", "t2", "flair")
    assert REGIONS == ("TC", "WT", "ET")
    assert TABLE_ORDER == ("WT", "TC", "ET")


@pytest.mark.parametrize("name", PUBLISHED)
def test_regions_and_written_labels_are_the_published_ones(name):
    whole, core, enhancing, written = PUBLISHED[name]
    row = convention(name)
    assert row.regions == {"WT": whole, "TC": core, "ET": enhancing}
    assert tuple(row.written(region) for region in TABLE_ORDER) == written


@pytest.mark.parametrize(("name", "region"), [("men-rt", "GTV"), ("lgg", "WT")])
def test_binary_conventions_write_one(name, region):
    row = convention(name)
    assert row.regions == {region: {1}}
    assert row.written(region) == 1
    assert row.values == {0, 1}


@pytest.mark.parametrize("name", NESTED)
def test_regions_are_nested_and_painted_from_the_outside_in(name):
    row = convention(name)
    assert row.regions["ET"] < row.regions["TC"] < row.regions["WT"]
    assert row.widest_first() == ("WT", "TC", "ET")


@pytest.mark.parametrize("name", CONVENTIONS)
def test_every_value_survives_region_and_back_as_its_region(name):
    row = convention(name)
    for value in row.values:
        own = regions_of(row, value)
        innermost = min(own, key=lambda region: len(row.regions[region]), default=None)
        back = 0 if innermost is None else row.written(innermost)
        assert regions_of(row, back) == own
        assert back in row.values


@pytest.mark.parametrize("name", CONVENTIONS)
def test_every_tissue_lies_in_a_region_but_the_resection_cavity(name):
    row = convention(name)
    outside = {value for value in row.tissues if not regions_of(row, value)}
    assert outside == ({RESECTION_CAVITY[name]} if name in RESECTION_CAVITY else set())
    assert 0 in row.values
    assert not regions_of(row, 0)
    assert set().union(*row.regions.values()) <= set(row.tissues)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown label convention 'brats1999'; known: brats2017, .*, lgg"):
        convention("brats1999")


def test_the_table_and_the_files_come_without_torch():
    code = "import sys, transforms.labels, transforms.nifti; print({'torch', 'monai'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
