"""One slice of a case as every arm sees it: image, reference, predictions."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from brats_pipeline.cases import Case
from brats_pipeline.cases.stacks import is_stack
from brats_pipeline.cases.volumes import read_volumes
from brats_pipeline.errors import CaseError, PipelineError
from brats_pipeline.evaluation.pairs import with_all_regions
from brats_pipeline.metrics import Rules, region_masks
from brats_pipeline.predictions import find_predictions, read_labels, read_masks
from brats_pipeline.report import shows_head
from brats_pipeline.report.overlay import grey_window, head_box
from brats_pipeline.report.study import Picture
from brats_pipeline.report.study_charts import case_picture
from transforms.labels import CONVENTIONS
from transforms.nifti import spacing_mm
from transforms.slices import read_mask

Array = npt.NDArray[Any]


def picture_of(
    case: Case, homes: Mapping[str, Path], *, rules: Rules, dice: Mapping[str, float], convention: str
) -> Picture | None:
    """Draw a case; None where its scan cannot be read.

    Args:
        case: with its label map.
        homes: arm to the folder of its evaluation.
        rules: of scoring; their regions are drawn.
        dice: arm to the Dice of the case.
        convention: of the reference.
    """
    convention = with_all_regions(convention, rules)
    try:
        image, labels, affine = _scan(case)
    except PipelineError:
        return None
    upright = _upright(affine)
    reference = region_masks(labels, CONVENTIONS[convention], rules.regions)
    widest = reference[rules.regions[0]]
    place = int(_turn(widest, upright).sum(axis=(0, 1)).argmax()) if widest.any() else widest.shape[2] // 2
    predictions = {arm: _prediction(home, case, convention, rules, labels.shape) for arm, home in homes.items()}
    turned = _turn(np.nan_to_num(np.asarray(image, np.float32)), upright)
    masks = [_turn(widest, upright)]
    masks += [_turn(found[rules.regions[0]], upright) for found in predictions.values() if found is not None]
    box = head_box([turned], masks)

    def plane(volume: Array) -> Array:
        return np.asarray(_turn(volume, upright)[box[0], box[1], place].T)

    head = affine is None
    aspect = 1.0
    if affine is not None:
        sides = spacing_mm(affine).tolist()
        head = shows_head(image, voxel_ml=math.prod(sides) / 1000)
        order = np.asarray(nib.orientations.io_orientation(affine))[:, 0].astype(int).tolist()
        along = dict(zip(order, sides, strict=True))
        aspect = along[1] / along[0]
    jpeg = case_picture(
        turned[box[0], box[1], place].T,
        {region: plane(mask) for region, mask in reference.items()},
        {
            arm: None if found is None else {region: plane(mask) for region, mask in found.items()}
            for arm, found in predictions.items()
        },
        dice=dice,
        window=grey_window(turned),
        aspect=aspect,
    )
    return Picture(case.case_id, jpeg, head)


def _scan(case: Case) -> tuple[Array, Array, Array | None]:
    """FLAIR (or T1c) and the label map of a case, and the affine of their grid; None for slices."""
    if case.label is None:
        raise CaseError(case.case_id, "has no label map")
    image, affine = None, None
    for _, volume in read_volumes(case, ("flair", "t1c")):
        if isinstance(volume, PipelineError):
            raise volume
        image, affine = volume.values, volume.affine
        break
    if is_stack(case.label):
        labels: Array = read_mask(case.label.paths)
        affine = None
    else:
        labels, _ = read_labels(case.label.paths[0], case.case_id, "reference")
    if image is None or image.shape != labels.shape:
        raise CaseError(case.case_id, "has no scan on the grid of its label map")
    return image, labels, affine


def _prediction(
    home: Path, case: Case, convention: str, rules: Rules, shape: tuple[int, ...]
) -> dict[str, npt.NDArray[np.bool_]] | None:
    """The regions that an arm predicted; None where it has no usable prediction."""
    try:
        path = find_predictions(home / "predictions")[case.case_id]
        summary = json.loads((home / "summary.json").read_text(encoding="utf-8"))
        conventions = {each["references"]: each["predictions"] for each in summary["conventions"]}
        labels = read_masks(path, case) if path.is_dir() else read_labels(path, case.case_id, "prediction")[0]
    except (KeyError, OSError, ValueError, PipelineError):
        return None
    if labels.shape != shape:
        return None
    return region_masks(labels, CONVENTIONS[conventions.get(convention, convention)], rules.regions)


def _upright(affine: Array | None) -> Array | None:
    """How to turn the axes so that they grow towards Left, Posterior, Superior; None for slices as they are stored."""
    if affine is None:
        return None
    current = nib.orientations.io_orientation(affine)
    turn: Array = nib.orientations.ornt_transform(current, nib.orientations.axcodes2ornt(("L", "P", "S")))
    return turn


def _turn(array: Array, turn: Array | None) -> Array:
    if turn is None:
        return array
    turned: Array = nib.orientations.apply_orientation(array, turn)
    return turned
