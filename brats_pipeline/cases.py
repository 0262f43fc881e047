"""Cases: what a folder of scans holds, found without configuration, and which label convention it uses."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from brats_pipeline.conventions import LabelCount, count_values, decide, kind_of, misfit, volume_of_voxel_ml
from brats_pipeline.errors import CaseError, PipelineError
from brats_pipeline.layouts import FAMILIES, LAYOUTS, patient_of
from transforms.labels import CONVENTIONS, MODALITIES
from transforms.nifti import is_nifti_name, read_nifti, strip_suffix, voxels

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """Where one image comes from.

    Args:
        paths: one file, or the ordered files of a slice stack.
        channel: the channel within a file that holds several modalities, else None.
    """

    paths: tuple[Path, ...]
    channel: int | None = None


@dataclass(frozen=True)
class Case:
    """One examination of one patient.

    Args:
        case_id: unique within a cohort; predictions are named by it.
        patient_id: cases of one patient never stand on two sides of a split.
        images: modality (``t1c``, ``t1``, ``t2``, ``flair``) to its source, in that order.
        label: the label map, where there is one.
        layout: the naming scheme it was recognised by.
        convention: name of the label convention, once decided.
    """

    case_id: str
    patient_id: str
    images: Mapping[str, Source]
    label: Source | None
    layout: str
    convention: str | None = None


def missing_modalities(case: Case, wanted: Sequence[str] = MODALITIES) -> tuple[str, ...]:
    """The wanted modalities that a case does not have, in the order of ``wanted``."""
    return tuple(modality for modality in wanted if modality not in case.images)


def without_labels(cases: Iterable[Case]) -> list[Case]:
    """The same cases as if nobody had marked their tumours yet."""
    return [replace(case, label=None) for case in cases]


def case_list_sha256(case_ids: Iterable[str]) -> str:
    """Fingerprint of a list of cases, whatever its order: SHA-256 of the sorted ids, one per line."""
    return hashlib.sha256("\n".join(sorted(case_ids)).encode()).hexdigest()


def _folders(root: Path) -> Iterator[tuple[Path, list[str]]]:
    """Every folder below a root with its file names, sorted; hidden ones and folders of predictions are left out."""

    def refuse(error: OSError) -> None:
        raise PipelineError(f"{error.filename}: cannot be read ({error.strerror}); check the folder's rights")

    seen = set()
    for folder, subfolders, files in os.walk(root, followlinks=True, onerror=refuse):
        real = os.path.realpath(folder)
        if real in seen:  # a link to a folder above would go round for ever
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not _is_ours(name))
        yield Path(folder), sorted(name for name in files if not _is_ours(name))


def _is_ours(name: str) -> bool:
    """Hidden and temporary names, archives of macOS, and predictions written beside the scans."""
    stem = strip_suffix(name).lower()
    return name.startswith(".") or name == "__MACOSX" or stem.endswith((".tmp", "_pred", "-pred"))


def _named_cases(folder: Path, files: Mapping[str, Path]) -> tuple[list[Case], list[Path]]:
    """The cases of one folder, and the NIfTI files that belong to none.

    Args:
        folder: names the case where the files do not.
        files: the name to read (the file's, or that of the folder it was unpacked into) to the file.
    """
    for family in FAMILIES:
        found: dict[tuple[str, str], dict[str, Path]] = defaultdict(dict)
        others = []
        for name, path in files.items():
            stem = strip_suffix(name)
            layout, parsed = next(((row.name, told) for row in family if (told := row.parse(stem))), ("", None))
            if parsed is None:
                others.append(path)
                continue
            case_id, kind = parsed[0] or folder.name, parsed[1]
            slots = found[layout, case_id]
            if kind in slots:
                raise CaseError(case_id, f"two files for {kind}: {slots[kind]} and {path}; keep one of them")
            slots[kind] = path
        if family is FAMILIES[-1]:
            # Any file may end in "_mask": with names as loose as these it takes an image to make a case.
            only_label = [key for key, slots in found.items() if set(slots) == {"label"}]
            others += [found.pop(key)["label"] for key in only_label]
        if found:
            _adopt_odd_label(found, others)
            return [_case(case_id, layout, slots) for (layout, case_id), slots in found.items()], others
    return [], list(files.values())


def _adopt_odd_label(found: Mapping[tuple[str, str], dict[str, Path]], others: list[Path]) -> None:
    """BraTS20_Training_355 was published with its label map as ``W39_1998.09.19_Segm.nii``: take it where it lies."""
    odd = [path for path in others if strip_suffix(path.name).lower().endswith("_segm")]
    if len(found) == 1 and len(odd) == 1:
        (slots,) = found.values()
        if "label" not in slots:
            slots["label"] = odd[0]
            others.remove(odd[0])


def _case(case_id: str, layout: str, slots: Mapping[str, Path]) -> Case:
    return Case(
        case_id=case_id,
        patient_id=patient_of(case_id, layout),
        images={modality: Source((slots[modality],)) for modality in MODALITIES if modality in slots},
        label=Source((slots["label"],)) if "label" in slots else None,
        layout=layout,
    )


def _scan(root: Path) -> tuple[list[tuple[Path, Case]], list[Path], list[str]]:
    """The cases below a root with their folders, the NIfTI files that belong to none, and the names of other files."""
    nifti: dict[Path, dict[str, Path]] = defaultdict(dict)
    other_names = []
    for folder, names in _folders(root):
        for name in names:
            if not is_nifti_name(name):
                other_names.append(name)
            elif is_nifti_name(folder.name) and folder != root:
                # Some archives unpack each file into a folder of its name: A_t1.nii/A_t1.nii, or A_t1.nii/0042.nii
                if folder.name in nifti[folder.parent]:
                    raise PipelineError(
                        f"{folder}: holds several NIfTI files; keep the one that the folder is named for"
                    )
                nifti[folder.parent][folder.name] = folder / name
            else:
                nifti[folder][name] = folder / name
    cases, strangers = [], []
    for folder, files in nifti.items():
        found, others = _named_cases(folder, files)
        cases += [(folder, case) for case in found]
        strangers += others
    return cases, strangers, other_names


def _nothing_found(root: Path, strangers: Sequence[Path], other_names: Sequence[str]) -> PipelineError:
    """Say what lies in the folder and what would be recognised."""
    names: dict[str, list[str]] = defaultdict(list)
    for name in (*(path.name for path in strangers), *other_names):
        names[".nii.gz" if name.lower().endswith(".nii.gz") else Path(name).suffix.lower() or "no suffix"].append(name)
    lines = [
        f"  {len(group)} x {suffix}: {', '.join(sorted(group)[:3])}{', ...' if len(group) > 3 else ''}"
        for suffix, group in sorted(names.items(), key=lambda entry: -len(entry[1]))[:8]
    ]
    known = [f"  {row.name}: {row.example}" for row in LAYOUTS]
    return PipelineError(
        "\n".join([f"{root}: no cases here. Found:", *(lines or ["  no files"]), "Recognised, at any depth:", *known])
    )


def find_cases(*roots: Path) -> list[Case]:
    """Find every case below the given folders, whichever layout it has.

    A case that lacks a modality, or has a label map and no image, is returned with what it has.

    Args:
        roots: folders of cohorts, or of single cases.

    Returns:
        The cases, sorted by id; their convention is not decided yet (:func:`decide_conventions`).

    Raises:
        PipelineError: a folder is missing or holds no case (the message lists what it holds and what is recognised),
            or two folders hold a case of the same id.
        CaseError: a case has two files for one modality.
    """
    # A layout told by more than file names (a dataset.json, slices in TIFF files) is a function beside `_scan`,
    # asked here before it, and a line with its example in the message of `_nothing_found`.
    if not roots:
        raise ValueError("find_cases needs at least one folder")
    cases: dict[str, tuple[Path, Case]] = {}
    for root in (Path(os.path.abspath(root)) for root in roots):  # noqa: PTH100 -- resolve() would follow links
        if not root.is_dir():
            raise PipelineError(f"{root}: {'is a file' if root.exists() else 'does not exist'}; give a folder of cases")
        found, strangers, other_names = _scan(root)
        if not found:
            raise _nothing_found(root, strangers, other_names)
        if strangers:
            some = ", ".join(str(path) for path in strangers[:3])
            logger.warning("%s: %d NIfTI files belong to no case and are left out: %s", root, len(strangers), some)
        for folder, case in found:
            first, _ = cases.setdefault(case.case_id, (folder, case))
            if first.resolve() != folder.resolve():
                raise PipelineError(
                    f"two cases are called {case.case_id}: one in {first}, one in {folder}; "
                    "give only one of the folders, or rename one"
                )
    return [case for _, (_, case) in sorted(cases.items())]


def count_label(case: Case) -> LabelCount:
    """Read the label map of a case and count its values.

    Raises:
        CaseError: there is no label map, it cannot be read, or a value is no whole number.
    """
    if case.label is None:
        raise CaseError(case.case_id, "has no label map")
    try:
        image = read_nifti(case.label.paths[0])
        counts = count_values(voxels(image))
    except PipelineError as error:
        raise CaseError(case.case_id, str(error)) from error
    return LabelCount(counts, volume_of_voxel_ml(image.affine))


def count_labels(
    cases: Sequence[Case], *, workers: int = 2, on_case: Callable[[str], None] | None = None
) -> dict[str, LabelCount | CaseError]:
    """Count the label values of many cases in threads; cases without a label map are left out.

    Args:
        cases: what to read.
        workers: number of threads.
        on_case: called with the id of each case that is done.

    Returns:
        Case id to its counts, or to the error that kept its label map from being read.
    """

    def count(case: Case) -> LabelCount | CaseError:
        try:
            return count_label(case)
        except CaseError as error:
            return error

    labelled = [case for case in cases if case.label is not None]
    counts: dict[str, LabelCount | CaseError] = {}
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for case, result in zip(labelled, pool.map(count, labelled), strict=True):
            counts[case.case_id] = result
            if on_case:
                on_case(case.case_id)
    return counts


def settle_conventions(
    cases: Sequence[Case],
    counts: Mapping[str, LabelCount | CaseError],
    *,
    set_aside: Callable[[PipelineError, Sequence[Case]], None] | None = None,
) -> list[Case]:
    """Decide the label convention of every case from label values that were read before.

    Cases of one kind (:func:`brats_pipeline.conventions.kind_of`) are decided together. A label map that could not be
    read says nothing here; whoever reads it next names the defect.

    Args:
        cases: a whole cohort; a case that has its convention keeps it.
        counts: from :func:`count_labels`.
        set_aside: called with each refusal and the cases it is about, which are then left out of the result;
            without it the first refusal is raised.

    Raises:
        CaseError: a label map holds values that no reading of its kind knows.
        PipelineError: the convention of a group is ambiguous; the message prints the readings.
    """

    def refuse(error: PipelineError, about: Sequence[Case]) -> None:
        if set_aside is None:
            raise error
        set_aside(error, about)

    settled = {case.case_id: case for case in cases if case.convention is not None}
    groups: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        if case.convention is None:
            groups[kind_of(case.case_id, case.layout)].append(case)
    for kind, group in groups.items():
        values = {}
        good = []
        for case in group:
            count = counts.get(case.case_id)
            if isinstance(count, LabelCount):
                error = misfit(case.case_id, frozenset(count.voxels), kind)
                if error:
                    refuse(error, [case])
                    continue
                values[case.case_id] = frozenset(count.voxels)
            good.append(case)
        if not good:
            continue
        try:
            name = decide(kind, values, [case.case_id for case in good])
        except PipelineError as error:
            refuse(error, good)
            continue
        settled |= {case.case_id: replace(case, convention=name) for case in good}
    return [settled[case.case_id] for case in cases if case.case_id in settled]


def decide_conventions(
    cases: Sequence[Case],
    convention: str | None = None,
    *,
    workers: int = 2,
    on_case: Callable[[str], None] | None = None,
    set_aside: Callable[[PipelineError, Sequence[Case]], None] | None = None,
) -> list[Case]:
    """Give every case its label convention: the one named, else the one that the cohort's label maps tell.

    Args:
        cases: a whole cohort, since the values of one label map may fit several conventions.
        convention: name of a convention, for all cases; no file is read then.
        workers: threads that read label maps.
        on_case: called with the id of each case whose label map was read.
        set_aside: as in :func:`settle_conventions`; without it the first refusal is raised.

    Raises:
        PipelineError: the name is unknown, or a group of cases is ambiguous; the message prints the readings.
        CaseError: a label map holds values that no reading of its kind knows.
    """
    if convention is not None:
        if convention not in CONVENTIONS:
            raise PipelineError(f"unknown label convention {convention!r}; known: {', '.join(CONVENTIONS)}")
        return [replace(case, convention=convention) for case in cases]
    open_cases = [case for case in cases if case.convention is None]
    counts = count_labels(open_cases, workers=workers, on_case=on_case)
    return settle_conventions(cases, counts, set_aside=set_aside)
