"""The loss on tested cases is that of the weights that the run kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from brats_pipeline.studies.losing import loss_of_run
from brats_pipeline.studies.running import read_curves
from brats_pipeline.training.train import train


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_on_the_cases_that_validated_it_is_the_validation_loss(
    decay: float, quick_settings: dict[str, Any], cohort: Path, tmp_path: Path
) -> None:
    settings = {**quick_settings, "max_epochs": 1, "patches_per_epoch": 4, "schedule": "constant", "ema_decay": decay}
    run = train("brats_glioma_3d", tmp_path / "run", data=cohort, folds=3, device="cpu", overrides=settings).run
    (measured,) = read_curves(run / "curves.csv")["val_loss"]
    assert loss_of_run(run, run / "datalist.json", fold=0, device="cpu") == pytest.approx(measured, rel=1e-5)
