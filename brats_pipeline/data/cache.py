"""Prepared cases on disk: made once, mapped into memory, shared by runs, processes and loader workers.

    FOLDER/<key>/entry.json   what the case holds besides arrays, and where each array lies
    FOLDER/<key>/<n>.npy      one array each, mapped when the case is opened

The key is a hash of the contents of the case's files and of everything that was done to them, so that an entry is
never stale: other files, other settings or other code make another key.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from enum import Enum
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from brats_pipeline.errors import PipelineError

SCHEMA_VERSION = 1
NAMES = ("case_id", "patient_id", "fold")
"""What an item says of its case beside the files: no array depends on it, and another split may say otherwise."""
MAPPED_FROM = 2**16
"""Arrays of more bytes are mapped into memory, smaller ones read."""


class CaseCache:
    """Samples, that is dictionaries of tensors and plain values, in a folder.

    Args:
        folder: made when absent; several runs may share it, also at the same time.
        recipe: what was done to the files, from :func:`recipe_of`.
    """

    def __init__(self, folder: str | Path, recipe: str) -> None:
        self.folder = Path(folder).expanduser().resolve()
        self.recipe = recipe

    def key(self, item: Mapping[str, Any]) -> str:
        """The name of an item's entry: a hash of the contents of its files, its other values and the recipe.

        How the case is called and in which fold it lies (:data:`NAMES`) does not count.
        """
        counts = {name: value for name, value in item.items() if name not in NAMES}
        described = json.dumps([SCHEMA_VERSION, self.recipe, _with_contents(counts)], sort_keys=True)
        return hashlib.sha256(described.encode()).hexdigest()

    def find(self, item: Mapping[str, Any], key: str | None = None) -> dict[str, Any] | None:
        """The sample of an item (of its key, where that is known), under the names of now; None as :meth:`read`."""
        sample = self.read(key or self.key(item))
        return sample and {**sample, **{name: item[name] for name in NAMES if name in sample and name in item}}

    def read(self, key: str) -> dict[str, Any] | None:
        """The sample of a key; None where there is none, or where it is damaged (then it is removed)."""
        entry = self.folder / key
        try:
            content = json.loads((entry / "entry.json").read_text(encoding="utf-8"))
            return {name: _restore(entry, value) for name, value in content.items()}
        except FileNotFoundError:
            if not entry.exists():
                return None
        except (OSError, ValueError, KeyError):
            pass
        shutil.rmtree(entry, ignore_errors=True)
        return None

    def write(self, key: str, sample: Mapping[str, Any]) -> None:
        """Keep a sample. It appears whole or not at all; where another process was quicker, its entry stays.

        Raises:
            PipelineError: the folder cannot be written, or the disk is full; nothing is left behind.
        """
        temporary: Path | None = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(dir=self.folder, prefix=f".{socket.gethostname()}.{os.getpid()}."))
            content: dict[str, Any] = {}
            written = 0
            for name, value in sample.items():
                content[name], written = _store(temporary, name, value, written)
            (temporary / "entry.json").write_text(json.dumps(content), encoding="utf-8")
            with suppress(FileExistsError):
                _rename(temporary, self.folder / key)
        except OSError as error:
            raise PipelineError(
                f"{self.folder}: a prepared case cannot be kept ({error.strerror or error}); make room there, or "
                "choose another cache folder"
            ) from error
        finally:
            if temporary is not None:
                shutil.rmtree(temporary, ignore_errors=True)

    def sweep(self) -> None:
        """Remove what killed processes of this machine have left half-written."""
        for path in self.folder.glob(f".{socket.gethostname()}.*"):
            process = path.name.removeprefix(f".{socket.gethostname()}.").split(".")[0]
            if process.isdigit() and not _runs(int(process)):
                shutil.rmtree(path, ignore_errors=True)

    def refuse_too_much(self, needed: int) -> None:
        """Say so before anything is written where ``needed`` bytes do not fit.

        Raises:
            PipelineError: names the need, the folder and what is free.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise PipelineError(
                f"the prepared cases need about {in_gib(needed)} in {self.folder}, where {in_gib(free)} are free; make "
                "room there, or choose another cache folder"
            )


def sample_bytes(sample: Mapping[str, Any]) -> int:
    """Bytes of all tensors in a sample."""
    total = 0
    for value in sample.values():
        tensors = value if isinstance(value, list) else [value]
        total += sum(tensor.numel() * tensor.element_size() for tensor in tensors if isinstance(tensor, Tensor))
    return total


