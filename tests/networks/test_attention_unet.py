"""The attention U-Net: what its gates let through, and its arithmetic against three others."""

import pytest
import torch
import torch.nn.functional as F
from monai.networks.nets.attentionunet import AttentionBlock
from torch import nn

from networks import AttentionUNet, UNet
from networks.attention_unet import AttentionGate


def small(spatial_dims, **arguments):
    torch.manual_seed(0)
    arguments = {"depth": 3, "features": 8} | arguments
    return AttentionUNet(spatial_dims=spatial_dims, in_channels=2, out_channels=3, **arguments)


def picture(spatial_dims):
    return torch.randn(2, 2, *(16, 8, 24)[:spatial_dims], generator=torch.Generator().manual_seed(1))


def stir(network):
    """Move every weight, so that none may hide behind a 0 or 1 of the initialisation; and unsettle the gates."""
    with torch.no_grad():
        for value in network.parameters():
            value.add_(torch.randn_like(value) * 0.2)
        for gate in network.gates:
            gate.psi.bias.sub_(2.0)  # coefficients around a half instead of near 1
    return network


def fix(network, score):
    """Let every gate give the same score, whatever it sees."""
    for gate in network.gates:
        nn.init.zeros_(gate.psi.weight)
        nn.init.constant_(gate.psi.bias, score)
    return network


