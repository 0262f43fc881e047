"""Datalist files: written with paths beside them relative, read with every path absolute and there."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from brats_pipeline.data.items import Item
from brats_pipeline.errors import PipelineError
from brats_pipeline.files import write_atomically
from transforms.labels import MODALITIES


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


def load(path: Path) -> dict[str, Any]:
    """The content of a datalist file as it stands there.

    Raises:
        PipelineError: it cannot be read, or is no JSON object.
    """
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
    content = load(path)
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
    content = load(Path(path))
    testing = read_datalist(path, "testing") if content.get("testing") else []
    return {**content, "training": read_datalist(path), "testing": testing}
