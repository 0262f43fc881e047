"""The pure parts of the networks' benchmark, and the drawings of the reference."""

import argparse
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks.draw_networks import DRAWINGS, Picture, shapes
from benchmarks.network_speed import TARGET, compare, flops, paired_ratio, summarise, table
from benchmarks.peers import PEERS, Peer
from networks import NETWORKS

IMAGES = Path(__file__).parents[2] / "docs" / "reference" / "img"


def test_median_and_90th_percentile_of_ten_seconds():
    assert summarise([10, 1, 9, 2, 8, 3, 7, 4, 6, 5]) == {"median_s": 5.5, "p90_s": 9, "n": 10}


def test_of_three_samples_the_90th_percentile_is_the_largest():
    assert summarise([3.0, 1.0, 2.0]) == {"median_s": 2.0, "p90_s": 3.0, "n": 3}


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match="at least one round has to follow the warm-up"):
        summarise([])


def test_twice_the_work_in_twice_the_time_is_a_ratio_of_one():
    assert paired_ratio([2.0, 2.0], [1.0, 1.0], flops=20, their_flops=10) == 1


def test_a_slow_spell_of_the_machine_that_hits_both_leaves_the_ratio_alone():
    assert paired_ratio([1.0, 10.0, 1.0], [2.0, 20.0, 2.0], flops=1, their_flops=1) == 0.5


def test_one_bad_round_does_not_move_the_median():
    assert paired_ratio([1.0, 99.0, 1.0], [1.0, 1.0, 1.0], flops=1, their_flops=1) == 1


def test_rounds_that_were_not_timed_together_are_refused():
    with pytest.raises(ValueError, match="1 rounds of ours, 2 of the peer"):
        paired_ratio([1.0], [1.0, 1.0], flops=1, their_flops=1)


def test_flops_of_a_convolution_are_two_per_tap_channel_and_voxel():
    network = nn.Conv2d(4, 8, kernel_size=3, padding=1)
    assert flops(network, (2, 4, 16, 16)) == 2 * (2 * 16 * 16 * 8 * 4 * 9)
    assert next(network.parameters()).device.type == "cpu"


def test_flops_of_a_depthwise_convolution_count_each_channel_once():
    assert flops(nn.Conv2d(8, 8, kernel_size=3, padding=1, groups=8), (1, 8, 16, 16)) == 2 * 16 * 16 * 8 * 9


def side(name, arguments, *, seconds, peak_bytes):
    phase = {"median_s": seconds, "p90_s": 2 * seconds, "n": 3, "peak_bytes": peak_bytes}
    return {
        "name": name,
        "arguments": arguments,
        "parameters": 7_760_000,
        "flops": 24_400_000_000,
        "inference": phase,
        "training": phase,
    }


def test_the_table_names_every_figure_argument_and_gap():
    result = {
        "machine": {
            "date": "2026-11-21",
            "cpu": "Some CPU",
            "gpu": None,
            "cores": 2,
            "threads": 1,
            "load": 0.1,
            "torch": "2.13.0",
            "monai": "1.6.1",
            "smp": None,
        },
        "settings": {
            "precision": "bf16",
            "memory_format": "channels_last",
            "repeats": 3,
            "device": "cpu",
            "clock": "wall",
            "shape": {"2": [2, 4, 256, 256], "3": [1, 4, 128, 128, 128]},
        },
        "pairs": [
            {
                "dims": 2,
                "ours": side("unet", {}, seconds=0.0306, peak_bytes=None),
                "peer": side("MONAI BasicUNet", {"features": (32,)}, seconds=0.0456, peak_bytes=2**29),
                "ratio": {"inference": 0.98, "training": 1.234},
            }
        ],
        "missing": ["unet beside smp Unet in 2D: No module named 'segmentation_models_pytorch'"],
    }
    text = table(result)
    assert "| unet | 7.76 | 24.4 | 30.6 (61.2) | 30.6 (61.2) | - | - | 0.98 | 1.23 |" in text
    assert "| MONAI BasicUNet | 7.76 | 24.4 | 45.6 (91.2) | 45.6 (91.2) | 0.50 | 0.50 |  |  |" in text
    assert "- `MONAI BasicUNet`: `features=(32,)`" in text
    assert "- unet beside smp Unet in 2D: No module named" in text
    assert "Some CPU, 2 cores, 1 threads" in text
    assert f"at most {TARGET}" in text
    assert "## 2D, input 2 x 4 x 256 x 256, 3 rounds after warm-up" in text
    assert "## 3D" not in text  # asked for, but nothing was measured


