"""PSPNet: its bins against adaptive pooling, the rest against segmentation_models_pytorch with the same weights."""

import importlib
import types

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from networks import DeepSupervision, PSPNet
from networks.pspnet import PyramidPooling, bin_means


@pytest.fixture
def peers(smp, monkeypatch):
    """The peer's decoder; where it aligns corners when it interpolates, it is made to align voxel centres."""
    module = importlib.import_module(f"{smp.__name__}.decoders.pspnet.decoder")

    def interpolate(x, size, mode, align_corners):
        assert align_corners
        return F.interpolate(x, size=size, mode=mode, align_corners=False)

    monkeypatch.setattr(module, "F", types.SimpleNamespace(interpolate=interpolate))
    return module


def blur(module):
    """No weight may hide behind a 0 or 1 of the initialisation."""
    torch.manual_seed(1)
    with torch.no_grad():
        for value in (*module.parameters(), *module.buffers()):
            if value.dim() == 1:
                value.add_(torch.rand_like(value) * 0.05)
    return module.eval()


def copy_in_order(source, target):
    """Copy tensor by tensor; both list them in the order in which they are computed with."""
    for ours, theirs in zip(source.state_dict().values(), target.state_dict().values(), strict=True):
        theirs.copy_(ours)
    return target.eval()


def without_pooled_norm(psp):
    """Ours has no norm behind the bins, but a bias, so that one case is enough to train on."""
    for block in psp.blocks:
        conv = block.pool[1][0]
        block.pool[1] = nn.Sequential(nn.Conv2d(conv.in_channels, conv.out_channels, kernel_size=1), nn.ReLU())
    return psp


def peers_order(x, channels):
    """Ours puts the features before their pooled scales, the peer behind them."""
    return torch.cat([x[:, channels:], x[:, :channels]], dim=1)


