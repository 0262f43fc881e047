"""The columns of ``cases.csv`` that come from lesions: the lesion-wise ones, and those that 2024 calls legacy."""

from __future__ import annotations

from typing import Any

import numpy as np

from brats_pipeline.metrics.distances import (
    SurfacePair,
    normalised_surface_dice,
    robust_hausdorff_mm,
    surface_pair,
)
from brats_pipeline.metrics.lesions import Lesions, LesionScore, score_lesions
from brats_pipeline.metrics.rules import Rules


def lesion_fields(
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
