"""Resampling to the spacing of a network, for the scans that need it."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai import transforms
from monai.data import MetaTensor
from monai.transforms import Spacingd
from monai.utils.type_conversion import get_torch_dtype_from_string

VOXELS_AT_ONCE = 2**22
"""Of a scan that is gone back to. Each takes some 45 bytes: where it comes from, and its value, in float64."""


class SpatialResample(transforms.SpatialResample):
    """MONAI's, one channel at a time, and back slab by slab: memory holds float64 of a part, not of the scan."""

    def __call__(self, img: Any, *positional: Any, **arguments: Any) -> Any:  # type: ignore[override]  # as in MONAI
        if len(img) == 1 or arguments.get("lazy"):
            return super().__call__(img, *positional, **arguments)
        whole = first = None
        for number in range(len(img)):
            part: Any = super().__call__(img[number : number + 1], *positional, **arguments)
            if whole is None:
                first = part
                whole = torch.empty((len(img), *part.shape[1:]), dtype=part.dtype, device=part.device)
            whole[number] = part[0]
        return first if whole is None else MetaTensor(whole).copy_meta_from(first)

    def inverse(self, data: Any) -> Any:
        size = [int(side) for side in data.applied_operations[-1]["orig_size"]]
        rows = max(1, VOXELS_AT_ONCE // math.prod(size[1:]))
        if rows >= size[0]:
            return super().inverse(data)
        told = dict(self.pop_transform(data)["extra_info"])
        told["dtype"] = get_torch_dtype_from_string(told["dtype"])
        if told["align_corners"] == "none":
            told["align_corners"] = False
        affine = torch.as_tensor(told.pop("src_affine"))
        whole = torch.empty((len(data), *size), device=data.device)
        first = None
        for start in range(0, size[0], rows):
            moved = torch.eye(len(affine), dtype=affine.dtype)
            moved[0, -1] = start
            slab = [min(rows, size[0] - start), *size[1:]]
            with self.trace_transform(False):
                part = transforms.SpatialResample.__call__(
                    self, data, dst_affine=affine @ moved, spatial_size=slab, **told
                )
            first = part if first is None else first
            whole[:, start : start + rows] = part
        return MetaTensor(whole).copy_meta_from(first)


class SpacingWhereNeededd(Spacingd):
    """MONAI's ``Spacingd``, which a scan passes untouched whose every voxel side lies within the bounds.

    MONAI keeps such a scan's values too, but makes floats of all its voxels. Here whole numbers stay whole, and
    nothing is noted that would have to be undone.

    Args:
        arguments: of ``Spacingd``; ``min_pixdim`` and ``max_pixdim``, in millimetres, are needed.
    """

    def __init__(self, *positional: Any, **arguments: Any) -> None:
        super().__init__(*positional, **arguments)
        self.least, self.most = (arguments[name] for name in ("min_pixdim", "max_pixdim"))
        theirs = self.spacing_transform.sp_resample
        self.spacing_transform.sp_resample = SpatialResample(
            theirs.mode, theirs.padding_mode, theirs.align_corners, theirs.dtype, theirs.lazy
        )

    def __call__(self, data: Mapping[Hashable, Any], lazy: bool | None = None) -> dict[Hashable, Any]:
        """Resample every key, or none."""
        if all(self._fits(data[key]) for key in self.key_iterator(dict(data))):
            return dict(data)
        resampled: dict[Hashable, Any] = super().__call__(data, lazy)
        return resampled

    def inverse(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Undo what was done, if anything was."""
        item = dict(data)
        for key in self.key_iterator(item):
            done = item[key].applied_operations
            if done and done[-1]["class"] == "SpatialResample":
                item[key] = self.spacing_transform.inverse(item[key])
        return item

    def _fits(self, image: MetaTensor) -> bool:
        return all(
            low <= side <= high for low, side, high in zip(self.least, image.pixdim.tolist(), self.most, strict=True)
        )
