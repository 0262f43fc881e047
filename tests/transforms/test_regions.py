"""Label maps to regions and back, drawn and against MONAI's own transform."""

import itertools

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import ConvertToMultiChannelBasedOnBratsClasses

from brats_pipeline.errors import PipelineError
from transforms.labels import CONVENTIONS, REGIONS, convention
from transforms.regions import LabelsToRegionsd, RegionsToLabelsd, to_labels, to_regions

# Where two labels lie in the same regions, only one of them can come back.
MERGED = {"brats2024-gli": {4: 0}, "brats2024-met": {4: 0}, "brats2024-ped": {3: 2}}


def names_of(row):
    return tuple(name for name in (*REGIONS, "GTV") if name in row.regions)


def every_value(row, shape=(5, 6, 7)):
    values = torch.tensor(sorted(row.values))
    return values[torch.randint(len(values), (1, *shape), generator=torch.Generator().manual_seed(0))]


def test_a_label_map_becomes_three_overlapping_masks():
    labels = torch.tensor([[[0, 2, 2, 2, 0],
                            [2, 1, 4, 2, 0],
                            [2, 4, 1, 4, 2]]])  # fmt: skip
    core, whole, enhancing = to_regions(labels, convention("brats2017")).tolist()
    assert core == [[0, 0, 0, 0, 0],
                    [0, 1, 1, 0, 0],
                    [0, 1, 1, 1, 0]]  # fmt: skip
    assert whole == [[0, 1, 1, 1, 0],
                     [1, 1, 1, 1, 0],
                     [1, 1, 1, 1, 1]]  # fmt: skip
    assert enhancing == [[0, 0, 0, 0, 0],
                         [0, 0, 1, 0, 0],
                         [0, 1, 0, 1, 0]]  # fmt: skip


def test_three_masks_become_a_label_map_again():
    core = [0, 0, 1, 1]
    whole = [0, 1, 1, 1]
    enhancing = [0, 0, 0, 1]
    masks = torch.tensor([core, whole, enhancing])
    assert to_labels(masks, convention("brats2017")).tolist() == [[0, 2, 1, 4]]
    assert to_labels(masks, convention("msd")).tolist() == [[0, 1, 2, 3]]
    assert to_labels(masks, convention("brats2024-ped")).tolist() == [[0, 4, 2, 1]]


@pytest.mark.parametrize(("name", "et_label"), [("brats2017", 4), ("brats2023", 3)])
def test_regions_and_their_order_are_those_of_monai(name, et_label):
    labels = every_value(convention(name))
    theirs = ConvertToMultiChannelBasedOnBratsClasses(et_label=et_label)(labels[0])
    assert torch.equal(to_regions(labels, convention(name)).bool(), torch.as_tensor(theirs).bool())


@pytest.mark.parametrize("name", CONVENTIONS)
def test_labels_to_regions_to_labels_changes_only_what_no_region_tells_apart(name):
    row = convention(name)
    labels = every_value(row)
    expected = labels.clone()
    for value, replacement in MERGED.get(name, {}).items():
        expected[labels == value] = replacement
    back = to_labels(to_regions(labels, row, names_of(row)), row, names_of(row))
    assert back.dtype == torch.uint8
    assert torch.equal(back.long(), expected)


@pytest.mark.parametrize("name", [name for name, row in CONVENTIONS.items() if "ET" in row.regions])
def test_masks_that_are_not_nested_still_give_a_nested_label_map(name):
    row = convention(name)
    masks = torch.tensor(list(itertools.product([0, 1], repeat=3))).T  # (R, 8): every combination
    core, whole, enhancing = to_regions(to_labels(masks, row), row).bool()
    wanted_core, wanted_whole, wanted_enhancing = masks.bool()
    assert torch.equal(enhancing, wanted_enhancing)
    assert torch.equal(core, wanted_core | wanted_enhancing)
    assert torch.equal(whole, wanted_whole | wanted_core | wanted_enhancing)


