"""The pooling of the U-Nets: torch's values, in whatever order they are found."""

import pytest
import torch
import torch.nn.functional as F

from networks.layers import halving_max_pool


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("training", [True, False])
def test_the_largest_of_eight_voxels_is_torchs(dtype, memory_format, training):
    image = torch.randn(2, 8, 6, 4, 10).to(dtype).to(memory_format=memory_format)
    pooled = halving_max_pool(3).train(training)(image)
    assert torch.equal(pooled, F.max_pool3d(image, 2))


def test_no_volume_is_copied_on_the_way_to_half_its_grid():
    image = torch.randn(1, 8, 8, 8, 8).to(memory_format=torch.channels_last_3d)
    pool = halving_max_pool(3).eval()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen, torch.no_grad():
        pooled = pool(image)
    assert not {"aten::copy_", "aten::contiguous", "aten::clone"} & {event.key for event in seen.key_averages()}
    assert pooled.is_contiguous(memory_format=torch.channels_last_3d)


def test_gradients_reach_the_one_voxel_that_was_largest():
    image = torch.zeros(1, 1, 2, 2, 2)
    image[0, 0, 1, 0, 1] = 1
    image.requires_grad_()
    halving_max_pool(3).train()(image).sum().backward()
    assert image.grad.sum() == image.grad[0, 0, 1, 0, 1] == 1


def test_slices_are_pooled_by_torchs_own():
    image = torch.randn(2, 3, 6, 8)
    assert torch.equal(halving_max_pool(2)(image), F.max_pool2d(image, 2))