def in_gib(size: float) -> str:
    """Bytes as text."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 / 10 else f"{size / 2**20:.1f} MiB"


def recipe_of(transforms: Sequence[Any]) -> str:
    """A hash of transforms: their classes, those classes' code, and every setting.

    Raises:
        TypeError: a setting is of a kind whose values cannot be told apart, so that an entry might be stale.
    """
    described = [_describe(transform, frozenset()) for transform in transforms]
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def _describe(value: Any, inside: frozenset[int]) -> Any:
    """Something JSON can hold that differs where two settings differ, and is the same in every process."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, np.generic):
        return _describe(value.item(), inside)
    if isinstance(value, np.dtype | torch.dtype | torch.device | slice):
        return repr(value)
    if id(value) in inside:
        return "itself"
    inside = inside | {id(value)}
    if isinstance(value, Enum):
        return [type(value).__qualname__, value.name]
    if isinstance(value, Mapping):
        return {str(key): _describe(entry, inside) for key, entry in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(json.dumps(_describe(entry, inside), sort_keys=True) for entry in value)
    if isinstance(value, list | tuple):
        return [_describe(entry, inside) for entry in value]
    if isinstance(value, Tensor | np.ndarray):
        array = np.ascontiguousarray(value)
        return [str(array.dtype), list(array.shape), hashlib.sha256(array.tobytes()).hexdigest()]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.random.RandomState):
        return "random"
    if isinstance(value, partial):
        return ["partial", *(_describe(part, inside) for part in (value.func, value.args, value.keywords))]
    if inspect.isroutine(value) or inspect.isclass(value):
        return f"{value.__module__}.{value.__qualname__}"
    kind = type(value)
    if not hasattr(value, "__dict__"):
        raise TypeError(
            f"a setting of kind {kind.__module__}.{kind.__qualname__} cannot be told from another of its kind, so "
            "prepared cases might be stale; set it by a number, a name or a list, or train without a cache on disk"
        )
    own = {name: _describe(entry, inside) for name, entry in vars(value).items()}
    return [f"{kind.__module__}.{kind.__qualname__}", _code(kind.__module__), own]


@cache
def _code(module: str) -> str:
    """A hash of the file of a module; empty for one that is built in."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file else ""


def _with_contents(value: Any) -> Any:
    """The item with a hash of its contents in the place of every file's name."""
    if isinstance(value, Mapping):
        return {str(key): _with_contents(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_with_contents(entry) for entry in value]
    if isinstance(value, str | Path) and os.sep in str(value) and Path(value).is_file():
        with Path(value).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return str(value) if isinstance(value, Path) else value


def _store(folder: Path, name: str, value: Any, number: int) -> tuple[dict[str, Any], int]:
    """Write the arrays of one value; returns what to note about it, and the number of the next file."""
    if isinstance(value, Tensor):
        array = value.as_subclass(Tensor).cpu().numpy()
        axes = sorted(range(array.ndim), key=lambda axis: -array.strides[axis])  # outermost in memory first
        np.save(folder / f"{number}.npy", array.transpose(axes))
        return {"file": f"{number}.npy", "axes": axes}, number + 1
    if isinstance(value, np.ndarray) and value.dtype != object:
        np.save(folder / f"{number}.npy", value)
        return {"array": f"{number}.npy"}, number + 1
    if isinstance(value, list) and value and all(isinstance(entry, Tensor) for entry in value):
        notes = []
        for entry in value:
            note, number = _store(folder, name, entry, number)
            notes.append(note)
        return {"list": notes}, number
    try:
        json.dumps(value)
    except TypeError as error:
        raise TypeError(
            f"{name!r} is a {type(value).__name__}; a cached case holds arrays, lists of tensors and plain values: "
            "drop it with SelectItemsd or DeleteItemsd before the first random transform"
        ) from error
    return {"value": value}, number


def _restore(folder: Path, note: Mapping[str, Any]) -> Any:
    if "list" in note:
        return [_restore(folder, entry) for entry in note["list"]]
    if "array" in note:
        return np.load(folder / note["array"], allow_pickle=False)
    if "file" not in note:
        return note["value"]
    path = folder / note["file"]
    # Copy on write: torch wants memory that it may write to, and the file stays as it is. Few bytes are simply read.
    array = np.load(path, mmap_mode="c" if path.stat().st_size > MAPPED_FROM else None, allow_pickle=False)
    return torch.from_numpy(np.asarray(array).transpose(np.argsort(note["axes"])))


def _rename(source: Path, target: Path) -> None:
    """Rename a folder; ``FileExistsError`` where the target is there already."""
    try:
        source.rename(target)
    except OSError:
        if target.is_dir():
            raise FileExistsError(target) from None
        raise


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
