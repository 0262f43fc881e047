"""The 2D bundles: volumes segmented slice by slice, by MONAI's command as by ours, from scans to scores."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from PIL import Image

from brats_pipeline.errors import PipelineError
from brats_pipeline.evaluation.evaluate import evaluate
from brats_pipeline.inference.segment import segment
from brats_pipeline.phantom import write_cohort
from brats_pipeline.training.train import train
from networks import PSPNet

SMALL = {"network_def::depth": 2, "network_def::features": 8, "precision": "float32"}
SHORT = {"max_epochs": 2, "patches_per_epoch": 8, "batch_size": 4, "val_interval": 1}


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four synthetic patients of 64x64 slices; the fourth has no T1c."""
    folder = tmp_path_factory.mktemp("lgg")
    write_cohort(folder, layout="lgg", cases=4, shape=(64, 64, 12), seed=1)
    return folder


@pytest.fixture(scope="module")
def lgg_run(patients: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("lgg_run")
    settings = SMALL | SHORT | {"patch_size": [64, 64]}
    return train("lgg_slices_2d", out, data=patients, folds=2, device="cpu", overrides=settings).run


def test_every_slice_gets_a_mask_and_every_patient_a_score(patients: Path, lgg_run: Path, tmp_path: Path) -> None:
    result = segment([patients], tmp_path / "out", bundle=lgg_run, device="cpu")
    assert not result.failed
    assert len(result.done) == 4
    for folder in patients.iterdir():
        slices = [path for path in folder.glob("*.tif") if not path.stem.endswith("_mask")]
        for path in slices:
            mask = np.asarray(Image.open(tmp_path / "out" / folder.name / f"{path.stem}_mask.tif"))
            assert mask.shape == (64, 64)
            assert set(np.unique(mask)) <= {0, 255}
    evaluation = evaluate(tmp_path / "out", patients, tmp_path / "report")
    assert evaluation.complete
    assert {score.region for score in evaluation.scores} == {"WT"}
    again = segment([patients], tmp_path / "out", bundle=lgg_run, device="cpu")
    assert not again.done
    assert len(again.skipped) == 4


def test_the_output_says_that_a_lone_slice_was_normalised_by_itself(
    patients: Path, lgg_run: Path, tmp_path: Path, command: Callable[..., Any]
) -> None:
    source = min(patients.iterdir())
    slices = sorted(path for path in source.glob("*.tif") if not path.stem.endswith("_mask"))
    lone = tmp_path / "lone" / source.name
    lone.mkdir(parents=True)
    shutil.copy(slices[6], lone)
    whole = max(patients.iterdir())
    answer = command("segment", lone, whole, "-o", tmp_path / "out", "--bundle", lgg_run, "--device", "cpu")
    assert answer.code == 0
    assert f"{source.name}: a lone slice: its intensities are normalised by itself" in " ".join(answer.out.split())
    cases = json.loads((tmp_path / "out" / "run.json").read_text())["cases"]
    assert "normalised by itself" in cases[source.name]["note"]
    assert "note" not in cases[whole.name]


def torchvision_name(name: str) -> str:
    """The name of an encoder's tensor in torchvision's own network."""
    name = name.replace("stem.0.", "conv1.").replace("stem.1.", "bn1.").replace(".shortcut.", ".downsample.")
    name = re.sub(r"^stages\.(\d)", lambda found: f"layer{int(found[1]) + 1}", name)
    return re.sub(r"residual\.(\d)", lambda found: f"{('conv', 'bn')[int(found[1]) % 3]}{int(found[1]) // 3 + 1}", name)


def test_a_run_that_began_from_imagenet_weights_needs_their_file_no_more(patients: Path, tmp_path: Path) -> None:
    torch.manual_seed(7)
    made = PSPNet(spatial_dims=2, in_channels=3, out_channels=1, backbone="resnet18").encoder.state_dict()
    file = tmp_path / "resnet18.pth"
    torch.save({torchvision_name(name): value for name, value in made.items()}, file)
    settings = SHORT | {
        "network_def::backbone": "resnet18",
        "encoder_weights": str(file),
        "learning_rate": 0,
        "max_epochs": 1,
        "patch_size": [64, 64],
        "precision": "float32",
    }
    run = tmp_path / "run"
    train("lgg_slices_2d", run, data=patients, fold=None, network="pspnet", device="cpu", overrides=settings)
    kept = torch.load(run / "models" / "model.pt", weights_only=True)
    deep = [name for name in made if name.startswith("stages.") and name.endswith("residual.0.weight")]
    assert deep
    assert all(torch.equal(kept[f"encoder.{name}"], made[name]) for name in deep)
    file.unlink()
    assert segment([min(patients.iterdir())], tmp_path / "out", bundle=run, device="cpu").done
    assert train("lgg_slices_2d", run, resume=True, device="cpu", overrides={"max_epochs": 2}).epochs == 2


def test_imagenet_weights_are_refused_for_a_network_without_a_residual_encoder(patients: Path, tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"UNet has no residual encoder .* choose deeplabv3plus or pspnet"):
        train(
            "lgg_slices_2d", tmp_path / "run", data=patients, fold=None, device="cpu",
            overrides=SMALL | SHORT | {"encoder_weights": "resnet18.pth"},
        )  # fmt: skip


def test_a_lost_mask_is_made_again(patients: Path, lgg_run: Path, tmp_path: Path) -> None:
    segment([patients], tmp_path, bundle=lgg_run, device="cpu")
    lost = next(tmp_path.glob("*/*_mask.tif"))
    content = lost.read_bytes()
    lost.unlink()
    assert segment([patients], tmp_path, bundle=lgg_run, device="cpu").done == [lost.parent.name]
    assert lost.read_bytes() == content


def test_monai_runs_the_same_slices(patients: Path, lgg_run: Path, tmp_path: Path, python: Callable[..., Any]) -> None:
    segment([patients], tmp_path / "ours", bundle=lgg_run, device="cpu")
    arguments = ["--config_file", lgg_run / "configs" / "inference.yaml", "--bundle_root", lgg_run]
    arguments += ["--dataset_dir", patients, "--output_dir", tmp_path / "theirs", "--device", "$torch.device('cpu')"]
    done = python(["-m", "monai.bundle", "run", *arguments], cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    ours, theirs = (
        {path.relative_to(root): path.read_bytes() for path in root.glob("*/*.tif")}
        for root in (tmp_path / "ours", tmp_path / "theirs")
    )
    assert ours
    assert ours == theirs


def test_one_modality_by_name_is_enough(patients: Path, tmp_path: Path) -> None:
    settings = SMALL | SHORT | {"patch_size": [64, 64], "modalities": ["flair"], "max_epochs": 1}
    run = train("lgg_slices_2d", tmp_path / "run", data=patients, folds=2, device="cpu", overrides=settings).run
    result = segment([patients], tmp_path / "out", bundle=run, device="cpu")
    assert len(result.done) == 4


def test_volumes_are_stacked_back_with_their_header(tmp_path: Path) -> None:
    write_cohort(
        tmp_path / "cohort", cases=3, layout="brats2023", shape=(40, 48, 36), spacing_mm=4.0, orientation="RAS"
    )
    settings = SMALL | SHORT | {"patch_size": [32, 48], "spacing": [4.0] * 3, "max_epochs": 1}
    run = train(
        "brats_slices_2d", tmp_path / "run", data=tmp_path / "cohort", folds=2, device="cpu", overrides=settings
    )
    result = segment([tmp_path / "cohort"], tmp_path / "out", bundle=run.run, device="cpu")
    assert len(result.done) == 3
    for folder in (tmp_path / "cohort").iterdir():
        scan = nib.load(folder / f"{folder.name}-t1c.nii.gz")
        labels = nib.load(tmp_path / "out" / f"{folder.name}.nii.gz")
        assert labels.shape == scan.shape
        np.testing.assert_array_equal(labels.affine, scan.affine)


def test_a_decathlon_cohort_goes_the_same_way(tmp_path: Path) -> None:
    write_cohort(tmp_path / "msd", cases=3, layout="msd", shape=(40, 48, 36), spacing_mm=4.0)
    settings = SMALL | SHORT | {"patch_size": [32, 48], "spacing": [4.0] * 3, "max_epochs": 1}
    run = train("brats_slices_2d", tmp_path / "run", data=tmp_path / "msd", folds=2, device="cpu", overrides=settings)
    result = segment([tmp_path / "msd"], tmp_path / "out", bundle=run.run, device="cpu")
    assert len(result.done) == 3
    assert not result.failed
