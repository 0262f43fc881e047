"""Which modalities were acquired: flags for the network, and modalities left out at random in training.

A case says it under ``present``: a float tensor ``(C,)``, 1 for a modality that was acquired, else 0.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, RandomizableTransform
from torch import Tensor


def hide_absent(image: Tensor, present: Tensor) -> Tensor:
    """Zero the channels of absent modalities: ``(S * C, ...)`` to the same shape.

    Args:
        image: S slices of C modalities, the modalities of one slice side by side; normalised.
        present: ``(C,)``, 1 or 0.

    Raises:
        ValueError: the channels are no multiple of the flags.
    """
    slices, rest = divmod(image.shape[0], max(1, present.numel()))
    if present.dim() != 1 or slices < 1 or rest:
        raise ValueError(
            f"{tuple(present.shape)} flags for {image.shape[0]} channels; needed: one flag per modality, and for every "
            "modality one channel, or one of each slice"
        )
    return image * present.to(image).repeat(slices).reshape(-1, *[1] * (image.dim() - 1))


def flag_presence(image: Tensor, present: Tensor) -> Tensor:
    """Zero the channels that are absent and add one constant channel per modality: ``(C, ...)`` to ``(2C, ...)``.

        image  5 7 | 3 4 ,  present 1 0   =>   5 7 | 0 0 | 1 1 | 0 0

    Args:
        image: ``(C, *spatial)``, normalised; or ``(S * C, *spatial)`` (see :func:`hide_absent`), whose flags are added
            once.
        present: ``(C,)``, 1 or 0.

    Raises:
        ValueError: the channels are no multiple of the flags.
    """
    hidden = hide_absent(image, present)
    flags = present.to(image).reshape(-1, *[1] * (image.dim() - 1))
    return torch.cat([hidden, flags.expand(-1, *image.shape[1:])])


class FlagPresenced(MapTransform):
    """:func:`flag_presence` on dictionaries, so that a network can tell a missing sequence from a dark one.

    Args:
        keys: the image.
        present_key: the flags.
    """

    def __init__(self, keys: KeysCollection, *, present_key: str = "present", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.present_key = present_key

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = flag_presence(result[key], result[self.present_key])
        return result


class RandDropModalitiesd(RandomizableTransform, MapTransform):
    """Leave out modalities at random, so that a network learns to do with what is there.

    A share of the samples loses k of its modalities, k drawn uniformly from 1 to one less than the sample has, and the
    k themselves uniformly: one always stays, and what was absent stays absent. Absent channels become 0, their flags
    too; one draw serves all keys.

    Args:
        keys: images, see :func:`hide_absent`.
        prob: share of the samples that lose some.
        present_key: the flags.
    """

    def __init__(
        self, keys: KeysCollection, *, prob: float, present_key: str = "present", allow_missing_keys: bool = False
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.present_key = present_key
        self.dropped: list[int] = []

    def randomize(self, data: list[int]) -> None:
        """Draw which of these modalities are left out."""
        super().randomize(None)
        self.dropped = []
        if self._do_transform and len(data) > 1:
            count = self.R.randint(1, len(data))
            self.dropped = [int(number) for number in self.R.choice(data, size=count, replace=False)]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        present = item[self.present_key]
        self.randomize(present.nonzero()[:, 0].tolist())
        if self.dropped:
            item[self.present_key] = present.clone()
            item[self.present_key][self.dropped] = 0
            for key in self.key_iterator(item):
                item[key] = hide_absent(item[key], item[self.present_key])
        return item
