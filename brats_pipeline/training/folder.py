"""The folder of a run: what it says of how the run began, and what must not be left behind in it."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from brats_pipeline.errors import PipelineError
from brats_pipeline.files import write_atomically

ORIGIN = (
    *("bundle", "data", "datalist", "convention", "patients", "fold", "seed", "network", "overrides"),
    "init_weights_sha256",
)
"""What a record keeps of the first call."""


def has_checkpoint(run: str | Path) -> bool:
    """Whether an epoch of a run was finished, behind which it can go on."""
    return (Path(run) / "models" / "last.pt").is_file()


def write_record(run: Path, record: Mapping[str, Any]) -> None:
    """Write ``run.json``."""
    write_atomically(run / "run.json", json.dumps(record, indent=2, default=str) + "\n")


def origin_of(run: Path) -> dict[str, Any]:
    """What the record of an earlier call says of how the run began; nothing where there is none yet."""
    try:
        record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return {name: record[name] for name in ORIGIN if name in record}


def refuse_contradictions(run: Path, begun: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """A run goes on with the data, the fold and the seed that it was begun with.

    Raises:
        PipelineError: names what was given otherwise.
    """

    def text(name: str, value: Any) -> str:
        return str(value) if value is not None else "all" if name == "fold" else "not given"

    differing = [
        f"--{name} was {text(name, begun[name])}, now it is {text(name, value)}"
        for name, value in given.items()
        if name in begun and begun[name] != value
    ]
    if differing:
        raise PipelineError(
            f"{run} was begun otherwise: {'; '.join(differing)}; leave this out to continue the run, or train into "
            "another folder"
        )


@contextmanager
def no_half_run(run: Path) -> Iterator[None]:
    """Take back what an error leaves in a folder that was new or empty, unless an epoch was finished."""
    absent = [folder for folder in (run, *run.parents) if not folder.exists()]
    fresh = bool(absent) or (run.is_dir() and not any(run.iterdir()))
    try:
        yield
    except Exception:
        if fresh and run.is_dir() and not has_checkpoint(run):
            for path in run.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            with suppress(OSError):  # somebody else may have put something there meanwhile
                for folder in absent:
                    folder.rmdir()
        raise


def versions() -> dict[str, str]:
    """Versions that decide a result."""
    from importlib.metadata import version

    packages = ("brats-pipeline", "monai", "torch", "numpy", "nibabel", "pytorch-ignite")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
