"""Finding cases: which files of a folder tree belong together, without configuration."""

from __future__ import annotations

import logging
import os
import shlex
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from brats_pipeline.cases.case import Case, Source
from brats_pipeline.cases.decathlon import DATASET, decathlon_cases
from brats_pipeline.cases.layouts import EXAMPLES, FAMILIES, patient_of
from brats_pipeline.cases.stacks import is_slice_name, stack_cases
from brats_pipeline.errors import PipelineError
from brats_pipeline.files import is_dicom
from transforms.labels import MODALITIES
from transforms.nifti import is_volume_name, strip_suffix

logger = logging.getLogger(__name__)

Slots = dict[str, list[Path]]
"""Modality, or ``"label"``, to its files; more than one is a defect."""


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
    if stem == "prepared_brain_mask":  # lies beside the scans that `prepare` wrote
        return True
    return name.startswith(".") or name == "__MACOSX" or stem.endswith((".tmp", "_pred", "-pred"))


def _named_cases(folder: Path, files: Mapping[str, Path]) -> tuple[list[Case], list[Path]]:
    """The cases of one folder, and the NIfTI files that belong to none.

    Args:
        folder: names the case where the files do not.
        files: the name to read (the file's, or that of the folder it was unpacked into) to the file.
    """
    for family in FAMILIES:
        found: dict[tuple[str, str], Slots] = defaultdict(dict)
        others = []
        for name, path in files.items():
            stem = strip_suffix(name)
            layout, parsed = next(((row.name, told) for row in family if (told := row.parse(stem))), ("", None))
            if parsed is None:
                others.append(path)
                continue
            case_id, kind = parsed[0] or folder.name, parsed[1]
            found[layout, case_id].setdefault(kind, []).append(path)
        if family is FAMILIES[-1]:
            # Any file may end in "_mask": with names as loose as these it takes an image to make a case.
            only_label = [key for key, slots in found.items() if set(slots) == {"label"}]
            others += [path for key in only_label for path in found.pop(key)["label"]]
        if found:
            _adopt_odd_label(found, others)
            return [_case(case_id, layout, slots) for (layout, case_id), slots in found.items()], others
    return [], list(files.values())


def _adopt_odd_label(found: Mapping[tuple[str, str], Slots], others: list[Path]) -> None:
    """BraTS20_Training_355 was published with its label map as ``W39_1998.09.19_Segm.nii``: take it where it lies."""
    odd = [path for path in others if strip_suffix(path.name).lower().endswith("_segm")]
    if len(found) == 1 and len(odd) == 1:
        (slots,) = found.values()
        if "label" not in slots:
            slots["label"] = odd
            others.remove(odd[0])


def _case(case_id: str, layout: str, slots: Slots) -> Case:
    return Case(
        case_id=case_id,
        patient_id=patient_of(case_id, layout),
        images={modality: Source(tuple(slots[modality])) for modality in MODALITIES if modality in slots},
        label=Source(tuple(slots["label"])) if "label" in slots else None,
        layout=layout,
    )


def _scan(root: Path) -> tuple[list[tuple[Path, Case]], list[Path], list[str]]:
    """The cases below a root with their folders, the volumes that belong to none, and the names of other files."""
    nifti: dict[Path, dict[str, Path]] = defaultdict(dict)
    cases: list[tuple[Path, Case]] = []
    listed: set[Path] = set()
    other_names = []
    for folder, names in _folders(root):
        if DATASET in names and (told := decathlon_cases(folder)) is not None:
            cases += [(folder, case) for case in told]
            sources = (source for case in told for source in (*case.images.values(), case.label) if source)
            listed.update(path for source in sources for path in source.paths)
        cases += [(folder, case) for case in stack_cases(folder, [name for name in names if is_slice_name(name)])]
        for name in names:
            if folder / name in listed:
                continue
            if not is_volume_name(name):
                other_names.append(name)
            elif is_volume_name(folder.name) and folder != root:
                # Some archives unpack each file into a folder of its name: A_t1.nii/A_t1.nii, or A_t1.nii/0042.nii
                if folder.name in nifti[folder.parent]:
                    raise PipelineError(
                        f"{folder}: holds several NIfTI files; keep the one that the folder is named for"
                    )
                nifti[folder.parent][folder.name] = folder / name
            else:
                nifti[folder][name] = folder / name
    strangers = []
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
    known = [f"  {example}" for example in EXAMPLES]
    return PipelineError(
        "\n".join([f"{root}: no cases here. Found:", *(lines or ["  no files"]), "Recognised, at any depth:", *known])
    )


def _refuse_dicom(root: Path) -> None:
    """Say what to do with DICOM files: their series lie on grids of their own.

    Raises:
        PipelineError: the folder holds one.
    """
    if any(is_dicom(folder / name) for folder, names in _folders(root) for name in names):
        raise PipelineError(
            f"{root}: holds DICOM files, and a case is volumes on one grid; make one of them first: brats-pipeline "
            f"prepare {shlex.quote(str(root))} -o CASE"
        )


def find_cases(*roots: Path) -> list[Case]:
    """Find every case below the given folders, whichever layout it has.

    A case that lacks a modality, or has two files for one, or a label map and no image, is returned with what it has.

    Args:
        roots: folders of cohorts, or of single cases.

    Returns:
        The cases, sorted by id; their convention is not decided yet (:func:`decide_conventions`).

    Raises:
        PipelineError: a folder is missing or holds no case (the message lists what it holds and what is recognised),
            two folders hold a case of the same id, or a dataset.json of the Decathlon cannot be used.
        CaseError: a dataset.json lists a case twice.
    """
    if not roots:
        raise ValueError("find_cases needs at least one folder")
    cases: dict[str, tuple[Path, Case]] = {}
    for root in (Path(os.path.abspath(root)) for root in roots):  # noqa: PTH100 -- resolve() would follow links
        if not root.is_dir():
            raise PipelineError(f"{root}: {'is a file' if root.exists() else 'does not exist'}; give a folder of cases")
        found, strangers, other_names = _scan(root)
        if not found:
            _refuse_dicom(root)
            raise _nothing_found(root, strangers, other_names)
        if strangers:
            some = ", ".join(str(path) for path in strangers[:3])
            logger.warning(
                "%s: %d files with volumes belong to no case and are left out: %s", root, len(strangers), some
            )
        for folder, case in found:
            first, _ = cases.setdefault(case.case_id, (folder, case))
            if first.resolve() != folder.resolve():
                raise PipelineError(
                    f"two cases are called {case.case_id}: one in {first}, one in {folder}; "
                    "give only one of the folders, or rename one"
                )
    return [case for _, (_, case) in sorted(cases.items())]
