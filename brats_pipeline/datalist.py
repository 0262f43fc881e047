"""Datalists: the cases of a cohort as JSON, with patient-grouped folds.

The file has the form of the Medical Segmentation Decathlon, so that ``monai.data.load_decathlon_datalist`` reads it
too. (That function takes any text that happens to name a file below its ``base_dir`` for a path, a case id among them;
:func:`read_datalist` does not.)
"""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brats_pipeline.cases import (
    Case,
    Source,
    case_list_sha256,
    count_labels,
    decide_conventions,
    find_cases,
    missing_modalities,
    settle_conventions,
    without_labels,
)
from brats_pipeline.conventions import LabelCount
from brats_pipeline.errors import CaseError, PipelineError
from brats_pipeline.files import write_atomically
from transforms.labels import MODALITIES, convention

SCHEMA_VERSION = 1
STRATA = 3
"""Patients are spread over the folds by terciles of tumour volume, or fewer strata where patients are few."""

Item = dict[str, Any]
"""``case_id``, ``patient_id``, ``convention``, ``layout``, ``image`` (four paths in the order of
:data:`transforms.labels.MODALITIES`), ``label`` and ``fold`` where there are any."""


def _path(case: Case, source: Source) -> str:
    if len(source.paths) != 1 or source.channel is not None:
        raise CaseError(
            case.case_id, f"layout {case.layout} has no file of its own for each image; it cannot be listed"
        )
    return str(source.paths[0])


def case_items(cases: Sequence[Case]) -> list[Item]:
    """The datalist items of cases, in their order.

    Raises:
        CaseError: a case lacks a modality; the message names it.
    """
    items = []
    for case in cases:
        if missing := missing_modalities(case):
            have = ", ".join(case.images) or "none"
            raise CaseError(
                case.case_id, f"lacks {', '.join(missing)} (has {have}); all of {', '.join(MODALITIES)} are needed"
            )
        item: Item = {
            "case_id": case.case_id,
            "patient_id": case.patient_id,
            "convention": case.convention,
            "layout": case.layout,
            "image": [_path(case, case.images[modality]) for modality in MODALITIES],
        }
        if case.label is not None:
            item["label"] = _path(case, case.label)
        items.append(item)
    return items


