"""The residual encoder: against torchvision's with the same weights, its start, and the weights it takes over."""

import functools
import importlib

import pytest
import torch
from torch import nn

from networks.backbones import LAYOUTS, ResidualBlock, ResidualEncoder
from networks.imagenet import load_imagenet


def encoder(**arguments):
    torch.manual_seed(0)
    defaults = {
        "spatial_dims": 2,
        "in_channels": 3,
        "layout": "resnet18",
        "features": 64,
        "norm": "batch",
        "output_stride": 16,
    }
    return ResidualEncoder(**{**defaults, **arguments})


@pytest.fixture(scope="module")
def resnet(smp):
    """A torchvision network by name, for evaluation, none of whose weights hides behind a 0 or 1."""
    models = importlib.import_module("torchvision.models")

    @functools.cache
    def build(name, dilated=(False, False, False)):
        torch.manual_seed(1)
        network = getattr(models, name)(weights=None, replace_stride_with_dilation=dilated)
        with torch.no_grad():
            for value_name, value in network.named_parameters():
                if value.dim() == 1 and not value_name.startswith("fc."):
                    value.add_(torch.rand_like(value) * 0.3)
            network.train()(torch.randn(4, 3, 32, 32))  # batch norm gets statistics that suit it
        return network.eval()

    return build


def stages(network, image):
    """What each of torchvision's four stages gives."""
    x = network.maxpool(network.relu(network.bn1(network.conv1(image))))
    found = []
    for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
        x = stage(x)
        found.append(x)
    return found


def difference(found, expected):
    """Relative to the largest value; the two add in different orders."""
    return ((found - expected).abs().max() / expected.abs().max()).item()


