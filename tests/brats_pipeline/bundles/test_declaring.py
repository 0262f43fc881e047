"""The metadata of a run tell of the run, not of the bundle that it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser

from brats_pipeline.bundles import bundle_path, freeze_bundle, list_bundles, read_metadata
from brats_pipeline.bundles.declaring import declared
from brats_pipeline.bundles.installed import network_overlay
from brats_pipeline.bundles.running_checks import declared_shape

NETWORKS = [(path.name, file.stem) for path in list_bundles() for file in (path / "configs" / "networks").iterdir()]


def frozen(out: Path, bundle: str, changes: dict[str, Any]) -> tuple[dict[str, Any], ConfigParser]:
    """Metadata and configuration of a run of a bundle with some changes."""
    freeze_bundle(bundle_path(bundle), out, changes)
    parser = ConfigParser()
    parser.read_config(str(out / "configs" / "inference.yaml"))
    return read_metadata(out), parser


def channels(metadata: dict[str, Any], side: str, name: str) -> list[str]:
    """Names of the channels in their order; as many as are counted."""
    told = metadata["network_data_format"][side][name]
    assert list(told["channel_def"]) == [str(index) for index in range(told["num_channels"])]
    return list(told["channel_def"].values())


@pytest.mark.parametrize(("bundle", "network"), sorted(NETWORKS))
def test_metadata_tell_what_every_network_sees(bundle: str, network: str, tmp_path: Path) -> None:
    metadata, parser = frozen(tmp_path / "run", bundle, network_overlay(bundle_path(bundle), network))
    assert metadata["field_of_view"] == parser["field_of_view"]
    assert len(channels(metadata, "inputs", "image")) == parser.get_parsed_content("in_channels")
    assert len(channels(metadata, "outputs", "pred")) == len(parser["regions"])


def test_the_network_of_the_zoo_is_told_with_its_channels_and_its_field_of_view(tmp_path: Path) -> None:
    overlay = network_overlay(bundle_path("brats_glioma_3d"), "segresnet")
    metadata, parser = frozen(tmp_path / "run", "brats_glioma_3d", overlay)
    assert metadata["field_of_view"] == "full"
    assert channels(metadata, "inputs", "image") == ["T1c", "T1", "T2", "FLAIR"]
    assert metadata["image_classes"] == "4 channels, in this order: T1c, T1, T2, FLAIR"
    with torch.inference_mode():
        shape = declared_shape(metadata["network_data_format"]["inputs"]["image"])
        assert parser.get_parsed_content("network_def")(torch.zeros(shape)).shape[1] == 3


@pytest.mark.parametrize(
    ("bundle", "changes", "image", "pred"),
    [
        ("brats_glioma_3d", {"modalities": ["flair"]}, ["FLAIR", "FLAIR present"], None),
        ("brats_glioma_3d", {"regions": ["WT"]}, None, ["Whole tumour"]),
        ("brats_glioma_3d", {"regions": ["WT", "TC", "ET"]}, None, ["Whole tumour", "Tumour core", "Enhancing tumour"]),
        ("lgg_slices_2d", {"modalities": ["flair"], "presence_flags": False}, ["FLAIR"], ["FLAIR abnormality"]),
        (
            "brats_slices_2d",
            {"modalities": ["t1"], "presence_flags": False, "neighbours": 1},
            ["T1 of slice -1", "T1 of slice +0", "T1 of slice +1"],
            None,
        ),
    ],
)
def test_metadata_follow_what_was_set(
    bundle: str, changes: dict[str, Any], image: list[str] | None, pred: list[str] | None, tmp_path: Path
) -> None:
    before = read_metadata(bundle_path(bundle))
    metadata, _ = frozen(tmp_path / "run", bundle, changes)
    assert channels(metadata, "inputs", "image") == (image or channels(before, "inputs", "image"))
    assert channels(metadata, "outputs", "pred") == (pred or channels(before, "outputs", "pred"))
    for side, name in (("inputs", "image"), ("outputs", "pred")):
        words = metadata["image_classes" if name == "image" else "pred_classes"]
        if channels(metadata, side, name) != channels(before, side, name):
            count = len(channels(metadata, side, name))
            assert words == f"{count} channel{'s' * (count > 1)}, in this order: " + ", ".join(
                channels(metadata, side, name)
            )
        else:
            assert words == before["image_classes" if name == "image" else "pred_classes"]
    assert metadata["label_classes"] == metadata["pred_classes"]


def test_a_run_that_is_frozen_again_tells_of_what_has_changed(tmp_path: Path) -> None:
    run = tmp_path / "run"
    freeze_bundle(bundle_path("brats_glioma_3d"), run, {})
    freeze_bundle(run, run, {"field_of_view": "full", "presence_flags": False})
    metadata = read_metadata(run)
    assert metadata["field_of_view"] == "full"
    assert channels(metadata, "inputs", "image") == ["T1c", "T1", "T2", "FLAIR"]


def test_what_only_a_run_knows_is_left_as_it_was_told(tmp_path: Path) -> None:
    """An expression may give what no reading tells."""
    before = read_metadata(bundle_path("brats_glioma_3d"))
    changes = {"presence_flags": "$len('a') > 0", "field_of_view": "$'full'", "regions": "$['WT']"}
    metadata, _ = frozen(tmp_path / "run", "brats_glioma_3d", changes)
    assert metadata["network_data_format"] == before["network_data_format"]
    assert metadata["field_of_view"] == before["field_of_view"]


def test_metadata_without_channels_get_none() -> None:
    content = {"field_of_view": "full", "modalities": ["t1"], "regions": ["WT"]}
    assert declared({"version": "1"}, content) == {"version": "1", "field_of_view": "full"}
