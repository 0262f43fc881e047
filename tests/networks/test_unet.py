"""The U-Net: its size, its start, and its arithmetic against one written in plain functions."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from networks import UNet
from networks.blocks import ConvBlock, UpBlock
from networks.layers import initialise


def parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def by_hand(image, weights, *, depth, norm, slope, upsample):
    """The U-Net of the paper as plain function calls on a state dict, in evaluation mode."""
    dims = image.dim() - 2
    conv, up_conv, pool = {
        2: (F.conv2d, F.conv_transpose2d, F.max_pool2d),
        3: (F.conv3d, F.conv_transpose3d, F.max_pool3d),
    }[dims]

    def normalise(x, name):
        weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        groups = {"group": 8, "instance": x.shape[1]}.get(norm)
        if groups:
            return F.group_norm(x, groups, weight, bias)
        return F.batch_norm(x, weights[f"{name}.running_mean"], weights[f"{name}.running_var"], weight, bias)

    def block(x, name):
        for number in (0, 3):
            x = conv(x, weights[f"{name}.{number}.weight"], padding=1)
            x = F.leaky_relu(normalise(x, f"{name}.{number + 1}"), slope)
        return x

    x, skips = image, []
    for level in range(depth):
        skips.append(block(x, f"encoder.{level}"))
        x = pool(skips[-1], 2)
    x = block(x, "bottleneck")
    for level in range(depth):
        name = f"decoder.{level}"
        if upsample == "transposed":
            x = up_conv(x, weights[f"{name}.up.weight"], weights[f"{name}.up.bias"], stride=2)
        else:
            x = F.interpolate(x, scale_factor=2, mode={2: "bilinear", 3: "trilinear"}[dims])
            x = conv(x, weights[f"{name}.up.1.weight"], weights[f"{name}.up.1.bias"])
        x = block(torch.cat([x, skips.pop()], dim=1), f"{name}.block")
    return conv(x, weights["head.weight"], weights["head.bias"])


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize(
    ("norm", "activation", "slope", "upsample"),
    [
        ("group", "leaky_relu", 0.01, "transposed"),
        ("instance", "relu", 0.0, "interpolate"),
        ("batch", "relu", 0.0, "transposed"),
    ],
)
def test_it_computes_what_the_paper_draws(spatial_dims, norm, activation, slope, upsample):
    torch.manual_seed(0)
    network = UNet(
        spatial_dims=spatial_dims,
        in_channels=2,
        out_channels=3,
        depth=2,
        features=8,
        norm=norm,
        activation=activation,
        upsample=upsample,
    ).eval()
    with torch.no_grad():
        for value in network.state_dict().values():  # no weight may hide behind a 0 or 1 of the initialisation
            if value.is_floating_point():
                value.add_(torch.rand_like(value) * 0.3)
        image = torch.randn(2, 2, *(16, 8, 12)[:spatial_dims])
        drawn = by_hand(image, network.state_dict(), depth=2, norm=norm, slope=slope, upsample=upsample)
        torch.testing.assert_close(network(image), drawn, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "count"),
    [
        # As the network of Buda et al. 2019 for slices of lower-grade glioma.
        ({"depth": 4, "features": 32}, 7_763_041),
        # A narrow one: the same width on all four levels.
        ({"depth": 3, "features": (32,) * 4}, 161_633),
    ],
)
def test_its_parameters_count_as_published(arguments, count):
    assert parameters(UNet(spatial_dims=2, in_channels=3, out_channels=1, norm="batch", **arguments)) == count


@pytest.mark.parametrize(("spatial_dims", "first"), [(2, 32), (3, 16)])
def test_by_default_it_doubles_its_width_four_times(spatial_dims, first):
    network = UNet(spatial_dims=spatial_dims, in_channels=4, out_channels=3)
    widths = [block[0].out_channels for block in (*network.encoder, network.bottleneck)]
    assert widths == [first, 2 * first, 4 * first, 8 * first, 16 * first]
    assert network.stride == 16


def test_a_first_width_and_the_widths_written_out_are_one_network():
    outputs = []
    for features in (8, (8, 16, 32), [8, 16, 32]):
        torch.manual_seed(3)
        network = UNet(spatial_dims=2, in_channels=1, out_channels=1, depth=2, features=features)
        outputs.append(network(torch.linspace(-1, 1, 64).reshape(1, 1, 8, 8)))
    assert torch.equal(outputs[0], outputs[1])
    assert torch.equal(outputs[0], outputs[2])


@pytest.mark.parametrize("upsample", ["transposed", "interpolate"])
def test_at_the_start_activations_keep_their_size_through_the_depth(upsample):
    torch.manual_seed(0)
    network = UNet(spatial_dims=2, in_channels=4, out_channels=3, features=16, upsample=upsample)
    sizes = {}

    def measure(name):
        def hook(_module, _inputs, output):
            sizes[name] = output.square().mean().item()

        return hook

    for name, module in network.named_modules():
        if isinstance(module, ConvBlock) or name.endswith(".up"):
            module.register_forward_hook(measure(name))
    network(torch.randn(2, 4, 64, 64))
    assert len(sizes) == 4 + 1 + 2 * 4
    assert max(sizes.values()) < 3 * min(sizes.values()), sizes


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_at_the_start_it_is_not_the_norms_alone_that_keep_it(spatial_dims):
    # Norms would hide a wrong initialisation; without them it grows with every convolution.
    torch.manual_seed(0)
    widths = (4, 64, 64, 64)
    blocks = nn.Sequential(
        *(ConvBlock(spatial_dims, *pair, "batch", "relu", 0.0) for pair in itertools.pairwise(widths))
    )
    for block in blocks:
        block[1], block[4] = nn.Identity(), nn.Identity()
    blocks.apply(initialise)
    side = {2: 48, 3: 20}[spatial_dims]
    with torch.no_grad():
        out = blocks(torch.randn(1, 4, *(side,) * spatial_dims))
    inner = out[(..., *(slice(6, -6),) * spatial_dims)]  # the padding's zeros do not reach here
    assert 1 / 3 < inner.square().mean().item() < 3


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_each_kind_of_upsampling_doubles_the_sides(spatial_dims):
    for upsample in ("transposed", "interpolate"):
        block = UpBlock(spatial_dims, 16, 8, "group", "relu", 0.0, upsample)
        deep, skip = torch.randn(1, 16, *(4,) * spatial_dims), torch.randn(1, 8, *(8,) * spatial_dims)
        assert block(deep, skip).shape == skip.shape
        has_transposed = any(isinstance(module, nn.ConvTranspose2d | nn.ConvTranspose3d) for module in block.modules())
        assert has_transposed == (upsample == "transposed")


@pytest.mark.parametrize("upsample", ["transposed", "interpolate"])
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_at_the_start_upsampling_keeps_the_size_of_what_nothing_rectifies(spatial_dims, upsample):
    torch.manual_seed(0)
    network = UNet(
        spatial_dims=spatial_dims, in_channels=1, out_channels=1, depth=1, features=(128, 512), upsample=upsample
    )
    flat = torch.randn(1, 512, *(1,) * spatial_dims).expand(1, 512, *(4,) * spatial_dims)  # interpolation cannot smooth
    with torch.no_grad():
        ratio = network.decoder[0].up(flat).square().mean() / flat.square().mean()
    assert 0.7 < ratio < 1.4


def test_interpolation_leaves_a_flat_image_flat():
    block = UpBlock(2, 8, 8, "group", "relu", 0.0, "interpolate")
    doubled = block.up(torch.ones(1, 8, 4, 4))
    torch.testing.assert_close(doubled, doubled[..., :1, :1].expand_as(doubled))


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_dropout_silences_whole_feature_maps_in_training_only(spatial_dims):
    torch.manual_seed(0)
    block = ConvBlock(spatial_dims, 4, 400, "group", "leaky_relu", 0.25)
    image = torch.randn(1, 4, *(4,) * spatial_dims)
    kept = block.eval()(image)[0].flatten(1)
    dropped = block.train()(image)[0].flatten(1)
    silent = (dropped == 0).all(dim=1)
    assert 0.15 < silent.float().mean() < 0.35
    assert not (kept == 0).all(dim=1).any()
    torch.testing.assert_close(dropped[~silent], kept[~silent] / 0.75)


def test_dropout_reaches_every_block_of_the_network():
    network = UNet(spatial_dims=2, in_channels=1, out_channels=1, depth=3, features=8, dropout=0.1)
    assert sum(isinstance(module, nn.Dropout2d) for module in network.modules()) == 3 + 1 + 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 0}, r"depth is 0; it counts the poolings and must be at least 1"),
        ({"depth": 3, "features": (8, 16)}, r"features has 2 widths; depth 3 needs 4"),
        ({"features": 0}, r"features is 0; every width must be at least 1"),
        ({"features": 12}, r"12 features cannot be split into 8 groups; choose widths divisible by 8"),
        ({"norm": "layer"}, r"norm is 'layer'; known: group, instance, batch"),
        ({"activation": "gelu"}, r"activation is 'gelu'; known: relu, leaky_relu"),
        ({"upsample": "nearest"}, r"upsample is 'nearest'; known: transposed, interpolate"),
    ],
)
def test_wrong_arguments_are_refused_with_what_would_do(arguments, message):
    with pytest.raises(ValueError, match=message):
        UNet(spatial_dims=2, in_channels=1, out_channels=1, **arguments)
