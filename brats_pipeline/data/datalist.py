"""Datalists: the cases of a cohort as JSON, with patient-grouped folds.

The file has the form of the Medical Segmentation Decathlon, so that ``monai.data.load_decathlon_datalist`` reads it
too. (That function takes any text that happens to name a file below its ``base_dir`` for a path, a case id among them;
:func:`read_datalist` does not.)
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from brats_pipeline.cases import (
    Case,
    Source,
    case_list_sha256,
    count_labels,
    decide_conventions,
    find_cases,
    listing_defects,
    settle_conventions,
    without_labels,
)
from brats_pipeline.cases.conventions import LabelCount
from brats_pipeline.cases.identity import Shared
from brats_pipeline.cases.layouts import modalities_of
from brats_pipeline.cases.stacks import is_stack
from brats_pipeline.data.folds import shared_groups, stratified_folds
from brats_pipeline.errors import CaseError, PipelineError
from brats_pipeline.files import write_atomically
from transforms.labels import MODALITIES, convention

SCHEMA_VERSION = 1
Item = dict[str, Any]
"""``case_id``, ``patient_id``, ``convention``, ``layout``, ``modalities`` (the names that the case has, in the order of
:data:`transforms.labels.MODALITIES`), ``image``, and where there are any ``channels``, ``label`` and ``fold``.

``image`` lists one path for each modality; with ``channels`` (modality to channel within a file) it lists the one file
that holds them all, or the slices in their order. ``label`` is a path, or the list of the masks of the slices."""


def _paths(source: Source) -> str | list[str]:
    paths = [str(path) for path in source.paths]
    return paths if is_stack(source) else paths[0]


def _check_modalities(case_id: str, have: Sequence[str], wanted: Sequence[str]) -> None:
    if missing := [modality for modality in wanted if modality not in have]:
        raise CaseError(
            case_id,
            f"lacks {', '.join(missing)} (has {', '.join(have) or 'none'}); all of {', '.join(wanted)} are needed",
        )


def case_items(cases: Sequence[Case], *, modalities: Sequence[str] = MODALITIES) -> list[Item]:
    """The datalist items of cases, in their order.

    Args:
        cases: what to list.
        modalities: those that every case must have; what else a case has is listed too.

    Raises:
        CaseError: a case lacks a modality, or its list of files has a defect; the message names it.
    """
    items = []
    for case in cases:
        _check_modalities(case.case_id, tuple(case.images), modalities)
        if defects := listing_defects(case):
            raise CaseError(case.case_id, "; ".join(defects))
        item: Item = {
            "case_id": case.case_id,
            "patient_id": case.patient_id,
            "convention": case.convention,
            "layout": case.layout,
            "modalities": list(case.images),
        }
        channels = {modality: source.channel for modality, source in case.images.items()}
        if None in channels.values():
            item["image"] = [str(source.paths[0]) for source in case.images.values()]
        else:
            item["image"] = [str(path) for source in list(case.images.values())[:1] for path in source.paths]
            item["channels"] = channels
        if case.label is not None:
            item["label"] = _paths(case.label)
        items.append(item)
    return items


def _comparable(sizes: Sequence[tuple[bool, float]]) -> list[float]:
    """Sizes in one unit as they are; where voxels and ml meet, the share of sizes of the same unit that are smaller."""
    if len({unit for unit, _ in sizes}) < 2:
        return [size for _, size in sizes]
    held = {unit: sorted(size for other, size in sizes if other == unit) for unit in (False, True)}
    return [held[unit].index(size) / len(held[unit]) for unit, size in sizes]


def split_cases(
    cases: Sequence[Case],
    *,
    folds: int = 5,
    seed: int = 0,
    name: str = "cohort",
    modalities: Sequence[str] | None = None,
    shared: Sequence[Shared] = (),
    workers: int = 2,
    on_case: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Split a cohort into folds by patient, stratified by the volume of the whole tumour and by institution.

    Args:
        cases: a cohort in any order; conventions that are still open are decided here. Cases without a label map are
            listed under ``testing``.
        folds: number of folds, at least 2.
        seed: the same seed and cases give the same folds.
        name: of the datalist.
        modalities: those that every case must have; by default those of the cohort's layouts.
        shared: pairs of cases that are one patient, from :func:`brats_pipeline.cases.identity.find_shared`; they stay
            in one fold. Pairs with a case of another cohort say nothing here.
        workers: threads that read label maps.
        on_case: called with the id of each case whose label map was read.

    Returns:
        The datalist, with absolute paths; :func:`write_datalist` writes it.

    Raises:
        PipelineError: there are fewer labelled patients than folds, or a convention is ambiguous.
        CaseError: a case lacks a modality, or its list of files has a defect, or its label map cannot be read.
    """
    if folds < 2:
        raise ValueError(f"folds must be at least 2, got {folds}")
    cases = sorted(cases, key=lambda case: case.case_id)
    layouts = {case.layout for case in cases}
    wanted = modalities
    if wanted is None:
        wanted = [name for name in MODALITIES if all(name in modalities_of(layout) for layout in layouts)]
    case_items(cases, modalities=wanted)  # refuse what cannot be listed before the label maps are read
    counts = count_labels(cases, workers=workers, on_case=on_case)
    cases = settle_conventions(cases, counts)
    labelled = [case for case in cases if case.label is not None]
    sizes = []
    for case in labelled:
        count = counts[case.case_id]
        if not isinstance(count, LabelCount):
            raise count
        row = convention(case.convention or "")
        sizes.append((count.voxel_ml is None, count.size(row.regions[row.widest_first()[0]])))
    fold_of = stratified_folds(labelled, _comparable(sizes), shared_groups(labelled, shared), folds=folds, seed=seed)
    items = case_items(labelled, modalities=wanted)
    return {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        **_description(cases, wanted),
        "seed": seed,
        "folds": folds,
        "training": [item | {"fold": fold} for item, fold in zip(items, fold_of, strict=True)],
        "testing": case_items([case for case in cases if case.label is None], modalities=wanted),
    }


