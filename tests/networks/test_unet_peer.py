"""The whole U-Net against MONAI's BasicUNet with the same weights."""

import pytest
import torch
from monai.networks.nets import BasicUNet

from networks import UNet

WIDTHS = (8, 8, 16, 32, 64)
"""The peer keeps its width on the finest way up, so that the two coincide where the first two widths are equal."""

NORMS = {"group": ("group", {"num_groups": 8}), "instance": ("instance", {"affine": True}), "batch": "batch"}


def peer_of(network, *, norm):
    """A peer with the weights of ``network``; it joins skip and deep features in the other order."""
    peer = BasicUNet(
        spatial_dims=network.spatial_dims,
        in_channels=network.in_channels,
        out_channels=network.out_channels,
        features=(*WIDTHS, WIDTHS[0]),
        act=("LeakyReLU", {"negative_slope": 0.01}),
        norm=NORMS[norm],
        bias=False,
    )
    homes = {
        "encoder.0": "conv_0",
        **{f"encoder.{level}": f"down_{level}.convs" for level in (1, 2, 3)},
        "bottleneck": "down_4.convs",
        **{f"decoder.{number}.block": f"upcat_{4 - number}.convs" for number in range(4)},
    }
    inside = {"0": "conv_0.conv", "1": "conv_0.adn.N", "3": "conv_1.conv", "4": "conv_1.adn.N"}
    weights = {}
    for key, value in network.state_dict().items():
        module, _, leaf = key.rpartition(".")
        block, _, number = module.rpartition(".")
        if block in homes:
            if block.startswith("decoder") and number == "0":
                deep, skip = value.chunk(2, dim=1)
                value = torch.cat([skip, deep], dim=1)
            weights[f"{homes[block]}.{inside[number]}.{leaf}"] = value
        elif number == "up":
            weights[f"upcat_{4 - int(block.removeprefix('decoder.'))}.upsample.deconv.{leaf}"] = value
        else:
            weights[f"final_conv.{leaf}"] = value
    peer.load_state_dict(weights)  # strict: every weight of either has its counterpart
    return peer


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_with_the_same_weights_it_is_the_peer(spatial_dims, norm):
    torch.manual_seed(0)
    network = UNet(spatial_dims=spatial_dims, in_channels=4, out_channels=3, depth=4, features=WIDTHS, norm=norm)
    with torch.no_grad():
        for value in network.state_dict().values():  # no weight may hide behind a 0 or 1 of the initialisation
            if value.is_floating_point():
                value.add_(torch.rand_like(value) * 0.3)
    peer = peer_of(network, norm=norm)
    image = torch.randn(2, 4, *(32, 16, 32)[:spatial_dims])
    with torch.no_grad():
        torch.testing.assert_close(network.eval()(image), peer.eval()(image), rtol=1e-4, atol=1e-4)

    grads = []
    for model in (network.train(), peer.train()):  # and with the batch's own statistics, down to the gradient
        seen = image.clone().requires_grad_()
        model(seen).square().mean().backward()
        grads.append(seen.grad)
    assert grads[0].abs().max() > 0
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-3, atol=1e-4 * grads[0].abs().max().item())
