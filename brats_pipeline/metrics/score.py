"""Scores of one case: one row per region, computed once and reduced wherever needed."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from brats_pipeline.errors import CaseError
from brats_pipeline.metrics.distances import (
    SurfacePair,
    average_distance_mm,
    checked_spacing,
    normalised_surface_dice,
    robust_hausdorff_mm,
    surface_pair,
)
from brats_pipeline.metrics.lesions import Lesions, LesionScore, find_lesions, score_lesions, tissues_beside
from brats_pipeline.metrics.overlap import Counts, dice, iou, precision, recall, specificity
from brats_pipeline.metrics.rules import Rules
from brats_pipeline.metrics.surface import Mask, box_of
from transforms.labels import Convention

Labels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class RegionScore:
    """One row of ``cases.csv``: a region of a case. NaN or None where a value is not defined.

    Counts are in voxels, volumes in millilitres. Dice, IoU, precision, recall, NSD, HD95 and ASSD follow the rule for
    empty regions; specificity is that of the whole volume, whatever is empty. The columns from ``lesionwise_nsd...`` on
    exist under the rules of 2024 only; ``legacy`` ones are taken after small predicted lesions were removed.
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
    assd_mm: float = math.nan
    nsd_0p5mm: float = math.nan
    nsd_1mm: float = math.nan
    nsd_2mm: float = math.nan
    lesionwise_dice: float = math.nan
    lesionwise_hd95_mm: float = math.nan
    lesions_tp: int | None = None
    lesions_fp: int | None = None
    lesions_fn: int | None = None
    lesionwise_nsd_voxel_0p5mm: float | None = None
    lesionwise_nsd_voxel_1mm: float | None = None
    legacy_dice: float | None = None
    legacy_hd95_mm: float | None = None
    legacy_nsd_voxel_0p5mm: float | None = None
    legacy_nsd_voxel_1mm: float | None = None


COLUMNS = (
    *("case_id", "region", "dice", "iou", "precision", "recall", "specificity", "hd95_mm", "assd_mm"),
    *("nsd_0p5mm", "nsd_1mm", "nsd_2mm", "reference_ml", "predicted_ml", "tp", "fp", "fn", "tn"),
    *("lesionwise_dice", "lesionwise_hd95_mm", "lesions_tp", "lesions_fp", "lesions_fn"),
)
"""Columns of ``cases.csv``."""

COLUMNS_2024 = (
    *("lesionwise_nsd_voxel_0p5mm", "lesionwise_nsd_voxel_1mm"),
    *("legacy_dice", "legacy_hd95_mm", "legacy_nsd_voxel_0p5mm", "legacy_nsd_voxel_1mm"),
)
"""Columns that follow under the rules of 2024."""


def case_columns(rules: Rules) -> tuple[str, ...]:
    """Columns of ``cases.csv`` under these rules."""
    return (*COLUMNS, *COLUMNS_2024) if rules.lesions and rules.lesions.nsd_voxel_mm else COLUMNS


@dataclass(frozen=True)
class CaseScore:
    """What a case comes to.

    Args:
        regions: one row per region of the rules, in their order.
        lesions: one row per lesion, region by region; empty under rules that score none.
    """

    regions: list[RegionScore]
    lesions: list[LesionScore]


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


