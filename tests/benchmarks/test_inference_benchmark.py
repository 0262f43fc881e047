"""The inference benchmark: what it counts, and that every arm runs on phantoms."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import backends, inference
from benchmarks.inference_arms import Clock, build, nested_labels
from benchmarks.inference_nnunet import plans_for


def test_labels_are_nested_as_the_zoo_nests_them() -> None:
    core, whole, enhancing = [0, 0, 1, 1, 0], [0, 1, 1, 1, 0], [0, 0, 0, 1, 1]
    pred = torch.tensor([core, whole, enhancing], dtype=torch.float32).view(3, 5, 1, 1)
    assert nested_labels({"pred": pred})["pred"].flatten().tolist() == [0, 2, 1, 4, 4]


def test_dice_counts_both_spellings_of_et_and_leaves_out_what_is_too_small() -> None:
    one, other = np.array([0, 1, 2, 4, 4, 0]), np.array([0, 1, 2, 3, 0, 0])
    scores = inference.dice(one, other)
    assert scores == {"TC": pytest.approx(4 / 5), "WT": pytest.approx(6 / 7), "ET": pytest.approx(2 / 3)}
    assert set(inference.dice(one, other, smallest=2)) == {"TC", "WT"}
    assert inference.dice(one, np.zeros(6)) == {}


def test_rounds_come_to_medians_and_the_share_beside_the_network() -> None:
    answers = [
        {"seconds": seconds, "stages": {"network": 2.0, "save": 1.0}, "peak_bytes": peak}
        for seconds, peak in ((4.0, 10), (8.0, 30), (5.0, 20))
    ]
    told = inference.summarise(answers, cases=2)
    assert told["seconds_per_case"] == 2.5
    assert told["cases_per_minute"] == 24
    assert told["stages_s"] == {"network": 1.0, "save": 0.5}
    assert told["not_the_network"] == pytest.approx(0.6)
    assert told["peak_bytes"] == 30


def test_a_clock_adds_up_by_stage() -> None:
    clock = Clock()
    double = clock.of("double", lambda value: 2 * value)
    assert double(double(3)) == 12
    assert set(clock.seconds) == {"double"}
    assert clock.seconds["double"] > 0


def test_the_plans_turn_the_window_as_nnunet_turns_its_arrays() -> None:
    assert plans_for((240, 200, 160))["configurations"]["3d_fullres"]["patch_size"] == [160, 200, 240]


def test_a_backend_that_is_not_installed_is_named_and_the_others_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(backends.WAYS, "absent", ({"backend": "none of these"}, "float32"))
    monkeypatch.setattr(backends, "network_of", lambda name, dims: torch.nn.Conv3d(4, 3, 3, padding=1))
    ways = [backends.FIRST, "torch float32 channels_last", "absent"]
    options = argparse.Namespace(ways=ways, rounds=2, device="cpu")
    torch.manual_seed(0)
    with torch.no_grad():
        found = backends.compare("unet", 3, torch.randn(1, 4, 8, 8, 8), options, tmp_path)
    assert found[backends.FIRST]["ratio"] == 1
    assert len(found[ways[1]]["samples_s"]) == 2
    assert "none of these" in found["absent"]["missing"]
    text = backends.table({"machine": backends.machine(), "rounds": 2, "networks": {"one": found}})
    assert text.count("\n| ") == 2 + len(ways)


@pytest.mark.slow
def test_every_arm_runs_on_phantoms_and_ours_says_what_monai_says(
    make_cohort: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohort = make_cohort(cases=2)
    weights = tmp_path / "unet.pt"
    torch.manual_seed(3)
    torch.save(build("unet", tiny=True).state_dict(), weights)
    arguments = ["--data", cohort, "--networks", "unet", "--cases", 2, "--rounds", 1, "--tiny", "--workers", 1]
    arguments += ["--window", 48, 48, 48, "--threads", 1, "--device", "cpu", "--weights", f"unet={weights}"]
    arguments += ["--set", '{"spacing": [4, 4, 4]}', "--json", tmp_path / "out.json", "--markdown", tmp_path / "out.md"]
    monkeypatch.setattr("sys.argv", ["inference", *map(str, arguments)])
    inference.main()
    result = json.loads((tmp_path / "out.json").read_text())
    found = result["networks"]["unet"]
    assert set(found["arms"]) == {"stock", "plain", "exact", "exact_float32", "fast", "cropped"}
    assert result["skipped"] == ["nnunet: give --nnunet-python, an interpreter that has nnunetv2"]
    assert max(found["max_logit_difference"].values()) <= 1e-4
    assert found["dice"]["exact_float32"]["stock"]["lowest"] >= 0.999
    for told in found["arms"].values():
        assert 0 < told["not_the_network"] < 1
        assert told["peak_bytes"] > 10**8
    assert "| exact_float32 |" in (tmp_path / "out.md").read_text()
