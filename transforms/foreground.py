"""The box around the brain."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.data import MetaTensor
from monai.transforms import CropForeground, CropForegroundd
from torch import Tensor

Box = tuple[npt.NDArray[np.int16], npt.NDArray[np.int16]]


def foreground_box(image: Tensor) -> Box:
    """The smallest box that holds every voxel in which some channel is not zero.

    Args:
        image: ``(C, *spatial)``.

    Returns:
        First voxel along each axis, and the one past the last; the whole image where every voxel is zero.
    """
    axes = image.dim() - 1
    if image.device.type == "cpu" and not image.is_floating_point():
        bits = np.bitwise_or.reduce(image.numpy(), axis=0)  # several times faster than comparing every voxel
        shadows = [np.bitwise_or.reduce(bits, axis=tuple(a for a in range(axes) if a != axis)) for axis in range(axes)]
        lines = [torch.from_numpy(shadow) for shadow in shadows]
    else:
        inside = (image != 0).any(0)
        lines = [inside.sum([a for a in range(axes) if a != axis]) if axes > 1 else inside for axis in range(axes)]
    held = [line.nonzero().flatten() for line in lines]
    if not len(held[0]):
        return np.zeros(axes, np.int16), np.array(image.shape[1:], np.int16)
    return np.array([int(h[0]) for h in held], np.int16), np.array([int(h[-1]) + 1 for h in held], np.int16)


class CropForegroundBox(CropForeground):
    """MONAI's ``CropForeground`` to :func:`foreground_box`."""

    def compute_bounding_box(self, img: Tensor) -> Box:
        """The box in an image ``(C, *spatial)``."""
        return foreground_box(img.as_tensor() if isinstance(img, MetaTensor) else img)


class CropForegroundBoxd(CropForegroundd):
    """MONAI's ``CropForegroundd`` to the voxels that are not exactly zero, found faster; the inverse is MONAI's.

    Args:
        arguments: of ``CropForegroundd``.
    """

    def __init__(self, *positional: Any, **arguments: Any) -> None:
        super().__init__(*positional, **arguments)
        self.cropper = CropForegroundBox(allow_smaller=True)
