"""Random patches that pass through the tumour more often than by chance (as nnU-Net; Isensee et al. 2021)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Randomizable
from torch import Tensor

from transforms.neighbours import neighbouring


class RegionVoxelsd(MapTransform):
    """List voxels of every region, once per case, for :class:`RandPatchd` to draw from.

    Args:
        keys: region masks ``(R, *spatial)``; each gives ``<key>_voxels``, a list of R flat indices into ``spatial``.
        max_voxels: at most this many of a region, evenly spread over its list.
    """

    def __init__(self, keys: KeysCollection, *, max_voxels: int = 5000) -> None:
        super().__init__(keys)
        if max_voxels < 1:
            raise ValueError(f"max_voxels is {max_voxels}; it must be at least 1")
        self.max_voxels = max_voxels

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            item[f"{key}_voxels"] = [self._spread(mask.flatten().nonzero()[:, 0]) for mask in item[key]]
        return item

    def _spread(self, voxels: Tensor) -> Tensor:
        if len(voxels) <= self.max_voxels:
            return voxels
        return voxels[torch.arange(self.max_voxels, device=voxels.device) * len(voxels) // self.max_voxels]


class RandPatchd(Randomizable, MapTransform):
    """Cut one patch: with a given probability around a voxel of a region, else anywhere.

    Each region that the case has is chosen equally often. A case that has none gives patches from anywhere. A patch
    around a voxel near the border is moved inside, so that the voxel is no longer in its middle.

    Args:
        keys: tensors ``(C, *spatial)`` of one spatial shape, cut alike.
        label_key: the regions, whose voxels :class:`RegionVoxelsd` has listed.
        patch_size: sides in voxels, one per spatial axis; none may exceed the image.
        region_share: probability of a patch around a voxel of a region, from 0 to 1.
        neighbours: slices on each side that come with a patch of one slice, except to the regions:
            ``(C, x, y, 2 * neighbours + 1)``, repeated where the volume ends (see :mod:`transforms.neighbours`).

    Raises:
        ValueError: a share outside 0 to 1, neighbours of a patch that is no slice, or a patch larger than the image.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        label_key: str,
        patch_size: Sequence[int],
        region_share: float = 1 / 3,
        neighbours: int = 0,
    ) -> None:
        MapTransform.__init__(self, keys)
        if neighbours and (neighbours < 0 or patch_size[-1] != 1):
            raise ValueError(
                f"{neighbours} neighbours of a patch of {tuple(patch_size)} voxels; neighbours are counted from 0, and "
                "only patches of one slice have them"
            )
        if not 0 <= region_share <= 1:
            raise ValueError(f"region_share is {region_share}; it must lie between 0 and 1")
        self.label_key = label_key
        self.patch_size = tuple(int(side) for side in patch_size)
        self.region_share = region_share
        self.neighbours = neighbours
        self.start: tuple[int, ...] = ()

    def randomize(self, data: Mapping[Hashable, Any]) -> None:
        """Draw where the next patch starts."""
        shape = data[self.label_key].shape[1:]
        if len(shape) != len(self.patch_size) or any(
            side < 1 or side > length for side, length in zip(self.patch_size, shape, strict=True)
        ):
            raise ValueError(f"a patch of {self.patch_size} voxels does not fit into {tuple(shape)}")
        room = [length - side for side, length in zip(self.patch_size, shape, strict=True)]
        present = [voxels for voxels in data[f"{self.label_key}_voxels"] if len(voxels)]
        if self.R.random() < self.region_share and present:
            voxels = present[self.R.randint(len(present))]
            centre = torch.unravel_index(voxels[self.R.randint(len(voxels))], shape)
            wanted = [int(axis) - side // 2 for axis, side in zip(centre, self.patch_size, strict=True)]
            self.start = tuple(min(max(first, 0), last) for first, last in zip(wanted, room, strict=True))
        else:
            self.start = tuple(int(self.R.randint(last + 1)) for last in room)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        self.randomize(data)
        item = dict(data)
        box = tuple(slice(first, first + side) for first, side in zip(self.start, self.patch_size, strict=True))
        for key in self.key_iterator(item):
            volume = item[key]
            if self.neighbours and key != self.label_key:
                slices = neighbouring(torch.tensor([self.start[-1]]), self.neighbours, volume.shape[-1])[0]
                cut = [volume[(slice(None), *box[:-1], number)] for number in slices.tolist()]
                item[key] = torch.stack(cut).permute(*range(1, volume.dim()), 0)  # each slice in one piece of memory
            else:
                item[key] = volume[(slice(None), *box)].clone()  # what follows must not write into the cached case
        return item
