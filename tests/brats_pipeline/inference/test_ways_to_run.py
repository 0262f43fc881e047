"""`segment` by another backend and within a cap of memory: the same label maps, or a plain word."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from brats_pipeline.bundles import bundle_path, freeze_bundle, weights_path
from brats_pipeline.inference.segment import segment
from networks import UNet
from tests.conftest import SPACING_MM


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with random weights, which mark voxels all over the brain; must not be changed."""
    bundle = tmp_path_factory.mktemp("untrained") / "bundle"
    changes = {"spacing": [SPACING_MM] * 3, "roi_size": [16] * 3, "precision": "float32"}
    freeze_bundle(
        bundle_path("brats_glioma_3d"), bundle, {**changes, "network_def::features": 8, "network_def::depth": 2}
    )
    weights_path(bundle).parent.mkdir()
    torch.manual_seed(0)
    network = UNet(spatial_dims=3, in_channels=8, out_channels=3, depth=2, features=8)
    torch.save(network.state_dict(), weights_path(bundle))
    return bundle


@pytest.fixture(scope="module")
def one_case(make_cohort: Callable[..., Path]) -> Path:
    """A cohort of one."""
    return make_cohort(cases=1)


@pytest.fixture(scope="module")
def expected(untrained: Path, one_case: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What torch makes of it, as it comes."""
    return segment([one_case], tmp_path_factory.mktemp("expected") / "out", bundle=untrained, device="cpu").out


def labels(folder: Path) -> np.ndarray:
    (path,) = folder.glob("*.nii.gz")
    return np.asarray(nib.load(path).dataobj)


def test_regions_made_slab_by_slab_are_those_of_the_kept_probabilities(
    untrained: Path, one_case: Path, expected: Path, tmp_path: Path
) -> None:
    kept = segment([one_case], tmp_path / "out", bundle=untrained, device="cpu", save_probabilities=True).out
    assert len(np.unique(labels(expected))) > 2
    assert np.array_equal(labels(kept), labels(expected))


@pytest.mark.slow
def test_onnxruntime_makes_the_same_label_maps_and_keeps_its_export_beside_the_weights(
    untrained: Path, one_case: Path, expected: Path, tmp_path: Path
) -> None:
    own = shutil.copytree(untrained, tmp_path / "bundle")
    out = segment([one_case], tmp_path / "out", bundle=own, device="cpu", overrides={"backend": "onnxruntime"}).out
    assert (labels(out) != labels(expected)).sum() <= 2  # a voxel on the threshold may fall to the other side
    assert [path.name.split(".")[2] for path in (own / "models").glob("model.*.onnx")] == ["3d"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="TensorRT may be there")
def test_a_backend_that_is_not_there_is_refused_before_anything_is_written(
    command: Callable[..., Any], untrained: Path, one_case: Path, tmp_path: Path
) -> None:
    for name, reason in (("tensorrt", "backend tensorrt needs"), ("caffe", "known: torch, onnxruntime")):
        outcome = command("segment", one_case, "-o", tmp_path / "out", "--bundle", untrained, "--backend", name)
        assert outcome.code == 2
        assert reason in outcome.err
        assert not (tmp_path / "out").exists()


def test_a_cap_that_nothing_fits_into_is_said_and_one_that_is_wide_changes_nothing(
    command: Callable[..., Any], untrained: Path, one_case: Path, expected: Path, tmp_path: Path
) -> None:
    arguments = ("segment", one_case, "-o", tmp_path / "out", "--bundle", untrained, "--max-memory")
    outcome = command(*arguments, "1MiB")
    assert outcome.code == 2
    assert "of max_memory 1.0 MiB; use more memory, or allow_smaller_window: true" in outcome.err
    outcome = command(*arguments, "much")
    assert outcome.code == 2
    assert "max_memory is 'much'; give a size such as 8GiB" in outcome.err
    kept = shutil.copytree(expected, tmp_path / "kept")
    result = segment([one_case], kept, bundle=untrained, device="cpu", overrides={"max_memory": "100GiB"})
    assert not result.done
    assert len(result.skipped) == 1
