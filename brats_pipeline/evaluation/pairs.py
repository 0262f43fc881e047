"""Which prediction belongs to which reference, and what the labels of each side mean.

The two sides may follow different label conventions (ET is 4 until 2022 and 3 since 2023): each side's own values over
the whole cohort decide, and what stays uncertain is refused instead of guessed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from brats_pipeline.cases import Case, Source, decide_conventions, find_cases
from brats_pipeline.cases.conventions import LabelCount
from brats_pipeline.cases.deciding import count_labels
from brats_pipeline.cases.layouts import patient_named
from brats_pipeline.cases.patients import read_patients, with_patients
from brats_pipeline.cases.stacks import is_stack
from brats_pipeline.errors import CaseError, PipelineError
from brats_pipeline.metrics import Rules, region_values, regions_needed, usual_rules
from brats_pipeline.predictions import find_predictions, mask_files, read_labels, slice_names
from transforms.labels import CONVENTIONS
from transforms.nifti import is_nifti_name, strip_suffix


@dataclass(frozen=True)
class Pair:
    """One case to be scored.

    Args:
        case: has a label map, the reference.
        prediction: its predicted label map, or the folder of its predicted masks; None where there is none.
        reference_convention: what the reference's labels mean.
        prediction_convention: what the prediction's labels mean.
        probabilities: the file of its probabilities; None where there is none.
    """

    case: Case
    prediction: Path | None
    reference_convention: str
    prediction_convention: str
    probabilities: Path | None = None


@dataclass(frozen=True)
class Pairing:
    """What two folders hold together.

    Args:
        rules: those that were named, or those that suit the references.
        pairs: every case with a usable reference, sorted by case id.
        refused: case to the reason why its reference cannot be used.
        unmatched: case ids of predictions without a reference; ``CASE/FILE`` for a mask without a slice.
    """

    rules: Rules
    pairs: tuple[Pair, ...]
    refused: Mapping[str, str]
    unmatched: tuple[str, ...]


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
            cases.append(Case(case_id, patient_named(case_id), {}, Source((path,)), layout))
        if not any(case.case_id in predicted for case in cases):
            held = ", ".join(case.label.paths[0].name for case in cases[:3] if case.label is not None)
            raise PipelineError(
                f"{error}\n  label maps: {min(predicted)}.nii.gz, called as the predictions are; the folder holds "
                f"{held or 'none'}"
            ) from error
        ids = [case.case_id for case in cases]
        twice = sorted({case_id for case_id in ids if ids.count(case_id) > 1})
        if twice:
            raise PipelineError(f"{root}: two label maps for {', '.join(twice)}; keep one of each") from None
        return cases


def _values(predictions: Mapping[str, Path], workers: int) -> dict[str, frozenset[int]]:
    """Label values of each prediction without 0; none where it cannot be read, which scoring reports later."""

    def values(item: tuple[str, Path]) -> frozenset[int]:
        if item[1].is_dir():
            return frozenset()  # masks of slices follow one convention only
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
    raise PipelineError("\n".join([*lines, "write all in one, or name it with --prediction-convention NAME"]))


def _check_regions(name: str, rules: Rules) -> None:
    """The convention must know every region that is scored."""
    if name not in CONVENTIONS:
        raise PipelineError(f"unknown label convention {name!r}; known: {', '.join(CONVENTIONS)}")
    absent = [region for region in rules.regions if region_values(CONVENTIONS[name], region) is None]
    if absent:
        raise PipelineError(
            f"the rules {rules.name} score {', '.join(rules.regions)}, but the label convention {name} has no "
            f"{', '.join(absent)}; name the right convention or other rules"
        )


def _told_by_rules(cases: Sequence[Case], rules: Rules, workers: int) -> list[Case]:
    """Cases whose labels fit several conventions, in the only one of the rules' that fits; none where several do."""
    counts = count_labels(cases, workers=workers).values()
    seen = frozenset[int]().union(*(count.voxels for count in counts if isinstance(count, LabelCount)))
    fitting = [name for name in rules.conventions if seen <= CONVENTIONS[name].values]
    return [replace(case, convention=fitting[0]) for case in cases] if len(fitting) == 1 else []


def with_all_regions(name: str, rules: Rules) -> str:
    """A convention, or the one of the rules that reads its labels alike and knows every region that they need.

    Labels 1, 2 and 3 are read as those of 2023, whose tissues have no names of their own in 2024's rules.
    """
    convention = CONVENTIONS.get(name)
    if convention is None or all(region_values(convention, region) for region in regions_needed(rules)):
        return name
    for other in map(CONVENTIONS.__getitem__, rules.conventions):
        if other.regions == convention.regions and convention.values <= other.values:
            return other.name
    return name


def _rules_for(cases: Sequence[Case], rules: Rules | None) -> Rules:
    """The rules named, if they suit the references, or those that do."""
    stacks = [case for case in cases if case.label is not None and is_stack(case.label)]
    if stacks and len(stacks) < len(cases):
        volume = next(case for case in cases if case not in stacks)
        raise PipelineError(
            f"the references hold slices ({stacks[0].case_id}) and volumes ({volume.case_id}), whose scores cannot be "
            "put together; evaluate them apart"
        )
    usual = usual_rules(slices=bool(stacks))
    if rules is None:
        return usual
    if rules.slices != usual.slices:
        what = "slices without a voxel size" if stacks else "volumes"
        raise PipelineError(
            f"the references are {what} ({cases[0].case_id}), and the rules {rules.name} are not made for them; "
            f"use --rules {usual.name}, or name none"
        )
    return rules


