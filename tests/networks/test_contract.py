"""What every network promises, whatever it is: one contract over the registry in two and three dimensions."""

import io

import pytest
import torch

from networks import NETWORKS

SMALL = {
    "attention_unet": {"depth": 2, "features": 8},
    "residual_unet": {"depth": 2, "features": 8},
    "unet": {"depth": 2, "features": 8},
}
"""Arguments that make a network of each kind quick to test; a new network adds its line."""

IN_CHANNELS, OUT_CHANNELS = 4, 3
SIDES = (16, 8, 24)  # unequal, so that swapped axes show

EVERY_NETWORK = pytest.mark.parametrize(
    ("name", "spatial_dims"), [(name, dims) for name in sorted(NETWORKS) for dims in (2, 3)]
)


def build(name, spatial_dims, *, seed=0):
    torch.manual_seed(seed)
    return NETWORKS[name](
        spatial_dims=spatial_dims, in_channels=IN_CHANNELS, out_channels=OUT_CHANNELS, **SMALL.get(name, {})
    )


def picture(spatial_dims, *, batch=2, channels=IN_CHANNELS, seed=1):
    return torch.randn(batch, channels, *SIDES[:spatial_dims], generator=torch.Generator().manual_seed(seed))


@EVERY_NETWORK
def test_each_region_gets_one_logit_per_voxel(name, spatial_dims):
    logits = build(name, spatial_dims)(picture(spatial_dims))
    assert logits.shape == (2, OUT_CHANNELS, *SIDES[:spatial_dims])
    assert logits.dtype == torch.float32
    assert logits.min() < 0 < logits.max(), "logits, not probabilities"


@EVERY_NETWORK
def test_gradients_reach_every_parameter(name, spatial_dims):
    network = build(name, spatial_dims)
    logits = network(picture(spatial_dims))
    (logits * torch.randn(logits.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    for parameter_name, parameter in network.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.any(), parameter_name


@EVERY_NETWORK
def test_evaluation_gives_the_same_logits_twice(name, spatial_dims):
    network, image = build(name, spatial_dims).eval(), picture(spatial_dims)
    with torch.no_grad():
        assert torch.equal(network(image), network(image))


@EVERY_NETWORK
def test_the_same_seed_builds_the_same_network(name, spatial_dims):
    first, again, other = (build(name, spatial_dims, seed=seed).state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@EVERY_NETWORK
def test_the_input_is_left_as_it_was(name, spatial_dims):
    image = picture(spatial_dims)
    build(name, spatial_dims)(image)
    assert torch.equal(image, picture(spatial_dims))


@EVERY_NETWORK
def test_in_evaluation_cases_of_a_batch_do_not_touch_each_other(name, spatial_dims):
    network, image = build(name, spatial_dims).eval(), picture(spatial_dims)
    with torch.no_grad():
        apart = torch.cat([network(case) for case in image.split(1)])
        torch.testing.assert_close(network(image), apart, rtol=1e-4, atol=1e-5)


@EVERY_NETWORK
def test_weights_saved_and_loaded_give_the_same_logits(name, spatial_dims):
    trained, fresh, image = build(name, spatial_dims), build(name, spatial_dims, seed=9), picture(spatial_dims)
    file = io.BytesIO()
    torch.save(trained.state_dict(), file)
    file.seek(0)
    with torch.no_grad():
        assert not torch.equal(trained.eval()(image), fresh.eval()(image))
        fresh.load_state_dict(torch.load(file, weights_only=True))
        assert torch.equal(trained(image), fresh(image))


@EVERY_NETWORK
def test_one_case_is_batch_enough_to_train_on(name, spatial_dims):
    network = build(name, spatial_dims).train()
    loss = network(picture(spatial_dims, batch=1)).square().mean()
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


@EVERY_NETWORK
def test_a_few_steps_of_training_lower_the_loss(name, spatial_dims):
    network, image = build(name, spatial_dims).train(), picture(spatial_dims)
    target = (image[:, :OUT_CHANNELS] > 0).float()
    criterion = torch.nn.BCEWithLogitsLoss()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.003)
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = criterion(network(image), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.9 * losses[0]


@EVERY_NETWORK
def test_wrong_channels_are_refused_with_both_numbers(name, spatial_dims):
    with pytest.raises(ValueError, match=r"input has 3 channels; this network was built for 4"):
        build(name, spatial_dims)(picture(spatial_dims, channels=3))


@EVERY_NETWORK
def test_wrong_axes_are_refused_with_the_shape_that_came(name, spatial_dims):
    image = picture(spatial_dims)[0]
    with pytest.raises(ValueError, match=rf"has {spatial_dims + 1} axes; needed: \(N, C, \*spatial\)") as caught:
        build(name, spatial_dims)(image)
    assert str(tuple(image.shape)) in str(caught.value)
    assert f"{spatial_dims} spatial axes" in str(caught.value)


@EVERY_NETWORK
def test_a_wrong_size_is_refused_with_the_next_good_one(name, spatial_dims):
    network = build(name, spatial_dims)
    sides = (network.stride + 1, 1, 2 * network.stride)[:spatial_dims]
    good = (2 * network.stride, network.stride, 2 * network.stride)[:spatial_dims]
    with pytest.raises(ValueError, match="must be a multiple of") as caught:
        network(torch.zeros(1, IN_CHANNELS, *sides))
    message = str(caught.value)
    assert message.startswith(f"spatial size {sides} must be a multiple of {network.stride}")
    assert message.endswith(f"pad to {good}")
    assert network(torch.zeros(1, IN_CHANNELS, *good)).shape[2:] == good, "the advice must work"


@pytest.mark.parametrize("name", sorted(NETWORKS))
@pytest.mark.parametrize("spatial_dims", [1, 4])
def test_only_two_and_three_dimensions_exist(name, spatial_dims):
    with pytest.raises(ValueError, match=rf"spatial_dims is {spatial_dims}; it must be 2 \(slices\) or 3 \(volumes\)"):
        build(name, spatial_dims)


@EVERY_NETWORK
def test_bfloat16_stays_close_to_float32(name, spatial_dims):
    network, image = build(name, spatial_dims).eval(), picture(spatial_dims)
    with torch.no_grad():
        exact = network(image)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = network(image)
    assert rough.dtype == torch.bfloat16
    error = (rough.float() - exact).square().mean().sqrt() / exact.std()
    assert 0 < error < 0.05  # a bfloat16 holds 8 bits: 0.4 % a rounding


@EVERY_NETWORK
def test_a_scripted_network_gives_the_same_logits(name, spatial_dims):
    network, image = build(name, spatial_dims).eval(), picture(spatial_dims)
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(network), file)
    file.seek(0)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.load(file)(image), network(image), rtol=1e-4, atol=1e-5)


@EVERY_NETWORK
def test_channels_last_gives_the_same_logits(name, spatial_dims):
    network, image = build(name, spatial_dims).eval(), picture(spatial_dims)
    layout = torch.channels_last if spatial_dims == 2 else torch.channels_last_3d
    with torch.no_grad():
        expected = network(image)
        turned = network.to(memory_format=layout)(image.to(memory_format=layout))
    torch.testing.assert_close(turned, expected, rtol=1e-4, atol=1e-5)
