"""What every network promises, whatever it is: one contract over the registry in two and three dimensions."""

import io
import re
import shutil

import pytest
import torch
import torch.nn.functional as F

from networks import NETWORKS

SMALL = {
    "attention_unet": {"depth": 2, "features": 8},
    "deeplabv3plus": {"backbone": "resnet18", "features": 8, "output_stride": 8, "dropout": 0.0},
    "pspnet": {"backbone": "resnet18", "features": 8, "dropout": 0.0},
    "residual_unet": {"depth": 2, "features": 8},
    "segnet": {"depth": 2, "features": 8},
    "unet": {"depth": 2, "features": 8},
}
"""Arguments that make a network of each kind quick to test; a new network adds its line."""

IN_CHANNELS, OUT_CHANNELS = 4, 3

EVERY_NETWORK = pytest.mark.parametrize(
    ("name", "spatial_dims"), [(name, dims) for name in sorted(NETWORKS) for dims in (2, 3)]
)


def build(name, spatial_dims, *, seed=0):
    torch.manual_seed(seed)
    return NETWORKS[name](
        spatial_dims=spatial_dims, in_channels=IN_CHANNELS, out_channels=OUT_CHANNELS, **SMALL.get(name, {})
    )


def sides_for(network):
    """The smallest good sides that are unequal, so that swapped axes show, and leave the norms more than one voxel."""
    return tuple(network.stride * multiple for multiple in (2, 1, 3)[: network.spatial_dims])


def picture(network, *, batch=2, channels=IN_CHANNELS, seed=1):
    """Noise: every voxel and every channel differs from its neighbours."""
    return torch.randn(batch, channels, *sides_for(network), generator=torch.Generator().manual_seed(seed))


