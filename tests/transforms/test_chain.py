"""The chains of the bundle, from files to tensors and back: every orientation, every kind of header.

The network's part is played by the truth: the regions of the known label map are handed on as its answer, so that what
is written must be the label map itself, voxel for voxel.
"""

import itertools
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import decollate_batch, list_data_collate
from monai.transforms import Compose

from transforms.labels import CONVENTIONS, MODALITIES, REGIONS, convention
from transforms.nifti import orientation, spacing_mm
from transforms.regions import to_labels, to_regions

CONFIGS = Path(__file__).parents[2] / "bundles" / "brats_glioma_3d" / "configs"
ORIENTATIONS = [
    "".join(letters)
    for axes in itertools.permutations(["LR", "PA", "IS"])
    for letters in itertools.product(*axes)
]  # fmt: skip
HEADERS = ("sform only", "qform only", "both")
SURE = 20.0  # a logit whose probability is 1 or 0 in float32
GEOMETRY = (
    "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z",
    "srow_x", "srow_y", "srow_z", "pixdim", "xyzt_units",
)  # fmt: skip


def affine_of(axcodes, spacing, origin=(0.0, 0.0, 0.0), turn_degrees=0.0):
    """An affine whose array axes grow towards ``axcodes``, turned about a skew axis."""
    to_codes = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(tuple(axcodes))
    )
    axes = np.zeros((3, 3))
    for world, (array, sign) in enumerate(to_codes):
        axes[world, int(array)] = sign
    turn = nib.quaternions.angle_axis2mat(np.radians(turn_degrees), [0.5, -0.3, 0.8])
    return nib.affines.from_matvec(turn @ axes @ np.diag(spacing), origin)


def with_header(kind):
    """A maker of NIfTI images that place their voxels by sform, qform or both."""

    def make(voxels, affine):
        image = nib.Nifti1Image(voxels, None)
        image.header.set_xyzt_units("mm", "sec")
        image.header.set_qform(affine, 1 if kind != "sform only" else 0)
        image.header.set_sform(affine, 2 if kind != "qform only" else 0)
        return nib.Nifti1Image(voxels, None, image.header)

    return make


def parse(name="inference.yaml", **overrides):
    parser = ConfigParser()
    parser.read_config(str(CONFIGS / name))
    parser["dataset_dir"] = "nowhere"
    parser["spacing"], parser["presence_flags"] = [1.0, 1.0, 1.0], False
    if "dataset" in parser:
        parser["dataset::data"] = []
    for key, value in overrides.items():
        parser[key] = value
    return parser


@pytest.fixture(scope="module")
def chains(tmp_path_factory):
    """The chains of inference.yaml, and the folder they write to."""
    out = tmp_path_factory.mktemp("predictions")
    parser = parse(output_dir=str(out))
    before = parser.get_parsed_content("dataset").transform
    after = parser.get_parsed_content("postprocessing")
    return before, after, out


def answer(before, after, item, change=lambda regions: regions):
    """Segment a case as the engine does, with the case's own regions in place of the network."""
    (case,) = decollate_batch(list_data_collate([before(item)]))
    case["pred"] = (change(case["label"].as_tensor()) * 2 - 1) * SURE
    return case, after(case)


def assert_same_header(path, like):
    header, wanted = nib.load(path).header, nib.load(like).header
    for field in GEOMETRY:
        assert header[field].tobytes() == wanted[field].tobytes(), field
    assert header.get_data_shape() == wanted.get_data_shape()
    assert header.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(nib.load(path).affine, nib.load(like).affine)


def test_there_are_48_orientations():
    assert len(set(ORIENTATIONS)) == 48
    for axcodes in ORIENTATIONS:
        assert orientation(affine_of(axcodes, (1, 1, 1), turn_degrees=20)) == axcodes


