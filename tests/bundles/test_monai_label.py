"""What MONAI Label 0.8.5 reads of a bundle (its tasks/infer/bundle.py and basic_infer.py), done here in its order.

MONAI Label itself cannot be installed beside this distribution: it needs pydicom-seg, which needs numpy below 2.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigItem, ConfigParser
from monai.transforms import Compose, SaveImaged

from brats_pipeline.bundles import bundle_path
from brats_pipeline.errors import PipelineError
from brats_pipeline.inference.segment import segment
from transforms.labels import convention, usual_convention
from transforms.reader import LoadCased

FILES = ("t1ce", "t1", "t2", "flair")
IN_VOLUMES = [bundle_path("brats_glioma_3d"), bundle_path("brats_slices_2d")]


def opened(bundle: Path) -> ConfigParser:
    """The configuration as its task opens it, on a CPU that the request names."""
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.yaml"))
    parser.config.update({"bundle_root": str(bundle)})  # type: ignore[union-attr]
    parser.config.update({"device": "cpu"})  # type: ignore[union-attr]
    if parser.ref_resolver.items.get("device"):
        parser.ref_resolver.items["device"] = ConfigItem(config="cpu", id="device")
    return parser


def transforms_of(parser: ConfigParser, name: str) -> list[Any]:
    content = parser.get_parsed_content(name, instantiate=True)
    steps = list(content.transforms) if isinstance(content, Compose) else content
    return [step for step in steps if not isinstance(step, SaveImaged)]


@pytest.fixture(scope="module")
def volume(cohort: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One case as a 4D file, as the datastore of MONAI Label keeps one."""
    case = min(cohort.iterdir())
    scans = [nib.load(case / f"{case.name}_{name}.nii.gz") for name in FILES]
    path = tmp_path_factory.mktemp("datastore") / f"{case.name}.nii.gz"
    nib.save(nib.Nifti1Image(np.stack([np.asarray(scan.dataobj) for scan in scans], axis=-1), scans[0].affine), path)
    return path


def test_a_request_gives_the_label_map_of_segment(run: Path, cohort: Path, volume: Path, tmp_path: Path) -> None:
    parser = opened(run)
    network = parser.get_parsed_content("network_def", instantiate=True)
    checkpoint = torch.load(run / "models" / "model.pt", map_location="cpu", weights_only=True)
    network.load_state_dict(checkpoint.get("model", checkpoint))
    data: dict[str, Any] = {"model": "run", "image": str(volume), "image_path": str(volume), "device": "cpu"}
    for step in transforms_of(parser, "preprocessing"):
        data = step(data)
    inferer = parser.get_parsed_content("inferer", instantiate=True)
    with torch.no_grad():
        data["pred"] = inferer(data["image"][None], network.eval())[0]
    for step in transforms_of(parser, "postprocessing"):
        data = step(data)
    ours = segment(
        [cohort / volume.name.removesuffix(".nii.gz")], tmp_path, bundle=run, device="cpu", convention="brats2023"
    )
    expected = np.asarray(nib.load(ours.out / volume.name).dataobj)
    assert expected.any()
    np.testing.assert_array_equal(np.asarray(data["pred"][0]), expected)


@pytest.mark.parametrize("bundle", IN_VOLUMES, ids=lambda path: path.name)
def test_the_task_finds_what_it_looks_for(bundle: Path) -> None:
    parser = opened(bundle)
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    (image, asked), (pred, told) = (
        next(iter(metadata["network_data_format"][side].items())) for side in ("inputs", "outputs")
    )
    assert (image, pred) == ("image", "pred")
    assert len(asked["spatial_shape"]) == (3 if "3d" in bundle.name else 2)
    labels = {text.lower(): int(number) for number, text in told["channel_def"].items() if text.lower() != "background"}
    assert labels == {"tumour core": 0, "whole tumour": 1, "enhancing tumour": 2}
    assert isinstance(parser.get_parsed_content("network_def", instantiate=True), torch.nn.Module)
    assert callable(parser.get_parsed_content("inferer", instantiate=True))
    for name in ("preprocessing", "postprocessing"):
        assert all(map(callable, transforms_of(parser, name)))


def test_a_lone_path_must_hold_every_modality(volume: Path) -> None:
    read = LoadCased(keys="image")
    data = read({"image": str(volume)})
    assert data["case_id"] == volume.name.removesuffix(".nii.gz")
    assert data["image"].shape[0] == 4
    with pytest.raises(PipelineError, match="the 4D file has 4 channels, but its list names"):
        read({"image": str(volume), "channels": {"t1c": 0, "t1": 1, "t2": 2, "flair": 9}})


def test_who_names_no_convention_gets_that_of_today() -> None:
    assert usual_convention(["TC", "WT", "ET"]) == "brats2023"
    assert convention(usual_convention(["WT"])).tissues == {1: "FLAIR abnormality"}
    with pytest.raises(ValueError, match="no label convention has the regions ET"):
        usual_convention(["ET"])