def unsplit_cases(
    cases: Sequence[Case], *, name: str = "cohort", modalities: Sequence[str] = MODALITIES
) -> dict[str, Any]:
    """The datalist of a cohort of which nothing is held out: all in one fold, so that a single patient will do.

    Args:
        cases: what to list; each needs a label map and a decided convention.
        name: of the datalist.
        modalities: those that every case must have.

    Raises:
        CaseError: a case lacks a modality, or its list of files has a defect.
    """
    cases = sorted(cases, key=lambda case: case.case_id)
    return {
        "schema_version": SCHEMA_VERSION,
        "name": name,
        **_description(cases, modalities),
        "folds": 1,
        "training": [item | {"fold": 0} for item in case_items(cases, modalities=modalities)],
        "testing": [],
    }


def _description(cases: Sequence[Case], modalities: Sequence[str]) -> dict[str, Any]:
    """What a datalist says of its cases as a whole."""
    return {
        "layout": ", ".join(sorted({case.layout for case in cases})),
        "convention": ", ".join(sorted({case.convention or "" for case in cases})),
        "modalities": list(modalities),
        "case_list_sha256": case_list_sha256(case.case_id for case in cases),
    }


def item_case(item: Item) -> Case:
    """The case that an item of a datalist was made of; the inverse of :func:`case_items`."""
    paths, channels = [Path(path) for path in item["image"]], item.get("channels")
    if channels is None:
        images = {name: Source((path,)) for name, path in zip(item["modalities"], paths, strict=True)}
    else:
        images = {name: Source(tuple(paths), channels[name]) for name in item["modalities"]}
    label = item.get("label")
    return Case(
        case_id=item["case_id"],
        patient_id=item["patient_id"],
        images=images,
        label=None if label is None else Source(tuple(map(Path, [label] if isinstance(label, str) else label))),
        layout=item.get("layout", "plain"),
        convention=item["convention"],
    )


def _with_paths(item: Item, change: Callable[[str], str]) -> Item:
    """A copy of an item with each of its paths changed."""
    changed = item | {"image": [change(path) for path in item["image"]]}
    if "label" in item:
        label = item["label"]
        changed["label"] = change(label) if isinstance(label, str) else [change(path) for path in label]
    return changed


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
    image, label = item["image"], item.get("label", "")
    names = item.setdefault("modalities", list(MODALITIES))
    if not _are_texts(names) or not set(names) <= set(MODALITIES):
        raise PipelineError(f"{where}: modalities must be some of {', '.join(MODALITIES)}, got {names!r}")
    channels = item.get("channels")
    if channels is not None and (not isinstance(channels, dict) or set(channels) != set(names)):
        raise PipelineError(f"{where}: channels must name a channel for each of {', '.join(names)}, got {channels!r}")
    if not _are_texts(image) or (len(image) != len(names) if channels is None else not image):
        raise PipelineError(f"{where}: image must list {len(names)} paths ({', '.join(names)}), got {image!r}")
    if not isinstance(label, str) and not _are_texts(label):
        raise PipelineError(f"{where}: label must be one path, or the masks of slices, got {label!r}")
    return item


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


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


