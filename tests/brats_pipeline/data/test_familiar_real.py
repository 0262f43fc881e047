"""Real scans are familiar to a training on the others, and are not once something is done to them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.transforms import Compose

from brats_pipeline.bundles import bundle_path
from brats_pipeline.cases import find_cases
from brats_pipeline.data.datalist import case_items
from brats_pipeline.data.differences import differences
from brats_pipeline.data.familiar import Familiar
from brats_pipeline.data.looking import look_of
from brats_pipeline.data.looks import Look

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif("BRATS_PIPELINE_DATA" not in os.environ, reason="BRATS_PIPELINE_DATA names no folder"),
]
SHIFT = 15


def scans_of(bundle: str, folder: str) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
    """Case to its prepared scan, of every case of a folder."""
    parser = ConfigParser()
    parser.read_config(str(bundle_path(bundle) / "configs" / "inference.yaml"))
    parser["device"] = "$torch.device('cpu')"
    prepare, modalities = Compose(parser.get_parsed_content("preprocessing")), tuple(parser["modalities"])
    found = {}
    for case in find_cases(Path(os.environ["BRATS_PIPELINE_DATA"]) / folder):
        (item,) = case_items([case], modalities=modalities)
        found[case.case_id] = prepare({key: value for key, value in item.items() if key != "label"})["image"]
    return found, modalities


def warned(
    scans: dict[str, torch.Tensor],
    modalities: tuple[str, ...],
    *,
    sized: bool,
    change: Callable[[torch.Tensor], Any] = lambda scan: scan,
) -> dict[str, list[str]]:
    """What is said of each scan, changed, by a training on all the others as they are."""

    def look(scan: torch.Tensor) -> Look:
        found = look_of(scan, modalities, sized=sized)
        assert found is not None
        return found

    looks = {name: look(scan) for name, scan in scans.items()}
    return {
        name: differences(
            look(change(scan)), Familiar.of([each for other, each in looks.items() if other != name], modalities)
        )
        for name, scan in scans.items()
    }


@pytest.mark.parametrize(
    ("bundle", "folder", "sized", "cases"),
    [("brats_glioma_3d", "brats", True, 10), ("lgg_slices_2d", "lgg", False, 58)],
)
def test_no_case_is_unlike_the_others_and_a_shifted_modality_always_is(
    bundle: str, folder: str, sized: bool, cases: int
) -> None:
    scans, modalities = scans_of(bundle, folder)
    assert len(scans) == cases
    assert not any(warned(scans, modalities, sized=sized).values())
    for channel in range(len(modalities)):

        def shifted(scan: torch.Tensor, channel: int = channel) -> torch.Tensor:
            moved = scan.clone()
            moved[channel] = torch.roll(moved[channel], SHIFT, dims=0)
            return moved

        told = warned(scans, modalities, sized=sized, change=shifted)
        # A sequence that is missing, as where FLAIR was put in its place, lies nowhere.
        acquired = {name: [bool(each.any()) for each in scan[: len(modalities)]] for name, scan in scans.items()}
        comparable = [name for name, there in acquired.items() if there[channel] and sum(there) > 1]
        assert len(comparable) >= 0.9 * cases
        assert all(any("co-registered" in sentence for sentence in told[name]) for name in comparable)


def test_background_that_is_not_zero_and_some_exchanges_are_told() -> None:
    scans, modalities = scans_of("brats_glioma_3d", "brats")
    noise = torch.from_numpy(np.random.default_rng(0).normal(-1, 0.05, 1).astype(np.float32))
    told = warned(scans, modalities, sized=True, change=lambda scan: torch.where(scan == 0, noise, scan))
    assert all("exactly 0" in " ".join(sentences) for sentences in told.values())
    told = warned(scans, modalities, sized=True, change=lambda scan: scan[[3, 1, 2, 0]])
    assert sum("exchanged" in " ".join(sentences) for sentences in told.values()) >= 6  # the others are not noticed
