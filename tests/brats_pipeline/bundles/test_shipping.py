"""Shipping weights: half the bytes, the same network within float16, and nothing left of what suited others."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import torch

from brats_pipeline.bundles import bundle_path, read_metadata, weights_licence
from brats_pipeline.bundles.shipping import ship_weights
from brats_pipeline.errors import PipelineError


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A bundle with a file that suited earlier weights, and a card that states their hash."""
    copy = shutil.copytree(bundle_path("lgg_slices_2d"), tmp_path / "bundle")
    (copy / "configs" / "postprocessing.yaml").write_text("keep_largest: true\n")
    card = copy / "docs" / "README.md"
    card.write_text(f"{card.read_text()}\nWeights: sha256 `{'0' * 64}`.\n")
    return copy


def a_run(tmp_path: Path, **weights: torch.Tensor) -> Path:
    """A run of that bundle with these weights and a fingerprint."""
    run = shutil.copytree(bundle_path("lgg_slices_2d"), tmp_path / "run")
    (run / "models").mkdir(exist_ok=True)
    (run / "configs" / "postprocessing.yaml").unlink(missing_ok=True)
    torch.save(weights, run / "models" / "model.pt")
    (run / "configs" / "fingerprint.json").write_text("{}")
    return run


def test_weights_come_in_half_the_bytes_with_licence_hash_and_what_suits_them(bundle: Path, tmp_path: Path) -> None:
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    path = ship_weights(a_run(tmp_path, layer=values, batches=torch.tensor(7)), bundle, licence="CC BY-NC-SA 4.0")
    shipped = torch.load(path, weights_only=True)
    assert shipped["layer"].dtype == torch.float16
    torch.testing.assert_close(shipped["layer"].float(), values, rtol=2**-11, atol=1e-6)
    assert shipped["batches"].dtype == torch.int64
    assert shipped["batches"] == 7
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_metadata(bundle)["weights"]["sha256"] == sha256
    assert weights_licence(bundle) == "CC BY-NC-SA 4.0"
    assert f"sha256 `{sha256}`" in (bundle / "docs" / "README.md").read_text()
    assert (bundle / "configs" / "fingerprint.json").is_file()
    assert not (bundle / "configs" / "postprocessing.yaml").exists()


def test_what_float16_cannot_hold_and_what_is_too_large_is_refused(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = a_run(tmp_path, layer=torch.tensor([1e6]))
    with pytest.raises(PipelineError, match="layer holds numbers that float16 has not"):
        ship_weights(run, bundle, licence="any")
    torch.save({"layer": torch.ones(100)}, run / "models" / "model.pt")
    monkeypatch.setattr("brats_pipeline.bundles.shipping.LARGEST", 100)
    with pytest.raises(PipelineError, match="at most"):
        ship_weights(run, bundle, licence="any")
    assert weights_licence(bundle) is None or weights_licence(bundle) != "any"
    assert (bundle / "configs" / "postprocessing.yaml").is_file()
