"""How far each network looks: the gradient of one logit, in exact arithmetic that nothing can cancel."""

import pytest
import torch
from torch import nn

from networks import NETWORKS


def see(name, *, side, spatial_dims=2, voxel=None, **arguments):
    """Which voxels of a cube can change the logit at ``voxel`` (default: the centre)."""
    # Every weight positive and the mean in place of the maximum: no path can cancel or be passed over. Batch norm in
    # evaluation mode looks at no neighbour.
    network = NETWORKS[name](spatial_dims=spatial_dims, in_channels=1, out_channels=1, norm="batch", **arguments)
    for module in list(network.modules()):
        for child_name, child in module.named_children():
            if isinstance(child, nn.MaxPool2d | nn.MaxPool3d):
                mean = {2: nn.AvgPool2d, 3: nn.AvgPool3d}[spatial_dims]
                setattr(module, child_name, mean(child.kernel_size, child.stride, child.padding))
    for parameter in network.parameters():
        nn.init.constant_(parameter, 0.1)
    image = torch.ones(1, 1, *(side,) * spatial_dims, dtype=torch.float64, requires_grad=True)
    network.double().eval()(image)[(0, 0, *(voxel or (side // 2,) * spatial_dims))].backward()
    assert image.grad.isfinite().all()
    return image.grad[0, 0] > 0


def reach(voxel, depth):
    """First and last input voxel, along one axis, that can change the U-Net's output at ``voxel``."""
    low = high = voxel
    for _ in range(depth):  # up through the decoder: two 3x3 convolutions, then the coarser voxel behind this one
        low, high = (low - 2) // 2, (high + 2) // 2
    low, high = low - 2, high + 2  # the bottleneck
    for _ in range(depth):  # and down the encoder: the two voxels that were pooled, two 3x3 convolutions
        low, high = 2 * low - 2, 2 * high + 1 + 2
    return low, high


@pytest.mark.parametrize(("spatial_dims", "depth", "side"), [(2, 1, 64), (2, 2, 128), (2, 3, 256), (3, 1, 32)])
def test_a_voxel_of_the_u_net_sees_exactly_its_receptive_field(spatial_dims, depth, side):
    voxel = (side // 2, side // 2 - 1, side // 2 + 1)[:spatial_dims]
    seen = see("unet", side=side, spatial_dims=spatial_dims, voxel=voxel, depth=depth, features=2).nonzero()
    for axis, position in enumerate(voxel):
        low, high = reach(position, depth)
        assert low > 0
        assert high < side - 1
        assert (int(seen[:, axis].min()), int(seen[:, axis].max())) == (low, high)


@pytest.mark.parametrize("name", ["deeplabv3plus", "pspnet"])
def test_the_centre_sees_the_whole_slice(name):
    assert see(name, side=256, backbone="resnet18", features=8).all()


def test_the_centre_of_a_u_net_does_not():
    # What tells the two kinds of network apart, and that the test above can fail.
    assert not see("unet", side=256, depth=4, features=8)[0, 0]
