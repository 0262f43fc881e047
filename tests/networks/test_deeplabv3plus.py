"""DeepLabv3+: against segmentation_models_pytorch with the same weights, its view, its start and its sizes."""

import importlib

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from networks import DeepLabV3Plus
from networks.deeplabv3plus import AtrousPyramid, separable


@pytest.fixture(scope="module")
def peers(smp):
    return importlib.import_module(f"{smp.__name__}.decoders.deeplabv3.decoder")


def blur(module):
    """No weight may hide behind a 0 or 1 of the initialisation."""
    torch.manual_seed(1)
    with torch.no_grad():
        for value in (*module.parameters(), *module.buffers()):
            if value.dim() == 1:
                value.add_(torch.rand_like(value) * 0.3)
    return module.eval()


def copy_in_order(source, target):
    """Copy tensor by tensor; both list them in the order in which they are computed with."""
    for ours, theirs in zip(source.state_dict().values(), target.state_dict().values(), strict=True):
        theirs.copy_(ours)
    return target.eval()


def without_pooled_norm(aspp):
    """Ours has no norm behind the global mean, but a bias, so that one case is enough to train on."""
    pooling = aspp.convs[-1]
    pooling[1] = nn.Conv2d(pooling[1].in_channels, pooling[1].out_channels, kernel_size=1)
    pooling[2] = nn.Identity()
    return aspp


def test_its_pyramid_is_the_peers_but_for_the_norm_of_the_global_mean(peers):
    ours = blur(AtrousPyramid(2, 16, 8, "batch", (1, 2, 4), 0.0))
    theirs = peers.ASPP(16, 8, (1, 2, 4), separable=True, dropout=0.0)
    theirs = copy_in_order(ours, without_pooled_norm(theirs))
    x = torch.randn(2, 16, 12, 10)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("output_stride", [8, 16])