def by_hand(image, weights, *, depth, upsample):
    """The network of Oktay 2018 as plain function calls on a state dict, with group norm: logits and coefficients."""
    dims = image.dim() - 2
    conv, up_conv, pool = {
        2: (F.conv2d, F.conv_transpose2d, F.max_pool2d),
        3: (F.conv3d, F.conv_transpose3d, F.max_pool3d),
    }[dims]
    linear = {2: "bilinear", 3: "trilinear"}[dims]

    def block(x, name):
        for number in (0, 3):
            x = conv(x, weights[f"{name}.{number}.weight"], padding=1)
            norm = f"{name}.{number + 1}"
            x = F.leaky_relu(F.group_norm(x, 8, weights[f"{norm}.weight"], weights[f"{norm}.bias"]), 0.01)
        return x

    x, skips, maps = image, [], []
    for level in range(depth):
        skips.append(block(x, f"encoder.{level}"))
        x = pool(skips[-1], 2)
    x = block(x, "bottleneck")
    for level in range(depth):
        skip = skips.pop()
        if skips:  # every skip but the finest
            name = f"gates.{level}"
            query = conv(skip, weights[f"{name}.theta.weight"], stride=2)
            query = query + conv(x, weights[f"{name}.phi.weight"], weights[f"{name}.phi.bias"])
            score = conv(query.clamp(min=0), weights[f"{name}.psi.weight"], weights[f"{name}.psi.bias"])
            alpha = F.interpolate(1 / (1 + torch.exp(-score)), scale_factor=2, mode=linear)
            maps.append(alpha)
            skip = alpha * skip
        name = f"decoder.{level}"
        if upsample == "transposed":
            x = up_conv(x, weights[f"{name}.up.weight"], weights[f"{name}.up.bias"], stride=2)
        else:
            x = F.interpolate(x, scale_factor=2, mode=linear)
            x = conv(x, weights[f"{name}.up.1.weight"], weights[f"{name}.up.1.bias"])
        x = block(torch.cat([x, skip], dim=1), f"{name}.block")
    return conv(x, weights["head.weight"], weights["head.bias"]), maps[::-1]


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("upsample", ["transposed", "interpolate"])
def test_it_computes_what_the_paper_draws(spatial_dims, upsample):
    network, image = stir(small(spatial_dims, upsample=upsample)), picture(spatial_dims)
    with torch.no_grad():
        logits, maps = by_hand(image, network.state_dict(), depth=3, upsample=upsample)
        torch.testing.assert_close(network(image), logits, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(network.attention_maps(image), maps, rtol=1e-4, atol=1e-5)
    assert all(alpha.max() - alpha.min() > 0.02 for alpha in maps), "flat maps would agree by chance"


def folded(conv, norm):
    """Weight and bias of one convolution that does what a convolution and a batch norm in evaluation mode do."""
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    weight = conv.weight * scale.reshape(-1, *(1,) * (conv.weight.dim() - 1))
    return weight, (conv.bias - norm.running_mean) * scale + norm.bias


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_on_one_grid_a_gate_is_the_block_of_a_peer_with_its_norms_folded_in(spatial_dims):
    # The peer up-samples the gating signal first and normalises within; in evaluation mode its norms are affine, and
    # so part of the convolutions. What differs for good is training: our gate, like the paper's equations, has no norm.
    torch.manual_seed(0)
    peer = AttentionBlock(spatial_dims, f_int=4, f_g=6, f_l=8)
    for module in peer.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm3d):
            for value in (module.weight, module.bias, module.running_mean, module.running_var):
                nn.init.uniform_(value, 0.5, 2.0)
    peer.eval()
    gate = AttentionGate(spatial_dims=spatial_dims, skip_channels=8, gating_channels=6, inner_channels=4, stride=1)
    with torch.no_grad():
        theta, theta_bias = folded(peer.W_x[0].conv, peer.W_x[1])
        phi, phi_bias = folded(peer.W_g[0].conv, peer.W_g[1])
        psi, psi_bias = folded(peer.psi[0].conv, peer.psi[1])
        gate.load_state_dict(
            {
                "theta.weight": theta,
                "phi.weight": phi,
                "phi.bias": phi_bias + theta_bias,
                "psi.weight": psi,
                "psi.bias": psi_bias,
            }
        )
        sides = (6, 4, 5)[:spatial_dims]
        skip, gating = torch.randn(2, 8, *sides), torch.randn(2, 6, *sides)
        torch.testing.assert_close(skip * gate(skip, gating), peer(g=gating, x=skip), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_coefficients_lie_between_0_and_1_on_the_grid_of_each_gated_level(spatial_dims):
    maps = small(spatial_dims).attention_maps(picture(spatial_dims))
    sides = (16, 8, 24)[:spatial_dims]
    assert [alpha.shape for alpha in maps] == [(2, 1, *(side // 2**level for side in sides)) for level in (1, 2)]
    assert all(0 < alpha.min() <= alpha.max() < 1 for alpha in maps)


def test_a_gate_reads_the_skip_and_the_gating_signal():
    torch.manual_seed(0)
    gate = AttentionGate(spatial_dims=2, skip_channels=8, gating_channels=16, inner_channels=4)
    skip, gating = torch.randn(1, 8, 8, 8), torch.randn(1, 16, 4, 4)
    before = gate(skip, gating)
    skip_there, gating_there = skip.clone(), gating.clone()
    skip_there[..., 5, 6] += 3.0
    gating_there[..., 2, 3] += 3.0
    near = torch.zeros(8, 8, dtype=torch.bool)
    near[3:7, 5:8] = True  # the coarse voxel (2, 3) covers 4:6, 6:8, and interpolation reaches one voxel further
    for changed in (gate(skip_there, gating), gate(skip, gating_there)):
        moved = (changed != before)[0, 0]
        assert moved.any()
        assert not (moved & ~near).any()


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_closed_gates_hand_nothing_across_but_the_finest_skip(spatial_dims):
    network, handed = fix(small(spatial_dims), -1e4), []
    for up in network.decoder:
        up.register_forward_pre_hook(lambda _module, inputs: handed.append(inputs[1]))
    network(picture(spatial_dims))
    *gated, finest = handed
    assert len(gated) == 2
    assert all((skip == 0).all() for skip in gated)
    assert finest.abs().mean() > 0.1


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_with_open_gates_it_is_the_plain_unet(spatial_dims):
    network, image = fix(small(spatial_dims), 1e4), picture(spatial_dims)
    plain = UNet(spatial_dims=spatial_dims, in_channels=2, out_channels=3, depth=3, features=8)
    plain.load_state_dict({key: value for key, value in network.state_dict().items() if not key.startswith("gates.")})
    assert torch.equal(network(image), plain(image))


def test_gates_add_their_three_convolutions_and_nothing_else():
    arguments = {"spatial_dims": 3, "in_channels": 2, "out_channels": 3, "depth": 2, "features": (8, 16, 32)}
    extra = AttentionUNet(**arguments).state_dict().keys() - UNet(**arguments).state_dict().keys()
    assert extra == {f"gates.0.{name}" for name in ("theta.weight", "phi.weight", "phi.bias", "psi.weight", "psi.bias")}
    gate = AttentionUNet(**arguments).gates[0]
    assert gate.theta.weight.shape == (8, 16, 2, 2, 2)
    assert gate.phi.weight.shape == (8, 32, 1, 1, 1)


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_at_the_start_gates_are_open_but_can_still_learn(spatial_dims):
    torch.manual_seed(0)
    gate = AttentionGate(spatial_dims=spatial_dims, skip_channels=32, gating_channels=64, inner_channels=16)
    sides = (8,) * spatial_dims
    skip = torch.randn(4, 32, *(16,) * spatial_dims).relu() * 2**0.5  # rectified, with mean square 1
    gating = torch.randn(4, 64, *sides).relu() * 2**0.5
    alpha = gate(skip, gating)
    assert 1 / 3 < (skip * alpha).square().mean().item() < 1
    alpha.mean().backward()
    assert all(parameter.grad.abs().max() > 1e-3 for parameter in gate.parameters())


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_at_the_start_activations_keep_their_size_through_the_depth(spatial_dims):
    depth, features, side = {2: (4, 16, 64), 3: (3, 16, 24)}[spatial_dims]
    network, sizes = small(spatial_dims, depth=depth, features=features), []
    for block in (*network.encoder, network.bottleneck, *network.decoder):
        block.register_forward_hook(lambda _module, _inputs, output: sizes.append(output.square().mean().item()))
    for up in network.decoder:
        up.register_forward_pre_hook(lambda _module, inputs: sizes.append(inputs[1].square().mean().item()))
    network(torch.randn(2, 2, *(side,) * spatial_dims))
    assert len(sizes) == 3 * depth + 1
    assert max(sizes) < 3 * min(sizes), sizes


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_by_default_it_is_small_enough_for_a_graphics_card(spatial_dims):
    network = AttentionUNet(spatial_dims=spatial_dims, in_channels=4, out_channels=3)
    assert network.stride == 16
    assert len(network.gates) == 3
    assert sum(parameter.numel() for parameter in network.parameters()) < 12e6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 1}, r"depth is 1; the finest skip carries no gate, so gates need a depth of at least 2"),
        ({"depth": 0}, r"depth is 0; it counts the poolings and must be at least 1"),
        ({"depth": 3, "features": (8, 16)}, r"features has 2 widths; depth 3 needs 4"),
        ({"features": 12}, r"12 features cannot be split into 8 groups; choose widths divisible by 8"),
        ({"upsample": "nearest"}, r"upsample is 'nearest'; known: transposed, interpolate"),
    ],
)
def test_wrong_arguments_are_refused_with_what_would_do(arguments, message):
    with pytest.raises(ValueError, match=message):
        small(2, **arguments)


def test_attention_maps_refuse_what_the_network_refuses():
    with pytest.raises(ValueError, match=r"spatial size \(12, 16\) must be a multiple of 8 in every axis"):
        small(2).attention_maps(torch.zeros(1, 2, 12, 16))
