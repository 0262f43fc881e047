"""Task01 of the Medical Segmentation Decathlon (Antonelli et al. 2022): 4-D files, and a dataset.json that says what
their channels are."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from brats_pipeline.cases.case import Case, Source
from brats_pipeline.cases.layouts import WORDS
from brats_pipeline.errors import CaseError, PipelineError
from transforms.labels import MODALITIES
from transforms.nifti import strip_suffix

logger = logging.getLogger(__name__)

LAYOUT = "msd"
DATASET = "dataset.json"

_MODALITY = {word: modality for modality in MODALITIES for word in WORDS[modality]} | {"t1w": "t1"}


def _load(path: Path) -> dict[str, Any] | None:
    """The content of a dataset.json of the Decathlon; None for a file that only shares its name."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise PipelineError(f"{path}: cannot be read ({error.strerror or error}); check its rights") from error
    except ValueError as error:  # JSON and its encoding
        if not any((path.parent / name).is_dir() for name in ("imagesTr", "imagesTs")):
            logger.warning("%s: is no JSON file and is left out", path)
            return None
        raise PipelineError(f"{path}: is no JSON file ({error}); copy it again from the archive") from error
    if not isinstance(content, dict) or "modality" not in content:
        logger.warning("%s: has no 'modality', so it is not of the Decathlon and is left out", path)
        return None
    return content


def _channels(path: Path, content: Mapping[str, Any]) -> dict[str, int]:
    """Modality to channel, by the names in the file."""
    names = content["modality"]
    if not isinstance(names, dict) or not all(str(key).isdigit() for key in names):
        raise PipelineError(f'{path}: \'modality\' must be {{"0": "FLAIR", ...}}, got {names!r}')
    channels: dict[str, int] = {}
    for key, name in names.items():
        modality = _MODALITY.get(str(name).lower())
        if modality is None or modality in channels:
            why = "is no modality of brain tumours" if modality is None else "occurs twice"
            raise PipelineError(f"{path}: channel {key}, {name!r}, {why}; FLAIR, T1w, T1gd and T2w are known")
        channels[modality] = int(key)
    return {modality: channels[modality] for modality in MODALITIES if modality in channels}


def _entries(path: Path, content: Mapping[str, Any]) -> list[tuple[Path, Path | None]]:
    """Image and label file of every case listed."""
    found = []
    for key in ("training", "test"):
        entries = content.get(key, [])
        for entry in entries if isinstance(entries, list) else [entries]:
            image = entry.get("image") if isinstance(entry, dict) else entry
            label = entry.get("label") if isinstance(entry, dict) else None
            if not isinstance(image, str) or not isinstance(label, str | None):
                raise PipelineError(f"{path}: {key!r} must list one image file for each case, got {entry!r}")
            files = [Path(os.path.normpath(path.parent / name)) if name else None for name in (image, label)]
            found.append((files[0] or path, files[1]))
    return found


def decathlon_cases(folder: Path) -> list[Case] | None:
    """The cases that a folder's dataset.json lists; None where it is no file of the Decathlon.

    A case whose files are not there is returned all the same; :func:`missing_files` names them.

    Raises:
        PipelineError: the file is damaged, or none of the files it lists is there.
    """
    path = folder / DATASET
    content = _load(path)
    if content is None:
        return None
    channels = _channels(path, content)
    cases = [
        Case(
            case_id=strip_suffix(image.name),
            patient_id=strip_suffix(image.name),
            images={modality: Source((image,), channel) for modality, channel in channels.items()},
            label=None if label is None else Source((label,)),
            layout=LAYOUT,
        )
        for image, label in _entries(path, content)
    ]
    ids = [case.case_id for case in cases]
    if twice := sorted({case_id for case_id in ids if ids.count(case_id) > 1}):
        raise CaseError(twice[0], f"{path} lists it twice; keep one of the two")
    if cases and all(len(missing_files(case)) == 1 + (case.label is not None) for case in cases):
        first = next(iter(cases[0].images.values())).paths[0]
        raise PipelineError(
            f"{path}: names {len(cases)} cases, and none of their files is there, first {first}; "
            "unpack the whole archive beside it"
        )
    return cases


def listed_case(image: Path) -> Case | None:
    """The case whose 4-D file this is, by the dataset.json beside it or one folder above; None where none lists it.

    Raises:
        PipelineError: such a dataset.json is damaged.
        CaseError: it lists a case twice.
    """
    for folder in (image.parent, image.parent.parent):
        if (folder / DATASET).is_file():
            for case in decathlon_cases(folder) or []:
                sources = list(case.images.values())
                if sources and sources[0].paths[0].resolve() == image.resolve():
                    return case
    return None


def parse_channels(text: str) -> dict[str, int]:
    """``"flair,t1,t1c,t2"`` to modality and channel; ``-`` stands for a channel that is none of them.

    Raises:
        PipelineError: a name is no modality, or occurs twice.
    """
    channels: dict[str, int] = {}
    for number, word in enumerate(text.split(",")):
        name = word.strip()
        if name == "-":
            continue
        modality = _MODALITY.get(name.lower())
        if modality is None or modality in channels:
            why = "is no modality" if modality is None else "occurs twice"
            raise PipelineError(
                f"--channels {text}: {name!r} {why}; name each channel of the file in its order, such as "
                f"{','.join(MODALITIES)}, and '-' for one that is none of them"
            )
        channels[modality] = number
    return channels


def missing_files(case: Case) -> tuple[Path, ...]:
    """The files of a Decathlon case that its dataset.json names and that are not there."""
    if case.layout != LAYOUT:
        return ()
    sources = [*case.images.values(), *([case.label] if case.label else [])]
    return tuple(dict.fromkeys(path for source in sources for path in source.paths if not path.is_file()))
