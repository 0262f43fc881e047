"""What travels inside a report: volumes that lie where the scan lies, the warning about faces, tissues, the viewer."""

from __future__ import annotations

import gzip

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from brats_pipeline.metrics import RULES
from brats_pipeline.phantom.synthesis import make_case, make_slices
from brats_pipeline.report import case_volume, shows_head, tissue_confusion
from brats_pipeline.report.confusion import joined
from brats_pipeline.report.viewer import exported
from transforms.labels import CONVENTIONS

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
TILTED = np.array([[0, 0, 1.5, -7], [0, -1.0, 0, 4], [2.0, 0, 0, 30], [0, 0, 0, 1]])  # axes: up, front, right


def read(packed: bytes) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_bytes(gzip.decompress(packed))


def boxes(shape=(40, 36, 32)):
    image = np.zeros(shape, np.float32)
    image[4:-4, 4:-4, 4:-4] = np.random.default_rng(0).uniform(50, 100, tuple(side - 8 for side in shape))
    wide, core, guess = np.zeros((3, *shape), bool)
    wide[8:20, 10:22, 12:20] = True
    core[10:14, 12:16, 14:18] = True
    guess[9:21, 10:22, 12:20] = True
    return image, {"WT": wide, "TC": core}, {"WT": guess, "TC": core & False}


@pytest.mark.parametrize("affine", [LPS, TILTED])
@pytest.mark.parametrize("mm", [1.0, 3.0])
def test_a_voxel_of_the_report_lies_where_it_lies_in_the_scan(affine, mm):
    image, reference, prediction = boxes()
    volume = case_volume({"flair": image}, reference, prediction, affine=affine, mm=mm)
    labels = read(volume.labels)
    assert nib.aff2axcodes(labels.affine) == ("R", "A", "S")
    assert read(volume.images["flair"]).shape == labels.shape
    spacing = np.linalg.norm(labels.affine[:3, :3], axis=0)
    assert spacing.max() <= max(mm, 2.0)
    levels = np.asarray(labels.dataobj)
    for level, masks, part in ((1, reference, levels % 16), (1, prediction, levels // 16)):
        middle = nib.affines.apply_affine(labels.affine, np.argwhere(part >= level).mean(axis=0))
        expected = nib.affines.apply_affine(affine, np.argwhere(masks["WT"]).mean(axis=0))
        assert middle == pytest.approx(expected, abs=0.01 if mm == 1 else spacing.max() / 2)
        size = np.count_nonzero(part >= level) * spacing.prod()
        assert size == pytest.approx(masks["WT"].sum() * abs(np.linalg.det(affine)), rel=0.01 if mm == 1 else 0.3)


def test_regions_are_painted_widest_first_and_a_missing_prediction_is_told():
    image, reference, _ = boxes()
    volume = case_volume({"flair": image}, dict(reversed(reference.items())), None, affine=LPS, mm=1)
    levels = np.asarray(read(volume.labels).dataobj)
    assert volume.regions == ("WT", "TC")
    assert not volume.predicted
    assert [int((levels == level).sum()) for level in (1, 2)] == [
        int((reference["WT"] & ~reference["TC"]).sum()),
        int(reference["TC"].sum()),
    ]
    assert levels.max() == 2
    assert levels[volume.place] > 0


def test_a_coarse_voxel_is_the_mean_of_its_block_and_takes_the_label_that_fills_half_of_it():
    image = np.zeros((8, 8, 8), np.float32)
    image[2:6, 2:6, 2:6] = 100
    image[2:4, 2:4, 2:4] = [[[0, 100], [100, 0]], [[100, 0], [0, 100]]]
    half, less = np.zeros((2, 8, 8, 8), bool)
    half[2:4, 2:4, 2] = True
    less[4:6, 4:6, 4] = True
    less[4, 4, 4] = False
    volume = case_volume({"flair": image}, {"WT": half | less}, None, affine=np.eye(4), mm=2)
    grey, levels = (np.asarray(read(packed).dataobj) for packed in (volume.images["flair"], volume.labels))
    assert grey.shape == (4, 4, 4)
    assert grey[1, 1, 1] == pytest.approx(grey.max() / 2, abs=4)
    assert levels.sum() == 1
    assert levels[1, 1, 1] == 1


def test_equal_cases_give_equal_bytes():
    image, reference, prediction = boxes()
    first, second = (case_volume({"flair": image}, reference, prediction, affine=LPS, mm=2) for _ in range(2))
    assert first == second


def test_no_image_gives_no_volume():
    with pytest.raises(ValueError, match="at least one image"):
        case_volume({}, {"WT": np.zeros((3, 3, 3), bool)}, None, affine=LPS, mm=1)


def test_a_head_with_its_skull_is_told_from_a_brain():
    brain = make_case(0, shape=(120, 120, 78), spacing_mm=2.0).images["flair"]
    assert not shows_head(brain, voxel_ml=0.008)
    noisy = brain + np.random.default_rng(0).normal(0, 3, brain.shape)
    assert shows_head(noisy, voxel_ml=0.008)


@pytest.mark.parametrize("seed", range(3))
def test_a_head_is_a_head_on_measured_air_and_on_zeros(seed):
    head = make_slices(seed, shape=(128, 128, 24)).images["flair"]
    voxel_ml = 240 * 240 * 159 / head.size / 1000
    assert shows_head(head, voxel_ml=voxel_ml)
    blank = np.where(ndimage.median_filter(head, 3) > 12, head, 0)
    assert shows_head(blank, voxel_ml=voxel_ml)


def test_tissues_are_shared_out_by_what_they_were_taken_for():
    reference = np.array([[[1, 1, 2, 2, 4, 0, 0, 0]]], np.uint8)
    prediction = np.array([[[1, 2, 2, 2, 3, 3, 2, 0]]], np.uint8)
    case = tissue_confusion(
        reference,
        prediction,
        expected=CONVENTIONS["brats2017"],
        predicted=CONVENTIONS["brats2023"],
        voxel_ml=0.5,
    )
    assert case == {
        ("NCR", "NCR"): 0.5,
        ("NCR", "ED"): 0.5,
        ("ED", "ED"): 1.0,
        ("ET", "ET"): 0.5,
        ("none", "ET"): 0.5,
        ("none", "ED"): 0.5,
    }
    both = joined([case, {("ED", "none"): 3.0}])
    assert both is not None
    assert both.n == 2
    assert both.rows == ("ED", "ET", "NCR", "none")
    assert both.columns == ("ED", "ET", "NCR", "none")
    assert both.share[0].tolist() == [0.25, 0, 0, 0.75]
    assert np.allclose(both.share.sum(axis=1), 1)
    assert joined([]) is None


def test_the_class_of_the_viewer_is_handed_out_whatever_its_short_name_is():
    widget = 'var Q;console.log("Creating new Niivue instance");let o=a(b);Q=new $x9(o)}return Q;export{Q as default};'
    script = exported(widget)
    assert script is not None
    assert script.startswith(widget)
    assert "detail: $x9 }" in script
    assert exported("export{Q as default};") is None


def test_every_rule_fits_into_a_label_volume():
    assert max(len(rules.regions) for rules in RULES.values()) <= 15
