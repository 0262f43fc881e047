"""A scan of other spacing is segmented on the bundle's grid and comes back on its own, at little loss."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform, gaussian_filter1d
from sklearn.linear_model import LogisticRegression

from brats_pipeline.bundles import bundle_path, freeze_bundle
from brats_pipeline.inference.segment import segment
from brats_pipeline.phantom import make_case
from brats_pipeline.weights import write_checkpoint
from transforms.nifti import write_nifti

MODALITIES = ("t1c", "t1", "t2", "flair")
SHAPE = (144, 180, 144)


@pytest.fixture(scope="module")
def case() -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Images, tumour mask and affine of one synthetic case of 1 mm."""
    phantom = make_case(3, shape=SHAPE, spacing_mm=1.0)
    images = {name: gaussian_filter1d(image.astype(np.float32), 0.7, axis=2) for name, image in phantom.images.items()}
    inside = phantom.images["flair"] != 0
    return {name: np.where(inside, image, 0) for name, image in images.items()}, phantom.tumour > 0, phantom.affine


@pytest.fixture(scope="module")
def run(case: tuple[dict[str, np.ndarray], np.ndarray, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained network that takes a second to train: one linear layer over the modalities, fitted to the case."""
    images, tumour, _ = case
    brain = images["flair"] != 0
    features = np.stack([(image[brain] - image[brain].mean()) / image[brain].std() for image in images.values()], 1)
    chosen = np.random.default_rng(0).choice(len(features), 20_000, replace=False)
    fitted = LogisticRegression().fit(features[chosen], tumour[brain][chosen])
    folder = tmp_path_factory.mktemp("run")
    layer = {"_target_": "torch.nn.Conv3d", "in_channels": 4, "out_channels": 3, "kernel_size": 1}
    changes = {"network_def": layer, "precision": "float32", "presence_flags": False, "spacing": [1.0] * 3}
    freeze_bundle(bundle_path("brats_glioma_3d"), folder, changes)
    weight = torch.tensor(fitted.coef_, dtype=torch.float32).reshape(1, 4, 1, 1, 1).repeat(3, 1, 1, 1, 1)
    bias = torch.tensor(fitted.intercept_, dtype=torch.float32).repeat(3)
    bias[[0, 2]] = -100  # neither core nor enhancing tumour, so that every label is whole tumour
    write_checkpoint(folder / "models" / "model.pt", {"weight": weight, "bias": bias})
    return folder


def write(folder: Path, images: dict[str, np.ndarray], affine: np.ndarray) -> Path:
    for name, image in images.items():
        write_nifti(folder / f"{name}.nii.gz", nib.Nifti1Image(image.astype(np.float32), affine))
    return folder


def resampled(image: np.ndarray, zoom: np.ndarray, order: int) -> np.ndarray:
    """The image on a grid whose voxels are ``zoom`` times as large, by scipy."""
    shape = tuple(np.floor(np.array(image.shape) / zoom).astype(int))
    return affine_transform(image, zoom, offset=(zoom - 1) / 2, output_shape=shape, order=order)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def test_thick_slices_cost_less_than_five_points_of_dice(
    case: tuple[dict[str, np.ndarray], np.ndarray, np.ndarray], run: Path, tmp_path: Path
) -> None:
    images, tumour, affine = case
    zoom = np.array([0.9, 0.9, 3.0])
    thick = {name: resampled(gaussian_filter1d(image, 1.0, axis=2), zoom, order=1) for name, image in images.items()}
    brain = resampled((images["flair"] != 0).astype(np.uint8), zoom, order=0) != 0
    thick = {name: np.where(brain, image, 0) for name, image in thick.items()}
    thick_affine = affine @ np.diag([*zoom, 1.0])
    thick_affine[:3, 3] += affine[:3, :3] @ ((zoom - 1) / 2)

    folders = [
        write(tmp_path / "fine", images, affine),
        write(tmp_path / "thick", thick, thick_affine),
    ]
    result = segment(folders, tmp_path / "out", bundle=run)
    assert not result.failed
    fine = nib.load(tmp_path / "out" / "fine.nii.gz")
    coarse = nib.load(tmp_path / "out" / "thick.nii.gz")
    assert coarse.shape == thick["t1c"].shape
    np.testing.assert_array_equal(coarse.affine, nib.load(tmp_path / "thick" / "t1c.nii.gz").affine)

    at_home = dice(np.asarray(fine.dataobj) > 0, tumour)
    away = dice(np.asarray(coarse.dataobj) > 0, resampled(tumour.astype(np.uint8), zoom, order=0) > 0)
    assert at_home > 0.6, "the network must find the tumour at all"
    assert away > at_home - 0.05
