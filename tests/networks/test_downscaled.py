"""A network at a coarser grid: what it must share with the network inside it."""

import pytest
import torch

from networks import DeepSupervision, Downscaled, UNet, make_downscaled
from networks.family import NETWORKS


def unet(spatial_dims):
    torch.manual_seed(0)
    return UNet(spatial_dims=spatial_dims, in_channels=2, out_channels=1, depth=2, features=8).eval()


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_an_image_of_equal_blocks_gives_the_networks_own_logits_between_the_blocks(spatial_dims):
    network = unet(spatial_dims)
    coarse = torch.randn(1, 2, *(8, 12, 8)[:spatial_dims])
    image = coarse
    for axis in range(2, 2 + spatial_dims):
        image = image.repeat_interleave(2, dim=axis)
    with torch.no_grad():
        logits = Downscaled(network, factor=2)(image)
        own = network(coarse)
    assert logits.shape[2:] == image.shape[2:]
    for axis in range(2, 2 + spatial_dims):  # linear interpolation: the mean of two neighbours is that of their block
        logits = (logits.narrow(axis, 0, logits.shape[axis]).unfold(axis, 2, 2)).mean(-1)
    inside = (slice(None), slice(None), *(slice(1, -1) for _ in range(spatial_dims)))
    smoothed = own
    for axis in range(2, 2 + spatial_dims):
        before, after = smoothed.roll(1, axis), smoothed.roll(-1, axis)
        smoothed = 0.75 * smoothed + 0.125 * (before + after)
    torch.testing.assert_close(logits[inside], smoothed[inside])


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_the_sides_must_be_multiples_of_both_strides(spatial_dims):
    network = Downscaled(unet(spatial_dims), factor=2)
    assert network.stride == 8
    with pytest.raises(ValueError, match="multiple"):
        network(torch.zeros(1, 2, *(12, 16, 16)[:spatial_dims]))


def test_deep_supervision_reaches_the_levels_of_the_network_inside():
    network = DeepSupervision(Downscaled(unet(2), factor=2)).train()
    logits = network(torch.randn(2, 2, 32, 32))
    assert [tuple(level.shape[2:]) for level in logits] == [(32, 32), (8, 8)]
    sum(level.sum() for level in logits).backward()
    assert all(weight.grad is not None for weight in network.parameters())


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_deep_supervision_trains_the_very_logits_that_the_network_gives(name, spatial_dims):
    network = make_downscaled(network=name, factor=2, spatial_dims=spatial_dims, in_channels=2, out_channels=3).eval()
    image = torch.randn(1, 2, *[network.stride] * spatial_dims, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(DeepSupervision(network).eval()(image)[0], network(image))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_every_network_works_at_a_coarser_grid_with_its_own_deeper_heads(name, spatial_dims):
    torch.manual_seed(0)
    network = make_downscaled(network=name, factor=2, spatial_dims=spatial_dims, in_channels=2, out_channels=3)
    assert network.stride == 2 * network.network.stride
    image = torch.randn(2, 2, *[2 * network.stride] * spatial_dims)
    logits = DeepSupervision(network).train()(image)
    assert logits[0].shape == (2, 3, *image.shape[2:])
    sum(level.square().mean() for level in logits).backward()
    assert all(weight.grad is not None for weight in network.parameters())


def test_a_factor_of_one_is_refused():
    with pytest.raises(ValueError, match="at least 2"):
        Downscaled(unet(2), factor=1)


def test_it_can_be_made_by_name():
    torch.manual_seed(0)
    made = make_downscaled(
        network="unet", factor=2, spatial_dims=2, in_channels=2, out_channels=1, depth=2, features=8
    ).eval()
    expected = Downscaled(unet(2), factor=2)
    image = torch.randn(1, 2, 16, 16)
    torch.testing.assert_close(made(image), expected(image))
    with pytest.raises(ValueError, match="there is no network 'vnet'; known: attention_unet"):
        make_downscaled(network="vnet", spatial_dims=2, in_channels=2, out_channels=1)
