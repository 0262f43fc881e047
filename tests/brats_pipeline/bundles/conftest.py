"""Runs that took no training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from brats_pipeline.bundles import bundle_path, freeze_bundle

GLIOMA = {
    "spacing": [4.0] * 3,
    "roi_size": [32] * 3,
    "network_def::features": 4,
    "network_def::norm": "instance",
    "network_def::depth": 1,
    "precision": "float32",
}
SLICES = {"network_def::features": 4, "network_def::depth": 2, "precision": "float32"}


def untrained(bundle: str, out: Path, overrides: dict[str, Any]) -> Path:
    """A run with the weights that a network starts from: its label maps are noise, which no luck gets right."""
    from monai.bundle import ConfigParser

    freeze_bundle(bundle_path(bundle), out, overrides)
    parser = ConfigParser()
    parser.read_config(str(out / "configs" / "inference.yaml"))
    torch.manual_seed(0)
    network = parser.get_parsed_content("network_def")
    (out / "models").mkdir()
    torch.save(network.state_dict(), out / "models" / "model.pt")
    told = {"bundle": bundle, "fold": 0, "seed": 3, "epochs": 2, "status": "finished"}
    (out / "run.json").write_text(json.dumps(told), encoding="utf-8")
    return out
