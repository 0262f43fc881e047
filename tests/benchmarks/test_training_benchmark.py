"""The training benchmark: its figures, and that it comes to its end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import stock_training


def test_a_ratio_compares_within_a_round_and_one_bad_round_does_not_move_it() -> None:
    rates = {"stock": [1.0, 10.0, 1.0], "ours": [3.0, 30.0, 90.0]}
    assert stock_training.paired_ratios(rates) == {"stock": 1.0, "ours": 3.0}


@pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader:UserWarning")  # MONAI's, wherever pydicom is installed
def test_a_tiny_benchmark_ends_with_a_rate_of_every_arm_in_every_round(
    quick_settings: dict[str, Any], cohort: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = [*("--stock-patch", "16", "16", "16"), *("--filters", "8", "--stock-workers", "0", "--stock-steps", "1")]
    ours = [part for name, value in quick_settings.items() for part in ("--set", f"{name}={value}")]
    out = tmp_path / "out.json"
    stock_training.main(["--data", str(cohort), "--rounds", "2", "--steps", "1", "--json", str(out), *small, *ours])
    result = json.loads(out.read_text())
    assert json.loads(capsys.readouterr().out) == result
    assert set(result["voxels_per_second"]) == {"stock", "ours, its network", "ours"}
    assert all(len(rates) == 2 and min(rates) > 0 for rates in result["voxels_per_second"].values())
    assert result["median_of_paired_ratios"]["stock"] == 1
    assert result["settings"]["patch_size"] == [16, 16, 16]
