"""Weights of the model zoo's BraTS bundle in our inference: MONAI's own network and windows say the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.inferers import SlidingWindowInferer
from monai.networks.nets import SegResNet
from monai.transforms import NormalizeIntensity

from brats_pipeline.bundles import bundle_path
from brats_pipeline.errors import PipelineError
from brats_pipeline.weights import load_weights

BUNDLE = bundle_path("brats_glioma_3d")
STRIDE = 8


@pytest.fixture(scope="module")
def theirs() -> SegResNet:
    """The zoo's definition, written out, with random weights."""
    torch.manual_seed(5)
    return SegResNet(
        blocks_down=[1, 2, 2, 4], blocks_up=[1, 1, 1], init_filters=16, in_channels=4, out_channels=3, dropout_prob=0.2
    ).eval()


@pytest.fixture(scope="module")
def checkpoint(theirs: SegResNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("zoo") / "model.pt"
    torch.save(theirs.state_dict(), path)
    return path


def ours(config: str = "inference.yaml") -> ConfigParser:
    parser = ConfigParser()
    names = (config, "networks/segresnet.yaml")
    parser.read_config([str(BUNDLE / "configs" / name) for name in names])
    parser.update({"device": "$torch.device('cpu')", "precision": "float32"})
    return parser


@pytest.mark.parametrize("config", ["train.yaml", "inference.yaml"])
def test_the_network_of_the_zoo_looks_at_whole_volumes(config: str) -> None:
    parser = ours(config)
    assert parser["field_of_view"] == "full"
    assert parser["roi_size"] == [240, 240, 160]
    assert all(side % STRIDE == 0 for side in parser["roi_size"])


@pytest.mark.parametrize("nested", [False, True])
def test_odd_sizes_give_the_logits_of_monai(nested: bool, theirs: SegResNet, checkpoint: Path, tmp_path: Path) -> None:
    if nested:
        content = {"model": theirs.state_dict(), "optimizer": {"lr": 0.1}}
        torch.save(content, checkpoint := tmp_path / "nested.pt")
    parser = ours()
    network = load_weights(parser.get_parsed_content("network_def"), checkpoint).eval()
    inferer = parser.get_parsed_content("inferer")
    scan = torch.rand(1, 4, 19, 16, 13, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = SlidingWindowInferer(roi_size=(24, 16, 16), overlap=0.5)(scan, theirs)
        assert torch.allclose(inferer(scan, network), expected, atol=1e-5)


def test_segment_gives_the_label_maps_of_the_zoos_own_steps(
    theirs: SegResNet, checkpoint: Path, cohort: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    case = min(cohort.iterdir())
    done = command(
        "segment", case, "-o", tmp_path, "--bundle", "brats_glioma_3d", "--network", "segresnet", "--device", "cpu",
        "--set", f"ckpt_path={checkpoint}", "--set", "precision=float32", "--set", "spacing=[4.0, 4.0, 4.0]",
    )  # fmt: skip
    assert done.code == 0, done.err
    files = [case / f"{case.name}_{name}.nii.gz" for name in ("t1ce", "t1", "t2", "flair")]
    scan = torch.stack([torch.as_tensor(np.asarray(nib.load(file).dataobj, dtype=np.float32)) for file in files])
    scan = torch.as_tensor(NormalizeIntensity(nonzero=True, channel_wise=True)(scan))
    window = [-(-side // STRIDE) * STRIDE for side in scan.shape[1:]]
    with torch.no_grad():
        core, whole, enhancing = SlidingWindowInferer(roi_size=window)(scan[None], theirs)[0].sigmoid() >= 0.5
    nested = np.where(enhancing, 4, np.where(core, 1, np.where(whole, 2, 0)))
    labels = np.asarray(nib.load(tmp_path / f"{case.name}.nii.gz").dataobj)
    assert set(np.unique(nested)) > {0}
    assert np.mean(labels != nested) < 1e-3, "rounding alone may differ"


def test_weights_of_another_network_are_refused_by_name(checkpoint: Path, tmp_path: Path) -> None:
    torch.save({"state": torch.load(checkpoint, weights_only=True)}, tmp_path / "odd.pt")
    network = ours().get_parsed_content("network_def")
    with pytest.raises(PipelineError, match=r"do not fit the network.*is missing in the file"):
        load_weights(network, tmp_path / "odd.pt")


def test_a_network_needs_to_know_whose_it_is(cohort: Path, command: Callable[..., Any], tmp_path: Path) -> None:
    done = command("segment", cohort, "-o", tmp_path, "--network", "segresnet")
    assert done.code == 2
    assert "--network goes with one --bundle" in done.err
