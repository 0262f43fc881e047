"""Datalists: the cases of a cohort as JSON, with patient-grouped folds.

The file has the form of the Medical Segmentation Decathlon, so that ``monai.data.load_decathlon_datalist`` reads it
too. (That function takes any text that happens to name a file below its ``base_dir`` for a path, a case id among them;
:func:`read_datalist` does not.)

Here is what bundles name in their YAML, and the door to the parts: :mod:`brats_pipeline.data.items`, ``splitting`` and
``listing``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from brats_pipeline.cases import Case, decide_conventions, find_cases, without_labels
from brats_pipeline.data.items import Item, case_items, check_modalities, item_case
from brats_pipeline.data.listing import load, read_datalist, read_whole_datalist, write_datalist
from brats_pipeline.data.splitting import split_cases, unsplit_cases
from brats_pipeline.errors import CaseError, PipelineError
from transforms.labels import MODALITIES

CONVENTION_IN_DATALIST = (
    "a datalist names the label convention of its cases already; give --convention to `split`, or leave it out"
)
"""What is said where one is given beside a datalist."""

__all__ = [
    "CONVENTION_IN_DATALIST",
    "Item",
    "case_items",
    "item_case",
    "items_for_inference",
    "items_for_training",
    "read_datalist",
    "read_whole_datalist",
    "split_cases",
    "training_items",
    "unsplit_cases",
    "write_datalist",
]


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
        check_modalities(item["case_id"], item["modalities"], MODALITIES if wanted is None else wanted)
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
    keys = [key for key in ("testing", "training") if load(path).get(key)]
    items = read_datalist(path, keys[0] if keys else "testing", base_dir=dataset_dir)
    return [_item_or_defect(item_case(item | {"label": None}), wanted) for item in items]
