"""Ensembles of checkpoints and mirror images: the mean of probabilities, and what must not change under mirroring."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SimpleInferer
from torch import nn

from brats_pipeline.errors import PipelineError
from brats_pipeline.inference.averaging import CheckpointEnsemble, EnsembleInferer, load_members, mirrorings
from brats_pipeline.inference.inferers import SliceInferer, WindowInferer
from networks import UNet

ALL = (0, 1, 2)


def image(*spatial: int, channels: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.randn(1, channels, *spatial, generator=torch.Generator().manual_seed(seed))


def convolution(dims: int, size: int, *, channels: int = 2, seed: int = 0) -> nn.Module:
    """A convolution to two regions: of size 1 it does not care about mirroring, of size 3 it does."""
    torch.manual_seed(seed)
    return (nn.Conv3d if dims == 3 else nn.Conv2d)(channels, 2, size, padding=size // 2)


class Constant(nn.Module):
    """Says the same of every voxel: one probability for each region."""

    def __init__(self, *probabilities: float) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(probabilities).logit())

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.logits.view(1, -1, *[1] * (image.dim() - 2)).expand(len(image), -1, *image.shape[2:])


def windows(**more: Any) -> WindowInferer:
    return WindowInferer([8, 8, 8], **{"overlap": 0.5, "precision": "float32", **more})


def slices(**more: Any) -> SliceInferer:
    return SliceInferer(**{"slice_batch_size": 4, "precision": "float32", **more})


@torch.no_grad()
def mean_by_hand(
    run: Callable[[torch.Tensor], torch.Tensor], image: torch.Tensor, axes: tuple[int, ...]
) -> torch.Tensor:
    """The textbook's way: mirror, run, mirror back, mean of the probabilities."""
    total = torch.zeros(())
    for flags in itertools.product([False, True], repeat=len(axes)):
        dims = [axis + 2 for axis, on in zip(axes, flags, strict=True) if on]
        turned = run(torch.flip(image, dims))
        total = total + torch.flip(turned, dims).sigmoid()
    return total / 2 ** len(axes)


def test_mirrorings_are_every_choice_of_the_axes() -> None:
    assert mirrorings([]) == [()]
    assert mirrorings([0, 2]) == [(), (0,), (2,), (0, 2)]
    assert len(set(mirrorings([0, 1, 2]))) == 8


@torch.no_grad()
def test_one_network_without_mirror_images_is_the_inferer_itself() -> None:
    x, network = image(11, 9, 13), convolution(3, 3)
    assert torch.equal(EnsembleInferer(windows())(x, network), windows()(x, network))
    assert EnsembleInferer(windows(reduce="regions"))(x, network).dtype == torch.uint8