def _strange_masks(case: Case, prediction: Path | None) -> list[str]:
    """Predicted masks of a patient that belong to none of the slices."""
    if prediction is None or not prediction.is_dir():
        return []
    found, names = mask_files(prediction), set(slice_names(case))
    return [f"{case.case_id}/{path.name}" for name, path in found.items() if name not in names]


def _refuse_itself(pair: Pair) -> None:
    """A reference that is scored against itself would shine."""
    if pair.prediction is None or pair.case.label is None:
        return
    predicted = mask_files(pair.prediction).values() if pair.prediction.is_dir() else [pair.prediction]
    same = {path.resolve() for path in predicted} & {path.resolve() for path in pair.case.label.paths}
    if same:
        raise PipelineError(
            f"{min(same)} is prediction and reference at once; give the folder that `segment` wrote as predictions"
        )


def find_pairs(
    predictions: Path,
    references: Path | Sequence[Path],
    *,
    rules: Rules | None,
    convention: str | None = None,
    prediction_convention: str | None = None,
    only: Collection[str] | None = None,
    patients: str | Path | None = None,
    workers: int = 1,
) -> Pairing:
    """Match predictions with references by case id and decide both sides' label conventions.

    Args:
        predictions: folder of ``CASE.nii.gz``, for slices also of ``CASE/SLICE_mask.tif``.
        references: a dataset or several, or a folder of label maps named as the predictions are.
        rules: the regions needed, and the conventions a prediction may follow; None for those that suit the references.
        convention: that of the references; else their values decide, and where these fit several, the rules named.
        prediction_convention: that of the predictions; else their values decide, the references' own first.
        only: case ids to keep; the others are as if they were not there.
        patients: CSV of case_id,patient_id where names do not tell the patient.
        workers: threads that read label maps.

    Raises:
        PipelineError: a folder is unusable, nothing matches, a file is prediction and reference at once, the rules do
            not suit the references, the table of patients is unusable, or a convention is unknown or uncertain.
    """
    files = find_predictions(predictions)
    roots = [references] if isinstance(references, Path) else list(references)
    where = ", ".join(map(str, roots))
    found = _reference_cases(roots, files)
    if patients is not None:
        found = with_patients(found, read_patients(patients))
    cases = [case for case in found if case.label is not None]
    if not cases:
        raise PipelineError(
            f"{where}: no case has a label map, so there is nothing to score against; give the dataset with its "
            "label maps, or a folder of them, CASE.nii.gz as the predictions are called"
        )
    chosen_rules = _rules_for(cases, rules)
    if not chosen_rules.slices:
        files = {case_id: path for case_id, path in files.items() if not path.is_dir()}
    unmatched = sorted(set(files) - {case.case_id for case in cases})
    refused: dict[str, str] = {}

    told: list[Case] = []

    def set_aside(error: PipelineError, about: Sequence[Case]) -> None:
        if isinstance(error, CaseError):
            refused.update((case.case_id, error.reason) for case in about)
            return
        by_rules = [] if rules is None else _told_by_rules(about, rules, workers)
        if not by_rules:
            raise error
        told.extend(by_rules)

    cases = [*decide_conventions(cases, convention, workers=workers, set_aside=set_aside), *told]
    if only is not None:
        absent = sorted(set(only) - {case.case_id for case in cases} - set(refused))
        if absent:
            raise PipelineError(f"{where}: no label map for {', '.join(absent[:5])} ({len(absent)} in all)")
        cases = [case for case in cases if case.case_id in only]
        refused = {case_id: reason for case_id, reason in refused.items() if case_id in only}
    if not any(case.case_id in files for case in cases):
        wanted = cases[0].case_id if cases else next(iter(refused))
        example = f"{wanted}/SLICE_mask.tif" if chosen_rules.slices else f"{wanted}.nii.gz"
        held = ", ".join(path.name for path in list(files.values())[:3])
        raise PipelineError(
            f"{predictions}: no prediction belongs to a case of {where}; predictions are named by case, such as "
            f"{example}, and the folder holds {held or 'none'}"
        )
    groups: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        groups[with_all_regions(str(case.convention), chosen_rules)].append(case)
    chosen = {}
    for name, group in groups.items():
        predicted = {case.case_id: files[case.case_id] for case in group if case.case_id in files}
        chosen[name] = prediction_convention or _prediction_convention(name, _values(predicted, workers), chosen_rules)
        for each in (name, chosen[name]):
            _check_regions(each, chosen_rules)
    pairs = [
        Pair(case, files.get(case.case_id), name, chosen[name]) for name, group in groups.items() for case in group
    ]
    for pair in pairs:
        _refuse_itself(pair)
    pairs.sort(key=lambda pair: pair.case.case_id)
    unmatched += [name for pair in pairs for name in _strange_masks(pair.case, pair.prediction)]
    return Pairing(chosen_rules, tuple(pairs), refused, tuple(unmatched))
