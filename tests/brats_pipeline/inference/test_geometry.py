"""A segmentation turns with its scan: ``segment(reorient(case)) == reorient(segment(case))``, voxel for voxel.

The whole inference configuration runs, with a small network of random weights: what it marks means nothing, but every
difference between two orientations would show in it.
"""

import itertools

import nibabel as nib
import numpy as np
import pytest
import torch

from brats_pipeline.bundles import bundle_path, freeze_bundle
from brats_pipeline.inference.segment import segment
from brats_pipeline.phantom import make_case
from brats_pipeline.weights import write_checkpoint
from networks import UNet
from transforms.labels import MODALITIES
from transforms.nifti import orientation, write_nifti

SPACING_MM = 4.0
SHAPE = (25, 28, 26)
SMALL = {"depth": 2, "features": 8}
ORIENTATIONS = [
    "".join(letters) for axes in itertools.permutations(["LR", "PA", "IS"]) for letters in itertools.product(*axes)
]


def turned(image, axcodes):
    """The same image with its array axes growing towards ``axcodes``."""
    start, end = nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(tuple(axcodes))
    return image.as_reoriented(nib.orientations.ornt_transform(start, end))


def write_turned(folder, case_id, axcodes, *, spacing_mm=SPACING_MM, shape=SHAPE):
    """One and the same head, with its array axes growing towards ``axcodes``."""
    case = make_case(5, shape=shape, spacing_mm=spacing_mm)
    for modality in MODALITIES:
        name = f"{case_id}_{'t1ce' if modality == 't1c' else modality}.nii.gz"
        image = nib.Nifti1Image(case.images[modality], case.affine)
        write_nifti(folder / case_id / name, turned(image, axcodes))


@pytest.fixture(scope="module")
def random_run(tmp_path_factory):
    """A run with weights that were never trained, windows smaller than the head, and voxels of 4 mm."""
    run = tmp_path_factory.mktemp("geometry") / "run"
    overrides = {f"network_def::{name}": value for name, value in SMALL.items()}
    overrides |= {"roi_size": [16, 16, 16], "precision": "float32", "spacing": [SPACING_MM] * 3}
    overrides |= {"presence_flags": False}
    freeze_bundle(bundle_path("brats_glioma_3d"), run, overrides)
    torch.manual_seed(0)
    network = UNet(spatial_dims=3, in_channels=4, out_channels=3, **SMALL)
    write_checkpoint(run / "models" / "model.pt", network.state_dict())
    return run


def segment_turned(run, folder, orientations, **grid):
    """Segment one head in several orientations; returns each prediction, as it was written."""
    cases = {axcodes: f"BraTS2021_{number:05}" for number, axcodes in enumerate(orientations)}
    for axcodes, case_id in cases.items():
        write_turned(folder / "cohort", case_id, axcodes, **grid)
    result = segment([folder / "cohort"], folder / "predictions", bundle=run, device="cpu")
    assert not result.failed
    return {axcodes: nib.load(result.out / f"{case_id}.nii.gz") for axcodes, case_id in cases.items()}


def assert_turned_alike(predictions, reference):
    for axcodes, prediction in predictions.items():
        expected = turned(reference, axcodes)
        assert orientation(prediction.affine) == axcodes
        np.testing.assert_allclose(prediction.affine, expected.affine, atol=1e-4)
        np.testing.assert_array_equal(np.asarray(prediction.dataobj), np.asarray(expected.dataobj), err_msg=axcodes)


def assert_worth_comparing(prediction):
    """Every region is marked, none fills the image, and no mirror image or swap of axes looks the same."""
    labels = np.asarray(prediction.dataobj)
    assert set(np.unique(labels)) == {0, 1, 2, 4}
    assert 0.02 < (labels == 4).mean() < 0.5
    assert all((labels != np.flip(labels, axis)).mean() > 0.02 for axis in range(3))


def test_in_all_48_orientations_the_same_voxels_are_marked(random_run, tmp_path):
    predictions = segment_turned(random_run, tmp_path, ORIENTATIONS)
    assert len(predictions) == 48
    assert_worth_comparing(predictions["LPS"])
    assert_turned_alike(predictions, predictions["LPS"])


def test_so_they_are_where_the_scan_must_be_resampled(random_run, tmp_path):
    grid = {"spacing_mm": (3.0, 4.1, 7.0), "shape": (34, 27, 15)}
    predictions = segment_turned(random_run, tmp_path, ["LPS", "RAS", "SPL", "AIR", "PSR"], **grid)
    assert_worth_comparing(predictions["LPS"])
    assert_turned_alike(predictions, predictions["LPS"])


def test_so_they_are_with_trained_weights(run, tmp_path):
    predictions = segment_turned(run, tmp_path, ["LPS", "RAS", "IRP", "ASL"], shape=(44, 48, 40))
    labels = np.asarray(predictions["LPS"].dataobj)
    assert labels.any()
    assert not labels.all()
    assert_turned_alike(predictions, predictions["LPS"])
