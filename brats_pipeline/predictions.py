"""Predictions on disk: a NIfTI file for each case, or for slices a folder with one mask each; probabilities beside."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brats_pipeline.cases import Case
from brats_pipeline.cases.stacks import is_slice_name, is_stack
from brats_pipeline.errors import CaseError, PipelineError
from transforms.nifti import is_nifti_name, strip_suffix, voxels
from transforms.probabilities import SUFFIX
from transforms.scans import read_scan
from transforms.slices import read_mask
from transforms.whole_numbers import whole_numbers

Labels = npt.NDArray[np.uint8]

PROBABILITIES = "probabilities"
"""Folder of the probabilities, beside the label maps."""
UNCERTAINTY = "uncertainty"
"""Folder of what is told of their doubt."""
TOLD = (".json", "_entropy.nii.gz", "_mutual_information.nii.gz")
"""How its files end, behind the case id."""


def slice_names(case: Case) -> list[str]:
    """Names of the slices of a patient, in the order of the label map's third axis."""
    if case.label is None or not is_stack(case.label):
        raise ValueError(f"{case.case_id} has no masks of slices")
    images = next(iter(case.images.values()), None)
    if images is not None and len(images.paths) == len(case.label.paths):
        return [path.stem for path in images.paths]
    return [path.stem.removesuffix("_mask") for path in case.label.paths]


def mask_files(folder: Path) -> dict[str, Path]:
    """Slice name to mask, for the masks of one patient."""
    paths = [path for path in sorted(folder.iterdir()) if is_slice_name(path.name) and not path.name.startswith(".")]
    return {path.stem.removesuffix("_mask"): path for path in paths if path.stem.endswith("_mask")}


def read_masks(folder: Path, case: Case) -> Labels:
    """Read the predicted masks of a patient as one label map ``(x, y, z)`` of 0 and 1.

    Raises:
        CaseError: a slice has no mask, or a mask cannot be used.
    """
    found, names = mask_files(folder), slice_names(case)
    absent = [name for name in names if name not in found]
    if absent:
        some = ", ".join(f"{name}_mask.tif" for name in absent[:3]) + (", ..." if len(absent) > 3 else "")
        raise CaseError(case.case_id, f"the prediction lacks {len(absent)} of {len(names)} slices: {some}")
    try:
        return read_mask([found[name] for name in names])
    except PipelineError as error:
        raise CaseError(case.case_id, f"the prediction cannot be used: {error}") from error


def _entries(folder: Path) -> Iterator[tuple[str, Path]]:
    """Case ids with the NIfTI files, and the folders of masks, that lie directly in a folder."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir():
            if mask_files(path):
                yield path.name, path
        elif is_nifti_name(path.name):
            yield strip_suffix(path.name), path


def find_predictions(folder: Path) -> dict[str, Path]:
    """Case id to the one prediction to score: a NIfTI file, or a folder of masks.

    Where a patient has both, the masks count: the other is their copy.

    Raises:
        PipelineError: the folder is missing or holds no prediction, or a case has two NIfTI files.
    """
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise PipelineError(f"{folder}: {what}; give a folder with predictions named CASE.nii.gz")
    found: dict[str, Path] = {}
    folders: dict[str, Path] = {}
    for case_id, path in _entries(folder):
        if path.is_dir():
            folders[case_id] = path
        elif case_id in found:
            raise PipelineError(f"two files for {case_id}: {found[case_id]} and {path}; keep one of them")
        else:
            found[case_id] = path
    if not found and not folders:
        raise PipelineError(
            f"{folder}: holds no NIfTI file and no folder of masks; predictions are named CASE.nii.gz, those of "
            "slices CASE/SLICE_mask.tif"
        )
    return found | folders


def files_by_case(folder: Path) -> dict[str, list[Path]]:
    """Case id to every file of its predictions: copies, masks, probabilities and doubt; empty for no folder."""
    there: dict[str, list[Path]] = defaultdict(list)
    for case_id, path in _entries(folder) if folder.is_dir() else ():
        there[case_id] += mask_files(path).values() if path.is_dir() else [path]
    for case_id, path in probability_files(folder / PROBABILITIES).items():
        there[case_id].append(path)
    for figures in sorted((folder / UNCERTAINTY).glob("*.json")):
        if not figures.name.startswith("."):
            there[figures.stem] += [path for path in uncertainty_files(folder, figures.stem) if path.is_file()]
    return dict(there)


def probability_files(folder: Path) -> dict[str, Path]:
    """Case id to the file of its probabilities; empty for no folder."""
    if not folder.is_dir():
        return {}
    paths = (path for path in sorted(folder.iterdir()) if not path.name.startswith("."))
    return {path.stem: path for path in paths if path.suffix == SUFFIX and path.is_file()}


def probability_file(folder: Path, case_id: str) -> Path:
    """Where the probabilities of a case lie in a folder of predictions."""
    return folder / PROBABILITIES / f"{case_id}{SUFFIX}"


def uncertainty_files(folder: Path, case_id: str) -> list[Path]:
    """Where a folder of predictions keeps what is told of a case's doubt: figures, then maps."""
    return [folder / UNCERTAINTY / f"{case_id}{ending}" for ending in TOLD]


def files_to_write(
    folder: Path, item: Mapping[str, Any], *, probabilities: bool = False, uncertainty: bool = False
) -> list[Path]:
    """The files that the prediction of a datalist item will consist of: one label map, or one mask per slice.

    Args:
        folder: of the predictions.
        item: the case.
        probabilities: whether a file of probabilities belongs to them.
        uncertainty: whether maps and figures of doubt do.
    """
    case_id = str(item["case_id"])
    more = [probability_file(folder, case_id)] if probabilities else []
    more += uncertainty_files(folder, case_id) if uncertainty else []
    if item["layout"] == "lgg":
        return [folder / case_id / f"{Path(image).stem}_mask.tif" for image in item["image"]] + more
    return [folder / f"{case_id}.nii.gz", *more]


def read_labels(path: Path, case_id: str, side: str) -> tuple[Labels, npt.NDArray[Any]]:
    """Read a label map as 8-bit integers.

    Args:
        path: the file.
        case_id: goes into the message.
        side: "prediction" or "reference", goes into the message.

    Returns:
        The labels ``(x, y, z)`` and the affine of their grid.

    Raises:
        CaseError: the file cannot be read, has not three axes, or holds values that are no labels.
    """
    try:
        image = read_scan(path)
        labels = voxels(image)
    except PipelineError as error:
        raise CaseError(case_id, f"the {side} cannot be used: {error}") from error
    if labels.ndim == 4 and labels.shape[3] == 1:
        labels = labels[..., 0]
    if labels.ndim != 3:
        raise CaseError(case_id, f"the {side} has shape {labels.shape}, a label map has three axes: {path}")
    if labels.dtype != np.uint8:
        try:
            whole = whole_numbers(labels, f"{path}: the {side}")
        except PipelineError as error:
            raise CaseError(case_id, str(error)) from error
        with np.errstate(invalid="ignore"):
            small = whole.astype(np.uint8)
        if not np.array_equal(small, whole):
            odd = whole[small != whole].flat[0]
            raise CaseError(case_id, f"the {side} holds the value {odd:g}; labels are whole numbers up to 255: {path}")
        labels = small
    return labels, image.affine
