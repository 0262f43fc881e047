"""Under the switch, every network trains with every loss, and twice the same comes out."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.losses import DeepSupervisionLoss

from brats_pipeline.training.determinism import set_deterministic
from brats_pipeline.training.losses import LOSSES, make_loss
from networks import NETWORKS, DeepSupervision

SMALL: dict[str, dict[str, Any]] = {
    "unet": {"features": 8, "depth": 2},
    "residual_unet": {"features": 8, "depth": 2},
    "attention_unet": {"features": 8, "depth": 2},
    "segnet": {"features": 8, "depth": 2},
    "deeplabv3plus": {},
    "pspnet": {},
}


@pytest.fixture(autouse=True)
def switch(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    set_deterministic(True)
    yield
    set_deterministic(False)


def trained(name: str, dims: int, loss_name: str, device: str = "cpu") -> list[torch.Tensor]:
    """The weights after two steps."""
    torch.manual_seed(5)
    network: Any = NETWORKS[name](spatial_dims=dims, in_channels=2, out_channels=1, **SMALL[name])
    network = DeepSupervision(network).to(device)
    loss = DeepSupervisionLoss(make_loss(loss_name, regions=["WT"], shares=[0.2]))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    side = 2 * network.network.stride
    image = torch.randn(2, 2, *[side] * dims).to(device)
    label = (torch.randn(2, 1, *[side] * dims) > 0).float().to(device)
    for _ in range(2):
        optimizer.zero_grad()
        loss(network(image), label).backward()
        optimizer.step()
    return [parameter.detach() for parameter in network.parameters()]


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(first, second) for first, second in zip(one, other, strict=True))


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_network_trains_twice_to_the_same_bits(name: str, dims: int) -> None:
    assert same(trained(name, dims, "dice_bce"), trained(name, dims, "dice_bce"))


@pytest.mark.parametrize("loss_name", sorted({*LOSSES, "weighted_bce"}))
def test_every_loss_trains_twice_to_the_same_bits(loss_name: str) -> None:
    assert same(trained("unet", 2, loss_name), trained("unet", 2, loss_name))


@pytest.mark.gpu
@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_network_trains_twice_to_the_same_bits_on_a_gpu(name: str, dims: int) -> None:
    for loss_name in sorted({*LOSSES, "weighted_bce"}):
        assert same(trained(name, dims, loss_name, "cuda"), trained(name, dims, loss_name, "cuda")), loss_name


def test_the_switch_refuses_what_has_no_deterministic_form_and_can_be_turned_back() -> None:
    pooled, indices = torch.nn.functional.max_pool2d(torch.rand(1, 1, 4, 4), 2, return_indices=True)
    with pytest.raises(RuntimeError, match="does not have a deterministic implementation"):
        torch.nn.functional.max_unpool2d(pooled, indices, 2)
    set_deterministic(False)
    torch.nn.functional.max_unpool2d(pooled, indices, 2)


def test_cublas_is_told_but_a_choice_of_the_user_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    set_deterministic(True)
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


def test_the_command_says_what_it_costs_and_keeps_the_choice(
    cohort: Path, command: Callable[..., Any], tmp_path: Path
) -> None:
    settings = {
        "spacing": [4.0] * 3, "patch_size": [16] * 3, "roi_size": [32] * 3, "network_def::features": 8,
        "network_def::depth": 1, "max_epochs": 1, "patches_per_epoch": 2, "precision": "float32",
    }  # fmt: skip
    given = [part for name, value in settings.items() for part in ("--set", f"{name}={json.dumps(value)}")]
    where = ("--data", cohort, "--folds", 3, "-o", tmp_path / "run", "--device", "cpu")
    outcome = command("train", "brats_glioma_3d", *where, *given, "--deterministic")
    assert outcome.code == 0, outcome.err
    told = re.search(r"deterministic: ([\d.]+) steps a second instead of ([\d.]+), ([+-]\d+)% time", outcome.err)
    assert told is not None, outcome.err
    assert json.loads((tmp_path / "run" / "run.json").read_text())["overrides"]["deterministic"] is True
    assert torch.are_deterministic_algorithms_enabled()
