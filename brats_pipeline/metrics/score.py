"""Scores of one case: one row per region, computed once and reduced wherever needed."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from brats_pipeline.errors import CaseError
from brats_pipeline.metrics.overlap import Counts, dice, iou, precision, recall, specificity
from brats_pipeline.metrics.rules import Rules
from brats_pipeline.metrics.surface import Mask, box_of, robust_hausdorff_mm, surface_distances
from transforms.labels import Convention

Labels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class RegionScore:
    """One row of ``cases.csv``: a region of a case. NaN where a value is not defined.

    Counts are in voxels, volumes in millilitres. Dice, IoU, precision, recall and HD95 follow the rule for empty
    regions; specificity is that of the whole volume, whatever is empty.
    """

    case_id: str
    region: str
    dice: float
    iou: float
    precision: float
    recall: float
    specificity: float
    hd95_mm: float
    reference_ml: float
    predicted_ml: float
    tp: int
    fp: int
    fn: int
    tn: int


COLUMNS = tuple(field.name for field in fields(RegionScore))
"""Columns of ``cases.csv``."""


def region_masks(labels: Labels, convention: Convention, regions: Sequence[str]) -> dict[str, Mask]:
    """Split a label map into one mask per region.

    Args:
        labels: ``(x, y, z)``, 8-bit.
        convention: what the values mean.
        regions: names of the regions wanted.
    """
    return {region: _among(labels, convention.regions[region]) for region in regions}


def _among(labels: Labels, values: Collection[int]) -> Mask:
    """Where a label map holds one of the values."""
    table = np.zeros(256, bool)
    table[list(values)] = True
    return table[labels]


def _refuse_foreign(case_id: str, side: str, labels: Labels, convention: Convention) -> None:
    """Every label must be one of the convention's."""
    known = _among(labels, convention.values)
    if not known.all():
        foreign = ", ".join(map(str, np.unique(labels[~known]).tolist()))
        tissues = ", ".join(f"{value} {tissue}" for value, tissue in convention.tissues.items())
        raise CaseError(
            case_id,
            f"the {side} holds the label {foreign}, which the convention {convention.name} does not know "
            f"({tissues}); name the convention it follows, or correct the file",
        )


def _voxel_ml(spacing_mm: Sequence[float] | None) -> float:
    return math.nan if spacing_mm is None else math.prod(spacing_mm) / 1000


def _distance(hd95_mm: float | None, spacing_mm: Sequence[float] | None) -> float:
    """A distance, or NaN where none is measured."""
    return math.nan if hd95_mm is None or spacing_mm is None else hd95_mm


def score_case(
    prediction: Labels,
    reference: Labels,
    *,
    case_id: str,
    spacing_mm: Sequence[float] | None,
    prediction_convention: Convention,
    reference_convention: Convention,
    rules: Rules,
) -> list[RegionScore]:
    """Score one predicted label map.

    Args:
        prediction: ``(x, y, z)``, 8-bit label values.
        reference: ``(x, y, z)``, 8-bit label values, on the same grid.
        case_id: goes into each row.
        spacing_mm: voxel side along each axis; None where it is not known and nothing is measured in mm or ml.
        prediction_convention: what the prediction's values mean.
        reference_convention: what the reference's values mean.
        rules: regions, percentile and the rule for empty regions.

    Returns:
        One row per region of the rules, in their order.

    Raises:
        CaseError: a label map holds a value outside its convention.
        ValueError: the label maps are not 8-bit, not 3D or differ in shape, or the spacing is not usable.
    """
    if prediction.shape != reference.shape:
        raise ValueError(f"label maps must have one shape, got {prediction.shape} and {reference.shape}")
    if prediction.dtype != np.uint8 or reference.dtype != np.uint8:
        raise ValueError(f"label maps must be of type uint8, got {prediction.dtype} and {reference.dtype}")
    total = prediction.size
    box = box_of((prediction != 0) | (reference != 0))
    prediction, reference = prediction[box], reference[box]
    _refuse_foreign(case_id, "prediction", prediction, prediction_convention)
    _refuse_foreign(case_id, "reference", reference, reference_convention)
    predicted = region_masks(prediction, prediction_convention, rules.regions)
    expected = region_masks(reference, reference_convention, rules.regions)
    voxel_ml = _voxel_ml(spacing_mm)

    rows = []
    for region in rules.regions:
        tp = int(np.count_nonzero(predicted[region] & expected[region]))
        fp = int(np.count_nonzero(predicted[region])) - tp
        fn = int(np.count_nonzero(expected[region])) - tp
        counts = Counts(tp=tp, fp=fp, fn=fn, tn=total - tp - fp - fn)
        if counts.predicted and counts.reference:
            overlap = (dice(counts), iou(counts), precision(counts), recall(counts))
            hd95 = None
            if spacing_mm is not None:
                distances = surface_distances(predicted[region], expected[region], spacing_mm=spacing_mm)
                hd95 = robust_hausdorff_mm(distances, percentile=rules.percentile)
        elif counts.predicted or counts.reference:
            overlap, hd95 = (rules.empties.one_overlap,) * 4, rules.empties.one_hd95_mm
        else:
            overlap, hd95 = (rules.empties.both_overlap,) * 4, rules.empties.both_hd95_mm
        rows.append(
            RegionScore(
                case_id,
                region,
                *overlap,
                specificity=specificity(counts),
                hd95_mm=_distance(hd95, spacing_mm),
                reference_ml=counts.reference * voxel_ml,
                predicted_ml=counts.predicted * voxel_ml,
                tp=counts.tp,
                fp=counts.fp,
                fn=counts.fn,
                tn=counts.tn,
            )
        )
    return rows


def score_miss(
    reference: Labels,
    *,
    case_id: str,
    spacing_mm: Sequence[float] | None,
    reference_convention: Convention,
    rules: Rules,
) -> list[RegionScore]:
    """Score a case that has no usable prediction: a miss in every region.

    A region that is empty in the reference is a miss too, for nothing was said about it. The predicted volume and the
    specificity are not defined; the counts are those of an empty prediction.

    Args:
        reference: ``(x, y, z)``, 8-bit label values.
        case_id: goes into each row.
        spacing_mm: voxel side along each axis; None where it is not known and nothing is measured in mm or ml.
        reference_convention: what the values mean.
        rules: regions and the rule for empty regions.

    Raises:
        CaseError: the reference holds a value outside its convention.
    """
    _refuse_foreign(case_id, "reference", reference, reference_convention)
    sizes: Mapping[str, int] = {
        region: int(np.count_nonzero(mask))
        for region, mask in region_masks(reference, reference_convention, rules.regions).items()
    }
    return [
        RegionScore(
            case_id,
            region,
            *(rules.empties.one_overlap,) * 4,
            specificity=math.nan,
            hd95_mm=_distance(rules.empties.one_hd95_mm, spacing_mm),
            reference_ml=size * _voxel_ml(spacing_mm),
            predicted_ml=math.nan,
            tp=0,
            fp=0,
            fn=size,
            tn=reference.size - size,
        )
        for region, size in sizes.items()
    ]
