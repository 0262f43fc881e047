"""Segmenting exams as they arrive in a folder."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from brats_pipeline.cases import Case, find_cases
from brats_pipeline.errors import CaseError, PipelineError
from brats_pipeline.inference.inputs import inputs_of
from brats_pipeline.inference.result import Segmentation
from brats_pipeline.inference.segment import segment
from brats_pipeline.inference.sharing import share_of
from transforms.labels import MODALITIES

logger = logging.getLogger(__name__)


def watch(
    folder: str | Path,
    out: str | Path,
    *,
    settle: float = 10.0,
    every: float = 2.0,
    sleep: Callable[[float], object] = time.sleep,
    now: Callable[[], float] = time.time,
    **arguments: Any,
) -> Iterator[Segmentation]:
    """Segment each case of a folder once its files have come to rest, and again when they change; without end.

    A case that failed, or is refused, is tried again only when its files have changed. What was segmented by an earlier
    call with the same weights is not done again. What keeps the folder from being read, such as two cases of one name,
    is told once.

    Args:
        folder: case folders arrive in it; it may be empty at first.
        out: folder of the predictions; not within ``folder``.
        settle: seconds since the last change of a file of the case before it is taken to be whole.
        every: seconds between two looks at the folder.
        sleep: how to wait.
        now: the time, in seconds since the epoch.
        arguments: of :func:`brats_pipeline.inference.segment.segment`.

    Yields:
        What became of the cases of each round in which there were any.

    Raises:
        PipelineError: the folder is none, a share of its cases is asked for, or nothing can be segmented in it at all,
            as without weights.
    """
    folder, out = Path(folder).resolve(), Path(out).resolve()
    if not folder.is_dir():
        raise PipelineError(f"{folder}: there is no such folder to watch; make it, or give another one")
    if out.is_relative_to(folder):
        raise PipelineError(f"{out} lies within the watched folder, so predictions would be taken for scans; move it")
    if share_of(arguments.get("share")) is not None:
        raise PipelineError(
            "shares are dealt over a list of cases, and a watched folder has none yet; let one process watch it, or "
            "give each a folder of its own"
        )
    known: dict[str, Mapping[str, Any]] = {}
    trouble, since, told = "", now(), ""
    while True:
        cases, found = _look(folder)
        if found != trouble:
            trouble, since = found, now()
        if trouble != told and now() - since >= settle:  # half a case may be on its way
            told = trouble
            if trouble:
                logger.warning("nothing is segmented until this is mended: %s", trouble)
        before = now() - settle
        states = {case.case_id: inputs_of(case, MODALITIES) for case in cases if _last_change(case) <= before}
        fresh = [name for name, state in states.items() if known.get(name) != state]
        known |= {name: states[name] for name in fresh}
        while fresh:
            try:
                result = segment([folder], out, only=fresh, **arguments)
            except CaseError as error:  # about one of them, such as a prediction made from another place
                if error.case_id not in fresh:
                    raise
                logger.warning("%s", error)
                fresh.remove(error.case_id)
            else:
                yield result
                break
        sleep(every)


def _look(folder: Path) -> tuple[list[Case], str]:
    """The cases of a folder, and what keeps them from being found; an empty folder waits for its first one."""
    try:
        return ([], "") if folder.is_dir() and not any(folder.iterdir()) else (find_cases(folder), "")
    except (PipelineError, OSError) as error:
        return [], str(error)


def _last_change(case: Case) -> float:
    paths = [path for source in case.images.values() for path in source.paths]
    try:
        return max(max(path.stat().st_mtime, path.parent.stat().st_mtime) for path in paths)
    except OSError:  # a file that went away while we looked
        return float("inf")