def _folds(cases: Sequence[Case], tumour_ml: Sequence[float], *, folds: int, seed: int) -> list[int]:
    """The fold of each case: no patient in two, the volumes spread evenly."""
    from sklearn.model_selection import StratifiedGroupKFold  # type: ignore[import-untyped, unused-ignore]

    volumes = defaultdict(list)
    for case, volume in zip(cases, tumour_ml, strict=True):
        volumes[case.patient_id].append(volume)
    patients = sorted(volumes, key=lambda patient: (np.mean(volumes[patient]), patient))
    if len(patients) < folds:
        raise PipelineError(
            f"{folds} folds need {folds} patients with a label map, there are {len(patients)}; "
            f"ask for at most {len(patients)} folds or add cases"
        )
    # Each stratum holds at least as many patients as there are folds, so that every fold gets one of each.
    strata = min(STRATA, len(patients) // folds)
    stratum = {patient: rank * strata // len(patients) for rank, patient in enumerate(patients)}
    split = StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(
        np.zeros(len(cases)), [stratum[case.patient_id] for case in cases], [case.patient_id for case in cases]
    )
    fold_of = np.empty(len(cases), dtype=int)
    for fold, (_, chosen) in enumerate(split):
        fold_of[chosen] = fold
    return fold_of.tolist()


def split_cases(
    cases: Sequence[Case],
    *,
    folds: int = 5,
    seed: int = 0,
    name: str = "cohort",
    workers: int = 2,
    on_case: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Split a cohort into folds by patient, stratified by the volume of the whole tumour.

    Args:
        cases: a cohort in any order; conventions that are still open are decided here. Cases without a label map are
            listed under ``testing``.
        folds: number of folds, at least 2.
        seed: the same seed and cases give the same folds.
        name: of the datalist.
        workers: threads that read label maps.
        on_case: called with the id of each case whose label map was read.

    Returns:
        The datalist, with absolute paths; :func:`write_datalist` writes it.

    Raises:
        PipelineError: there are fewer labelled patients than folds, or a convention is ambiguous.
        CaseError: a case lacks a modality, or its label map cannot be read.
    """
    if folds < 2:
        raise ValueError(f"folds must be at least 2, got {folds}")
    cases = sorted(cases, key=lambda case: case.case_id)
    case_items(cases)  # refuse what cannot be listed before the label maps are read
    counts = count_labels(cases, workers=workers, on_case=on_case)
    cases = settle_conventions(cases, counts)
    labelled = [case for case in cases if case.label is not None]
    tumour_ml = []
    for case in labelled:
        count = counts[case.case_id]
        if not isinstance(count, LabelCount):
            raise count
        row = convention(case.convention or "")
        tumour_ml.append(count.volume_ml(row.regions[row.widest_first()[0]]))
    fold_of = _folds(labelled, tumour_ml, folds=folds, seed=seed)
    return {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        "layout": ", ".join(sorted({case.layout for case in cases})),
        "convention": ", ".join(sorted({case.convention or "" for case in cases})),
        "modalities": list(MODALITIES),
        "seed": seed,
        "folds": folds,
        "case_list_sha256": case_list_sha256(case.case_id for case in cases),
        "training": [item | {"fold": fold} for item, fold in zip(case_items(labelled), fold_of, strict=True)],
        "testing": case_items([case for case in cases if case.label is None]),
    }


def _with_paths(item: Item, change: Callable[[str], str]) -> Item:
    """A copy of an item with each of its paths changed."""
    changed = item | {"image": [change(path) for path in item["image"]]}
    return changed | {"label": change(item["label"])} if "label" in item else changed


def write_datalist(datalist: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a datalist; paths below its own folder become relative, so that the folder can move.

    Raises:
        PipelineError: the folder cannot be written.
    """
    folder = Path(path).absolute().parent

    def shorten(text: str) -> str:
        return Path(text).relative_to(folder).as_posix() if Path(text).is_relative_to(folder) else text

    lists = {key: [_with_paths(item, shorten) for item in datalist.get(key, [])] for key in ("training", "testing")}
    write_atomically(path, json.dumps({**datalist, **lists}, indent=2) + "\n")


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise PipelineError(f"{path}: cannot be read ({error.strerror or error}); give a datalist") from error
    except ValueError as error:
        raise PipelineError(f"{path}: is no JSON file ({error}); write one with `brats-pipeline split`") from error
    if not isinstance(content, dict):
        raise PipelineError(f"{path}: holds a JSON {type(content).__name__}, a datalist is an object; write it anew")
    return content


def _check_item(path: Path, key: str, number: int, item: object) -> Item:
    where = f"{path}: item {number} of {key!r}"
    if not isinstance(item, dict):
        raise PipelineError(f"{where} is a JSON {type(item).__name__}, an object is needed")
    if lacking := [name for name in ("case_id", "patient_id", "convention", "image") if name not in item]:
        raise PipelineError(f"{where} lacks {', '.join(lacking)}; write the datalist with `brats-pipeline split`")
    image = item["image"]
    if not isinstance(image, list) or len(image) != len(MODALITIES) or not all(isinstance(one, str) for one in image):
        raise PipelineError(
            f"{where}: image must list {len(MODALITIES)} paths ({', '.join(MODALITIES)}), got {image!r}"
        )
    if not isinstance(item.get("label", ""), str):
        raise PipelineError(f"{where}: label must be one path, got {item['label']!r}")
    return item


def read_datalist(
    path: str | os.PathLike[str], key: str = "training", *, base_dir: str | os.PathLike[str] | None = None
) -> list[Item]:
    """Read one list of a datalist file.

    Args:
        path: the JSON file.
        key: ``training`` or ``testing``.
        base_dir: where relative paths start if they do not lie beside the datalist file.

    Returns:
        The items, all paths absolute.

    Raises:
        PipelineError: the file is no datalist, has no such key, or names files that are not there.
    """
    path = Path(path).absolute()
    content = _load(path)
    if not isinstance(content.get(key), list):
        known = ", ".join(name for name, value in content.items() if isinstance(value, list)) or "none"
        raise PipelineError(f"{path}: has no list {key!r} (lists there: {known}); write it with `brats-pipeline split`")
    folders = [path.parent, *([Path(base_dir).absolute()] if base_dir else [])]
    absent: list[str] = []

    def resolve(text: str) -> str:
        for folder in folders:
            if (folder / text).exists():
                return str(folder / text)
        absent.append(str(path.parent / text))
        return absent[-1]

    items = [_with_paths(_check_item(path, key, number, item), resolve) for number, item in enumerate(content[key])]
    if absent:
        raise PipelineError(
            f"{path}: {len(absent)} of the files it lists are not there, first {absent[0]}; "
            "the data has moved: put it back, or write the datalist again with `brats-pipeline split`"
        )
    return items


def training_items(datalist: Mapping[str, Any] | Sequence[Item], *, fold: int | None, validation: bool) -> list[Item]:
    """The items to train on, or those of the fold that is held out.

    Args:
        datalist: from :func:`split_cases`, or its ``training`` items as :func:`read_datalist` gives them.
        fold: the one held out; None holds nothing out.
        validation: the items of that fold instead of all the others.

    Raises:
        PipelineError: an item has no fold or no label, or there is no such fold.
    """
    items: Sequence[Item] = datalist["training"] if isinstance(datalist, Mapping) else datalist
    for name in ("fold", "label"):
        if lacking := [str(item["case_id"]) for item in items if name not in item]:
            raise PipelineError(
                f"{len(lacking)} training items have no {name}, first {lacking[0]}; "
                "write the datalist with `brats-pipeline split`"
            )
    if fold is None:
        return [] if validation else list(items)
    known = sorted({item["fold"] for item in items})
    if fold not in known:
        raise PipelineError(f"there is no fold {fold} in the datalist; folds: {', '.join(map(str, known)) or 'none'}")
    return [item for item in items if (item["fold"] == fold) == validation]


def items_for_training(
    dataset_dir: str,
    data_list_file_path: str | None = None,
    *,
    fold: int | None = 0,
    validation: bool = False,
    folds: int = 5,
    seed: int = 0,
) -> list[Item]:
    """The items that a bundle trains on or validates with; made to be named in its YAML.

    Args:
        dataset_dir: folder of the cohort; with a datalist, where its relative paths may start.
        data_list_file_path: a datalist with folds; without one the cohort is split here.
        fold: the one held out; None holds nothing out.
        validation: the items of that fold instead of all the others.
        folds: number of folds of a split made here.
        seed: of a split made here.

    Raises:
        PipelineError: as :func:`find_cases`, :func:`split_cases` or :func:`read_datalist`.
    """
    if data_list_file_path:
        return training_items(
            read_datalist(data_list_file_path, base_dir=dataset_dir), fold=fold, validation=validation
        )
    datalist = split_cases(find_cases(Path(dataset_dir)), folds=folds, seed=seed)
    return training_items(datalist, fold=fold, validation=validation)


def items_for_inference(dataset_dir: str, data_list_file_path: str | None = None) -> list[Item]:
    """The items that a bundle segments, without label maps; made to be named in its YAML.

    Without a datalist each case takes the convention of its layout: what a reference holds has no say in a prediction.

    Args:
        dataset_dir: folder of the cohort or of one case; with a datalist, where its relative paths may start.
        data_list_file_path: a datalist; its ``testing`` items are taken, or ``training`` where there are none.

    Raises:
        PipelineError: as :func:`find_cases`, :func:`decide_conventions` or :func:`read_datalist`.
    """
    if not data_list_file_path:
        return case_items(decide_conventions(without_labels(find_cases(Path(dataset_dir)))))
    path = Path(data_list_file_path)
    keys = [key for key in ("testing", "training") if _load(path).get(key)]
    items = read_datalist(path, keys[0] if keys else "testing", base_dir=dataset_dir)
    return [{name: value for name, value in item.items() if name != "label"} for item in items]
