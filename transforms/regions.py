"""Label maps to overlapping regions and back, by the table in :mod:`transforms.labels`."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from torch import Tensor

from brats_pipeline.errors import PipelineError
from transforms.labels import REGIONS, Convention, convention, misfit, usual_convention


def to_regions(labels: Tensor, rule: Convention, regions: Sequence[str] = REGIONS) -> Tensor:
    """Split one label map into overlapping region masks: ``(1, *spatial)`` to ``(R, *spatial)``, uint8.

        labels  0 2 4 1   =>   TC 0 0 1 1
                               WT 0 1 1 1
                               ET 0 0 1 0

    Args:
        labels: whole numbers, any dtype.
        rule: the label convention of ``labels``.
        regions: the regions wanted, one channel each.

    Raises:
        PipelineError: a value outside the convention.
    """
    if labels.shape[0] != 1:
        raise ValueError(f"a label map has one channel; this one has shape {tuple(labels.shape)}")
    check_values(labels, rule)
    table = torch.zeros(len(regions), max(rule.values) + 1, dtype=torch.uint8, device=labels.device)
    for row, region in enumerate(regions):
        table[row, sorted(rule.regions[region])] = 1
    return table[:, labels[0].long()]


def check_values(labels: Tensor, rule: Convention) -> None:
    """Refuse a label map with a value that its convention does not know.

    Raises:
        PipelineError: lists the values and the convention.
    """
    index = labels.long().flatten()
    outside = int(index.min()) < 0 or int(index.max()) > max(rule.values)
    present = torch.unique(index) if outside else torch.bincount(index).nonzero()
    foreign = sorted(set(present.flatten().tolist()) - rule.values)
    if foreign:
        raise PipelineError(
            f"label value {', '.join(map(str, foreign))} does not exist in the convention {rule.name} "
            f"({', '.join(f'{value} = {tissue}' for value, tissue in rule.tissues.items())}); "
            "give the right convention or repair the label map"
        )


def to_labels(regions: Tensor, rule: Convention, names: Sequence[str] = REGIONS) -> Tensor:
    """Join region masks to one label map, widest painted first: ``(R, *spatial)`` to ``(1, *spatial)``, uint8.

        TC 0 0 1 1
        WT 0 1 1 1   =>   labels  0 2 4 1
        ET 0 0 1 0

    ET inside TC inside WT holds by construction: a voxel of an inner region belongs to every wider one.

    Args:
        regions: masks, nonzero inside.
        rule: the label convention to write.
        names: the region of each channel.

    Raises:
        ValueError: the number of channels differs from the number of names.
    """
    if regions.shape[0] != len(names):
        raise ValueError(f"regions have {regions.shape[0]} channels; needed: {len(names)} ({', '.join(names)})")
    labels = torch.zeros(regions.shape[1:], dtype=torch.uint8, device=regions.device)
    for region in rule.widest_first():
        if region in names:
            labels[regions[names.index(region)] != 0] = rule.written(region)
    return labels[None]


class LabelsToRegionsd(MapTransform):
    """Replace a label map by its regions (:func:`to_regions`), float32 as MONAI's losses need them.

    Args:
        keys: the label map.
        convention_key: where the case names its label convention.
        regions: channels to make.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        convention_key: str = "convention",
        regions: Sequence[str] = REGIONS,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.convention_key = convention_key
        self.regions = tuple(regions)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            result[key] = to_regions(result[key], convention(result[self.convention_key]), self.regions).float()
        return result


class RegionsToLabelsd(MapTransform):
    """Replace region masks by a label map (:func:`to_labels`).

    Args:
        keys: the region masks.
        convention_key: where the case names the label convention to write; :func:`usual_convention` where it does not.
        regions: the region of each channel.

    Raises:
        PipelineError: the convention has other regions than these.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        convention_key: str = "convention",
        regions: Sequence[str] = REGIONS,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.convention_key = convention_key
        self.regions = tuple(regions)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            name = result.get(self.convention_key) or usual_convention(self.regions)
            if refusal := misfit(name, self.regions):
                raise PipelineError(refusal)
            masks = result[key]
            labels = to_labels(masks, convention(name), self.regions)
            result[key] = MetaTensor(labels, meta=masks.meta) if isinstance(masks, MetaTensor) else labels
        return result
