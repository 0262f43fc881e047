"""Every command of `python -m monai.bundle` on every bundle, from a folder that has nothing to do with it.

`run` with one process stands in test_bundles.py and test_slice_bundles.py; here is the rest, in processes of their own.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from brats_pipeline.bundles import bundle_path, list_bundles, read_metadata
from brats_pipeline.bundles.paper_checks import SCHEMAS
from brats_pipeline.bundles.running_checks import declared_shape
from brats_pipeline.bundles.subject import subject_of
from brats_pipeline.files import file_sha256
from brats_pipeline.phantom import write_cohort

pytestmark = pytest.mark.slow
every = pytest.mark.parametrize("bundle", list_bundles(), ids=lambda path: path.name)
SMALL = {"network_def::depth": 1, "network_def::features": 8}
AS_ARGUMENTS = [part for name, value in SMALL.items() for part in (f"--{name}", value)]
TIMEOUT_S = 540


@pytest.fixture
def place(bundle: Path, tmp_path: Path) -> Path:
    """A copy of the bundle with random weights of a small network; so the bundle itself keeps clean."""
    root = shutil.copytree(bundle, tmp_path / bundle.name, ignore=shutil.ignore_patterns("models"))
    with subject_of(root) as subject:
        parser = subject.parser("inference")
        parser.update(SMALL)
        state = parser.get_parsed_content("network_def").state_dict()
    (root / "models").mkdir()
    torch.save(state, root / "models" / "model.pt")
    return root


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


def configuration(root: Path, name: str = "inference.yaml") -> list[object]:
    return ["--config_file", root / "configs" / name, "--meta_file", root / "configs" / "metadata.json"]


@every
def test_metadata_are_verified(bundle: Path, elsewhere: Path, python: Callable[..., Any]) -> None:
    schema = SCHEMAS / read_metadata(bundle)["schema"].rpartition("/")[2]  # there already: nothing is downloaded
    arguments = ["--meta_file", bundle / "configs" / "metadata.json", "--filepath", schema]
    arguments += ["--hash_val", file_sha256(schema), "--hash_type", "sha256"]
    done = python(["-m", "monai.bundle", "verify_metadata", *arguments], cwd=elsewhere)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not list(elsewhere.iterdir())


@every
def test_the_network_is_verified_with_an_override(bundle: Path, elsewhere: Path, python: Callable[..., Any]) -> None:
    call = ["-m", "monai.bundle", "verify_net_in_out", "network_def", *configuration(bundle)]
    done = python([*call, *AS_ARGUMENTS], cwd=elsewhere)
    assert done.returncode == 0, done.stdout + done.stderr
    wrong = python([*call, "--network_def::in_channels", 17], cwd=elsewhere)
    assert wrong.returncode != 0
    assert "this network was built for 17" in wrong.stderr


@every
def test_weights_become_torchscript_and_onnx(
    bundle: Path, place: Path, elsewhere: Path, python: Callable[..., Any]
) -> None:
    import onnxruntime

    shape = declared_shape(read_metadata(bundle)["network_data_format"]["inputs"]["image"])
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    given = [*configuration(place), "--ckpt_file", place / "models" / "model.pt", *AS_ARGUMENTS]
    script, onnx = elsewhere / "model.ts", elsewhere / "model.onnx"
    done = python(["-m", "monai.bundle", "ckpt_export", "network_def", "--filepath", script, *given], cwd=elsewhere)
    assert done.returncode == 0, done.stdout + done.stderr
    sizes = ["--input_shape", str(list(shape))]
    done = python(
        ["-m", "monai.bundle", "onnx_export", "network_def", "--filepath", onnx, *sizes, *given], cwd=elsewhere
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with torch.inference_mode():
        scripted = torch.jit.load(script)(image)
    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    (said,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    assert torch.allclose(torch.as_tensor(said), scripted, atol=1e-4)


SLICES = [bundle_path("brats_slices_2d"), bundle_path("lgg_slices_2d")]  # the 3D bundle: test_distributed.py


@pytest.mark.parametrize("bundle", SLICES, ids=lambda path: path.name)
def test_two_processes_train_and_evaluate(bundle: Path, place: Path, elsewhere: Path, tmp_path: Path) -> None:
    layout = "lgg" if bundle.name.startswith("lgg") else "brats2021"
    size = {"shape": (64, 64, 12)} if layout == "lgg" else {"shape": (36, 40, 32), "spacing_mm": 5.0}
    write_cohort(tmp_path / "cohort", layout=layout, cases=4, **size)  # type: ignore[arg-type]
    settings: dict[str, Any] = {
        **SMALL,
        "bundle_root": str(place),
        "dataset_dir": str(tmp_path / "cohort"),
        "output_dir": str(tmp_path / "out"),
        "folds": 2,
        "max_epochs": 1,
        "patches_per_epoch": 8,
        "batch_size": 2,
        "val_interval": 1,
        "patch_size": [32, 32],
        "precision": "float32",
    }
    if layout != "lgg":
        settings["spacing"] = [5.0] * 3
    (place / "models" / "model.pt").unlink()
    for names in (["train.yaml", "multi_gpu_train.yaml"], ["train.yaml", "evaluate.yaml", "multi_gpu_evaluate.yaml"]):
        files = str([str(place / "configs" / name) for name in names])
        given = [part for name, value in settings.items() for part in (f"--{name}", json.dumps(value))]
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
        done = subprocess.run(
            [*torchrun, "-m", "monai.bundle", "run", "--config_file", files, *given],
            cwd=elsewhere,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert (place / "models" / "model.pt").is_file()
    assert (tmp_path / "out" / "cases.csv").is_file()
    assert not list(elsewhere.iterdir())
