"""Exported bundles in an environment of their own: the packages that they ask for, and nothing of this distribution."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from brats_pipeline.bundles.exporting import REQUIRED, export_bundle
from brats_pipeline.phantom import write_cohort
from tests.brats_pipeline.bundles.conftest import GLIOMA, SLICES, untrained

CLEANED = {"fill_holes": True, "keep_largest": True, "smallest_component": 5}


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a new environment with what a bundle asks for, and nothing else."""
    folder = tmp_path_factory.mktemp("alone") / "venv"
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    here = {name: importlib.metadata.version(name) for name in ("monai", "torch", "numpy", *REQUIRED)}
    wanted = [f"{name}=={version.partition('+')[0]}" for name, version in here.items()]
    index = [] if torch.cuda.is_available() else ["--extra-index-url", "https://download.pytorch.org/whl/cpu"]
    pip = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--retries", "1", *index, *wanted]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no packages to be had: {done.stderr[-500:]}")
    return python


def run_alone(python: Path, bundle: Path, data: Path, out: Path, folder: Path) -> None:
    """MONAI's own command, in an environment of its own."""
    arguments = ["--config_file", bundle / "configs" / "inference.yaml", "--bundle_root", bundle]
    arguments += ["--dataset_dir", data, "--output_dir", out, "--device", "$torch.device('cpu')"]
    done = subprocess.run(
        [python, "-m", "monai.bundle", "run", *map(str, arguments)],
        cwd=folder,
        env={"PATH": "", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize("module", ["brats_pipeline", "networks", "PIL", "cc3d", "scipy", "isal"])
def test_the_environment_of_its_own_has_nothing_of_ours_and_no_more_than_it_says(
    module: str, alone: Path, tmp_path: Path
) -> None:
    call = [alone, "-c", f"import {module}"]
    done = subprocess.run(call, cwd=tmp_path, env={"PATH": ""}, capture_output=True, text=True, check=False)
    assert f"No module named '{module}'" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bundle", "settings", "layout", "kind"),
    [
        ("brats_glioma_3d", GLIOMA | CLEANED, {"shape": (44, 48, 40), "spacing_mm": 4.0}, "*.nii.gz"),
        ("brats_slices_2d", SLICES, {"shape": (44, 48, 40), "spacing_mm": 4.0}, "*.nii.gz"),
        ("lgg_slices_2d", SLICES | CLEANED, {"layout": "lgg", "shape": (64, 64, 6)}, "*.tif"),
    ],
)
def test_label_maps_are_those_of_segment_where_nothing_of_ours_is(
    bundle: str,
    settings: dict[str, Any],
    layout: dict[str, Any],
    kind: str,
    alone: Path,
    tmp_path: Path,
    read_map: Callable[[Path], Any],
) -> None:
    from brats_pipeline.inference.segment import segment

    run = untrained(bundle, tmp_path / "run", settings)
    write_cohort(tmp_path / "data", cases=1, **layout)
    segment([tmp_path / "data"], tmp_path / "ours", bundle=run, device="cpu")
    packed = export_bundle(run, tmp_path / "alone").path
    run_alone(alone, packed, tmp_path / "data", tmp_path / "theirs", tmp_path)
    ours = {path.relative_to(tmp_path / "ours"): read_map(path) for path in (tmp_path / "ours").rglob(kind)}
    theirs = {path.relative_to(tmp_path / "theirs"): read_map(path) for path in (tmp_path / "theirs").rglob(kind)}
    assert ours.keys() == theirs.keys()
    assert any(labels.any() for labels in ours.values())
    assert all(np.array_equal(ours[name], theirs[name]) for name in ours)


@pytest.fixture
def read_map() -> Callable[[Path], Any]:
    """Label maps by libraries that are not ours."""
    from PIL import Image

    def read(path: Path) -> Any:
        return np.asarray(Image.open(path)) if path.suffix == ".tif" else np.asarray(nib.load(path).dataobj)

    return read