@pytest.mark.parametrize(
    ("axcodes", "kind", "turn_degrees"),
    [(axcodes, kind, 0) for axcodes in ORIENTATIONS for kind in HEADERS]
    + [(axcodes, HEADERS[number % 3], 17) for number, axcodes in enumerate(ORIENTATIONS)],
)
def test_a_label_map_comes_back_exactly_with_the_header_of_its_scan(
    chains, head, write_case, axcodes, kind, turn_degrees
):
    before, after, out = chains
    generator = np.random.default_rng(ORIENTATIONS.index(axcodes) + 100 * HEADERS.index(kind))
    images, labels = head(seed=int(generator.integers(1000)))
    affine = affine_of(axcodes, generator.uniform(0.96, 1.04, 3), generator.uniform(-200, 200, 3), turn_degrees)
    case_id = f"{axcodes}-{kind.replace(' ', '-')}-{turn_degrees}"
    item = write_case(images, labels, affine, case_id=case_id, make=with_header(kind))

    case, result = answer(before, after, item)

    assert orientation(case["image"].affine.numpy()) == "LPS"
    path = Path(result["pred_path"])
    assert path == out / f"{case_id}.nii.gz"
    np.testing.assert_array_equal(np.asarray(nib.load(path).dataobj), labels)
    assert_same_header(path, item["image"][0])


@pytest.mark.parametrize("axcodes", ORIENTATIONS)
def test_what_the_network_sees_does_not_depend_on_the_orientation(chains, head, write_case, axcodes):
    before, _, _ = chains
    images, labels = head()
    affine = affine_of("LPS", (1, 1, 1), (3, 4, 5))
    seen = before(write_case(images, labels, affine, case_id="as-brats"))

    def reoriented(voxels, affine):
        image = nib.Nifti1Image(voxels, affine)
        turn = nib.orientations.ornt_transform(
            nib.io_orientation(affine), nib.orientations.axcodes2ornt(tuple(axcodes))
        )
        return image.as_reoriented(turn)

    again = before(write_case(images, labels, affine, case_id=axcodes, make=reoriented))
    assert torch.equal(again["label"].as_tensor(), seen["label"].as_tensor())
    assert torch.equal(again["image"].as_tensor(), seen["image"].as_tensor())
    np.testing.assert_allclose(again["image"].affine, seen["image"].affine)


@pytest.mark.parametrize("name", ["brats2017", "brats2023", "msd"])
def test_each_case_is_written_in_its_own_convention(chains, head, write_case, name):
    before, after, _ = chains
    images, labels = head()
    row = convention(name)
    labels = to_labels(to_regions(torch.from_numpy(labels)[None], CONVENTIONS["brats2017"]), row)[0].numpy()
    _, result = answer(before, after, write_case(images, labels, convention=name, case_id=name))
    np.testing.assert_array_equal(np.asarray(nib.load(result["pred_path"]).dataobj), labels)
    assert set(np.unique(labels)) == row.values


def test_a_case_without_a_label_map_goes_the_same_way(chains, head, write_case):
    before, after, _ = chains
    images, labels = head()
    with_label = before(write_case(images, labels, case_id="with"))
    without = before(write_case(images, case_id="without"))
    assert "label" not in without
    assert torch.equal(without["image"].as_tensor(), with_label["image"].as_tensor())
    without["pred"] = (with_label["label"].as_tensor() * 2 - 1) * SURE
    np.testing.assert_array_equal(np.asarray(nib.load(after(without)["pred_path"]).dataobj), labels)


def test_outside_the_field_of_view_nothing_is_written(chains, head, write_case):
    before, after, _ = chains
    images, labels = head(margin=2)
    _, result = answer(before, after, write_case(images, labels, case_id="full"), torch.ones_like)
    written = np.asarray(nib.load(result["pred_path"]).dataobj)
    np.testing.assert_array_equal(written != 0, images[0] != 0)


def test_an_answer_that_is_not_nested_is_written_nested(chains, head, write_case):
    before, after, _ = chains
    images, labels = head()

    def enhancing_alone(regions):
        alone = torch.zeros_like(regions)
        alone[REGIONS.index("ET")] = regions[REGIONS.index("ET")]
        return alone

    _, result = answer(before, after, write_case(images, labels, case_id="et"), enhancing_alone)
    np.testing.assert_array_equal(np.asarray(nib.load(result["pred_path"]).dataobj), np.where(labels == 4, 4, 0))