@pytest.mark.parametrize("order", list(itertools.permutations(REGIONS)))
def test_channels_follow_the_names_in_any_order(order):
    row = convention("brats2023")
    labels = every_value(row)
    masks = to_regions(labels, row, order)
    usual = to_regions(labels, row)
    for channel, region in zip(masks, order, strict=True):
        assert torch.equal(channel, usual[REGIONS.index(region)])
    assert torch.equal(to_labels(masks, row, order).long(), labels)


def test_a_single_region_can_be_asked_for():
    row = convention("brats2017")
    masks = to_regions(torch.tensor([[0, 1, 2, 4]]), row, ["ET"])
    assert masks.tolist() == [[0, 0, 0, 1]]
    assert to_labels(masks, row, ["ET"]).tolist() == [[0, 0, 0, 4]]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int16, torch.int64, torch.float32])
def test_labels_may_have_any_type(dtype):
    labels = torch.tensor([[0, 1, 2, 4]], dtype=dtype)
    assert to_regions(labels, convention("brats2017")).tolist() == [[0, 1, 0, 1], [0, 1, 1, 1], [0, 0, 0, 1]]


@pytest.mark.parametrize(
    ("value", "name"), [(7, "brats2017"), (3, "brats2017"), (4, "brats2023"), (-1, "msd"), (2**20, "lgg")]
)
def test_a_foreign_label_is_refused_by_its_value(value, name):
    with pytest.raises(PipelineError) as caught:
        to_regions(torch.tensor([[0, 1, 1, value]]), convention(name))
    message = str(caught.value)
    assert message.startswith(f"label value {value} does not exist in the convention {name} (1 = ")
    assert message.endswith("give the right convention or repair the label map")


def test_several_foreign_labels_are_all_named():
    with pytest.raises(PipelineError, match=r"label value 3, 7 does not exist in the convention brats2017"):
        to_regions(torch.tensor([[7, 1, 3, 0]]), convention("brats2017"))


def test_wrong_channels_are_refused():
    with pytest.raises(ValueError, match=r"a label map has one channel; this one has shape \(2, 4, 4\)"):
        to_regions(torch.zeros(2, 4, 4), convention("brats2017"))
    with pytest.raises(ValueError, match=r"regions have 2 channels; needed: 3 \(TC, WT, ET\)"):
        to_labels(torch.zeros(2, 4, 4), convention("brats2017"))


def test_the_dictionary_transforms_read_the_convention_of_each_case():
    affine = torch.diag(torch.tensor([1.0, 2.0, 3.0, 1.0], dtype=torch.float64))
    for name in ("brats2017", "msd", "brats2024-ped"):
        row = convention(name)
        labels = MetaTensor(to_labels(to_regions(every_value(row), row), row), affine=affine)
        case = {"label": labels, "convention": name, "other": 1}
        masks = LabelsToRegionsd("label")(case)
        assert masks["label"].dtype == torch.float32
        assert masks["label"].shape == (3, 5, 6, 7)
        assert isinstance(case["label"], MetaTensor), "the case that came stays as it was"
        assert torch.equal(case["label"], labels)
        back = RegionsToLabelsd("label")(masks)["label"]
        assert torch.equal(back.as_tensor(), labels.as_tensor())
        assert masks["other"] == 1
        np.testing.assert_array_equal(masks["label"].affine, affine)
        np.testing.assert_array_equal(back.affine, affine)


def test_a_convention_with_other_regions_than_the_network_is_not_written():
    masks = {"label": MetaTensor(torch.ones(1, 2, 2, 2)), "convention": "brats2023"}
    with pytest.raises(PipelineError, match=r"brats2023 has the regions TC, WT, ET, and this bundle marks WT; .* lgg"):
        RegionsToLabelsd("label", regions=["WT"])(masks)


def test_a_missing_label_is_an_error_unless_allowed():
    case = {"convention": "brats2017"}
    assert LabelsToRegionsd("label", allow_missing_keys=True)(case) == case
    with pytest.raises(KeyError, match="label"):
        LabelsToRegionsd("label")(case)
