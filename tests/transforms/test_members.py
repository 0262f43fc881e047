"""Saved probabilities of several members, pooled on the grid of a scan."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose

from brats_pipeline.errors import CaseError
from transforms.members import LoadMembersd
from transforms.probabilities import write_probabilities
from transforms.restore import RestoreRegionsd

SHAPE = (3, 4, 5)


def saved(folder, seed: int, *, regions=("TC", "WT"), shape=SHAPE, case_id="case") -> np.ndarray:
    values = np.random.default_rng(seed).random((len(regions), *shape)).astype(np.float16)
    write_probabilities(folder / "probabilities" / f"{case_id}.npz", values, regions=regions)
    return values.astype(np.float32)


def item() -> dict:
    return {"image": MetaTensor(torch.ones(4, *SHAPE), meta={"name": "scan"}), "case_id": "case"}


def test_members_are_averaged_on_the_grid_of_the_scan(tmp_path) -> None:
    one, other = saved(tmp_path / "1", 1), saved(tmp_path / "2", 2)
    found = LoadMembersd("image", folders=[tmp_path / "1", tmp_path / "2"], regions=["TC", "WT"])(item())["image"]
    np.testing.assert_allclose(found.sigmoid().numpy(), (one + other) / 2, atol=1e-6)
    assert found.meta["name"] == "scan"


def test_weights_are_of_members_or_of_regions_within(tmp_path) -> None:
    one, other = saved(tmp_path / "1", 1), saved(tmp_path / "2", 2)
    load = LoadMembersd("image", folders=[tmp_path / "1", tmp_path / "2"], regions=["TC", "WT"], weights=[1, [0, 3]])
    found = load(item())["image"].sigmoid().numpy()
    np.testing.assert_allclose(found[0], one[0], atol=1e-6)
    np.testing.assert_allclose(found[1], one[1] / 4 + 3 * other[1] / 4, atol=1e-6)


def test_regions_are_found_by_name(tmp_path) -> None:
    values = saved(tmp_path, 1, regions=("ET", "WT", "TC"))
    found = LoadMembersd("image", folders=[tmp_path], regions=["TC", "WT", "ET"])(item())["image"]
    np.testing.assert_allclose(found.sigmoid().numpy(), values[[2, 1, 0]], atol=1e-6)


def test_the_spread_comes_on_demand(tmp_path) -> None:
    one, other = saved(tmp_path / "1", 1), saved(tmp_path / "2", 2)
    load = LoadMembersd("image", folders=[tmp_path / "1", tmp_path / "2"], regions=["TC", "WT"], spread=True)
    found = load(item())["image"]
    assert found.shape == (8, *SHAPE)
    np.testing.assert_array_equal(found[4:6].numpy(), np.minimum(one, other))
    np.testing.assert_array_equal(found[6:].numpy(), np.maximum(one, other))


def test_a_member_that_lacks_the_case_the_region_or_the_grid_is_a_case_that_failed(tmp_path) -> None:
    saved(tmp_path / "1", 1)
    with pytest.raises(CaseError, match=r"case: .*2.probabilities.case.npz: cannot be read"):
        LoadMembersd("image", folders=[tmp_path / "1", tmp_path / "2"], regions=["TC", "WT"])(item())
    with pytest.raises(CaseError, match=r"holds TC, WT .* needed: TC, WT, ET"):
        LoadMembersd("image", folders=[tmp_path / "1"], regions=["TC", "WT", "ET"])(item())
    saved(tmp_path / "3", 1, shape=(3, 4, 6))
    with pytest.raises(CaseError, match=r"\(3, 4, 6\) voxels; needed: TC, WT on \(3, 4, 5\)"):
        LoadMembersd("image", folders=[tmp_path / "3"], regions=["TC", "WT"])(item())


def test_no_member_and_another_number_of_weights_are_refused(tmp_path) -> None:
    with pytest.raises(ValueError, match="0 members and no weights"):
        LoadMembersd("image", folders=[], regions=["TC"])
    with pytest.raises(ValueError, match="1 members and 2 weights"):
        LoadMembersd("image", folders=[tmp_path], regions=["TC"], weights=[1, 2])


def test_behind_saved_members_there_is_nothing_to_turn_back(tmp_path) -> None:
    values = saved(tmp_path, 1)
    chain = Compose([LoadMembersd("image", folders=[tmp_path], regions=["TC", "WT"])])
    loaded = chain(item())
    regions = RestoreRegionsd("pred", transform=chain)({**loaded, "pred": loaded["image"]})["pred"]
    assert np.array_equal(regions.numpy(), values >= 0.5)
