"""The folder of a run: what it says of how the run began, and what must not be left behind in it."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from brats_pipeline.errors import PipelineError
from brats_pipeline.files import remove_leftovers, write_atomically
from brats_pipeline.locking import CLAIM, claimed

ORIGIN = (
    *("bundle", "data", "datalist", "convention", "patients", "fold", "seed", "network", "overrides"),
    *("init_weights_sha256", "minutes"),
)
"""What a record keeps of the first call."""

FINISHED = "finished"
"""Status in the record of a run that came to its end."""
WRITTEN = ("models/last.pt", "models/model.pt", "curves.csv", "curves.png", "datalist.json", "run.json")
"""What a training writes again and again, or before its first epoch."""


def has_checkpoint(run: str | Path) -> bool:
    """Whether an epoch of a run was finished, behind which it can go on."""
    return (Path(run) / "models" / "last.pt").is_file()


def write_record(run: Path, record: Mapping[str, Any]) -> None:
    """Write ``run.json``."""
    write_atomically(run / "run.json", json.dumps(record, indent=2, default=str) + "\n")


def origin_of(run: Path) -> dict[str, Any]:
    """What the record of an earlier call says of how the run began; nothing where there is none yet."""
    record = _record(run)
    return {name: record[name] for name in ORIGIN if name in record}


def _record(run: Path) -> dict[str, Any]:
    try:
        record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


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


def refuse_other_contents(run: Path, *, resume: bool) -> None:
    """Refuse a folder that holds the weights of another bundle, or a run that this training must not write over.

    Args:
        run: the folder.
        resume: whether what was begun in it may be continued.

    Raises:
        PipelineError: says what is there.
    """
    if has_checkpoint(run):
        if not resume:
            raise PipelineError(f"{run} holds a run already; continue it with --resume, or choose another folder")
        return
    status = _record(run).get("status")
    begun = status is not None and status != FINISHED
    weights = run / "models" / "model.pt"
    if (weights.is_file() or status == FINISHED) and not (resume and begun):
        what = f"weights already ({weights})" if weights.is_file() else "a finished run"
        raise PipelineError(f"{run} holds {what}, and no models/last.pt to go on from; choose another folder")


@contextmanager
def own_folder(run: Path) -> Iterator[None]:
    """Work alone in the folder of a run, without what killed processes left of files in it.

    What an error leaves in a folder that was new or empty is taken back, unless an epoch was finished.

    Raises:
        PipelineError: another process trains there.
    """
    with claimed(run) as ours:
        if not ours:
            raise PipelineError(f"another process trains in {run}; let it end, or choose another folder")
        for name in WRITTEN:
            remove_leftovers(run / name)
        fresh = [path.name for path in run.iterdir()] == [CLAIM]
        try:
            yield
        except Exception:
            if fresh and not has_checkpoint(run):
                for path in run.iterdir():
                    if path.name != CLAIM:
                        shutil.rmtree(path) if path.is_dir() else path.unlink()
            raise


def versions() -> dict[str, str]:
    """Versions that decide a result."""
    from importlib.metadata import version

    packages = ("brats-pipeline", "monai", "torch", "numpy", "nibabel", "pytorch-ignite")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