def test_the_first_modality_lends_its_header(chains, head, write_case):
    before, after, _ = chains
    images, labels = head()
    affine = affine_of("LPS", (1, 1, 1), (4, 5, 6), 12)
    item = write_case(images, labels, affine, case_id="headers", make=with_header("both"))
    nib.save(with_header("sform only")(images[0], affine), item["image"][0])
    _, result = answer(before, after, item)
    assert_same_header(result["pred_path"], item["image"][0])
    assert int(nib.load(result["pred_path"]).header["qform_code"]) == 0


def test_probabilities_are_brought_back_before_they_are_cut(chains, write_case):
    """A slope that crosses one half between two voxels of 1 mm is cut there, on voxels of 0.5 mm."""
    before, after, _ = chains
    images = np.random.default_rng(0).integers(1, 1000, (4, 24, 8, 8)).astype(np.int16)
    item = write_case(images, affine=affine_of("LPS", (0.5, 0.5, 0.5)), case_id="slope")

    def probability(image_affine, count):
        x_mm = image_affine[0, 0] * np.arange(count) + image_affine[0, 3]
        return np.clip(0.5 - 0.08 * (x_mm + 5.3), 0.01, 0.99)

    case = before(item)
    slope = torch.as_tensor(probability(case["image"].affine.numpy(), case["image"].shape[1]))
    case["pred"] = torch.full((3, *case["image"].shape[1:]), -SURE)
    case["pred"][REGIONS.index("WT")] = torch.logit(slope)[:, None, None].float()
    written = np.asarray(nib.load(after(case)["pred_path"]).dataobj)
    expected = np.where(probability(nib.load(item["image"][0]).affine, 24) > 0.5, 2, 0)
    inner = slice(2, -2)  # beyond the outermost voxel of 1 mm there is nothing to interpolate
    np.testing.assert_array_equal(written[inner, 3, 3], expected[inner])
    assert 0 < (expected[inner] == 2).mean() < 1


# --- what the network sees -------------------------------------------------------------------------------------------


def test_the_field_of_view_is_the_box_around_the_brain_of_any_modality(chains, head, write_case):
    before, _, _ = chains
    images, labels = head(margin=3)
    images[2, 1, 4, 3] = 50  # one modality alone reaches further
    seen = before(write_case(images, labels, affine_of("LPS", (1, 1, 1), (10, 20, 30))))
    assert seen["image"].shape == (4, 5, 2, 1)
    assert seen["label"].shape == (3, 5, 2, 1)
    np.testing.assert_allclose(seen["image"].affine[:3, 3], (10 - 1, 20 - 3, 30 + 3))


def test_the_full_field_of_view_crops_nothing(head, write_case):
    images, labels = head(margin=2)
    parser = parse(field_of_view="full")
    before = parser.get_parsed_content("dataset").transform
    assert before(write_case(images, labels))["image"].shape == (4, 9, 8, 7)


def test_each_channel_has_mean_0_and_sd_1_over_the_voxels_that_are_not_zero(chains, head, write_case):
    before, _, _ = chains
    images, _ = head((20, 21, 22))
    images[1, 5:9] = 0  # a hole in one modality
    seen = before(write_case(images))["image"].numpy()
    for channel, (normal, raw) in enumerate(zip(seen, images[:, 1:-1, 1:-1, 1:-1], strict=True)):
        inside = raw != 0
        values = raw[inside].astype(np.float64)
        np.testing.assert_allclose(normal[inside], (values - values.mean()) / values.std(), atol=1e-4)
        assert abs(normal[inside].mean()) < 1e-4, MODALITIES[channel]
        assert abs(normal[inside].std() - 1) < 1e-4
        assert not normal[~inside].any()


def test_channels_keep_the_order_of_the_modalities(chains, head, write_case):
    before, _, _ = chains
    images, _ = head()
    seen = before(write_case(images))["image"].numpy()
    for channel in range(4):
        correlation = [np.corrcoef(seen[channel].ravel(), raw[1:-1, 1:-1, 1:-1].ravel())[0, 1] for raw in images]
        assert int(np.argmax(correlation)) == channel
        assert correlation[channel] > 0.999


