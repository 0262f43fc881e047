"""One case scored: read both sides, count, and draw the picture. What goes wrong is told, not raised."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from brats_pipeline.cases import Case
from brats_pipeline.cases.stacks import is_stack, stack_defects, twin_defect
from brats_pipeline.cases.volumes import read_volumes
from brats_pipeline.errors import CaseError, PipelineError
from brats_pipeline.evaluation.pairs import Pair
from brats_pipeline.metrics import (
    Calibration,
    LesionScore,
    RegionScore,
    Reliability,
    Rules,
    SliceScore,
    case_reliability,
    measure_case,
    region_masks,
    score_slices,
    summarise_calibration,
)
from brats_pipeline.predictions import Labels, read_labels, read_masks, slice_names
from brats_pipeline.report import CasePage, CaseVolume, case_volume, shows_head, tissue_confusion
from brats_pipeline.report.overlay import overlay_figure
from brats_pipeline.report.strips import strip_figure
from transforms.labels import CONVENTIONS
from transforms.nifti import describe_grid, same_grid, spacing_mm
from transforms.probabilities import read_probabilities
from transforms.slices import copied_sequences, read_mask, read_slices

Affine = npt.NDArray[Any]
Masks = Mapping[str, npt.NDArray[np.bool_]]

SHARP_MM, COARSE_MM = 1.0, 2.0
"""Voxels of the volumes that a report shows: of the worst, the median and the best case, and of all others."""


@dataclass(frozen=True)
class Outcome:
    """What came of a case.

    Args:
        rows: one per region; none where the reference cannot be used.
        slices: one per slice, where the case is slices.
        lesions: one per lesion, region by region, where the rules score them.
        copied: modalities whose channel is a copy of another, where the case is slices.
        failure: why it could not be scored.
        page: what a report shows of it beside the scores.
        calibration: region to its voxels by their probability, where there are probabilities.
        no_calibration: why the probabilities could not be used.
    """

    rows: list[RegionScore]
    slices: list[SliceScore]
    lesions: list[LesionScore] = field(default_factory=list)
    copied: tuple[str, ...] = ()
    failure: str | None = None
    page: CasePage | None = None
    calibration: Mapping[str, Reliability] = field(default_factory=dict)
    no_calibration: str | None = None


def read_reference(case: Case) -> tuple[Labels, Affine | None]:
    """The reference and the affine of its grid; None for slices.

    Raises:
        CaseError: it cannot be used.
    """
    assert case.label is not None  # no pair is made without one
    if defect := twin_defect(case.label, "label"):
        raise CaseError(case.case_id, defect)
    if not is_stack(case.label):
        return read_labels(case.label.paths[0], case.case_id, "reference")
    _, defects = stack_defects(case)
    if defects:
        raise CaseError(case.case_id, f"the reference cannot be used: {'; '.join(defects)}")
    try:
        return read_mask(case.label.paths), None
    except PipelineError as error:
        raise CaseError(case.case_id, f"the reference cannot be used: {error}") from error


def _read_prediction(pair: Pair, shape: tuple[int, ...], affine: Affine | None) -> Labels:
    """The prediction, once it lies on the grid of the reference."""
    assert pair.prediction is not None
    case_id = pair.case.case_id
    if affine is None:
        folder = pair.prediction.is_dir()
        labels = (
            read_masks(pair.prediction, pair.case) if folder else read_labels(pair.prediction, case_id, "prediction")[0]
        )
        if labels.shape != shape:
            got, need = ("x".join(map(str, sides)) for sides in (labels.shape, shape))
            raise CaseError(
                case_id,
                f"the prediction has {got} columns, rows and slices, the reference {need}; predict on the slices "
                "as they are",
            )
        return labels
    labels, other = read_labels(pair.prediction, case_id, "prediction")
    if not same_grid(shape, affine, labels.shape, other):
        raise CaseError(
            case_id,
            "the prediction lies on another grid than the reference: "
            f"prediction {describe_grid(labels.shape, other)}; "
            f"reference {describe_grid(shape, affine)}; resample the prediction to the reference",
        )
    return labels


def _first(scans: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """The one modality that a report has room for."""
    return dict([next(iter(scans.items()))])


def _scans(case: Case, shape: tuple[int, ...], affine: Affine) -> dict[str, npt.NDArray[Any]]:
    """FLAIR and T1c on the grid of the reference."""
    images = {}
    for modality, volume in read_volumes(case, ("flair", "t1c")):
        if isinstance(volume, PipelineError):
            raise volume
        if volume.affine is None or not same_grid(shape, affine, volume.values.shape, volume.affine):
            raise PipelineError(f"{modality} lies on another grid than the reference")
        images[modality] = volume.values
    if not images:
        raise PipelineError("no FLAIR or T1c beside the reference")
    return images


def _flair_slices(case: Case) -> tuple[npt.NDArray[Any], tuple[str, ...]]:
    """FLAIR of a patient's slices, and the modalities that are copies of it."""
    source = case.images.get("flair")
    if source is None or source.channel is None:
        raise PipelineError("no slices beside the masks")
    volume = read_slices(source.paths)
    return volume[source.channel], copied_sequences(volume)


