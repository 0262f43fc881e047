"""The residual U-Net: what a unit adds and what it carries on, its start, and its arithmetic against two others."""

import pytest
import torch
import torch.nn.functional as F
from monai.networks.blocks.segresnet_block import ResBlock
from torch import nn

from networks import ResidualUNet
from networks.residual_unet import ResidualUnit

NORMS = (nn.GroupNorm, nn.BatchNorm2d, nn.BatchNorm3d, nn.InstanceNorm2d, nn.InstanceNorm3d)
CONVS = (nn.Conv2d, nn.Conv3d)


class Copy(nn.Module):
    """In place of a norm: nothing but the copy that lets an activation in place leave the shortcut alone."""

    def forward(self, x):
        return x.clone()


def small(spatial_dims, **arguments):
    torch.manual_seed(0)
    return ResidualUNet(
        spatial_dims=spatial_dims, in_channels=2, out_channels=3, **{"depth": 2, "features": 8} | arguments
    )


def stir(network):
    """Move every weight and statistic, so that none may hide behind a 0 or 1 of the initialisation."""
    with torch.no_grad():
        for value in network.state_dict().values():
            if value.is_floating_point():
                value.add_(torch.rand_like(value) * 0.3)
    return network


def silence(network):
    """Zero the last convolution of every residual branch."""
    for unit in network.modules():
        if isinstance(unit, ResidualUnit):
            nn.init.zeros_(unit.second[2].weight)
    return network


