"""Scores of one case: one row per region, computed once and reduced wherever needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial, reduce
from typing import Any

import numpy as np

from brats_pipeline.metrics.distances import (
    SurfacePair,
    average_distance_mm,
    checked_spacing,
    normalised_surface_dice,
    robust_hausdorff_mm,
    surface_pair,
)
from brats_pipeline.metrics.lesions import find_lesions, tissues_beside
from brats_pipeline.metrics.lesionwise import lesion_fields
from brats_pipeline.metrics.overlap import Counts, dice, iou, precision, recall, specificity
from brats_pipeline.metrics.regions import Labels, refuse_foreign, region_masks
from brats_pipeline.metrics.rows import CaseScore, RegionScore
from brats_pipeline.metrics.rules import Rules
from transforms.components import box_around
from transforms.labels import Convention


def _voxel_ml(spacing_mm: Sequence[float] | None) -> float:
    return math.nan if spacing_mm is None else math.prod(spacing_mm) / 1000


def regions_needed(rules: Rules) -> tuple[str, ...]:
    """The regions that are scored, and those that only help to join lesions."""
    helpers = (other for _, others in rules.lesions.tissues for other in others) if rules.lesions else ()
    return tuple(dict.fromkeys((*rules.regions, *helpers)))


def measure_case(
    prediction: Labels | None,
    reference: Labels,
    *,
    case_id: str,
    spacing_mm: Sequence[float] | None,
    prediction_convention: Convention,
    reference_convention: Convention,
    rules: Rules,
) -> CaseScore:
    """Score one predicted label map: its regions, and their lesions one by one.

    Args:
        prediction: ``(x, y, z)``, 8-bit label values; None where there is no usable one, which is a miss in every
            region and of every lesion.
        reference: ``(x, y, z)``, 8-bit label values, on the same grid.
        case_id: goes into each row.
        spacing_mm: voxel side along each axis; None where it is not known and nothing is measured in mm or ml.
        prediction_convention: what the prediction's values mean.
        reference_convention: what the reference's values mean.
        rules: regions, surfaces, lesions and the rule for empty regions.

    Raises:
        CaseError: a label map holds a value outside its convention.
        ValueError: the label maps are not 8-bit, not 3D or differ in shape, or the spacing is not usable.
    """
    missed = prediction is None
    if prediction is None:
        prediction = np.zeros_like(reference)
    if prediction.shape != reference.shape:
        raise ValueError(f"label maps must have one shape, got {prediction.shape} and {reference.shape}")
    if prediction.ndim != 3:
        raise ValueError(f"label maps must be 3D, got {prediction.ndim} axes")
    if prediction.dtype != np.uint8 or reference.dtype != np.uint8:
        raise ValueError(f"label maps must be of type uint8, got {prediction.dtype} and {reference.dtype}")
    spacing = None if spacing_mm is None else checked_spacing(spacing_mm)
    total, penalty = prediction.size, rules.empties.penalty(prediction.shape)
    box = box_around((prediction != 0) | (reference != 0))
    prediction, reference = np.ascontiguousarray(prediction[box]), np.ascontiguousarray(reference[box])
    refuse_foreign(case_id, "prediction", prediction, prediction_convention)
    refuse_foreign(case_id, "reference", reference, reference_convention)
    predicted = region_masks(prediction, prediction_convention, regions_needed(rules))
    expected = region_masks(reference, reference_convention, regions_needed(rules))

    score = CaseScore([], [])
    for region in rules.regions:
        names = (region, *tissues_beside(region, rules.lesions))
        box = box_around(reduce(np.logical_or, (side[name] for name in names for side in (predicted, expected))))
        in_prediction, in_reference = ({name: side[name][box] for name in names} for side in (predicted, expected))
        tp = int(np.count_nonzero(in_prediction[region] & in_reference[region]))
        fp = int(np.count_nonzero(in_prediction[region])) - tp
        fn = int(np.count_nonzero(in_reference[region])) - tp
        counts = Counts(tp=tp, fp=fp, fn=fn, tn=total - tp - fp - fn)
        lesions, pair = None, None  # both of prediction and reference
        if rules.lesions and spacing is not None:
            find = partial(find_lesions, region=region, rules=rules.lesions, voxel_mm3=math.prod(spacing))
            lesions = find(in_prediction, predicted=True), find(in_reference, predicted=False)
        if spacing is not None:
            pair = surface_pair(
                in_prediction[region],
                in_reference[region],
                spacing_mm=spacing,
                definition=rules.surface,
                prediction_labels=None if lesions is None else lesions[0].numbers,
                reference_labels=None if lesions is None else lesions[1].numbers,
            )
        values = _whole_region(counts, pair, rules, penalty, measured=spacing is not None, missed=missed)
        if lesions and pair and spacing is not None:
            fields, rows = lesion_fields(
                *lesions,
                pair,
                case_id=case_id,
                region=region,
                rules=rules,
                spacing=spacing,
                penalty=penalty,
                missed=missed,
            )
            values |= fields
            score.lesions.extend(rows)
        score.regions.append(
            RegionScore(
                case_id=case_id,
                region=region,
                specificity=math.nan if missed else specificity(counts),
                reference_ml=counts.reference * _voxel_ml(spacing),
                predicted_ml=math.nan if missed else counts.predicted * _voxel_ml(spacing),
                tp=counts.tp,
                fp=counts.fp,
                fn=counts.fn,
                tn=counts.tn,
                **values,
            )
        )
    return score


_NSD = {0.5: "nsd_0p5mm", 1.0: "nsd_1mm", 2.0: "nsd_2mm"}


def _whole_region(
    counts: Counts, pair: SurfacePair | None, rules: Rules, penalty: float, *, measured: bool, missed: bool
) -> dict[str, Any]:
    """Overlap and distances of a region, by the rule for empty regions where it is one."""
    empties = rules.empties
    if counts.predicted and counts.reference:
        overlap = (dice(counts), iou(counts), precision(counts), recall(counts))
        distances = pair.whole() if pair else None
    elif counts.predicted or counts.reference or missed:
        overlap, distances = (empties.one_overlap,) * 4, None
    else:
        overlap, distances = (empties.both_overlap,) * 4, None
        penalty = math.nan if empties.both_hd95_mm is None else empties.both_hd95_mm
    values: dict[str, Any] = dict(zip(("dice", "iou", "precision", "recall"), overlap, strict=True))
    if not measured:
        return values | dict.fromkeys(("hd95_mm", "assd_mm", *_NSD.values()), math.nan)
    if distances is None:
        return values | {"hd95_mm": penalty, "assd_mm": penalty} | dict.fromkeys(_NSD.values(), overlap[0])
    values["hd95_mm"] = robust_hausdorff_mm(distances, percentile=rules.percentile, definition=rules.surface)
    values["assd_mm"] = average_distance_mm(distances)
    for tolerance, column in _NSD.items():
        values[column] = normalised_surface_dice(distances, tolerance_mm=tolerance, definition=rules.surface)
    return values


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
    """One row per region; arguments and errors as for :func:`measure_case`, which gives the lesions too."""
    return measure_case(
        prediction,
        reference,
        case_id=case_id,
        spacing_mm=spacing_mm,
        prediction_convention=prediction_convention,
        reference_convention=reference_convention,
        rules=rules,
    ).regions


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
    return measure_case(
        None,
        reference,
        case_id=case_id,
        spacing_mm=spacing_mm,
        prediction_convention=reference_convention,
        reference_convention=reference_convention,
        rules=rules,
    ).regions