def _calibrate(
    pair: Pair, references: Masks, predictions: Masks | None, affine: Affine | None
) -> dict[str, Reliability]:
    """Region to its voxels by their probability, for the regions that the file of probabilities holds.

    Raises:
        PipelineError: the file or the prediction cannot be used.
    """
    if pair.probabilities is None:
        return {}
    if predictions is None:
        raise PipelineError("has no label map that could be scored beside its probabilities")
    found = read_probabilities(pair.probabilities)
    shape = next(iter(references.values())).shape
    if found.values.shape[1:] != shape:
        raise PipelineError(f"the probabilities have shape {found.values.shape[1:]}, the reference {shape}")
    if affine is not None and found.affine is not None and not same_grid(shape, affine, shape, found.affine):
        raise PipelineError(
            f"the probabilities lie on another grid than the reference: {describe_grid(shape, found.affine)} and "
            f"{describe_grid(shape, affine)}"
        )
    channels = {region: found.regions.index(region) for region in references if region in found.regions}
    if not channels:
        raise PipelineError(f"the probabilities are of {', '.join(found.regions)}; scored are {', '.join(references)}")
    return {
        region: case_reliability(found.values[channel], reference=references[region], prediction=predictions[region])
        for region, channel in channels.items()
    }


def cohort_calibration(pairs: Sequence[Pair], outcomes: Mapping[str, Outcome], regions: Sequence[str]) -> Calibration:
    """Put the cases together, and say which take no part.

    Args:
        pairs: of the cohort.
        outcomes: case id to what came of it.
        regions: in the order of tables.
    """
    without = {}
    for pair in pairs:
        case_id, outcome = pair.case.case_id, outcomes[pair.case.case_id]
        if pair.probabilities is None:
            without[case_id] = "no probabilities"
        elif not outcome.calibration:
            without[case_id] = outcome.no_calibration or "its reference cannot be used"
    cases = {case_id: outcome.calibration for case_id, outcome in outcomes.items() if outcome.calibration}
    patients = {pair.case.case_id: pair.case.patient_id for pair in pairs}
    return summarise_calibration(cases, regions, without=without, patients=patients)


def sharp_volume(pair: Pair, *, rules: Rules, predicted: bool) -> CaseVolume | None:
    """The volumes of one case at 1 mm, for a viewer; None where the case has no picture.

    Args:
        pair: the case with its prediction.
        rules: of scoring.
        predicted: whether the prediction could be used.
    """
    try:
        reference, affine = read_reference(pair.case)
        if affine is None:
            return None
        scans = _scans(pair.case, reference.shape, affine)
    except PipelineError:
        return None
    masks = region_masks(reference, CONVENTIONS[pair.reference_convention], rules.regions)
    guess = None
    if predicted:
        labels = _read_prediction(pair, reference.shape, affine)
        guess = region_masks(labels, CONVENTIONS[pair.prediction_convention], rules.regions)
    return case_volume(_first(scans), masks, guess, affine=affine, mm=SHARP_MM)


def score_pair(pair: Pair, *, rules: Rules, images: bool) -> Outcome:
    """Score one case and draw its picture.

    Args:
        pair: the case with its prediction.
        rules: of scoring.
        images: whether a picture is wanted.
    """
    case_id = pair.case.case_id
    expected, predicted = CONVENTIONS[pair.reference_convention], CONVENTIONS[pair.prediction_convention]
    prediction, failure = None, None
    try:
        reference, affine = read_reference(pair.case)
        measure = partial(
            measure_case,
            reference=reference,
            case_id=case_id,
            spacing_mm=None if affine is None else spacing_mm(affine).tolist(),
            prediction_convention=predicted,
            reference_convention=expected,
            rules=rules,
        )
        score = measure(None)
    except CaseError as error:
        return Outcome([], [], failure=f"{error.reason}; not scored")
    if pair.prediction is not None:
        try:
            prediction = _read_prediction(pair, reference.shape, affine)
            score = measure(prediction)
        except CaseError as error:
            prediction, failure = None, f"{error.reason}; counted as a miss"
    reference_masks = region_masks(reference, expected, rules.regions)
    predicted_masks = None if prediction is None else region_masks(prediction, predicted, rules.regions)
    calibration, no_calibration = {}, None
    try:
        calibration = _calibrate(pair, reference_masks, predicted_masks, affine)
    except PipelineError as error:
        no_calibration = str(error)
    slices: list[SliceScore] = []
    copied: tuple[str, ...] = ()
    overlay, no_overlay, volume, head, confusion = None, None, None, False, None
    if affine is not None and prediction is not None:
        voxel_ml = math.prod(spacing_mm(affine).tolist()) / 1000
        confusion = tissue_confusion(reference, prediction, expected=expected, predicted=predicted, voxel_ml=voxel_ml)
    try:
        if affine is not None:
            if images:
                scans = _scans(pair.case, reference.shape, affine)
                overlay = overlay_figure(scans, reference_masks, predicted_masks, affine=affine)
                volume = case_volume(_first(scans), reference_masks, predicted_masks, affine=affine, mm=COARSE_MM)
                voxel_ml = math.prod(spacing_mm(affine).tolist()) / 1000
                head = any(shows_head(scan, voxel_ml=voxel_ml) for scan in scans.values())
        else:
            region = rules.regions[0]
            mask = reference_masks[region]
            guess = None if predicted_masks is None else predicted_masks[region]
            slices = score_slices(guess, mask, case_id=case_id, names=slice_names(pair.case), rules=rules)
            flair, copied = _flair_slices(pair.case)
            if flair.shape != mask.shape:
                raise PipelineError("the slices have another size than their masks")
            if images:
                overlay = strip_figure(flair, mask, guess, region=region, names=slice_names(pair.case))
    except PipelineError as error:
        no_overlay = str(error)
    page = CasePage(case_id, overlay, no_overlay, volume=volume, shows_head=head, confusion=confusion)
    return Outcome(score.regions, slices, score.lesions, copied, failure, page, calibration, no_calibration)
