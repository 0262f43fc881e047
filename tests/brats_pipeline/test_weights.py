"""Weights on disk: a round trip, and what does not fit."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from torch import nn

from brats_pipeline.errors import PipelineError
from brats_pipeline.files import file_sha256
from brats_pipeline.weights import load_weights, read_checkpoint, write_checkpoint


def test_what_is_written_is_read(tmp_path: Path) -> None:
    content = {"network": {"a": torch.arange(5.0)}, "epoch": 3, "history": [{"loss": 0.5}]}
    write_checkpoint(tmp_path / "deep" / "last.pt", content)
    read = read_checkpoint(tmp_path / "deep" / "last.pt")
    assert torch.equal(read["network"]["a"], torch.arange(5.0))
    assert (read["epoch"], read["history"]) == (3, [{"loss": 0.5}])
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["last.pt"]


def test_weights_go_back_into_a_network(tmp_path: Path) -> None:
    one, other = nn.Conv2d(2, 3, 3), nn.Conv2d(2, 3, 3)
    write_checkpoint(tmp_path / "model.pt", one.state_dict())
    assert load_weights(other, tmp_path / "model.pt") is other
    assert torch.equal(one.weight, other.weight)


def test_a_network_that_does_not_fit_is_left_as_it_was(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Conv2d(3, 1, 1))
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    write_checkpoint(tmp_path / "model.pt", nn.Sequential(nn.Conv2d(2, 3, 3), nn.Conv2d(3, 2, 1)).state_dict())
    with pytest.raises(
        PipelineError, match=r"2 layers differ: 1\.weight has shape \(2, 3, 1, 1\).*needs \(1, 3, 1, 1\)"
    ):
        load_weights(network, tmp_path / "model.pt")
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_a_training_checkpoint_in_the_place_of_weights_is_refused(tmp_path: Path) -> None:
    network = nn.Conv2d(2, 3, 3)
    write_checkpoint(tmp_path / "model.pt", {"network": network.state_dict(), "epoch": 1})
    with pytest.raises(PipelineError, match=r"weight is missing in the file.*network is unknown to the network"):
        load_weights(network, tmp_path / "model.pt")


def test_absent_weights_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="train the bundle first"):
        read_checkpoint(tmp_path / "model.pt")


def test_the_hash_is_that_of_the_bytes(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc" * 100_000)
    assert file_sha256(tmp_path / "file") == hashlib.sha256(b"abc" * 100_000).hexdigest()
