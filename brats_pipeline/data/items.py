"""The items of a datalist: one case each, as values that JSON can hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from brats_pipeline.cases import Case, Source, listing_defects
from brats_pipeline.cases.stacks import is_stack
from brats_pipeline.errors import CaseError
from transforms.labels import MODALITIES

Item = dict[str, Any]
"""``case_id``, ``patient_id``, ``convention``, ``layout``, ``modalities`` (the names that the case has, in the order of
:data:`transforms.labels.MODALITIES`), ``image``, and where there are any ``channels``, ``label`` and ``fold``.

``image`` lists one path for each modality; with ``channels`` (modality to channel within a file) it lists the one file
that holds them all, or the slices in their order. ``label`` is a path, or the list of the masks of the slices."""


def _paths(source: Source) -> str | list[str]:
    paths = [str(path) for path in source.paths]
    return paths if is_stack(source) else paths[0]


def check_modalities(case_id: str, have: Sequence[str], wanted: Sequence[str]) -> None:
    """Refuse a case that lacks a modality.

    Raises:
        CaseError: names what is missing.
    """
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
        check_modalities(case.case_id, tuple(case.images), modalities)
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
