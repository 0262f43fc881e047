"""What a user installs is the wheel, not the checkout: it must work alone, from any folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def call(*command: str | Path, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment that holds the wheel; the dependencies come from the environment of the tests."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a copy: what an earlier build left in the checkout must not reach the wheel
    for name in ("brats_pipeline", "bundles", "networks", "studies", "transforms"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.pt"))
    for name in ("LICENSE", "README.md", "pyproject.toml", "setup.cfg"):
        shutil.copy(ROOT / name, source)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")
    call(*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", folder, source, cwd=folder)
    (wheel,) = folder.glob("brats_pipeline-*.whl")
    home = folder / "fresh"
    venv.create(home, with_pip=False)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(home)}))
    call(*pip, "--python", home / "bin" / "python", "install", "--no-deps", "--no-index", wheel, cwd=folder)
    # A folder named in a .pth joins the path after the wheel, and .pth files in it (editable installs) are dead.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "bin"


def test_the_wheel_runs_from_another_folder(installed: Path, tmp_path: Path) -> None:
    command = installed / "brats-pipeline"
    where = call(
        installed / "python", "-c", "import brats_pipeline, networks; print(brats_pipeline.__file__)", cwd=tmp_path
    )
    assert str(ROOT) not in where, "the checkout was imported, not the wheel"

    call(command, "phantom", "cohort", "--cases", "1", "--size", "32", "--spacing", "5", cwd=tmp_path)
    assert "1 cases (1 brats2021)" in call(command, "inspect", "cohort", cwd=tmp_path)

    bundle = Path(call(command, "bundle", "path", "brats_glioma_3d", cwd=tmp_path).strip())
    assert (bundle / "configs" / "inference.yaml").is_file()
    assert ROOT not in bundle.parents

    make_run = """
from brats_pipeline.bundles import bundle_path, freeze_bundle
from brats_pipeline.weights import write_checkpoint
from networks import UNet
from pathlib import Path
small = {"depth": 2, "features": 8}
changes = {f"network_def::{name}": value for name, value in small.items()}
freeze_bundle(bundle_path("brats_glioma_3d"), Path("run"), changes | {"spacing": [5.0] * 3, "roi_size": [32] * 3})
network = UNet(spatial_dims=3, in_channels=8, out_channels=3, **small)
write_checkpoint("run/models/model.pt", network.state_dict())
"""
    call(installed / "python", "-c", make_run, cwd=tmp_path)
    assert "1 cases segmented" in call(command, "segment", "cohort", "-o", "out", "--bundle", "run", cwd=tmp_path)
    assert (tmp_path / "out" / "BraTS2021_00001.nii.gz").is_file()