def test_its_whole_is_put_together_from_the_peers_parts_as_the_paper_does(smp, peers, output_stride):
    # The peer has one convolution before and one after the features are joined, the paper two after; it dilates the
    # first convolution of a stage too, and aligns corners when it interpolates.
    ours = blur(
        DeepLabV3Plus(
            spatial_dims=2, in_channels=4, out_channels=3, backbone="resnet18", output_stride=output_stride, dropout=0.0
        )
    )
    rates = [rate * 16 // output_stride for rate in (6, 12, 18)]
    theirs = smp.DeepLabV3Plus(
        "resnet18",
        encoder_weights=None,
        encoder_output_stride=output_stride,
        decoder_atrous_rates=rates,
        in_channels=4,
        classes=3,
    )
    decoder = theirs.decoder
    decoder.aspp = without_pooled_norm(decoder.aspp[0])
    decoder.up = nn.Upsample(scale_factor=output_stride // 4, mode="bilinear")
    decoder.block2.extend([peers.SeparableConv2d(256, 256, 3, padding=1, bias=False), nn.BatchNorm2d(256), nn.ReLU()])
    theirs.segmentation_head[1] = nn.Upsample(scale_factor=4, mode="bilinear")
    for our_conv, their_conv in zip(convolutions(ours.encoder), convolutions(theirs.encoder), strict=True):
        their_conv.dilation, their_conv.padding = our_conv.dilation, our_conv.padding
    copy_in_order(ours, theirs)
    image = torch.randn(1, 4, 64, 48)
    with torch.no_grad():
        torch.testing.assert_close(ours(image), theirs(image), rtol=1e-4, atol=1e-5)


def convolutions(module):
    return [part for part in module.modules() if isinstance(part, nn.Conv2d)]


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_its_pyramid_and_decoder_compute_what_the_paper_draws(spatial_dims):
    network = blur(
        DeepLabV3Plus(
            spatial_dims=spatial_dims, in_channels=2, out_channels=3, backbone="resnet18", features=8, rates=(1, 2)
        )
    )
    weights = network.state_dict()
    conv, mode = {2: (F.conv2d, "bilinear"), 3: (F.conv3d, "trilinear")}[spatial_dims]
    axes = tuple(range(2, 2 + spatial_dims))

    def rectify(x, name):
        scale, shift = weights[f"{name}.weight"], weights[f"{name}.bias"]
        if spatial_dims == 3:
            return F.group_norm(x, 8, scale, shift).relu()
        mean, variance = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
        return F.batch_norm(x, mean, variance, scale, shift).relu()

    def apart(x, name, number, dilation):
        each = weights[f"{name}.{number}.weight"]
        x = conv(x, each, padding=dilation, dilation=dilation, groups=each.shape[0])
        return rectify(conv(x, weights[f"{name}.{number + 1}.weight"]), f"{name}.{number + 2}")

    image = torch.randn(2, 2, *(32, 16, 48)[:spatial_dims])
    with torch.no_grad():
        fine, *_, deep = network.encoder(image)
        rate = 16 // network.stride
        seen = [
            rectify(conv(deep, weights["pyramid.branches.0.0.weight"]), "pyramid.branches.0.1"),
            apart(deep, "pyramid.branches.1", 0, rate),
            apart(deep, "pyramid.branches.2", 0, 2 * rate),
        ]
        whole = conv(deep.mean(axes, keepdim=True), weights["pyramid.whole.0.weight"], weights["pyramid.whole.0.bias"])
        seen.append(whole.relu() + torch.zeros_like(seen[0]))
        scene = rectify(conv(torch.cat(seen, 1), weights["pyramid.join.0.weight"]), "pyramid.join.1")
        scene = F.interpolate(scene, size=fine.shape[2:], mode=mode)
        x = torch.cat([scene, rectify(conv(fine, weights["detail.0.weight"]), "detail.1")], 1)
        x = apart(apart(x, "refine", 0, 1), "refine", 4, 1)
        logits = conv(x, weights["head.weight"], weights["head.bias"])
        drawn = F.interpolate(logits, size=image.shape[2:], mode=mode)
        torch.testing.assert_close(network(image), drawn, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("output_stride", "rates"), [(16, [6, 12, 18]), (8, [12, 24, 36])])
def test_the_papers_rates_double_at_half_the_stride(output_stride, rates):
    network = DeepLabV3Plus(spatial_dims=2, in_channels=1, out_channels=1, features=8, output_stride=output_stride)
    assert [branch[0].dilation for branch in list(network.pyramid.branches)[1:]] == [(rate, rate) for rate in rates]
    assert network.stride == output_stride


def test_by_default_every_rate_reaches_into_a_patch_of_64_voxels():
    network = DeepLabV3Plus(spatial_dims=3, in_channels=1, out_channels=1)
    assert [branch[0].dilation[0] for branch in list(network.pyramid.branches)[1:]] == [2, 4, 6]
    assert 64 // network.stride > 6


@pytest.mark.parametrize(("features", "detail"), [(64, 48), (32, 24), (16, 16), (8, 8)])
def test_fine_features_are_48_parts_of_256_in_whole_groups(features, detail):
    network = DeepLabV3Plus(spatial_dims=2, in_channels=1, out_channels=1, features=features, norm="group")
    assert network.detail[0].out_channels == detail
    assert network.head.in_channels == 4 * features


def test_by_default_a_volumes_network_has_at_most_12_million_parameters():
    network = DeepLabV3Plus(spatial_dims=3, in_channels=4, out_channels=3)
    assert network.encoder.widths == [16, 32, 64, 128]
    assert sum(parameter.numel() for parameter in network.parameters()) == 4_076_979


def pyramid_sees(network, image):
    """Where the image touches the coarse features of its centre, with the mean over the image left out."""
    nn.init.zeros_(network.pyramid.whole[0].weight)
    deep = network.pyramid(network.encoder(image)[-1])
    deep[(0, slice(None), *(side // 2 for side in deep.shape[2:]))].sum().backward()
    return image.grad.abs().sum(dim=(0, 1)) > 0


def test_without_its_global_mean_too_the_centre_sees_the_whole_slice():
    network = DeepLabV3Plus(
        spatial_dims=2, in_channels=1, out_channels=1, backbone="resnet18", features=8, norm="batch"
    )
    network.encoder.stem[3] = nn.AvgPool2d(kernel_size=3, stride=2, padding=1)  # no path may be passed over
    for parameter in network.parameters():
        nn.init.constant_(parameter, 0.1)
    image = torch.ones(1, 1, 256, 256, dtype=torch.float64, requires_grad=True)
    assert pyramid_sees(network.double().eval(), image).all()


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_a_separable_convolution_keeps_the_size_at_the_start(spatial_dims):
    torch.manual_seed(0)
    steps = [separable(spatial_dims, 64, 64, "batch") for _ in range(4)]
    x = torch.randn(1, 64, *(20,) * spatial_dims).relu() * 2**0.5
    for step in steps:
        step[2] = nn.Identity()  # norms would hide a wrong initialisation
        x = step(x)
    inner = x[(..., *(slice(5, -5),) * spatial_dims)]  # the padding's zeros do not reach here
    assert 1 / 3 < inner.square().mean().item() < 3


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_at_the_start_activations_keep_their_size_through_the_decoder(spatial_dims):
    torch.manual_seed(0)
    network = DeepLabV3Plus(spatial_dims=spatial_dims, in_channels=4, out_channels=3, features=16, dropout=0.0)
    sizes = []
    for module in (*network.pyramid.branches, network.pyramid.join, network.detail, network.refine):
        module.register_forward_hook(lambda _module, _inputs, output: sizes.append(output.square().mean().item()))
    with torch.no_grad():
        network(torch.randn(2, 4, *{2: (96, 96), 3: (32, 32, 32)}[spatial_dims]))
    assert len(sizes) == 1 + 3 + 3
    assert max(sizes) < 3 * min(sizes), sizes


def test_it_has_no_coarser_features_to_supervise():
    network = DeepLabV3Plus(spatial_dims=2, in_channels=1, out_channels=1, backbone="resnet18", features=8)
    (features,) = network.decoder_features(torch.randn(1, 1, 64, 32))
    assert features.shape == (1, 32, 16, 8)
    assert len(network.deep_heads()) == 0


def test_encoder_weights_are_loaded_after_the_start(tmp_path, smp):
    theirs = importlib.import_module("torchvision.models").resnet18(weights=None)
    torch.save(theirs.state_dict(), tmp_path / "resnet18.pth")
    network = DeepLabV3Plus(
        spatial_dims=2,
        in_channels=4,
        out_channels=3,
        backbone="resnet18",
        encoder_weights=str(tmp_path / "resnet18.pth"),
    )
    assert torch.equal(network.encoder.stages[3][1].residual[3].weight, theirs.layer4[1].conv2.weight)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rates": ()}, r"rates is \(\); give one dilation or more"),
        ({"rates": (0, 6)}, r"rates is \(0, 6\); give one dilation or more, each at least 1, such as \(6, 12, 18\)"),
        ({"backbone": "vgg16"}, r"backbone is 'vgg16'; known: resnet18, resnet34, resnet50"),
        ({"output_stride": 4}, r"output_stride is 4; it must be 8 .* or 16"),
        ({"spatial_dims": 3, "encoder_weights": "a.pth"}, r"spatial_dims=3, norm='group' and features=16; ImageNet"),
    ],
)
def test_wrong_arguments_are_refused_with_what_would_do(arguments, message):
    with pytest.raises(ValueError, match=message):
        DeepLabV3Plus(**{"spatial_dims": 2, "in_channels": 1, "out_channels": 1, "features": None, **arguments})


def test_a_cpu_trains_depthwise_convolutions_of_volumes_in_float32_under_autocast():
    torch.manual_seed(0)
    block = separable(3, 8, 8, "group")
    image = torch.randn(2, 8, 6, 4, 5)
    for training in (True, False):
        alone = block[0].train(training)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = alone(image)
            half = alone(image.bfloat16())
        assert half.dtype == torch.bfloat16
        assert torch.equal(mixed.float(), alone(image)) == training
        torch.testing.assert_close(half.float(), alone(image), rtol=2e-2, atol=2e-2)