@torch.no_grad()
@pytest.mark.parametrize("batch", [None, 1, 3, 8])
@pytest.mark.parametrize("axes", [(0,), (1, 2), ALL])
def test_mirror_images_are_averaged_as_by_hand(axes: tuple[int, ...], batch: int | None) -> None:
    x, network = image(11, 9, 13), convolution(3, 3)
    found = EnsembleInferer(windows(), flips=axes, batch=batch)(x, network)
    expected = mean_by_hand(lambda turned: windows()(turned, network), x, axes)
    torch.testing.assert_close(found.sigmoid(), expected, atol=1e-6, rtol=0)
    assert not torch.allclose(found.sigmoid(), windows()(x, network).sigmoid(), atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize(("inferer", "dims"), [(windows(), 3), (slices(), 2)], ids=["windows", "slices"])
def test_a_network_that_does_not_care_about_mirroring_says_the_same(inferer: Any, dims: int) -> None:
    x, network = image(11, 9, 13), convolution(dims, 1)
    found = EnsembleInferer(inferer, flips="all")(x, network)
    torch.testing.assert_close(found, inferer(x, network), atol=1e-4, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("mirrored", mirrorings(ALL)[1:])
def test_with_every_mirror_image_a_mirrored_scan_gives_the_mirrored_answer(mirrored: tuple[int, ...]) -> None:
    x, network = image(11, 9, 13), convolution(3, 3)
    dims = [axis + 2 for axis in mirrored]
    inferer = EnsembleInferer(windows(), flips="all")
    torch.testing.assert_close(inferer(x.flip(dims), network).flip(dims), inferer(x, network), atol=1e-5, rtol=0)
    plain = windows()(x.flip(dims), network).flip(dims)
    assert not torch.allclose(plain, windows()(x, network), atol=1e-2), "or the network says nothing here"


class Picks(nn.Module):
    """Of neighbouring slices with flags: what the next slice holds, where the second modality is present."""

    def forward(self, slices: torch.Tensor) -> torch.Tensor:
        behind, flag = slices[:, 4:5], slices[:, 7:8]
        return torch.cat([behind * flag, slices[:, 0:1] * flag], dim=1)


@torch.no_grad()
def test_neighbouring_slices_keep_their_order_and_flags_their_place() -> None:
    x = torch.cat([image(6, 5, 4), torch.zeros(1, 1, 6, 5, 4), torch.ones(1, 1, 6, 5, 4)], dim=1)
    inferer = slices(neighbours=1, flags=2)
    found = EnsembleInferer(inferer, flips="all")(x, Picks())
    torch.testing.assert_close(found, inferer(x, Picks()), atol=1e-4, rtol=0)
    torch.testing.assert_close(found[0, 0, :, :, :-1], x[0, 0, :, :, 1:], atol=1e-4, rtol=0)


@torch.no_grad()
def test_slices_are_mirrored_in_their_plane_only() -> None:
    x, network = image(6, 5, 4), convolution(2, 3)
    found = EnsembleInferer(slices(), flips="all")(x, network)
    expected = mean_by_hand(lambda turned: slices()(turned, network), x, (0, 1))
    torch.testing.assert_close(found.sigmoid(), expected, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="does not look along z"):
        EnsembleInferer(slices(), flips=[2])


@pytest.mark.parametrize("flips", [[3], [0, 0], "some", [-1]])
def test_axes_that_cannot_be_meant_are_refused(flips: Any) -> None:
    with pytest.raises(ValueError, match="flips are"):
        EnsembleInferer(windows(), flips=flips)


def test_an_axis_that_an_image_has_not_is_refused() -> None:
    with pytest.raises(ValueError, match="image of 2 axes"):
        EnsembleInferer(SimpleInferer(), flips=[2])(image(4, 4), Constant(0.5, 0.5))


@torch.no_grad()
def test_checkpoints_are_averaged_in_probability_region_by_region() -> None:
    network = CheckpointEnsemble([Constant(0.2, 0.9), Constant(0.6, 0.5)])
    x = image(4, 5, 6)
    found = EnsembleInferer(windows())(x, network).sigmoid()
    assert found.shape == (1, 2, 4, 5, 6)
    assert found[0, :, 1, 2, 3].tolist() == pytest.approx([0.4, 0.7])
    weighted = EnsembleInferer(windows(), weights=[[1, 0], [3, 2]])(x, network).sigmoid()
    assert weighted[0, :, 3, 4, 5].tolist() == pytest.approx([0.5, 0.5])
    scaled = EnsembleInferer(windows(), weights=[1, 3])(x, network).sigmoid()
    assert scaled[0, :, 0, 0, 0].tolist() == pytest.approx([0.5, 0.6])


@torch.no_grad()
def test_mirror_images_of_checkpoints_are_members_too() -> None:
    members = [convolution(3, 3, seed=seed) for seed in (1, 2)]
    x = image(9, 6, 7)
    found = EnsembleInferer(windows(), flips=[0, 2], weights=[1, 3])(x, CheckpointEnsemble(members)).sigmoid()
    one, other = (mean_by_hand(lambda turned, m=m: windows()(turned, m), x, (0, 2)) for m in members)
    torch.testing.assert_close(found, 0.25 * one + 0.75 * other, atol=1e-6, rtol=0)


@torch.no_grad()
def test_the_spread_is_that_of_all_members() -> None:
    members = [convolution(3, 3, seed=seed) for seed in (1, 2)]
    x = image(6, 5, 7)
    channels = EnsembleInferer(windows(), flips=[1], spread=True)(x, CheckpointEnsemble(members))
    each = torch.stack(
        [
            windows()(x.flip(dims), member).flip(dims).sigmoid() if dims else windows()(x, member).sigmoid()
            for member in members
            for dims in ([], [3])
        ]
    )
    logits, entropy, low, high = channels.split(2, dim=1)
    torch.testing.assert_close(logits.sigmoid(), each.mean(0), atol=1e-6, rtol=0)
    by_hand = -(each * each.log() + (1 - each) * (1 - each).log()).mean(0)
    torch.testing.assert_close(entropy, by_hand, atol=1e-5, rtol=0)
    assert torch.equal(low, each.amin(0))
    assert torch.equal(high, each.amax(0))


@torch.no_grad()
def test_one_network_has_no_disagreement() -> None:
    logits, entropy, low, high = EnsembleInferer(windows(), spread=True)(image(4, 4, 4), Constant(0.3, 0.8)).split(2, 1)
    assert torch.equal(low, high)
    torch.testing.assert_close(low, logits.sigmoid())
    assert entropy[0, 0, 0, 0, 0].item() == pytest.approx(0.6108643)  # -0.3 ln 0.3 - 0.7 ln 0.7


@torch.no_grad()
def test_regions_are_made_from_the_mean_not_from_each_member() -> None:
    x, network = image(9, 9, 9), convolution(3, 3)
    found = EnsembleInferer(windows(reduce="regions"), flips=[0])(x, network)
    assert torch.equal(found, EnsembleInferer(windows(), flips=[0])(x, network))

    def regions(image: torch.Tensor, network: Any) -> torch.Tensor:
        return network(image) > 0

    with pytest.raises(ValueError, match="let it keep logits"):
        EnsembleInferer(regions, flips=[0])(x, network)


@torch.no_grad()
def test_the_answer_keeps_the_metadata_of_the_scan() -> None:
    x = MetaTensor(image(5, 5, 5), meta={"case": "a"})
    found = EnsembleInferer(windows(), flips=[0])(x, convolution(3, 3))
    assert isinstance(found, MetaTensor)
    assert found.meta["case"] == "a"


@torch.no_grad()
def test_air_that_no_window_sees_stays_without_a_region() -> None:
    x = image(20, 8, 8)
    x[:, :, 8:] = 0
    found = EnsembleInferer(windows(overlap=0.0), flips=[1])(x, Constant(0.9, 0.9))
    assert (found[0, :, :8].sigmoid() > 0.89).all()
    assert (found[0, :, 12:].sigmoid() == 0).all()


def test_weights_are_one_for_each_checkpoint() -> None:
    with pytest.raises(ValueError, match="3 weights for 2 checkpoints"):
        EnsembleInferer(windows(), weights=[1, 1, 1])(
            image(4, 4, 4), CheckpointEnsemble([Constant(0.5), Constant(0.5)])
        )


@torch.no_grad()
def test_an_ensemble_is_a_network_too() -> None:
    network = CheckpointEnsemble([Constant(0.2, 0.9), Constant(0.6, 0.5)])
    assert windows()(image(4, 5, 6), network).sigmoid()[0, :, 0, 0, 0].tolist() == pytest.approx([0.4, 0.7])
    assert CheckpointEnsemble([UNet(spatial_dims=3, in_channels=2, out_channels=2, depth=2, features=8)]).stride > 1
    with pytest.raises(ValueError, match="no network"):
        CheckpointEnsemble([])


def saved(folder: Path, count: int) -> list[Path]:
    paths = [folder / f"{number}.pt" for number in range(count)]
    for number, path in enumerate(paths):
        torch.save(convolution(3, 1, seed=number).state_dict(), path)
    return paths


@torch.no_grad()
def test_each_checkpoint_becomes_a_member(tmp_path: Path) -> None:
    paths = saved(tmp_path, 3)
    network = load_members(convolution(3, 1, seed=9), paths)
    x = image(3, 4, 5)
    expected = torch.stack([convolution(3, 1, seed=seed)(x).sigmoid() for seed in range(3)]).mean(0)
    torch.testing.assert_close(EnsembleInferer(windows())(x, network).sigmoid(), expected, atol=1e-6, rtol=0)


def test_one_checkpoint_is_the_network_itself(tmp_path: Path) -> None:
    (path,) = saved(tmp_path, 1)
    for given in (path, str(path), [path]):
        network = convolution(3, 1, seed=9)
        assert load_members(network, given) is network
        assert torch.equal(network.weight, convolution(3, 1, seed=0).weight)


def test_no_checkpoint_and_one_that_is_named_twice_are_refused(tmp_path: Path) -> None:
    (path,) = saved(tmp_path, 1)
    with pytest.raises(PipelineError, match="give at least one"):
        load_members(convolution(3, 1), [])
    with pytest.raises(PipelineError, match="each once"):
        load_members(convolution(3, 1), [path, tmp_path / "." / path.name])


def test_weights_of_another_network_are_refused_by_their_file(tmp_path: Path) -> None:
    paths = saved(tmp_path, 1)
    torch.save(convolution(3, 3).state_dict(), tmp_path / "other.pt")
    with pytest.raises(PipelineError, match=r"other.pt: the weights do not fit"):
        load_members(convolution(3, 1), [*paths, tmp_path / "other.pt"])


@torch.no_grad()
@pytest.mark.parametrize(("inferer", "dims"), [(windows(sw_batch_size=8), 3), (slices(slice_batch_size=24), 2)])
def test_mirror_images_go_through_the_network_together(inferer: Any, dims: int) -> None:
    network, batches = convolution(dims, 3), []
    network.register_forward_pre_hook(lambda module, inputs: batches.append(len(inputs[0])))
    flips = [0, 1, 2][:dims]
    found = EnsembleInferer(inferer, flips=flips, batch=8)(image(7, 8, 6), network)
    assert batches == [2**dims if dims == 3 else 6 * 2**dims]
    alone = EnsembleInferer(inferer, flips=flips, batch=1)(image(7, 8, 6), network)
    torch.testing.assert_close(found, alone, atol=1e-4, rtol=0)