def scan(network):
    """Like a normalised scan: tissue that varies smoothly, differs between the channels, and has zeros around it."""
    generator = torch.Generator().manual_seed(1)
    sides = tuple(4 * side for side in sides_for(network))
    coarse = torch.randn(1, IN_CHANNELS, *(max(2, side // 8) for side in sides), generator=generator)
    mode = {2: "bilinear", 3: "trilinear"}[network.spatial_dims]
    axes = torch.meshgrid(*(torch.linspace(-1, 1, side) for side in sides), indexing="ij")
    head = sum(axis.square() for axis in axes) < 0.8
    tissue = F.interpolate(coarse, size=sides, mode=mode) + 0.1 * torch.randn(
        1, IN_CHANNELS, *sides, generator=generator
    )
    return tissue * head


def blocks(network):
    """Blocks of the stride's side, each of one value, so that even a network with a coarse grid can tell them apart."""
    generator = torch.Generator().manual_seed(3)
    steps = [side // network.stride for side in sides_for(network)]
    return F.interpolate(torch.randn(2, IN_CHANNELS, *steps, generator=generator), scale_factor=network.stride)


@pytest.fixture
def deterministic():
    """Torch refuses, for the length of a test, operations that can differ between two runs."""
    before = torch.get_deterministic_debug_mode()
    torch.use_deterministic_algorithms(True)
    yield
    torch.set_deterministic_debug_mode(before)


def train(network, image, *, steps):
    """Losses of a few optimiser steps towards the sign of the first channels."""
    target = (image[:, :OUT_CHANNELS] > 0).float()
    criterion = torch.nn.BCEWithLogitsLoss()
    optimizer = torch.optim.Adam(network.parameters(), lr=0.003)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = criterion(network(image), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def gradients(network, run, image):
    """Gradient of every parameter, for logits weighted at random so that none cancels."""
    network.zero_grad()
    logits = run(image)
    (logits * torch.randn(logits.shape, generator=torch.Generator().manual_seed(2))).mean().backward()
    return {name: parameter.grad for name, parameter in network.named_parameters()}


@EVERY_NETWORK
def test_each_region_gets_one_logit_per_voxel(name, spatial_dims):
    network = build(name, spatial_dims).train()
    logits = network(picture(network))
    assert logits.shape == (2, OUT_CHANNELS, *sides_for(network))
    assert logits.dtype == torch.float32
    assert logits.min() < 0 < logits.max(), "logits, not probabilities"


@EVERY_NETWORK
def test_it_says_what_it_was_built_for(name, spatial_dims):
    network = build(name, spatial_dims)
    assert (network.spatial_dims, network.in_channels, network.out_channels) == (
        spatial_dims,
        IN_CHANNELS,
        OUT_CHANNELS,
    )
    assert network.stride >= 1


@EVERY_NETWORK
def test_gradients_reach_every_parameter(name, spatial_dims):
    network = build(name, spatial_dims)
    for parameter_name, gradient in gradients(network, network, picture(network)).items():
        assert gradient is not None, parameter_name
        assert gradient.isfinite().all(), parameter_name
        assert gradient.any(), parameter_name


@EVERY_NETWORK
def test_evaluation_gives_the_same_logits_twice(name, spatial_dims):
    network = build(name, spatial_dims).eval()
    with torch.no_grad():
        assert torch.equal(network(picture(network)), network(picture(network)))


@EVERY_NETWORK
def test_the_same_seed_builds_the_same_network(name, spatial_dims):
    first, again, other = (build(name, spatial_dims, seed=seed).state_dict() for seed in (5, 5, 6))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@EVERY_NETWORK
@pytest.mark.usefixtures("deterministic")
def test_trained_twice_from_one_seed_it_is_the_same_to_the_bit(name, spatial_dims):
    trained = []
    for _ in range(2):
        network = build(name, spatial_dims).train()
        train(network, blocks(network), steps=3)
        trained.append(network.state_dict())
    first, again = trained
    untrained = build(name, spatial_dims).state_dict()
    assert any(not torch.equal(first[key], untrained[key]) for key in first)
    for key in first:
        assert torch.equal(first[key], again[key]), key


@EVERY_NETWORK
def test_the_input_is_left_as_it_was(name, spatial_dims):
    network = build(name, spatial_dims)
    image = picture(network)
    network(image)
    assert torch.equal(image, picture(network))


@EVERY_NETWORK
def test_in_evaluation_cases_of_a_batch_do_not_touch_each_other(name, spatial_dims):
    network = build(name, spatial_dims).eval()
    image = picture(network)
    with torch.no_grad():
        apart = torch.cat([network(case) for case in image.split(1)])
        torch.testing.assert_close(network(image), apart, rtol=1e-4, atol=1e-5)


@EVERY_NETWORK
def test_weights_saved_and_loaded_give_the_same_logits(name, spatial_dims):
    trained, fresh = build(name, spatial_dims), build(name, spatial_dims, seed=9)
    image = picture(trained)
    train(trained.train(), image, steps=1)  # batch statistics, where a network has them, are part of what is saved
    file = io.BytesIO()
    torch.save(trained.state_dict(), file)
    file.seek(0)
    with torch.no_grad():
        assert not torch.equal(trained.eval()(image), fresh.eval()(image))
        fresh.load_state_dict(torch.load(file, weights_only=True))
        assert torch.equal(trained(image), fresh(image))


@EVERY_NETWORK
def test_each_weight_is_saved_once(name, spatial_dims):
    state = build(name, spatial_dims).state_dict()
    places = [value.untyped_storage().data_ptr() for value in state.values()]
    assert len(set(places)) == len(places), "two names for one tensor"
    assert sum(value.untyped_storage().nbytes() for value in state.values()) == sum(
        value.nbytes for value in state.values()
    ), "a tensor that is a part of a larger one takes the whole of it along"


@EVERY_NETWORK
def test_one_case_is_batch_enough_to_train_on(name, spatial_dims):
    network = build(name, spatial_dims).train()
    loss = network(picture(network, batch=1)).square().mean()
    loss.backward()
    assert loss.isfinite()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


@EVERY_NETWORK
def test_a_few_steps_of_training_lower_the_loss(name, spatial_dims):
    network = build(name, spatial_dims).train()
    losses = train(network, blocks(network), steps=8)
    assert losses[-1] < 0.9 * losses[0]


@EVERY_NETWORK
def test_wrong_channels_are_refused_with_both_numbers(name, spatial_dims):
    network = build(name, spatial_dims)
    with pytest.raises(ValueError, match=r"input has 3 channels; this network was built for 4"):
        network(picture(network, channels=3))


@EVERY_NETWORK
def test_wrong_axes_are_refused_with_the_shape_that_came(name, spatial_dims):
    network = build(name, spatial_dims)
    image = picture(network)[0]
    with pytest.raises(ValueError, match=rf"has {spatial_dims + 1} axes; needed: \(N, C, \*spatial\)") as caught:
        network(image)
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


@EVERY_NETWORK
def test_an_image_smaller_than_the_stride_is_refused(name, spatial_dims):
    network = build(name, spatial_dims).eval()
    small, good = (network.stride // 2,) * spatial_dims, (network.stride,) * spatial_dims
    with pytest.raises(ValueError, match=r"must be a multiple of \d+ in every axis") as caught:
        network(torch.zeros(1, IN_CHANNELS, *small))
    assert str(caught.value).endswith(f"pad to {good}")


@pytest.mark.parametrize("name", sorted(NETWORKS))
@pytest.mark.parametrize("spatial_dims", [1, 4])
def test_only_two_and_three_dimensions_exist(name, spatial_dims):
    with pytest.raises(ValueError, match=rf"spatial_dims is {spatial_dims}; it must be 2 \(slices\) or 3 \(volumes\)"):
        build(name, spatial_dims)


def hold_maxima(network):
    """Where a pooling tells which voxel was its maximum, let a second forward pass take the voxels of the first.

    Of two neighbours that differ by less than a rounding either may be the maximum. SegNet's decoder puts it where it
    was, so its logits jump; that is how it is built, and not how precisely it computes.
    """
    places = []

    def take(_pool, inputs, output):
        if torch.is_autocast_enabled("cpu"):
            held = places.pop(0)
            return inputs[0].flatten(2).gather(2, held.flatten(2)).view(held.shape), held
        places.append(output[1])
        return output

    for module in network.modules():
        if getattr(module, "return_indices", False):
            module.register_forward_hook(take)


@EVERY_NETWORK
def test_bfloat16_stays_close_to_float32(name, spatial_dims):
    network = build(name, spatial_dims).eval()
    hold_maxima(network)
    image = scan(network)
    with torch.no_grad():
        exact = network(image)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = network(image)
    assert rough.dtype == torch.bfloat16
    error = (rough.float() - exact).norm() / exact.norm()
    assert 0 < error <= 0.02  # a bfloat16 holds 8 bits: 0.4 % a rounding


@EVERY_NETWORK
def test_channels_last_gives_the_same_logits(name, spatial_dims):
    network = build(name, spatial_dims).eval()
    image = picture(network)
    layout = torch.channels_last if spatial_dims == 2 else torch.channels_last_3d
    with torch.no_grad():
        expected = network(image)
        turned = network.to(memory_format=layout)(image.to(memory_format=layout))
    torch.testing.assert_close(turned, expected, rtol=1e-4, atol=1e-5)


@EVERY_NETWORK
def test_a_scripted_network_gives_the_same_logits(name, spatial_dims):
    network = build(name, spatial_dims).eval()
    image = picture(network)
    file = io.BytesIO()
    torch.jit.save(torch.jit.script(network), file)
    file.seek(0)
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.load(file)(image), network(image), rtol=1e-4, atol=1e-5)


def compiled(network, backend):
    """The network compiled as one graph; both are without dropout, for which a compiled network draws other numbers."""
    for module in network.modules():
        if isinstance(module, torch.nn.Dropout2d | torch.nn.Dropout3d):
            module.p = 0.0
    torch.compiler.reset()  # networks share their code, and torch counts how often it compiles the same code
    return torch.compile(network, fullgraph=True, backend=backend)


def compare_training(network, run):
    """Logits and gradients of ``run`` are those of the network itself.

    By relative L2: batch norm over the few voxels of a coarse grid makes 0.1 % of the last bit of an image.
    """
    image = picture(network)
    logits, expected = run(image), network(image)
    assert (logits - expected).norm() <= 1e-3 * expected.norm()
    theirs, own = gradients(network, run, image), gradients(network, network, image)
    for name, gradient in own.items():
        assert (theirs[name] - gradient).norm() <= 5e-3 * gradient.norm(), name


@EVERY_NETWORK
def test_traced_for_compilation_it_trains_the_same(name, spatial_dims):
    network = build(name, spatial_dims).train()
    compare_training(network, compiled(network, "aot_eager"))


@EVERY_NETWORK
def test_traced_for_compilation_it_evaluates_the_same(name, spatial_dims):
    network = build(name, spatial_dims).eval()
    image = picture(network)
    with torch.no_grad():
        torch.testing.assert_close(compiled(network, "aot_eager")(image), network(image), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="torch compiles for the CPU with g++ or clang++"
)
@EVERY_NETWORK
def test_compiled_it_trains_the_same(name, spatial_dims):
    network = build(name, spatial_dims).train()
    compare_training(network, compiled(network, "inductor"))


@EVERY_NETWORK
@pytest.mark.parametrize("argument", ["in_channels", "out_channels"])
def test_a_number_of_channels_that_is_none_is_refused(name, spatial_dims, argument):
    channels = {"in_channels": IN_CHANNELS, "out_channels": OUT_CHANNELS, argument: 0}
    with pytest.raises(ValueError, match=rf"{argument} is 0; it must be at least 1"):
        NETWORKS[name](spatial_dims=spatial_dims, **channels, **SMALL.get(name, {}))


@EVERY_NETWORK
@pytest.mark.parametrize("argument", ["in_channels", "out_channels", "features"])
def test_a_fraction_of_a_channel_is_refused(name, spatial_dims, argument):
    widths = {"in_channels": IN_CHANNELS, "out_channels": OUT_CHANNELS, **SMALL.get(name, {}), argument: 8.5}
    with pytest.raises(ValueError, match=rf"{argument} is 8\.5; it must be a whole number"):
        NETWORKS[name](spatial_dims=spatial_dims, **widths)


@pytest.mark.parametrize("name", ["attention_unet", "residual_unet", "segnet", "unet"])
def test_a_fraction_among_the_widths_or_of_a_level_is_refused(name):
    channels = {"spatial_dims": 2, "in_channels": IN_CHANNELS, "out_channels": OUT_CHANNELS}
    widths = (8, 16.5) if name == "segnet" else (8, 16.5, 32)
    with pytest.raises(ValueError, match=r"features is \(8, 16\.5.*\); every width must be a whole number"):
        NETWORKS[name](**channels, depth=2, features=widths)
    with pytest.raises(ValueError, match=r"depth is 2\.5; it counts the poolings and must be a whole number"):
        NETWORKS[name](**channels, depth=2.5, features=8)


@EVERY_NETWORK
@pytest.mark.parametrize("norm", ["instance", "batch", "group"])
def test_the_size_that_is_advised_works_in_training_with_every_norm(name, spatial_dims, norm):
    arguments = {**SMALL.get(name, {}), "norm": norm}
    network = NETWORKS[name](
        spatial_dims=spatial_dims, in_channels=IN_CHANNELS, out_channels=OUT_CHANNELS, **arguments
    ).train()
    sides = (network.stride - 1,) * spatial_dims
    with pytest.raises(ValueError, match="pad to") as caught:
        network(torch.zeros(1, IN_CHANNELS, *sides))
    advised = tuple(int(side) for side in re.findall(r"\d+", str(caught.value).rpartition("pad to")[2]))
    assert network(torch.randn(1, IN_CHANNELS, *advised)).shape[2:] == advised
    smallest = torch.randn(1, IN_CHANNELS, *(network.stride,) * spatial_dims)
    if advised == tuple(smallest.shape[2:]):
        assert network(smallest).isfinite().all()
    else:
        with pytest.raises(ValueError, match=rf"leaves {norm} norm a single voxel .* or use norm='group'"):
            network(smallest)
