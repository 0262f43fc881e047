"""Where the cases of a study come from: a folder that was named, or a synthetic cohort that the study makes itself."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from brats_pipeline.errors import PipelineError
from brats_pipeline.phantom import write_cohort
from brats_pipeline.studies.plan import Phantom, Plan

COHORT = "data"
MADE_BY = ".phantom.json"
"""What a synthetic cohort was asked for, inside it."""


def data_folder(record: Mapping[str, Any], out: Path) -> Path:
    """Where the cases of a study lie; a cohort of its own moves with it."""
    return out / str(record["data"])


def choose_source(
    plan: Plan, out: Path, data: str | Path | None, earlier: Mapping[str, Any] | None, *, new: bool
) -> Path:
    """The folder of the cases; a synthetic cohort is made where the budget asks for one.

    Args:
        plan: the study.
        out: its folder.
        data: named by the person; None: the folder of the earlier call, or a cohort of the study's own.
        earlier: record of an earlier call.
        new: whether a change is taken: then a synthetic cohort that the study no longer means is made again, and is
            never taken for the data of a study that means real ones, nor the other way round.

    Raises:
        PipelineError: there are no data, or data for a budget that makes its own.
    """
    own = out / COHORT
    if plan.phantom is not None:
        named = None if data is None else Path(data).resolve()
        if named not in (None, own):
            raise PipelineError(
                f"{plan.name}: the budget {plan.budget} makes synthetic cases of its own; leave out --data {data}, or "
                "choose another budget"
            )
        return _cohort(plan.phantom, own, anew=new or earlier is None)
    if data is None and earlier is not None and not (new and earlier["study"]["phantom"] is not None):
        data = data_folder(earlier, out)
    if data is None:
        raise PipelineError(f"{plan.name} needs data: give the folder that holds the cases with --data")
    return Path(data).resolve()


def _cohort(phantom: Phantom, own: Path, *, anew: bool) -> Path:
    """The synthetic cohort; made beside its place and renamed, so that it is whole or absent."""
    told = json.dumps(asdict(phantom), sort_keys=True)

    def there() -> bool:
        marker = own / MADE_BY
        return own.is_dir() and (not anew or (marker.is_file() and marker.read_text(encoding="utf-8") == told))

    if there():
        return own
    making = own.with_name(f".{own.name}-{os.getpid()}")
    shutil.rmtree(making, ignore_errors=True)
    try:
        write_cohort(
            making,
            cases=phantom.cases,
            layout=phantom.layout,
            seed=phantom.seed,
            shape=phantom.shape,
            spacing_mm=phantom.spacing,
        )
    except ValueError as error:
        raise PipelineError(f"the study's synthetic cohort cannot be made: {error}") from error
    (making / MADE_BY).write_text(told, encoding="utf-8")
    if not there():
        shutil.rmtree(own, ignore_errors=True)
    try:
        making.rename(own)
    except OSError:  # another process of the same study was first
        shutil.rmtree(making, ignore_errors=True)
        if not own.is_dir():
            raise
    return own