def test_every_network_has_a_peer_in_both_dimensions():
    assert {(peer.of, dims) for peer in PEERS for dims in peer.dims} == {
        (name, dims) for name in NETWORKS for dims in (2, 3)
    }


def test_no_two_peers_of_a_network_share_a_label():
    labels = [(peer.of, peer.label) for peer in PEERS]
    assert len(set(labels)) == len(labels)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("peer", [peer for peer in PEERS if peer.name.startswith("MONAI") and peer.same])
def test_a_peer_of_the_same_architecture_costs_about_as_much(peer: Peer, dims):
    """A third of the FLOPs apart at most: the upper end of MONAI's attention, which works on the finer grid."""
    with torch.device("meta"):
        ours = NETWORKS[peer.of](spatial_dims=dims, in_channels=4, out_channels=3, **peer.ours(dims))
        theirs = peer.build(dims)
    shape = (1, 4, *[64] * dims)
    assert 3 / 4 < flops(ours, shape) / flops(theirs, shape) < 4 / 3


def test_both_sides_of_a_pair_are_timed_in_every_round(monkeypatch):
    turns = []
    monkeypatch.setattr("benchmarks.network_speed.seconds", lambda step, options: turns.append(step) or 1.0)
    monkeypatch.setattr("benchmarks.network_speed.peaks_alone", lambda *_: {"inference": None, "training": None})
    options = argparse.Namespace(
        size=16, batch=1, device="cpu", memory_format="channels_last", precision="bf16", repeats=3
    )
    pair = compare(next(peer for peer in PEERS if peer.name == "MONAI BasicUNet"), 2, options)
    taken = [(step.__name__, step.__self__.network.__class__.__name__) for step in turns]
    one_round = [(phase, net) for phase in ("inference", "training") for net in ("UNet", "BasicUNet")]
    assert taken == one_round * 4  # the first is the warm-up
    assert pair["ours"]["inference"]["n"] == 3
    assert pair["ratio"]["inference"] == pytest.approx(pair["peer"]["flops"] / pair["ours"]["flops"])


def test_shapes_are_those_that_modules_give():
    network = nn.Sequential(nn.Conv2d(4, 8, 1), nn.MaxPool2d(2, return_indices=False))
    assert shapes(network, torch.zeros(1, 4, 8, 8)) == {"": (1, 8, 4, 4), "0": (1, 8, 8, 8), "1": (1, 8, 4, 4)}


def test_texts_and_boxes_on_each_other_are_found():
    picture = Picture(4, 2)
    picture.box((1, 1), "left", "1", "white")
    picture.box((1.1, 1), "right", "2", "white")
    picture.say((3.9, 1), "beyond the edge")
    found = picture.overlaps()
    assert ("left", "right") in found
    assert ("beyond the edge", "") in found


@pytest.fixture(scope="module")
def drawings():
    return {name: draw() for name, draw in DRAWINGS.items()}


def test_every_network_has_a_drawing_on_which_nothing_overlaps(drawings):
    assert set(drawings) == set(NETWORKS)
    assert {name: picture.overlaps() for name, picture in drawings.items()} == {name: [] for name in NETWORKS}


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_the_drawing_in_the_reference_shows_the_network_as_it_is(name, drawings):
    committed = (IMAGES / f"{name}.svg").read_text("utf-8")
    words = [line for text in drawings[name].axes.texts for line in text.get_text().splitlines()]
    assert len(words) > 20
    assert [word for word in words if committed.count(f">{word}<") < words.count(word)] == []
