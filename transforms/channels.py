"""Random changes of one modality at a time: the draw, then its application.

One rule for all of them: a voxel that is exactly 0 in its modality stays exactly 0. It is air, or what the scanner did
not measure, or a modality that is missing, and it is exactly 0 in every scan that the network will see.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from torch import Tensor


def measured(image: Tensor) -> Tensor:
    """1 where the image is not exactly 0, else 0, in its own dtype; several times quicker than a comparison."""
    return image.sign().square_()


class RandChannelsd(RandomizableTransform, MapTransform):
    """Draw a value for each modality of an image and change the modality by it; what :meth:`apply` does is the change.

    The draws come from ``self.R`` alone; the tensors stay on their device, and the input is not written to.

    Args:
        keys: images ``(S * C, *spatial)``, S slices of C modalities, the modalities of one slice side by side.
        low: end of the range that values are drawn from, uniformly.
        high: its other end.
        prob: share of the samples that are changed.
        channel_prob: share of the modalities that are changed in such a sample.
        slices: S; neighbouring slices of one modality are changed alike.

    Raises:
        ValueError: a share outside 0 to 1, an empty range, or channels that are no multiple of ``slices``.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        low: float,
        high: float,
        prob: float,
        channel_prob: float = 1.0,
        slices: int = 1,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        if not 0 <= channel_prob <= 1:
            raise ValueError(f"channel_prob is {channel_prob}; it must lie between 0 and 1")
        if low > high:
            raise ValueError(f"values from {low} to {high} do not exist; low must not exceed high")
        if slices < 1:
            raise ValueError(f"slices is {slices}; it must be at least 1")
        self.low = low
        self.high = high
        self.channel_prob = channel_prob
        self.slices = slices
        self.values: list[Any] = []

    def draw(self) -> Any:
        """What one modality is changed by."""
        return self.R.uniform(self.low, self.high)

    def apply(self, modality: Tensor, value: Any) -> Tensor:
        """A changed copy of ``(S, *spatial)``."""
        raise NotImplementedError

    def randomize(self, data: int) -> None:
        """Draw whether and how each of so many modalities is changed: its value, or None."""
        super().randomize(None)
        self.values = []
        if self._do_transform:
            self.values = [self.draw() if self.R.random() < self.channel_prob else None for _ in range(data)]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            image = item[key]
            if len(image) % self.slices:
                raise ValueError(f"{len(image)} channels are no multiple of {self.slices} slices")
            modalities = len(image) // self.slices
            self.randomize(modalities)
            if all(value is None for value in self.values):
                continue
            result = torch.empty_like(image)
            for number, value in enumerate(self.values):
                modality = image[number::modalities]
                result[number::modalities] = modality if value is None else self.apply(modality, value)
            item[key] = result
        return item
