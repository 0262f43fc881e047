"""Random rotation, scaling and mirroring of an image and its regions: one interpolation, one copy."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from monai.transforms.utils import create_rotate
from torch import Tensor
from torch.nn import functional as F


def resample(image: Tensor, matrix: npt.NDArray[np.float64], *, mode: str, padding_mode: str) -> Tensor:
    """Look each voxel up at the place to which the matrix takes it, seen from the middle of the image.

    Args:
        image: ``(C, *spatial)``, floating point.
        matrix: ``(dims, dims)``, from voxel offsets in the result to voxel offsets in ``image``.
        mode: ``bilinear`` (in three dimensions trilinear) or ``nearest``.
        padding_mode: what lies outside: ``zeros`` or ``border``.
    """
    half = np.array(image.shape[1:]) / 2
    theta = (matrix * half / half[:, None])[::-1, ::-1]  # in units of half a side, last axis first, as grid_sample
    placed = torch.as_tensor(np.c_[theta, np.zeros(len(half))], dtype=image.dtype, device=image.device)
    grid = F.affine_grid(placed[None], [1, 1, *image.shape[1:]], align_corners=False)
    return F.grid_sample(image[None], grid, mode=mode, padding_mode=padding_mode, align_corners=False)[0]


class RandRotateScaled(RandomizableTransform, MapTransform):
    """Rotate, scale, stretch and shear an image and its regions about the middle, in one interpolation.

    Values outside the image are zeros, or those of its border. Zeros within, as air, mix with their neighbours at the
    edge of the brain alone. The draws come from ``self.R``, the tensors stay on their device.

    Args:
        keys: tensors ``(C, *spatial)`` of one spatial shape, floating point.
        mode: of each key, see :func:`resample`.
        prob: share of the samples that are changed.
        rotate: largest angle about each axis, in radians.
        scale: range of the one factor for all axes; above 1 the image shrinks.
        stretch: largest difference from 1 of one more factor for each axis.
        shear: largest shear of each axis along each other one.
        padding_mode: see :func:`resample`.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        mode: Sequence[str],
        prob: float,
        rotate: float = 0.0,
        scale: Sequence[float] = (1.0, 1.0),
        stretch: float = 0.0,
        shear: float = 0.0,
        padding_mode: str = "zeros",
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        if len(mode) != len(self.keys):
            raise ValueError(f"{len(mode)} modes came for {len(self.keys)} keys; give one for each")
        if not 0 < scale[0] <= scale[-1] or len(scale) != 2:
            raise ValueError(f"scale is {scale}; needed: two factors above 0, the lower first")
        self.mode = tuple(mode)
        self.rotate = rotate
        self.scale = (scale[0], scale[1])
        self.stretch = stretch
        self.shear = shear
        self.padding_mode = padding_mode
        self.matrix = np.eye(1)

    def randomize(self, data: int) -> None:
        """Draw whether to change the next sample, of so many axes, and by which matrix."""
        super().randomize(None)
        if not self._do_transform:
            return
        angles = self.R.uniform(-self.rotate, self.rotate, size=1 if data == 2 else 3)
        rotation = np.asarray(create_rotate(data, angles.tolist()))[:data, :data]
        shear = np.eye(data) + self.R.uniform(-self.shear, self.shear, size=(data, data)) * (1 - np.eye(data))
        factors = self.R.uniform(*self.scale) * self.R.uniform(1 - self.stretch, 1 + self.stretch, size=data)
        self.matrix = rotation @ shear * factors

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        self.randomize(item[self.first_key(item)].dim() - 1)
        if self._do_transform:
            for key, mode in self.key_iterator(item, self.mode):
                item[key] = resample(item[key], self.matrix, mode=mode, padding_mode=self.padding_mode)
        return item


class RandMirrord(RandomizableTransform, MapTransform):
    """Mirror an image and its regions along each of some axes, or not, with even chances: all in one copy.

    Args:
        keys: tensors ``(C, *spatial)``.
        axes: spatial axes that may be mirrored, counted from 0.
        prob: for each axis.
    """

    def __init__(
        self, keys: KeysCollection, *, axes: Sequence[int], prob: float = 0.5, allow_missing_keys: bool = False
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.axes = tuple(axes)
        self.mirrored: list[int] = []

    def randomize(self, data: Any = None) -> None:
        """Draw the axes to mirror next."""
        self.mirrored = [axis for axis in self.axes if self.R.random() < self.prob]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        self.randomize()
        item = dict(data)
        if self.mirrored:
            for key in self.key_iterator(item):
                item[key] = item[key].flip([axis + 1 for axis in self.mirrored])
        return item
