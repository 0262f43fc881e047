"""Tuning over slices: one region, no voxel size, masks of 0 and 255."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from scipy import ndimage

from brats_pipeline.errors import PipelineError
from brats_pipeline.inference.segment import segment
from brats_pipeline.phantom import write_cohort
from brats_pipeline.training.train import train
from brats_pipeline.tuning.grid import Grid
from brats_pipeline.tuning.tune import tune


def test_a_run_over_slices_is_tuned_and_its_masks_obey(tmp_path: Path) -> None:
    write_cohort(tmp_path / "lgg", layout="lgg", cases=4, shape=(64, 64, 12), seed=1)
    settings = {"network_def::depth": 2, "network_def::features": 8, "precision": "float32", "patch_size": [64, 64]}
    short = {"max_epochs": 2, "patches_per_epoch": 8, "batch_size": 4, "val_interval": 1}
    run = train(
        "lgg_slices_2d", tmp_path / "run", data=tmp_path / "lgg", folds=2, device="cpu", overrides=settings | short
    ).run
    with pytest.raises(PipelineError, match="slices carry no voxel size"):
        tune(run, metric="hd95_mm", device="cpu")
    tuning = tune(run, grid=Grid((0.3, 0.5, 0.7), (0, 20, 200)), write_anyway=True, device="cpu")
    assert not tuning.failed
    assert [row.region for row in tuning.rows] == ["WT", "WT"]
    overlay = run / "configs" / "postprocessing.yaml"
    if tuning.changed:
        told = yaml.safe_load(overlay.read_text())
        assert told["threshold"] == tuning.settings["WT"].threshold
    overlay.write_text("threshold: 0.3\nkeep_largest: true\n")
    segment([tmp_path / "lgg"], tmp_path / "out", bundle=run, device="cpu")
    for folder in (tmp_path / "lgg").iterdir():
        masks = [
            np.asarray(Image.open(path))
            for path in sorted(
                (tmp_path / "out" / folder.name).glob("*.tif"), key=lambda path: int(path.stem.split("_")[-2])
            )
        ]
        assert set(np.unique(masks)) <= {0, 255}
        assert ndimage.label(np.stack(masks, axis=-1), np.ones((3, 3, 3)))[1] <= 1
