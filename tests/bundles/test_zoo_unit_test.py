"""What the zoo's unit tests do with a bundle: train, evaluate and infer, each with its properties checked."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from monai.bundle import ConfigWorkflow

from brats_pipeline.bundles import list_bundles
from brats_pipeline.phantom import write_cohort

TINY: dict[str, Any] = {
    "network_def::depth": 1,
    "network_def::features": 4,
    "device": "$torch.device('cpu')",
    "precision": "float32",
    "spacing": [5.0] * 3,
    "roi_size": [32] * 3,
    "folds": 2,
    "max_epochs": 1,
    "patches_per_epoch": 2,
    "val_interval": 1,
}
MORE: dict[str, dict[str, Any]] = {
    "brats_glioma_3d": {"network_def::norm": "instance", "patch_size": [16] * 3},
    "brats_slices_2d": {"patch_size": [16, 32]},
    "lgg_slices_2d": {"patch_size": [32, 32]},
}
COHORTS: dict[str, dict[str, Any]] = {
    "lgg_slices_2d": {"layout": "lgg", "shape": (32, 32, 12)},
}

# The schema of 2022 needs the field, MONAI 1.6 has renamed it (2026-11).
pytestmark = pytest.mark.filterwarnings("ignore:Detected deprecated name 'optional_packages_version'")


@pytest.mark.parametrize("bundle", list_bundles(), ids=lambda path: path.name)
def test_a_bundle_trains_evaluates_and_infers_with_every_property(bundle: Path, tmp_path: Path) -> None:
    root = shutil.copytree(bundle, tmp_path / bundle.name, ignore=shutil.ignore_patterns("models"))
    data = tmp_path / "cohort"
    plain = {"layout": "brats2021", "shape": (36, 40, 32), "spacing_mm": 5.0}
    write_cohort(data, cases=4, **COHORTS.get(bundle.name, plain))

    def work(kind: str, *names: str) -> None:
        ids = set().union(*(yaml.safe_load((root / "configs" / name).read_text()) for name in names))
        overrides = {key: value for key, value in (TINY | MORE[bundle.name]).items() if key.split("::")[0] in ids}
        workflow = ConfigWorkflow(
            workflow_type=kind,
            config_file=[str(root / "configs" / name) for name in names],
            logging_file=False,  # which would take over the loggers of this process
            meta_file=str(root / "configs" / "metadata.json"),
            bundle_root=str(root),
            dataset_dir=str(data),
            output_dir=str(tmp_path / "out" / kind),
            **overrides,
        )
        workflow.initialize()
        assert workflow.check_properties() == []
        for name in workflow.properties:
            getattr(workflow, name)
        workflow.run()
        workflow.finalize()

    work("train", "train.yaml")
    assert (root / "models" / "model.pt").is_file()
    work("train", "train.yaml", "evaluate.yaml")
    assert (tmp_path / "out" / "train" / "cases.csv").is_file()
    work("infer", "inference.yaml")
    cases = {path.name for path in data.iterdir()}
    assert {path.name.removesuffix(".nii.gz") for path in (tmp_path / "out" / "infer").iterdir()} == cases
