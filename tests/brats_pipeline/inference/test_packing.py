"""Networks in the formats of other engines: each says what torch says, or is not written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from brats_pipeline.bundles import bundle_path, freeze_bundle
from brats_pipeline.errors import PipelineError
from brats_pipeline.inference import packing

SETTINGS = {
    "spacing": [4.0] * 3,
    "roi_size": [32] * 3,
    "network_def::features": 4,
    "network_def::norm": "instance",
    "network_def::depth": 1,
}


@pytest.fixture
def noisy(tmp_path: Path) -> Path:
    """A run with the weights that a network starts from."""
    from monai.bundle import ConfigParser

    run = tmp_path / "run"
    freeze_bundle(bundle_path("brats_glioma_3d"), run, SETTINGS)
    parser = ConfigParser()
    parser.read_config(str(run / "configs" / "inference.yaml"))
    (run / "models").mkdir()
    torch.manual_seed(6)  # no probability of these weights is the threshold but for the rounding of an engine
    torch.save(parser.get_parsed_content("network_def").state_dict(), run / "models" / "model.pt")
    return run


@pytest.mark.slow
def test_torchscript_gives_the_label_map_of_torch(noisy: Path, tmp_path: Path) -> None:
    check_export(noisy, tmp_path, "torchscript", "model.ts")


@pytest.mark.slow
def test_an_engine_gives_the_label_map_of_torch(engine: str, noisy: Path, tmp_path: Path) -> None:
    check_export(
        noisy, tmp_path, *{"onnxruntime": ("onnx", "model.onnx"), "openvino": ("openvino", "model.xml")}[engine]
    )


def check_export(run: Path, tmp_path: Path, wanted: str, name: str) -> None:
    exported = packing.export_run(run, tmp_path / "out", **{wanted: True})
    assert (exported.path / "models" / name).is_file()
    (note,) = exported.notes
    assert note in (exported.path / "docs" / "README.md").read_text(encoding="utf-8")
    assert "0 of 84480 voxels of a synthetic case differ" in note
    assert "(0 of them are marked" not in note


@pytest.mark.slow
def test_an_engine_that_says_something_else_is_not_kept(
    noisy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = packing._write

    def other(network: nn.Module, *arguments: Any) -> None:
        with torch.no_grad():
            for weight in network.parameters():
                weight.mul_(1.1)
        write(network, *arguments)
        with torch.no_grad():
            for weight in network.parameters():
                weight.div_(1.1)

    monkeypatch.setattr(packing, "_write", other)
    with pytest.raises(PipelineError, match="torchscript does not say what torch says"):
        packing.export_run(noisy, tmp_path / "out", torchscript=True)
    assert not (tmp_path / "out").exists()


def test_a_package_that_is_missing_is_named_before_anything_is_written(
    noisy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(packing.NEEDED, "openvino", ("a_package_that_nobody_has",))
    with pytest.raises(PipelineError, match="--openvino needs a_package_that_nobody_has"):
        packing.export_run(noisy, tmp_path / "out", openvino=True)
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
