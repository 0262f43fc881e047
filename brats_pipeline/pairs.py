"""Which prediction belongs to which reference, and what the labels of each side mean.

The two sides may follow different label conventions (ET is 4 until 2022 and 3 since 2023): each side's own values over
the whole cohort decide, and what stays uncertain is refused instead of guessed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brats_pipeline.cases import Case, Source, decide_conventions, find_cases
from brats_pipeline.errors import CaseError, PipelineError
from brats_pipeline.metrics import Rules
from transforms.labels import CONVENTIONS
from transforms.nifti import is_nifti_name, read_nifti, strip_suffix, voxels

Labels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Pair:
    """One case to be scored.

    Args:
        case: has a label map, the reference.
        prediction: its predicted label map; None where there is none.
        reference_convention: what the reference's labels mean.
        prediction_convention: what the prediction's labels mean.
    """

    case: Case
    prediction: Path | None
    reference_convention: str
    prediction_convention: str


@dataclass(frozen=True)
class Pairing:
    """What two folders hold together.

    Args:
        pairs: every case with a usable reference, sorted by case id.
        refused: case to the reason why its reference cannot be used.
        unmatched: case ids of predictions without a reference.
    """

    pairs: tuple[Pair, ...]
    refused: Mapping[str, str]
    unmatched: tuple[str, ...]


def _prediction_files(folder: Path) -> dict[str, Path]:
    """Case id to prediction, for the NIfTI files that lie directly in the folder."""
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "does not exist"
        raise PipelineError(f"{folder}: {what}; give a folder with predictions named CASE.nii.gz")
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if is_nifti_name(path.name) and not path.name.startswith("."):
            case_id = strip_suffix(path.name)
            if case_id in found:
                raise PipelineError(f"two files for {case_id}: {found[case_id]} and {path}; keep one of them")
            found[case_id] = path
    if not found:
        raise PipelineError(f"{folder}: holds no NIfTI file; predictions are named CASE.nii.gz")
    return found


def _reference_cases(roots: Sequence[Path], predicted: Collection[str]) -> list[Case]:
    """The cases of datasets, or of one folder of label maps named by case id."""
    try:
        return find_cases(*roots)
    except PipelineError as error:
        root = roots[0]
        if len(roots) > 1 or not root.is_dir():
            raise
        cases = []
        for path in sorted(path for path in root.iterdir() if is_nifti_name(path.name)):
            case_id = strip_suffix(path.name)
            # Names of 2023 and later tell the challenge, and so the readings of their labels.
            layout = "brats2023" if case_id.startswith("BraTS-") else "label maps"
            cases.append(Case(case_id, case_id, {}, Source((path,)), layout))
        if not any(case.case_id in predicted for case in cases):
            raise error
        ids = [case.case_id for case in cases]
        twice = sorted({case_id for case_id in ids if ids.count(case_id) > 1})
        if twice:
            raise PipelineError(f"{root}: two label maps for {', '.join(twice)}; keep one of each") from None
        return cases


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
        image = read_nifti(path)
        labels = voxels(image)
    except PipelineError as error:
        raise CaseError(case_id, f"the {side} cannot be used: {error}") from error
    if labels.ndim == 4 and labels.shape[3] == 1:
        labels = labels[..., 0]
    if labels.ndim != 3:
        raise CaseError(case_id, f"the {side} has shape {labels.shape}, a label map has three axes: {path}")
    if labels.dtype != np.uint8:
        with np.errstate(invalid="ignore"):
            small = labels.astype(np.uint8)
        if not np.array_equal(small, labels):
            odd = labels[small != labels].flat[0]
            raise CaseError(case_id, f"the {side} holds the value {odd:g}; labels are whole numbers up to 255: {path}")
        labels = small
    return labels, image.affine


def _values(predictions: Mapping[str, Path], workers: int) -> dict[str, frozenset[int]]:
    """Label values of each prediction without 0; none where it cannot be read, which scoring reports later."""

    def values(item: tuple[str, Path]) -> frozenset[int]:
        try:
            labels, _ = read_labels(item[1], item[0], "prediction")
        except CaseError:
            return frozenset()
        return frozenset(np.flatnonzero(np.bincount(labels[labels != 0])).tolist())

    with ThreadPoolExecutor(max(1, workers)) as pool:
        return dict(zip(predictions, pool.map(values, predictions.items()), strict=True))


def _prediction_convention(reference: str, values: Mapping[str, frozenset[int]], rules: Rules) -> str:
    """The convention of the predictions that belong to references of one convention.

    That of the references where the values allow it; else the one convention of the rules that does. A label map that
    no convention knows takes no part here: scoring names it.

    Raises:
        PipelineError: the values fit no single convention.
    """
    names = tuple(dict.fromkeys((reference, *rules.conventions)))
    known = {name: CONVENTIONS[name].values for name in names}
    legible = {case: held for case, held in values.items() if any(held <= known[name] for name in names)}
    seen = frozenset[int]().union(*legible.values())
    for name in names:
        if seen <= known[name]:
            return name
    holders = {
        value: next(case for case, held in sorted(legible.items()) if value in held)
        for value in sorted(seen)
        if not all(value in known[name] for name in names)
    }
    lines = [f"the predictions follow no single label convention; the references follow {reference}. Found:"]
    lines += [f"  label {value}, in {case} for one" for value, case in holders.items()]
    lines += [f"  {name} knows {', '.join(map(str, sorted(known[name])))}" for name in names]
    raise PipelineError("\n".join([*lines, "write all predictions in one convention, or name it"]))


def _check_regions(name: str, rules: Rules) -> None:
    """The convention must know every region that is scored."""
    if name not in CONVENTIONS:
        raise PipelineError(f"unknown label convention {name!r}; known: {', '.join(CONVENTIONS)}")
    absent = [region for region in rules.regions if region not in CONVENTIONS[name].regions]
    if absent:
        raise PipelineError(
            f"the rules {rules.name} score {', '.join(rules.regions)}, but the label convention {name} has no "
            f"{', '.join(absent)}; name the right convention or other rules"
        )


def find_pairs(
    predictions: Path,
    references: Path | Sequence[Path],
    *,
    rules: Rules,
    convention: str | None = None,
    prediction_convention: str | None = None,
    only: Collection[str] | None = None,
    workers: int = 1,
) -> Pairing:
    """Match predictions with references by case id and decide both sides' label conventions.

    Args:
        predictions: folder of ``CASE.nii.gz``.
        references: a dataset or several, or a folder of label maps named as the predictions are.
        rules: the regions needed, and the conventions a prediction may follow.
        convention: that of the references; else their values decide.
        prediction_convention: that of the predictions; else their values decide, the references' own first.
        only: case ids to keep; the others are as if they were not there.
        workers: threads that read label maps.

    Raises:
        PipelineError: a folder is unusable, nothing matches, or a convention is unknown or uncertain.
    """
    files = _prediction_files(predictions)
    roots = [references] if isinstance(references, Path) else list(references)
    where = ", ".join(map(str, roots))
    cases = [case for case in _reference_cases(roots, files) if case.label is not None]
    if not cases:
        raise PipelineError(f"{where}: no case has a label map, so there is nothing to score against")
    unmatched = tuple(sorted(set(files) - {case.case_id for case in cases}))
    refused: dict[str, str] = {}

    def set_aside(error: PipelineError, about: Sequence[Case]) -> None:
        if not isinstance(error, CaseError):
            raise error
        refused.update((case.case_id, error.reason) for case in about)

    cases = decide_conventions(cases, convention, workers=workers, set_aside=set_aside)
    if only is not None:
        absent = sorted(set(only) - {case.case_id for case in cases} - set(refused))
        if absent:
            raise PipelineError(f"{where}: no label map for {', '.join(absent[:5])} ({len(absent)} in all)")
        cases = [case for case in cases if case.case_id in only]
        refused = {case_id: reason for case_id, reason in refused.items() if case_id in only}
    if not any(case.case_id in files for case in cases):
        wanted = cases[0].case_id if cases else next(iter(refused))
        raise PipelineError(
            f"{predictions}: no prediction belongs to a case of {where}; predictions are named by case, such as "
            f"{wanted}.nii.gz, and the folder holds {', '.join(path.name for path in list(files.values())[:3])}"
        )
    groups: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        groups[str(case.convention)].append(case)
    chosen = {}
    for name, group in groups.items():
        predicted = {case.case_id: files[case.case_id] for case in group if case.case_id in files}
        chosen[name] = prediction_convention or _prediction_convention(name, _values(predicted, workers), rules)
        for each in (name, chosen[name]):
            _check_regions(each, rules)
    pairs = [
        Pair(case, files.get(case.case_id), name, chosen[name]) for name, group in groups.items() for case in group
    ]
    return Pairing(tuple(sorted(pairs, key=lambda pair: pair.case.case_id)), refused, unmatched)
