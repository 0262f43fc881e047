"""From label values to the masks of the regions that are scored."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from brats_pipeline.errors import CaseError
from brats_pipeline.metrics.surface import Mask
from transforms.labels import Convention

Labels = npt.NDArray[np.uint8]

_TISSUE_NAMES = {"NETC": ("NETC", "NET", "NCR")}
"""Names under which a convention may list the tissue that makes a region of its own; else that of the region."""


def region_values(convention: Convention, region: str) -> frozenset[int] | None:
    """The labels that make a region, or the one of a tissue that rules score by itself; None where there is none."""
    if region in convention.regions:
        return convention.regions[region]
    names = _TISSUE_NAMES.get(region, (region,))
    values = frozenset(value for value, tissue in convention.tissues.items() if tissue in names)
    return values or None


def region_masks(labels: Labels, convention: Convention, regions: Sequence[str]) -> dict[str, Mask]:
    """Split a label map into one mask per region.

    Args:
        labels: ``(x, y, z)``, 8-bit.
        convention: what the values mean.
        regions: names of the regions wanted.

    Raises:
        ValueError: the convention does not know a region.
    """
    masks = {}
    for region in regions:
        values = region_values(convention, region)
        if values is None:
            raise ValueError(f"the label convention {convention.name} has no region {region}")
        masks[region] = _among(labels, values)
    return masks


def _among(labels: Labels, values: Collection[int]) -> Mask:
    """Where a label map holds one of the values."""
    among = np.zeros(labels.shape, bool)
    for value in values:  # a few comparisons run faster than one look-up
        among |= labels == value
    return among


OPTIONS = {"reference": "--convention", "prediction": "--prediction-convention"}
"""Side to the option of `evaluate` that names its label convention."""


def refuse_foreign(case_id: str, side: str, labels: Labels, convention: Convention) -> None:
    """Every label must be one of the convention's.

    Args:
        case_id: goes into the message.
        side: ``prediction`` or ``reference``, goes into the message.
        labels: a label map.
        convention: what its values should mean.

    Raises:
        CaseError: a value is not in the convention.
    """
    known = _among(labels, convention.values)
    if not known.all():
        foreign = ", ".join(map(str, np.unique(labels[~known]).tolist()))
        tissues = ", ".join(f"{value} {tissue}" for value, tissue in convention.tissues.items())
        raise CaseError(
            case_id,
            f"the {side} holds the label {foreign}, which the convention {convention.name} does not know "
            f"({tissues}); correct the file, or name the convention of all {side}s with {OPTIONS[side]}",
        )
