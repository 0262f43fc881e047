"""What a bundle's metadata tell of its configuration: the channels of the network by name, and the field of view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

REGION_NAMES = {"TC": "Tumour core", "WT": "Whole tumour", "ET": "Enhancing tumour"}
MODALITY_NAMES = {"t1c": "T1c", "t1": "T1", "t2": "T2", "flair": "FLAIR"}


def declared(metadata: Mapping[str, Any], content: Mapping[str, Any]) -> dict[str, Any]:
    """The metadata with what a configuration says of itself in it; what it leaves to an expression stays as it was.

    Args:
        metadata: of the bundle; without a whole ``network_data_format`` no channels are told.
        content: ``inference.yaml`` as plain values.
    """
    told: dict[str, Any] = deepcopy(dict(metadata))
    field_of_view = content.get("field_of_view")
    if isinstance(field_of_view, str) and not field_of_view.startswith(("$", "@", "%")):
        told["field_of_view"] = field_of_view
    try:
        formats = told["network_data_format"]
        image, pred = formats["inputs"]["image"], formats["outputs"]["pred"]
    except (KeyError, TypeError):  # `bundle verify` says so
        return told
    seen = input_channels(content)
    if seen is not None and seen != _channels(image):
        _tell(image, seen)
        told["image_classes"] = _in_words(seen)
    marked = _regions(content)
    if marked is not None and marked != _channels(pred) and not _in_words_of_its_own(pred, len(marked)):
        _tell(pred, marked)
        told["label_classes"] = told["pred_classes"] = _in_words(marked)
    return told


def input_channels(content: Mapping[str, Any]) -> list[str] | None:
    """What each channel of the network's input holds: modalities, slice by slice, and behind them their flags.

    None where the configuration leaves it to an expression.
    """
    modalities, reach, flags = (content.get(key) for key in ("modalities", "neighbours", "presence_flags"))
    if not isinstance(modalities, list) or isinstance(reach, str) or isinstance(flags, str):
        return None
    names = [MODALITY_NAMES.get(name, str(name)) for name in modalities]
    offsets = range(-int(reach or 0), int(reach or 0) + 1)
    listed = [f"{name} of slice {offset:+d}" if reach else name for offset in offsets for name in names]
    return listed + ([f"{name} present" for name in names] if flags else [])


def _regions(content: Mapping[str, Any]) -> list[str] | None:
    regions = content.get("regions")
    return [REGION_NAMES.get(name, str(name)) for name in regions] if isinstance(regions, list) else None


def _in_words_of_its_own(told: Mapping[str, Any], count: int) -> bool:
    """Whether a bundle names as many regions as it has, in other words than ours."""
    names = _channels(told)
    return len(names) == count and not set(names) <= set(REGION_NAMES.values())


def _channels(told: Mapping[str, Any]) -> list[str]:
    return list(told.get("channel_def", {}).values())


def _tell(told: dict[str, Any], names: Sequence[str]) -> None:
    told["num_channels"] = len(names)
    told["channel_def"] = {str(index): name for index, name in enumerate(names)}


def _in_words(names: Sequence[str]) -> str:
    return f"{len(names)} channel{'s' if len(names) > 1 else ''}, in this order: {', '.join(names)}"