def read_whole_datalist(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a datalist file with all that it says of itself; :func:`write_datalist` writes it elsewhere.

    Returns:
        The content of the file, the paths of its ``training`` and ``testing`` items absolute.

    Raises:
        PipelineError: as :func:`read_datalist`.
    """
    content = _load(Path(path))
    testing = read_datalist(path, "testing") if content.get("testing") else []
    return {**content, "training": read_datalist(path), "testing": testing}


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


def _with_modalities(items: list[Item], wanted: Sequence[str] | None) -> list[Item]:
    """The same items, after each was checked for the modalities wanted."""
    for item in items:
        _check_modalities(item["case_id"], item["modalities"], MODALITIES if wanted is None else wanted)
    return items


def items_for_training(
    dataset_dir: str,
    data_list_file_path: str | None = None,
    *,
    fold: int | None = 0,
    validation: bool = False,
    folds: int = 5,
    seed: int = 0,
    modalities: Sequence[str] | None = None,
) -> list[Item]:
    """The items that a bundle trains on or validates with; made to be named in its YAML.

    Args:
        dataset_dir: folder of the cohort; with a datalist, where its relative paths may start.
        data_list_file_path: a datalist with folds; without one the cohort is split here.
        fold: the one held out; None holds nothing out.
        validation: the items of that fold instead of all the others.
        folds: number of folds of a split made here.
        seed: of a split made here.
        modalities: those that every case must have; by default all four.

    Raises:
        PipelineError: as :func:`find_cases`, :func:`split_cases` or :func:`read_datalist`.
    """
    if data_list_file_path:
        items = _with_modalities(read_datalist(data_list_file_path, base_dir=dataset_dir), modalities)
        return training_items(items, fold=fold, validation=validation)
    cases = find_cases(Path(dataset_dir))
    wanted = MODALITIES if modalities is None else modalities
    datalist = split_cases(cases, folds=folds, seed=seed, modalities=wanted)
    return training_items(datalist, fold=fold, validation=validation)


def _item_or_defect(case: Case, wanted: Sequence[str]) -> Item:
    """The item of a case, or what keeps the case from having one."""
    try:
        return case_items([case], modalities=wanted)[0]
    except CaseError as error:
        return {
            "case_id": case.case_id,
            "patient_id": case.patient_id,
            "convention": case.convention,
            "layout": case.layout,
            "defect": error.reason,
        }


def items_for_inference(
    dataset_dir: str, data_list_file_path: str | None = None, *, modalities: Sequence[str] | None = None
) -> list[Item]:
    """The items that a bundle segments, without label maps; made to be named in its YAML.

    A case that lacks a modality, or whose list of files has a defect, gives an item without images whose ``defect``
    says so: :class:`brats_pipeline.data.cohort.CohortDataset` passes it on as a failure, and the other cases are
    segmented.

    Without a datalist each case takes the convention of its layout: what a reference holds has no say in a prediction.

    Args:
        dataset_dir: folder of the cohort or of one case; with a datalist, where its relative paths may start.
        data_list_file_path: a datalist; its ``testing`` items are taken, or ``training`` where there are none.
        modalities: those that a case must have to be segmented; by default all four.

    Raises:
        PipelineError: as :func:`find_cases`, :func:`decide_conventions` or :func:`read_datalist`.
    """
    wanted = MODALITIES if modalities is None else modalities
    if not data_list_file_path:
        cases = decide_conventions(without_labels(find_cases(Path(dataset_dir))))
        return [_item_or_defect(case, wanted) for case in cases]
    path = Path(data_list_file_path)
    keys = [key for key in ("testing", "training") if _load(path).get(key)]
    items = read_datalist(path, keys[0] if keys else "testing", base_dir=dataset_dir)
    return [_item_or_defect(item_case(item | {"label": None}), wanted) for item in items]