def by_hand(image, weights, *, depth, norm, slope, upsample):
    """The network of Zhang 2018 as plain function calls on a state dict, in evaluation mode."""
    dims = image.dim() - 2
    conv, up_conv = {2: (F.conv2d, F.conv_transpose2d), 3: (F.conv3d, F.conv_transpose3d)}[dims]

    def rectified(x, name):
        weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
        groups = {"group": 8, "instance": x.shape[1]}.get(norm)
        if groups:
            x = F.group_norm(x, groups, weight, bias)
        else:
            x = F.batch_norm(x, weights[f"{name}.running_mean"], weights[f"{name}.running_var"], weight, bias)
        return F.leaky_relu(x, slope)

    def unit(x, name, *, stride=1):
        branch = conv(rectified(x, f"{name}.first.0"), weights[f"{name}.first.2.weight"], stride=stride, padding=1)
        branch = conv(rectified(branch, f"{name}.second.0"), weights[f"{name}.second.2.weight"], padding=1)
        return conv(x, weights[f"{name}.shortcut.weight"], stride=stride) + branch

    x = conv(image, weights["encoder.0.first.0.weight"], padding=1)
    x = conv(rectified(x, "encoder.0.second.0"), weights["encoder.0.second.2.weight"], padding=1)
    skips = [x + conv(image, weights["encoder.0.shortcut.weight"])]
    for level in range(1, depth):
        skips.append(unit(skips[-1], f"encoder.{level}", stride=2))
    x = unit(skips[-1], "bottleneck", stride=2)
    for level in range(depth):
        name = f"decoder.{level}"
        if upsample == "transposed":
            x = up_conv(x, weights[f"{name}.up.weight"], weights[f"{name}.up.bias"], stride=2)
        else:
            x = F.interpolate(x, scale_factor=2, mode={2: "bilinear", 3: "trilinear"}[dims])
            x = conv(x, weights[f"{name}.up.1.weight"], weights[f"{name}.up.1.bias"])
        x = unit(torch.cat([x, skips.pop()], dim=1), f"{name}.unit")
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
    network = stir(small(spatial_dims, norm=norm, activation=activation, upsample=upsample)).eval()
    image = torch.randn(2, 2, *(16, 8, 12)[:spatial_dims])
    with torch.no_grad():
        drawn = by_hand(image, network.state_dict(), depth=2, norm=norm, slope=slope, upsample=upsample)
        torch.testing.assert_close(network(image), drawn, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize(("norm", "theirs"), [("group", ("group", {"num_groups": 8})), ("batch", "batch")])
def test_a_unit_is_the_block_of_a_peer_with_the_same_weights(spatial_dims, norm, theirs):
    torch.manual_seed(0)
    unit = stir(ResidualUnit(spatial_dims, 16, 16, norm, "relu", 0.0)).eval()
    peer = ResBlock(spatial_dims, 16, norm=theirs).eval()
    names = {"first.0": "norm1", "first.2": "conv1.conv", "second.0": "norm2", "second.2": "conv2.conv"}
    state = unit.state_dict()
    peer.load_state_dict(
        {f"{names[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": value for key, value in state.items()}
    )
    image = torch.randn(2, 16, *(6, 8, 5)[:spatial_dims])
    with torch.no_grad():
        torch.testing.assert_close(unit(image), peer(image), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_a_unit_with_a_silent_branch_is_the_identity(spatial_dims):
    unit = silence(ResidualUnit(spatial_dims, 8, 8, "group", "relu", 0.0))
    image = torch.randn(2, 8, *(8, 6, 4)[:spatial_dims])
    assert torch.equal(unit(image.clone()), image)


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize(("width", "stride"), [(16, 1), (8, 2), (16, 2)])
def test_where_stride_or_width_change_a_silent_branch_leaves_the_projection(spatial_dims, width, stride):
    unit = silence(ResidualUnit(spatial_dims, 8, width, "group", "relu", 0.0, stride=stride))
    image = torch.randn(2, 8, *(8, 6, 4)[:spatial_dims])
    seen = image[(..., *(slice(None, None, stride),) * spatial_dims)]  # the voxels on which the stride lands
    matrix = unit.shortcut.weight.flatten(1)
    assert matrix.shape == (width, 8)
    torch.testing.assert_close(unit(image), torch.einsum("oc,nc...->no...", matrix, seen))


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_with_all_branches_silent_the_network_is_linear(spatial_dims):
    network = silence(small(spatial_dims))
    one, other = torch.randn(2, 1, 2, *(16,) * spatial_dims)
    torch.testing.assert_close(network(2 * one - other), 2 * network(one) - network(other), rtol=1e-4, atol=1e-5)
    loud = small(spatial_dims)
    assert (loud(2 * one - other) - 2 * loud(one) + loud(other)).abs().max() > 0.1


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("upsample", ["transposed", "interpolate"])
@pytest.mark.parametrize("norms", [True, False])
def test_at_the_start_activations_keep_their_size_through_the_depth(spatial_dims, upsample, norms):
    depth, features, side = {2: (4, 32, 64), 3: (3, 16, 24)}[spatial_dims]
    network = small(spatial_dims, depth=depth, features=features, upsample=upsample)
    sizes = []
    for module in list(network.modules()):
        if isinstance(module, nn.Sequential) and not norms and isinstance(module[0], NORMS):
            module[0] = Copy()
        if isinstance(module, CONVS) and module.kernel_size[0] == 3:
            module.padding_mode = "circular"  # a border of zeros would lower the size
        if isinstance(module, ResidualUnit):
            module.register_forward_hook(lambda _module, _inputs, output: sizes.append(output.square().mean().item()))
    assert any(isinstance(module, NORMS) for module in network.modules()) == norms
    with torch.no_grad():
        network(torch.randn(2, 2, *(side,) * spatial_dims))
    assert len(sizes) == 2 * depth + 1
    assert max(1.0, *sizes) < 3 * min(1.0, *sizes), sizes


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_dropout_silences_maps_of_the_branch_and_never_what_is_carried_on(spatial_dims):
    torch.manual_seed(0)
    unit = ResidualUnit(spatial_dims, 400, 400, "group", "relu", 0.25)
    image = torch.randn(1, 400, *(2,) * spatial_dims)
    kept = (unit.eval()(image) - image)[0].flatten(1)
    dropped = (unit.train()(image) - image)[0].flatten(1)
    silent = (dropped == 0).all(dim=1)
    assert 0.15 < silent.float().mean() < 0.35
    assert not (kept == 0).all(dim=1).any()
    torch.testing.assert_close(dropped[~silent], kept[~silent] / 0.75, rtol=1e-4, atol=1e-5)


def test_dropout_reaches_every_unit_of_the_network():
    network = small(2, depth=3, dropout=0.1)
    assert sum(isinstance(module, nn.Dropout2d) for module in network.modules()) == 3 + 1 + 3


def test_its_convolutions_follow_one_another_as_published():
    # Table I of Zhang 2018: with the 1x1 head fifteen, shortcuts and ways up not counted.
    network = ResidualUNet(spatial_dims=2, in_channels=3, out_channels=1, depth=3, features=64, norm="batch")
    convs = [module for module in network.modules() if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3)]
    assert [(conv.out_channels, conv.stride[0]) for conv in convs] == [
        *[(64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1)],  # encoder
        *[(512, 2), (512, 1)],  # bridge
        *[(256, 1), (256, 1), (128, 1), (128, 1), (64, 1), (64, 1)],  # decoder
    ]


@pytest.mark.parametrize(("spatial_dims", "first"), [(2, 32), (3, 16)])
def test_by_default_it_doubles_its_width_four_times(spatial_dims, first):
    network = ResidualUNet(spatial_dims=spatial_dims, in_channels=4, out_channels=3)
    widths = [unit.second[2].out_channels for unit in (*network.encoder, network.bottleneck)]
    assert widths == [first, 2 * first, 4 * first, 8 * first, 16 * first]
    assert network.stride == 16
    assert sum(parameter.numel() for parameter in network.parameters()) < 12e6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 0}, r"depth is 0; it counts the poolings and must be at least 1"),
        ({"depth": 3, "features": (8, 16)}, r"features has 2 widths; depth 3 needs 4"),
        ({"features": 12}, r"12 features cannot be split into 8 groups; choose widths divisible by 8"),
        ({"norm": "layer"}, r"norm is 'layer'; known: group, instance, batch"),
        ({"activation": "gelu"}, r"activation is 'gelu'; known: relu, leaky_relu"),
        ({"upsample": "nearest"}, r"upsample is 'nearest'; known: transposed, interpolate"),
    ],
)
def test_wrong_arguments_are_refused_with_what_would_do(arguments, message):
    with pytest.raises(ValueError, match=message):
        small(2, **arguments)