@pytest.mark.parametrize(
    ("spacing", "seen_spacing"),
    [
        ((1, 1, 1), (1, 1, 1)),
        ((0.955, 1.045, 1.0), (0.955, 1.045, 1.0)),  # within 5 %: the voxels stay what they are
        ((1, 1, 3), (1, 1, 1)),
        ((0.9, 1.04, 3), (1, 1.04, 1)),
        ((1.06, 1, 1), (1, 1, 1)),
    ],
)
@pytest.mark.parametrize("axcodes", ["LPS", "ARI"])
def test_only_an_axis_more_than_5_percent_off_is_resampled(chains, head, write_case, spacing, seen_spacing, axcodes):
    before, after, _ = chains
    images, labels = head((12, 13, 11), margin=2)
    lps = affine_of("LPS", spacing)
    turn = nib.orientations.ornt_transform(nib.io_orientation(lps), nib.orientations.axcodes2ornt(tuple(axcodes)))

    def reoriented(voxels, affine):
        return nib.Nifti1Image(voxels, affine).as_reoriented(turn)

    item = write_case(images, labels, lps, make=reoriented)
    case, result = answer(before, after, item)
    np.testing.assert_allclose(spacing_mm(case["image"].affine.numpy()), seen_spacing, rtol=1e-5)
    for side, count, seen, now in zip(spacing, (8, 9, 7), case["image"].shape[1:], seen_spacing, strict=True):
        # Interpolation bleeds over the brain's edge, by less than a voxel on each side.
        bleeding_mm = 0 if spacing == seen_spacing else 2 * side + now
        assert abs(seen * now - count * side) <= bleeding_mm, "the brain keeps its size"
    path = result["pred_path"]
    assert nib.load(path).shape == nib.load(item["image"][0]).shape
    np.testing.assert_array_equal(nib.load(path).affine, nib.load(item["image"][0]).affine)
    if spacing == seen_spacing:
        np.testing.assert_array_equal(nib.load(path).get_fdata(), nib.load(item["label"]).get_fdata())


def test_thick_slices_come_back_nearly_as_they_were(chains, write_case):
    before, after, _ = chains
    x, y, z = np.meshgrid(*(np.arange(side) - (side - 1) / 2 for side in (40, 40, 15)), indexing="ij")
    distance = np.sqrt(x**2 + y**2 + (3 * z) ** 2)
    brain = distance < 19
    images = np.stack([(1000 + 100 * channel - 20 * distance) * brain for channel in range(4)]).astype(np.int16)
    labels = np.select([distance < 5, distance < 9, distance < 14], [1, 4, 2]).astype(np.uint8)
    _, result = answer(before, after, write_case(images, labels, affine_of("LPS", (0.9, 0.9, 3))))
    written = np.asarray(nib.load(result["pred_path"]).dataobj)
    for region, values in convention("brats2017").regions.items():
        one, other = np.isin(written, list(values)), np.isin(labels, list(values))
        dice = 2 * (one & other).sum() / (one.sum() + other.sum())
        assert dice > 0.95, (region, dice)


def test_training_and_validation_see_what_inference_sees(chains, head, write_case):
    before, _, _ = chains
    item = write_case(*head(), affine=affine_of("PIR", (1.02, 0.97, 1.0), (1, 2, 3), 10))
    expected = before(item)
    training = Compose(parse("train.yaml").get_parsed_content("preprocessing"))(item)
    validation = parse("train.yaml").get_parsed_content("validate::preprocessing")(item)
    for seen in (training, validation):
        for key in ("image", "label"):
            assert torch.equal(seen[key].as_tensor(), expected[key].as_tensor())


def test_the_case_says_who_it_is_to_the_end(chains, head, write_case):
    before, after, _ = chains
    item = write_case(*head(), case_id="who")
    case, result = answer(before, after, item)
    assert case["image"].meta["filename_or_obj"] == item["image"][0]
    assert (result["case_id"], result["convention"]) == ("who", "brats2017")
    assert result["pred"].shape == (1, 9, 8, 7), "back on the grid of the input"
    np.testing.assert_allclose(result["pred"].affine, nib.load(item["image"][0]).affine)
