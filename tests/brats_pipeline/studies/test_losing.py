"""The loss on tested cases is that of the weights that the run kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from brats_pipeline.studies.losing import loss_of_run
from brats_pipeline.studies.running import read_curves
from brats_pipeline.training.train import train

QUICK: dict[str, Any] = {
    "spacing": [4.0] * 3,
    "patch_size": [16] * 3,
    "roi_size": [48] * 3,
    "network_def::features": 4,
    "network_def::norm": "instance",
    "network_def::depth": 1,
    "learning_rate": 0.01,
    "schedule": "constant",
    "max_epochs": 1,
    "patches_per_epoch": 4,
    "precision": "float32",
}


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_on_the_cases_that_validated_it_is_the_validation_loss(decay: float, cohort: Path, tmp_path: Path) -> None:
    settings = {**QUICK, "ema_decay": decay}
    run = train("brats_glioma_3d", tmp_path / "run", data=cohort, folds=3, device="cpu", overrides=settings).run
    (measured,) = read_curves(run / "curves.csv")["val_loss"]
    assert loss_of_run(run, run / "datalist.json", fold=0, device="cpu") == pytest.approx(measured, rel=1e-5)
