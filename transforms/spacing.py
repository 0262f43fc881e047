"""Resampling to the spacing of a network, for the scans that need it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.data import MetaTensor
from monai.transforms import Spacingd


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