def _wanted(rules: Rules) -> tuple[str, ...]:
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
    box = box_of((prediction != 0) | (reference != 0))
    prediction, reference = np.ascontiguousarray(prediction[box]), np.ascontiguousarray(reference[box])
    _refuse_foreign(case_id, "prediction", prediction, prediction_convention)
    _refuse_foreign(case_id, "reference", reference, reference_convention)
    predicted = region_masks(prediction, prediction_convention, _wanted(rules))
    expected = region_masks(reference, reference_convention, _wanted(rules))

    score = CaseScore([], [])
    for region in rules.regions:
        names = (region, *tissues_beside(region, rules.lesions))
        box = box_of(reduce(np.logical_or, (side[name] for name in names for side in (predicted, expected))))
        guess, truth = ({name: side[name][box] for name in names} for side in (predicted, expected))
        tp = int(np.count_nonzero(guess[region] & truth[region]))
        fp = int(np.count_nonzero(guess[region])) - tp
        fn = int(np.count_nonzero(truth[region])) - tp
        counts = Counts(tp=tp, fp=fp, fn=fn, tn=total - tp - fp - fn)
        mine, pair = None, None
        if rules.lesions and spacing is not None:
            find = partial(find_lesions, region=region, rules=rules.lesions, voxel_mm3=math.prod(spacing))
            mine = find(guess, predicted=True), find(truth, predicted=False)
        if spacing is not None:
            pair = surface_pair(
                guess[region],
                truth[region],
                spacing_mm=spacing,
                definition=rules.surface,
                prediction_labels=None if mine is None else mine[0].numbers,
                reference_labels=None if mine is None else mine[1].numbers,
            )
        values = _whole_region(counts, pair, rules, penalty, measured=spacing is not None, missed=missed)
        if mine and pair and spacing is not None:
            fields, rows = _by_lesion(
                *mine,
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


def _by_lesion(
    predicted: Lesions,
    expected: Lesions,
    pair: SurfacePair,
    *,
    case_id: str,
    region: str,
    rules: Rules,
    spacing: tuple[float, ...],
    penalty: float,
    missed: bool,
) -> tuple[dict[str, Any], list[LesionScore]]:
    """Lesion-wise columns of a region, and its lesions' rows."""
    assert rules.lesions is not None
    voxels = None
    if rules.lesions.nsd_voxel_mm:
        voxels = surface_pair(
            predicted.numbers > 0,
            expected.numbers > 0,
            spacing_mm=spacing,
            definition="voxels",
            prediction_labels=predicted.numbers,
            reference_labels=expected.numbers,
        )
    result, rows = score_lesions(
        predicted,
        expected,
        pair,
        voxels,
        case_id=case_id,
        region=region,
        rules=rules.lesions,
        percentile=rules.percentile,
        spacing_mm=spacing,
        penalty=penalty,
    )
    values: dict[str, Any] = {
        "lesionwise_dice": rules.empties.one_overlap if missed else result.dice,
        "lesionwise_hd95_mm": penalty if missed else result.hd95_mm,
        "lesions_tp": result.tp,
        "lesions_fp": result.fp,
        "lesions_fn": result.fn,
    }
    if voxels is None:
        return values, rows
    legacy = _legacy(predicted, expected, pair, voxels, rules=rules, penalty=penalty, missed=missed)
    for tolerance, column in ((0.5, "nsd_voxel_0p5mm"), (1.0, "nsd_voxel_1mm")):
        values[f"lesionwise_{column}"] = rules.empties.one_overlap if missed else result.nsd_voxel[tolerance]
    return values | legacy, rows


def _legacy(
    predicted: Lesions,
    expected: Lesions,
    pair: SurfacePair,
    voxels: SurfacePair,
    *,
    rules: Rules,
    penalty: float,
    missed: bool,
) -> dict[str, float]:
    """The columns of 2024 that the official code calls legacy: of the region without small predicted lesions."""
    sizes = int(predicted.sizes.sum()), int(expected.sizes.sum())
    names = ("legacy_dice", "legacy_nsd_voxel_0p5mm", "legacy_nsd_voxel_1mm")
    if missed or any(sizes) != all(sizes):
        return dict.fromkeys(names, rules.empties.one_overlap) | {"legacy_hd95_mm": penalty}
    if not any(sizes):
        return dict.fromkeys(names, rules.empties.both_overlap) | {"legacy_hd95_mm": rules.empties.both_hd95_mm or 0.0}
    # The official code hands the numbers of lesions, not a mask, to the distances: with more than one lesion on a side
    # its Legacy_HD95 takes inner voxels for surface. Here it is that of the masks.
    chosen = [np.arange(len(side.sizes)) > 0 for side in (expected, predicted)]
    distances, near = pair.between(*chosen), voxels.whole()
    both = np.count_nonzero((predicted.numbers > 0) & (expected.numbers > 0))
    return {
        "legacy_dice": 2 * both / sum(sizes),
        "legacy_hd95_mm": robust_hausdorff_mm(distances, percentile=rules.percentile),
        "legacy_nsd_voxel_0p5mm": normalised_surface_dice(near, tolerance_mm=0.5, definition="voxels"),
        "legacy_nsd_voxel_1mm": normalised_surface_dice(near, tolerance_mm=1.0, definition="voxels"),
    }


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
