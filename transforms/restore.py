"""From logits on the grid of the network to regions on the grid of the scan."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Compose, Invertd, MapTransform, Spacingd
from torch import Tensor

MOVING = frozenset(
    {
        "Orientation",
        "Flip",
        "CropForegroundBox",
        "CropForeground",
        "Crop",
        "SpatialCrop",
        "Pad",
        "SpatialPad",
        "BorderPad",
    }
)
"""Transforms that move voxels and make none."""


def interpolated(image: MetaTensor) -> bool:
    """Whether the way from the file to this image made values between voxels, as another spacing does."""
    axes = image.affine[:3, :3].double()
    for operation in image.applied_operations:
        source = _resampled_from(operation)
        if source is None and str(operation["class"]) not in MOVING:
            return True
        if source is not None and not torch.allclose(source[:3, :3], axes, atol=1e-3):
            return True
    return False


def _resampled_from(operation: Mapping[str, Any]) -> Tensor | None:
    """The affine in front of a resampling; None for any other operation."""
    source = operation.get("extra_info", {}).get("src_affine")
    return None if source is None else torch.as_tensor(source).double()


def thresholds_for(threshold: float | Sequence[float], regions: int) -> list[float]:
    """One threshold for each region.

    Raises:
        ValueError: one is no number between 0 and 1, or there is another number of them than of regions.
    """
    limits = [*threshold] if isinstance(threshold, Sequence) else [threshold]
    if not all(isinstance(one, int | float) and 0 < one < 1 for one in limits):
        raise ValueError(f"threshold is {threshold!r}; give numbers between 0 and 1, as probabilities are")
    if len(limits) not in (1, regions):
        raise ValueError(f"{len(limits)} thresholds for {regions} regions; give one for all, or one for each")
    return limits * regions if len(limits) == 1 else limits


def logit_of(probability: float) -> float:
    """The logit whose sigmoid is ``probability``."""
    return math.log(probability / (1 - probability))


class RestoreRegionsd(MapTransform):
    """Replace logits ``(R, *network grid)`` by regions ``(R, *scan grid)``: 1 where a probability reaches a threshold.

    Where the preprocessing only moved voxels (turned, mirrored, cropped), the threshold comes first and bytes travel
    back. Where it interpolated, the probabilities travel back, once, and the threshold comes behind.
    Either way the result is that of inverting all probabilities (``Activationsd``, ``Invertd``, ``AsDiscreted``).
    Bytes are regions already, which an inferer made at the same thresholds, and only travel back.

    Args:
        keys: the logits; or regions as bytes, where voxels were only moved and no probabilities are left.
        transform: the preprocessing, whose inverse is the way back; None where both grids are one.
        orig_keys: the preprocessed image, which knows what was done to it.
        threshold: of the probability, one for all regions or one for each.
        probabilities_key: also leave the probabilities ``(R, *scan grid)``, float32, under this key; None: do not.

    Raises:
        ValueError: a threshold outside 0 to 1, or another number of them than of regions; or bytes where logits are
            needed.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        transform: Compose | None,
        orig_keys: str = "image",
        threshold: float | Sequence[float] = 0.5,
        probabilities_key: str | None = None,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        thresholds_for(threshold, len(threshold) if isinstance(threshold, Sequence) else 1)  # refuses
        self.threshold = threshold
        self.orig_key = orig_keys
        self.transform = transform
        # Even a resampling that changes nothing would turn bytes into floats.
        steps = [] if transform is None else transform.flatten().transforms
        self.moving = Compose([step for step in steps if not isinstance(step, Spacingd)])
        self.probabilities_key = probabilities_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            logits = item[key] if isinstance(item[key], MetaTensor) else MetaTensor(item[key])
            limits = thresholds_for(self.threshold, len(logits))
            moved = self.transform is None or not interpolated(item[self.orig_key])
            if logits.dtype == torch.uint8 and (self.probabilities_key is not None or not moved):
                raise ValueError(
                    f"{key} holds regions already, but probabilities are to be "
                    f"{'interpolated' if self.probabilities_key is None else 'kept'}; let the inferer keep logits"
                )
            if self.probabilities_key is not None or not moved:
                probabilities = self._back(logits.float().sigmoid(), item, nearest=False)
                if self.probabilities_key is not None:
                    item[self.probabilities_key] = probabilities
                if not moved:
                    item[key] = torch.stack([one >= limit for one, limit in zip(probabilities, limits, strict=True)])
                    item[key] = item[key].byte()
                    continue
            if logits.dtype != torch.uint8:
                regions = [one >= logit_of(limit) for one, limit in zip(logits, limits, strict=True)]
                logits = torch.stack(regions).byte()
            item[key] = self._back(logits, item, nearest=True)
        return item

    def _back(self, values: Tensor, item: Mapping[Hashable, Any], *, nearest: bool) -> Tensor:
        """Invert the preprocessing of the image on ``values``; ``nearest``: only what moved voxels."""
        if self.transform is None:
            return values
        image = item[self.orig_key]
        way = [done for done in image.applied_operations if not (nearest and _resampled_from(done) is not None)]
        if not way:
            return values  # MONAI warns of an inverse without anything to invert
        told = MetaTensor(torch.empty(0), meta=image.meta, applied_operations=way)
        chain = self.moving if nearest else self.transform
        inverse = Invertd("values", transform=chain, orig_keys=self.orig_key, nearest_interp=nearest)
        back: Tensor = inverse({"values": values, self.orig_key: told})["values"]
        return back
