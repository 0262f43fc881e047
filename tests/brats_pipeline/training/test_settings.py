"""What ``--set`` may say to a training: no id of an option, and no value that would be taken for another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from brats_pipeline.bundles import list_bundles
from brats_pipeline.errors import PipelineError
from brats_pipeline.phantom import write_cohort
from brats_pipeline.training.settings import checked_settings
from brats_pipeline.training.train import rehearse_training, train


@pytest.mark.parametrize(
    ("name", "value", "option"),
    [
        ("fold", 1, "--fold"),
        ("seed", 7, "--seed"),
        ("folds", 2, "--folds"),
        ("data_list_file_path", "/nope.json", "--datalist"),
        ("dataset_dir", "/nowhere", "--data"),
        ("device", "cpu", "--device"),
        ("resume", True, "--resume"),
        ("ckpt_path", "model.pt", "init_weights"),
    ],
)
def test_what_an_option_says_is_refused_with_the_name_of_the_option(
    cohort: Path, tmp_path: Path, name: str, value: Any, option: str
) -> None:
    message = f"--set {name} is not for a training: .*{option}"
    with pytest.raises(PipelineError, match=message):
        train("brats_glioma_3d", tmp_path / "run", data=cohort, overrides={name: value})
    with pytest.raises(PipelineError, match=message):
        rehearse_training("brats_glioma_3d", data=cohort, overrides={name: value})
    assert not (tmp_path / "run").exists()


def test_weights_to_start_from_are_found_from_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.pt").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert checked_settings({"init_weights": "model.pt"}) == {"init_weights": str(tmp_path / "model.pt")}
    assert checked_settings({"init_weights": None, "max_epochs": 3}) == {"init_weights": None, "max_epochs": 3}


@pytest.mark.parametrize("bundle", [path.name for path in list_bundles()])
def test_every_bundle_checks_its_switches_before_anything_else(cohort: Path, tmp_path: Path, bundle: str) -> None:
    if bundle.startswith("lgg"):
        cohort = tmp_path / "lgg"
        write_cohort(cohort, cases=1, layout="lgg", shape=(32, 32, 8))
    with pytest.raises(PipelineError, match="deep_supervision is 'none'; known: true, false"):
        train(bundle, tmp_path / "run", data=cohort, fold=None, device="cpu", overrides={"deep_supervision": "none"})
    assert not (tmp_path / "run").exists()