@pytest.mark.parametrize("bins", [1, 2, 3, 6])
@pytest.mark.parametrize("sides", [(12, 6), (7, 13), (1, 5), (8, 7, 9), (3, 2, 6), (1, 1, 1)])
def test_bins_are_those_of_adaptive_pooling_also_where_they_do_not_divide_the_side(sides, bins):
    x = torch.randn(2, 3, *sides, dtype=torch.float64)
    adaptive = {4: F.adaptive_avg_pool2d, 5: F.adaptive_avg_pool3d}[x.dim()]
    for laid_out in (x, x.to(memory_format={4: torch.channels_last, 5: torch.channels_last_3d}[x.dim()])):
        (pooled,) = bin_means(laid_out, [bins])
        torch.testing.assert_close(pooled, adaptive(x, bins), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("sides", [(12, 6), (5, 7, 4)])
def test_several_numbers_of_bins_at_once_give_what_each_gives_alone(sides):
    x = torch.randn(2, 3, *sides, dtype=torch.float64)
    counts = [6, 1, 3, 2]
    for count, pooled in zip(counts, bin_means(x, counts), strict=True):
        assert pooled.shape == (2, 3, *(count,) * len(sides))
        torch.testing.assert_close(pooled, bin_means(x, [count])[0], rtol=1e-12, atol=1e-12)


def test_bins_share_the_voxels_between_them():
    (pooled,) = bin_means(torch.tensor([1.0, 2.0, 4.0, 8.0]).expand(1, 1, 2, 4), [3])
    assert pooled.tolist() == [[[[1.5, 3.0, 6.0]] * 3]]


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_in_bfloat16_the_joined_scales_have_the_layout_of_the_features(spatial_dims):
    layout = {2: torch.channels_last, 3: torch.channels_last_3d}[spatial_dims]
    pyramid = PyramidPooling(spatial_dims, 16, (1, 2, 3)).to(memory_format=layout)
    x = torch.randn(2, 16, *(6,) * spatial_dims, dtype=torch.bfloat16)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert pyramid(x.to(memory_format=layout)).is_contiguous(memory_format=layout)
        assert pyramid(x).is_contiguous()


@pytest.mark.parametrize("sides", [(12, 18), (7, 13)])
def test_its_pyramid_is_the_peers_but_for_the_norms_of_the_bins(peers, sides):
    ours = blur(PyramidPooling(2, 16, (1, 2, 3, 6)))
    theirs = copy_in_order(ours, without_pooled_norm(peers.PSPModule(16, (1, 2, 3, 6))))
    x = torch.randn(2, 16, *sides)
    with torch.no_grad():
        torch.testing.assert_close(peers_order(ours(x), 16), theirs(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("output_stride", [8, 16])
def test_its_whole_is_the_peers_with_the_papers_convolution(smp, peers, output_stride):
    # The peer joins the scales by a 1x1 convolution, the paper by a 3x3; it has no dilated encoder, and aligns corners.
    ours = blur(
        PSPNet(
            spatial_dims=2, in_channels=4, out_channels=3, backbone="resnet18", output_stride=output_stride, dropout=0.0
        )
    )
    theirs = smp.PSPNet(
        "resnet18", encoder_weights=None, encoder_depth=5, psp_out_channels=128, in_channels=4, classes=3, upsampling=1
    )
    without_pooled_norm(theirs.decoder.psp)
    theirs.decoder.conv[0] = nn.Conv2d(1024, 128, kernel_size=3, padding=1, bias=False)
    theirs.segmentation_head[0] = nn.Conv2d(128, 3, kernel_size=1)
    theirs.segmentation_head[1] = nn.Upsample(scale_factor=output_stride, mode="bilinear")
    for our_conv, their_conv in zip(convolutions(ours.encoder), convolutions(theirs.encoder), strict=True):
        their_conv.stride, their_conv.dilation, their_conv.padding = (
            our_conv.stride,
            our_conv.dilation,
            our_conv.padding,
        )
    copy_in_order(ours, theirs)
    image = torch.randn(1, 4, 64, 96)
    with torch.no_grad():
        theirs.decoder.conv[0].weight.copy_(peers_order(ours.join[0].weight, 512))
        logits = ours(image)
        assert logits.std() > 0.01
        torch.testing.assert_close(logits, theirs(image), rtol=1e-4, atol=1e-5)


def convolutions(module):
    return [part for part in module.modules() if isinstance(part, nn.Conv2d)]


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_behind_its_encoder_it_computes_what_the_paper_draws(spatial_dims):
    network = blur(
        PSPNet(spatial_dims=spatial_dims, in_channels=2, out_channels=3, backbone="resnet18", features=8, norm="group")
    )
    weights = network.state_dict()
    conv, pool, mode = {
        2: (F.conv2d, F.adaptive_avg_pool2d, "bilinear"),
        3: (F.conv3d, F.adaptive_avg_pool3d, "trilinear"),
    }[spatial_dims]
    image = torch.randn(2, 2, *(48, 32, 24)[:spatial_dims])
    with torch.no_grad():
        deep = network.encoder(image)[3]
        joined = [deep]
        for number, bins in enumerate((1, 2, 3, 6)):
            name = f"pyramid.branches.{number}.conv"
            scene = conv(pool(deep, bins), weights[f"{name}.weight"], weights[f"{name}.bias"]).relu()
            joined.append(F.interpolate(scene, size=deep.shape[2:], mode=mode))
        x = conv(torch.cat(joined, dim=1), weights["join.0.weight"], padding=1)
        x = F.group_norm(x, 8, weights["join.1.weight"], weights["join.1.bias"]).relu()
        logits = conv(x, weights["head.weight"], weights["head.bias"])
        drawn = F.interpolate(logits, size=image.shape[2:], mode=mode)
        torch.testing.assert_close(network(image), drawn, rtol=1e-4, atol=1e-5)


def test_by_default_a_volumes_network_has_at_most_12_million_parameters():
    network = PSPNet(spatial_dims=3, in_channels=4, out_channels=3)
    assert network.encoder.widths == [16, 32, 64, 128]
    assert network.stride == 8
    assert sum(parameter.numel() for parameter in network.parameters()) == 4_228_483


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_at_the_start_activations_keep_their_size_in_front_of_the_heads(spatial_dims):
    torch.manual_seed(0)
    network = PSPNet(spatial_dims=spatial_dims, in_channels=4, out_channels=3, features=16, dropout=0.0)
    (auxiliary,) = network.deep_heads()
    with torch.no_grad():
        image = torch.randn(2, 4, *{2: (96, 96), 3: (32, 32, 32)}[spatial_dims])
        deep = network.encoder(image)[3]
        joined, third = network.decoder_features(image)
        pyramid = network.pyramid(deep)
        sizes = [x.square().mean().item() for x in (deep, pyramid, joined, third, auxiliary[:-1](third))]
    assert max(sizes) < 3 * min(sizes), sizes


def test_the_auxiliary_head_reads_the_third_stage_and_is_no_part_of_the_network():
    network = PSPNet(spatial_dims=2, in_channels=1, out_channels=3, backbone="resnet18", features=8)
    image = torch.randn(2, 1, 64, 32)
    joined, third = network.eval().decoder_features(image)
    assert joined.shape == (2, 16, 8, 4)
    assert torch.equal(third, network.encoder(image)[2])
    (head,) = network.deep_heads()
    kinds = [nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Dropout2d, nn.Conv2d]
    assert [type(step) for step in head] == kinds
    assert [(step.kernel_size, step.out_channels) for step in head if isinstance(step, nn.Conv2d)] == [
        ((3, 3), 8),
        ((1, 1), 3),
    ]
    own = {parameter.data_ptr() for parameter in network.parameters()}
    assert not own & {parameter.data_ptr() for parameter in head.parameters()}


@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_the_auxiliary_loss_reaches_three_stages_and_its_head_only(spatial_dims):
    network = PSPNet(spatial_dims=spatial_dims, in_channels=1, out_channels=2, backbone="resnet18", features=8)
    supervised = DeepSupervision(network)
    logits, auxiliary = supervised(torch.randn(1, 1, *(32, 16, 24)[:spatial_dims]))
    assert logits.shape == (1, 2, *(32, 16, 24)[:spatial_dims])
    assert auxiliary.shape == (1, 2, *(4, 2, 3)[:spatial_dims])
    auxiliary.square().mean().backward()
    reached = {name for name, parameter in supervised.named_parameters() if parameter.grad is not None}
    parts = ("network.encoder.stem.", *(f"network.encoder.stages.{stage}." for stage in range(3)), "heads.0.")
    assert reached == {name for name, _ in supervised.named_parameters() if name.startswith(parts)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bins": ()}, r"bins is \(\); give one number of parts or more"),
        (
            {"bins": (0, 2)},
            r"bins is \(0, 2\); give one number of parts or more, each at least 1 and whole, such as \(1, 2, 3, 6\)",
        ),
        ({"bins": (1.5, 2)}, r"bins is \(1.5, 2\); give one number of parts or more, each at least 1 and whole"),
        (
            {"bins": range(1, 66), "features": 8, "backbone": "resnet18"},
            r"bins has 65 scales, and the encoder 64 features to share out among them; give at most 64 scales, or more",
        ),
        ({"backbone": "vgg16"}, r"backbone is 'vgg16'; known: resnet18, resnet34, resnet50"),
        ({"output_stride": 4}, r"output_stride is 4; it must be 8 .* or 16"),
        ({"spatial_dims": 3, "encoder_weights": "a.pth"}, r"spatial_dims=3, norm='group' and features=16; ImageNet"),
        (
            {"encoder_weights": "missing.pth"},
            r"encoder_weights: no file missing.pth; needed: .* torchvision's resnet34",
        ),
    ],
)
def test_wrong_arguments_are_refused_with_what_would_do(arguments, message):
    with pytest.raises(ValueError, match=message):
        PSPNet(**{"spatial_dims": 2, "in_channels": 1, "out_channels": 1, **arguments})
