"""Deep supervision: what it asks a network for, what it leaves alone, and MONAI's loss on its list."""

import pytest
import torch
from monai.losses import DeepSupervisionLoss, DiceCELoss
from torch import nn

from networks import NETWORKS, DeepSupervision
from tests.networks.test_contract import EVERY_NETWORK, IN_CHANNELS, OUT_CHANNELS, build, picture, sides_for


@EVERY_NETWORK
def test_the_first_logits_are_those_of_the_network_alone(name, spatial_dims):
    network = build(name, spatial_dims).eval()
    with torch.no_grad():
        assert torch.equal(DeepSupervision(network).eval()(picture(network))[0], network(picture(network)))


@EVERY_NETWORK
def test_each_level_gives_logits_for_every_region_at_its_own_size(name, spatial_dims):
    network = build(name, spatial_dims)
    features = network.decoder_features(picture(network))
    logits = DeepSupervision(network)(picture(network))
    assert [level.shape[:2] for level in logits] == [(2, OUT_CHANNELS)] * len(features)
    assert logits[0].shape[2:] == sides_for(network)
    assert [level.shape[2:] for level in logits[1:]] == [level.shape[2:] for level in features[1:]]
    voxels = [level[0, 0].numel() for level in logits]
    assert voxels == sorted(set(voxels), reverse=True), "finest first, each coarser than the one before"


@EVERY_NETWORK
def test_the_network_keeps_its_weights_and_their_names(name, spatial_dims):
    bare, wrapped = build(name, spatial_dims), build(name, spatial_dims)
    supervised = DeepSupervision(wrapped)
    assert supervised.network is wrapped
    expected = bare.state_dict()
    assert list(wrapped.state_dict()) == list(expected)
    assert all(torch.equal(wrapped.state_dict()[key], expected[key]) for key in expected)


@EVERY_NETWORK
def test_a_loss_on_every_level_reaches_every_head_and_the_network(name, spatial_dims):
    supervised = DeepSupervision(build(name, spatial_dims)).train()
    image = picture(supervised.network)
    target = (image[:, :OUT_CHANNELS] > 0).float()
    loss = DeepSupervisionLoss(DiceCELoss(sigmoid=True))(supervised(image), target)
    loss.backward()
    assert loss.isfinite()
    for parameter_name, parameter in supervised.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        assert parameter.grad.any(), parameter_name


@EVERY_NETWORK
def test_each_coarse_level_pulls_at_the_network(name, spatial_dims):
    supervised = DeepSupervision(build(name, spatial_dims))
    for level, head in zip(supervised(picture(supervised.network))[1:], supervised.heads, strict=True):
        reached = torch.autograd.grad(
            level.square().mean(),
            [*head.parameters(), *supervised.network.parameters()],
            retain_graph=True,
            allow_unused=True,
        )
        own, network = reached[: len(list(head.parameters()))], reached[len(list(head.parameters())) :]
        assert all(gradient is not None and gradient.any() for gradient in own)
        assert any(gradient is not None and gradient.any() for gradient in network)


def test_the_u_net_gives_one_list_entry_for_each_level_above_the_bottleneck():
    network = NETWORKS["unet"](spatial_dims=2, in_channels=IN_CHANNELS, out_channels=2, depth=3, features=8)
    logits = DeepSupervision(network)(torch.zeros(1, IN_CHANNELS, 16, 32))
    assert [tuple(level.shape) for level in logits] == [(1, 2, 16, 32), (1, 2, 8, 16), (1, 2, 4, 8)]


class Coarse(nn.Module):
    """Averages 2x2 pixels; its logits are enlarged to the image."""

    def __init__(self):
        super().__init__()
        self.pool = nn.AvgPool2d(2)
        self.head = nn.Conv2d(1, 1, kernel_size=1, bias=False)
        nn.init.ones_(self.head.weight)

    def decoder_features(self, image):
        return [self.pool(image)]

    def deep_heads(self):
        return nn.ModuleList()


def test_logits_of_a_coarser_grid_are_enlarged_to_the_image():
    (logits,) = DeepSupervision(Coarse())(torch.tensor([[[[0.0, 0.0, 4.0, 4.0], [0.0, 0.0, 4.0, 4.0]]]]))
    assert logits.tolist() == [[[[0.0, 1.0, 3.0, 4.0], [0.0, 1.0, 3.0, 4.0]]]]


def test_new_heads_have_the_precision_of_the_network():
    supervised = DeepSupervision(build("unet", 2).double())
    assert {parameter.dtype for parameter in supervised.parameters()} == {torch.float64}
    assert all(level.dtype == torch.float64 for level in supervised(picture(supervised.network).double()))


def test_it_compiles_as_one_graph():
    supervised = DeepSupervision(build("unet", 2)).eval()
    image = picture(supervised.network)
    torch.compiler.reset()
    compiled = torch.compile(supervised, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(image), supervised(image), rtol=1e-4, atol=1e-5)


def test_the_list_is_one_the_loss_weighs_level_by_level():
    # MONAI halves the weight with every level; a loss that is the mean of the logits shows which level got which.
    supervised = DeepSupervision(build("unet", 2)).eval()
    image = picture(supervised.network)
    with torch.no_grad():
        logits = supervised(image)
        total = DeepSupervisionLoss(MeanOfLogits(), weight_mode="exp")(logits, torch.zeros(2, OUT_CHANNELS, 8, 4))
    expected = sum(level.mean() / 2**number for number, level in enumerate(logits))
    assert total.item() == pytest.approx(expected.item(), rel=1e-5)


class MeanOfLogits(nn.Module):
    def forward(self, logits, target):
        assert logits.shape == target.shape
        return logits.mean()
