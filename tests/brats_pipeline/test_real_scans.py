"""What only real scans can show; they lie below the folder that BRATS_PIPELINE_DATA names."""

from __future__ import annotations

import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.inferers import SlidingWindowInferer

from brats_pipeline.bundles import bundle_path, freeze_bundle
from brats_pipeline.cases import decide_conventions, find_cases
from brats_pipeline.cli import run
from brats_pipeline.data.datalist import case_items
from brats_pipeline.inference.inferers import WindowInferer
from brats_pipeline.weights import write_checkpoint
from networks import UNet

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif("BRATS_PIPELINE_DATA" not in os.environ, reason="BRATS_PIPELINE_DATA names no folder"),
]
SMALL = {"depth": 2, "features": 8}


@pytest.fixture(scope="module")
def scans() -> Path:
    return Path(os.environ["BRATS_PIPELINE_DATA"])


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose weights are random: geometry and refusals need no skill."""
    folder = tmp_path_factory.mktemp("run")
    freeze_bundle(
        bundle_path("brats_glioma_3d"),
        folder,
        {f"network_def::{name}": value for name, value in SMALL.items()} | {"overlap": 0.0},
    )
    network = UNet(spatial_dims=3, in_channels=8, out_channels=3, **SMALL)
    write_checkpoint(folder / "models" / "model.pt", network.state_dict())
    return folder


def test_every_brats_case_is_accepted(scans: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["inspect", str(scans / "brats")]) == 0
    printed = capsys.readouterr().out
    assert "10 cases (7 brats2021, 2 brats2017, 1 brats2023) of 10 patients" in printed
    assert "0 with defects" in printed


def test_the_raw_exam_is_refused_with_its_grids_named(
    scans: Path, untrained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exam = scans / "raw" / "TCGA-FG-6692"
    assert run(["segment", str(exam), "-o", str(tmp_path / "out"), "--bundle", str(untrained)]) == 2
    message = capsys.readouterr().err
    for grid in ("224x256x26 voxels", "256x224x26 voxels", "208x256x26 voxels"):
        assert grid in message
    assert "brats-pipeline prepare" in message
    assert not list((tmp_path / "out").glob("*.nii.gz"))


def test_a_prediction_has_the_geometry_of_its_case(scans: Path, untrained: Path, tmp_path: Path) -> None:
    names = ("BraTS-GLI-00002-000", "Brats18_2013_2_1")
    folders = [str(scans / "brats" / name) for name in names]
    assert run(["segment", *folders, "-o", str(tmp_path), "--bundle", str(untrained), "-q"]) == 0
    for name, suffix in zip(names, ("-t1c", "_t1ce"), strict=True):
        scan = nib.load(scans / "brats" / name / f"{name}{suffix}.nii.gz")
        prediction = nib.load(tmp_path / f"{name}.nii.gz")
        assert prediction.shape == scan.shape
        assert prediction.get_data_dtype() == np.uint8
        np.testing.assert_array_equal(prediction.header["pixdim"][:4], scan.header["pixdim"][:4])
        for field in ("qform_code", "sform_code", "srow_x", "srow_y", "srow_z", "qoffset_x", "quatern_b"):
            np.testing.assert_array_equal(prediction.header[field], scan.header[field])


@pytest.fixture(scope="module")
def trained(scans: Path) -> ConfigParser:
    """The configuration of the bundle that comes with weights, over three scans."""
    bundle = bundle_path("brats_glioma_3d")
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.yaml"))
    parser.update({"bundle_root": str(bundle), "dataset_dir": str(scans / "brats"), "device": "$torch.device('cpu')"})
    return parser


@torch.no_grad()
def test_trained_weights_have_the_logits_that_monais_inferer_gives_them(trained: ConfigParser) -> None:
    network = trained.get_parsed_content("members").eval()
    scan = trained.get_parsed_content("dataset")[0]["image"][None].as_tensor()
    window = {"roi_size": [64, 64, 48], "overlap": 0.5}
    theirs = SlidingWindowInferer(**window, mode="gaussian")(scan, network)
    flags = trained.get_parsed_content("inferer").flags
    ours = WindowInferer(**window, precision="float32", flags=flags)(scan, network)
    brain = (scan[:, :-flags] != 0).any(1).expand_as(ours)  # a window without brain is not run
    assert ours.abs().max() > 5
    assert float((ours - theirs)[brain].abs().max()) <= 1e-4


@torch.no_grad()
def test_half_precision_keeps_every_region_of_a_millilitre_and_what_it_scores(
    trained: ConfigParser, scans: Path
) -> None:
    network = trained.get_parsed_content("members").eval()
    cases = [case for case in find_cases(scans / "brats") if case.label is not None][:3]
    prepare = trained.get_parsed_content("dataset").transform
    compared, scored = 0, []
    for case in decide_conventions(cases):
        item = prepare(case_items([case])[0])
        scan, drawn = item["image"][None].as_tensor(), item["label"].as_tensor() > 0
        full, half = (
            WindowInferer([96] * 3, precision=precision)(scan, network)[0] > 0 for precision in ("float32", "bfloat16")
        )
        for one, other, reference in zip(full, half, drawn, strict=True):
            if one.sum() * 0.008 >= 1:  # ml: voxels of 2 mm
                compared += 1
                assert dice(one, other) >= 0.995
                scored.append((dice(one, reference), dice(other, reference)))
    assert compared >= 6
    assert abs(np.mean([half - full for full, half in scored])) <= 0.002


def dice(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))