def saved(network, folder):
    path = folder / "weights.pth"
    torch.save(network.state_dict(), path)
    return path


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_dilated_it_computes_what_the_strided_network_computes_and_the_voxels_between(
    resnet, tmp_path, layout, output_stride
):
    theirs = resnet(layout)
    ours = encoder(layout=layout, output_stride=output_stride).eval()
    load_imagenet(ours, saved(theirs, tmp_path))
    image = torch.randn(1, 3, 32, 96)
    with torch.no_grad():
        found, expected = ours(image), stages(theirs, image)
    assert ours.strides == [4, 8, min(16, output_stride), min(32, output_stride)]
    for ours_there, theirs_there, stride, width in zip(found, expected, ours.strides, ours.widths, strict=True):
        assert ours_there.shape == (1, width, 32 // stride, 96 // stride)
        step = 32 // theirs_there.shape[2] // stride
        assert difference(ours_there[..., ::step, ::step], theirs_there) < 1e-5


@pytest.mark.parametrize(("output_stride", "dilated"), [(16, (False, False, True)), (8, (False, True, True))])
def test_it_is_dilated_as_torchvision_dilates(resnet, tmp_path, output_stride, dilated):
    theirs = resnet("resnet50", dilated)
    ours = encoder(layout="resnet50", output_stride=output_stride).eval()
    load_imagenet(ours, saved(theirs, tmp_path))
    image = torch.randn(1, 3, 64, 32)
    with torch.no_grad():
        for found, expected in zip(ours(image), stages(theirs, image), strict=True):
            assert difference(found, expected) < 1e-5


@pytest.mark.parametrize(("layout", "output_stride"), [("resnet18", 16), ("resnet34", 8), ("resnet50", 8)])
def test_a_volume_that_is_one_slice_repeated_gives_what_the_slice_gives(layout, output_stride):
    # Kernels that look only within their slice turn the volume's encoder into the slice's.
    flat = encoder(layout=layout, features=8, output_stride=output_stride).eval()
    deep = encoder(layout=layout, features=8, output_stride=output_stride, spatial_dims=3).eval()
    with torch.no_grad():
        for name, value in deep.state_dict().items():
            source = flat.state_dict()[name]
            if value.dim() == 5:
                value.zero_()
                value[:, :, value.shape[2] // 2] = source
            else:
                value.copy_(source)
        image = torch.randn(1, 3, 32, 48)
        volume = image.unsqueeze(2).expand(-1, -1, 16, -1, -1)
        for slice_there, volume_there, stride in zip(flat(image), deep(volume), flat.strides, strict=True):
            assert volume_there.shape[2] == 16 // stride
            expected = slice_there.unsqueeze(2).expand_as(volume_there)
            torch.testing.assert_close(volume_there, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", ["batch", "group", None])
@pytest.mark.parametrize("layout", sorted(LAYOUTS))
@pytest.mark.parametrize("spatial_dims", [2, 3])
def test_at_the_start_activations_keep_their_size_through_the_depth(spatial_dims, layout, norm):
    network = encoder(spatial_dims=spatial_dims, layout=layout, features=16, norm=norm or "batch", output_stride=8)
    if norm is None:  # norms would hide a wrong initialisation
        for module in list(network.modules()):
            for name, child in module.named_children():
                if isinstance(child, nn.BatchNorm2d | nn.BatchNorm3d):
                    setattr(module, name, nn.Identity())
    sizes = []
    for module in network.modules():
        if module is network.stem or isinstance(module, ResidualBlock):
            module.register_forward_hook(lambda _module, _inputs, output: sizes.append(output.square().mean().item()))
    with torch.no_grad():
        network(torch.randn(1, 3, *{2: (96, 96), 3: (32, 32, 32)}[spatial_dims]))
    assert len(sizes) == 1 + sum(LAYOUTS[layout].blocks)
    assert max(sizes) < 3 * min(sizes), sizes


def test_no_weight_starts_at_zero():
    for name, value in encoder(layout="resnet50", features=8).named_parameters():
        assert value.any() or name.endswith("bias"), name


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_imagenets_weights_fit_one_to_one(resnet, layout):
    # As many numbers of each shape as torchvision's has without its classifier.
    theirs = sorted(tuple(v.shape) for k, v in resnet(layout).state_dict().items() if not k.startswith("fc."))
    assert sorted(tuple(value.shape) for value in encoder(layout=layout).state_dict().values()) == theirs


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_an_image_alike_in_all_channels_gives_the_response_of_a_grey_picture(resnet, tmp_path, channels):
    theirs, ours = resnet("resnet18"), encoder(in_channels=channels).eval()
    load_imagenet(ours, saved(theirs, tmp_path))
    grey = torch.randn(1, 1, 32, 32)
    found = ours.stem[0](grey.expand(-1, channels, -1, -1))
    torch.testing.assert_close(found, theirs.conv1(grey.expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-5)
    weight = ours.stem[0].weight
    assert weight.is_contiguous()
    if channels > 3:
        assert not torch.allclose(weight[:, 0], weight[:, 1]), "channels must differ to be told apart"


def test_weights_saved_before_batch_norm_counted_are_taken(resnet, tmp_path):
    theirs, ours = resnet("resnet18"), encoder().eval()
    old = {name: value for name, value in theirs.state_dict().items() if "num_batches" not in name}
    torch.save(old, tmp_path / "old.pth")
    load_imagenet(ours, tmp_path / "old.pth")
    image = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(ours(image)[1], stages(theirs, image)[1], rtol=1e-4, atol=1e-4)


class Surprise:
    """What a pickle may hold, and weights may not."""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no file"),
        (b"", "cannot be read as weights"),
        (b"\x89PNG\r\n\x1a\n" + bytes(64), "cannot be read as weights"),
        (Surprise(), "cannot be read as weights"),
        ([torch.zeros(1)], "holds no table of tensors"),
        ({"epoch": 3}, "holds no table of tensors"),
        ({"weight": torch.zeros(1)}, r"fits no resnet18; 101 tensors are missing, unknown or of another shape"),
    ],
)
def test_other_files_are_refused_with_what_is_needed(tmp_path, content, message):
    path = tmp_path / "weights.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(ValueError, match=message) as caught:
        load_imagenet(encoder(), path)
    assert str(path) in str(caught.value)
    assert "needed: the state dict of torchvision's resnet18, saved by torch.save" in str(caught.value)


@pytest.mark.parametrize("other", ["resnet18", "resnet50"])
def test_weights_of_another_layout_are_refused_and_nothing_is_changed(resnet, tmp_path, other):
    ours = encoder(layout="resnet34")
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    with pytest.raises(ValueError, match=r"fits no resnet34; \d+ tensors .* or another backbone"):
        load_imagenet(ours, saved(resnet(other), tmp_path))
    assert all(torch.equal(value, before[name]) for name, value in ours.state_dict().items())


@pytest.mark.parametrize(
    ("arguments", "got"),
    [
        ({"spatial_dims": 3, "features": 8}, r"spatial_dims=3, norm='batch' and features=8"),
        ({"norm": "group"}, r"norm='group'"),
        ({"features": 32}, r"features=32"),
    ],
)
def test_encoders_that_imagenets_weights_do_not_fit_are_refused(arguments, got):
    with pytest.raises(ValueError, match=rf"{got}.*fit spatial_dims=2, norm='batch' and features=64 only: choose"):
        load_imagenet(encoder(**arguments), "weights.pth")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"layout": "resnet99"}, r"backbone is 'resnet99'; known: resnet18, resnet34, resnet50"),
        ({"output_stride": 32}, r"output_stride is 32; it must be 8 \(finer, more memory\) or 16"),
        ({"features": 0}, r"features is 0; every width must be at least 1"),
        ({"features": 12, "norm": "group"}, r"12 features cannot be split into 8 groups"),
        ({"norm": "layer"}, r"norm is 'layer'; known: group, instance, batch"),
        ({"spatial_dims": 4}, r"spatial_dims is 4; it must be 2"),
    ],
)
def test_wrong_arguments_are_refused_with_what_would_do(arguments, message):
    with pytest.raises(ValueError, match=message):
        encoder(**arguments)
