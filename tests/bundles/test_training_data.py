"""What a bundle's training configuration makes of its cases: one line each, and the same in a spawned worker."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import DataLoader

from brats_pipeline.bundles import bundle_path

SMALL: dict[str, Any] = {
    "brats_glioma_3d": {"patch_size": [16, 16, 16], "spacing": [4.0] * 3},
    "brats_slices_2d": {"patch_size": [16, 24], "spacing": [4.0] * 3},
    "lgg_slices_2d": {"patch_size": [32, 32]},
}
MODALITIES = {"brats_glioma_3d": 4, "brats_slices_2d": 4, "lgg_slices_2d": 3}
EVERYTHING = {
    "strong_augmentation": True,
    "modality_dropout": 0.5,
    "presence_flags": True,
    "allow_missing": True,
    "patches_per_epoch": 4,
    "batch_size": 2,
    "fold": None,
    "folds": 2,
    "device": "$torch.device('cpu')",
}
every = pytest.mark.parametrize("name", SMALL)


@pytest.fixture(scope="module")
def slices(make_cohort: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    from brats_pipeline.phantom import write_cohort

    folder = tmp_path_factory.mktemp("lgg")
    write_cohort(folder, layout="lgg", cases=2, shape=(32, 32, 6), seed=1)
    return folder


@pytest.fixture(scope="module")
def parser(cohort: Path, slices: Path) -> Callable[..., ConfigParser]:
    def parse(name: str, **settings: Any) -> ConfigParser:
        made = ConfigParser()
        made.read_config(str(bundle_path(name) / "configs" / "train.yaml"))
        data = slices if name == "lgg_slices_2d" else cohort
        for key, value in {"dataset_dir": str(data), **SMALL[name], **EVERYTHING, **settings}.items():
            made[key] = value
        return made

    return parse


def test_a_spawned_worker_cuts_the_same_patches_of_every_bundle(parser: Callable[..., ConfigParser]) -> None:
    settings = {name: {} if name == "brats_glioma_3d" else {"neighbours": 1} for name in SMALL}
    made = [parser(name, patches_per_epoch=2, **settings[name]).get_parsed_content("train::dataset") for name in SMALL]
    dataset = torch.utils.data.ConcatDataset(made)
    loader = DataLoader(dataset, batch_size=1, num_workers=1, multiprocessing_context="spawn")
    for ours, theirs in zip(dataset, loader, strict=True):
        assert ours.keys() == theirs.keys()
        assert torch.equal(ours["image"], theirs["image"][0])
        assert torch.equal(ours["label"], theirs["label"][0])


@every
@pytest.mark.parametrize("flags", [False, True])
def test_a_batch_has_the_channels_that_the_network_takes(
    name: str, flags: bool, parser: Callable[..., ConfigParser]
) -> None:
    for neighbours in (0,) if name == "brats_glioma_3d" else (0, 1):
        settings = {} if name == "brats_glioma_3d" else {"neighbours": neighbours}
        made = parser(name, presence_flags=flags, **settings)
        (batch, _) = list(made.get_parsed_content("train::dataloader"))
        expected = MODALITIES[name] * (2 * neighbours + 1 + flags)
        assert made.get_parsed_content("in_channels") == expected
        assert batch["image"].shape == (2, expected, *SMALL[name]["patch_size"])
        assert batch["label"].shape[2:] == batch["image"].shape[2:]
        if flags:
            seen = batch["image"][:, -MODALITIES[name] :].flatten(2)
            assert torch.equal(seen, batch["present"][..., None].expand_as(seen))


@every
def test_the_strong_set_adds_to_the_plain_one(name: str, parser: Callable[..., ConfigParser]) -> None:
    plain, strong = (
        [type(step).__name__ for step in parser(
            name, strong_augmentation=on, modality_dropout=0.0
        ).get_parsed_content("train::random_transforms")]
        for on in (False, True)
    )  # fmt: skip
    assert [step for step in strong if step in plain] == plain
    assert {"RandContrastd", "RandGammad", "RandBlurd", "RandLowResolutiond"} <= set(strong)
    assert not {"RandContrastd", "RandGammad", "RandLowResolutiond"} & set(plain)
    assert not any(step.startswith("RandDrop") for step in strong)
