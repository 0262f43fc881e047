"""The cases that a run may be tuned on, and the probabilities that it gives them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from brats_pipeline.bundles import weights_path
from brats_pipeline.cases import Case, decide_conventions, find_cases
from brats_pipeline.data.datalist import CONVENTION_IN_DATALIST, item_case, read_datalist
from brats_pipeline.errors import PipelineError
from brats_pipeline.files import file_sha256, write_atomically
from brats_pipeline.inference.inputs import states_of
from brats_pipeline.inference.segment import segment
from brats_pipeline.overlays import configuration_sha256
from brats_pipeline.predictions import probability_file
from brats_pipeline.progress import growing_bar

MADE_BY = "predictions.json"


@dataclass(frozen=True)
class Chosen:
    """What a run is tuned on.

    Args:
        cases: with label maps, by case id.
        trained_on: how many cases were left out because the run, or another scan of the patient, was trained on them.
    """

    cases: tuple[Case, ...]
    trained_on: int


def _record(run: Path) -> tuple[list[dict[str, Any]], Any]:
    """The labelled items of a run's datalist as they stand in the file, and the fold that validated."""
    try:
        items = json.loads((run / "datalist.json").read_text(encoding="utf-8"))["training"]
        fold = json.loads((run / "run.json").read_text(encoding="utf-8"))["fold"]
    except (OSError, ValueError, KeyError, TypeError):
        return [], None
    return items, fold


def cases_to_tune_on(
    run: Path, *, data: str | Path | None = None, datalist: str | Path | None = None, convention: str | None = None
) -> Chosen:
    """The cases with a label map that a run was not trained on: its validation fold, or other data.

    Args:
        run: the run.
        data: folder of a cohort instead of the validation fold.
        datalist: its ``training`` list instead of the validation fold.
        convention: label convention of ``data``, where its layout and values leave it open.

    Raises:
        PipelineError: both are given, the run has no validation fold, or no case is left.
    """
    if data is not None and datalist is not None:
        raise PipelineError("give either a folder of cases (--data) or a datalist of `split` (--datalist)")
    if data is None and convention is not None:
        raise PipelineError(CONVENTION_IN_DATALIST)
    items, fold = _record(run)
    trained = [item for item in items if fold is None or item.get("fold") != fold]
    if data is None and datalist is None:
        if not items or fold is None:
            raise PipelineError(
                f"{run}: its record names no validation fold, so there is nothing that it was not trained on; give "
                "other cases with label maps by --data or --datalist"
            )
        cases = [item_case(item) for item in read_datalist(run / "datalist.json") if item.get("fold") == fold]
    elif datalist is not None:
        cases = [item_case(item) for item in read_datalist(datalist) if "label" in item]
    else:
        found = [case for case in find_cases(Path(str(data))) if case.label is not None]
        cases = decide_conventions(found, convention) if found else []
    known = {str(item.get(name)) for item in trained for name in ("case_id", "patient_id")}
    unseen = [case for case in cases if not known & {case.case_id, case.patient_id}]
    if not unseen:
        what = f"all {len(cases)} were trained on" if cases else "there are none with label maps"
        raise PipelineError(f"{run}: no case to tune on, {what}; give others by --data or --datalist")
    return Chosen(tuple(sorted(unseen, key=lambda case: case.case_id)), len(cases) - len(unseen))


def first_asked(unseen: Sequence[Sequence[Case]]) -> list[list[Case]]:
    """Of the cases that each of several runs never saw, those that no earlier one is asked for."""
    taken: set[str] = set()
    turns = []
    for cases in unseen:
        turns.append([case for case in cases if case.case_id not in taken])
        taken |= {case.case_id for case in cases}
    return turns


def probabilities_of(
    run: Path, cases: Sequence[Case], out: Path, *, device: str | None, quiet: bool
) -> tuple[dict[str, Path], Mapping[str, str]]:
    """The files of probabilities of a run's cases; they are made unless they are there, of these very scans.

    Args:
        run: with weights.
        cases: what to segment.
        out: folder of the tuning.
        device: ``cpu``, ``cuda`` or ``cuda:N``; by default the first GPU, else the CPU.
        quiet: no progress bar.

    Returns:
        Case id to file; and case id to the reason why there is none.

    Raises:
        PipelineError: the run has no weights, or nothing can be segmented.
    """
    folder, stamp = out / "predictions", out / MADE_BY
    weights = weights_path(run)
    if not weights.is_file():
        raise PipelineError(f"{run} has no weights ({weights} is missing); finish its training first")
    now = {
        "weights_sha256": file_sha256(weights),
        "inference_sha256": file_sha256(run / "configs" / "inference.yaml"),
        "configuration_sha256": configuration_sha256(run),
    }
    scans = states_of([replace(case, label=None) for case in cases])
    try:
        before = json.loads(stamp.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        before = {}
    told = before.pop("scans", {})
    fresh = all(told.get(case_id) == state for case_id, state in scans.items())
    files = {case.case_id: probability_file(folder, case.case_id) for case in cases}
    # Post-processing comes behind the probabilities: they are as good as new whatever was tuned meanwhile.
    same = all(before.get(name) == now[name] for name in ("weights_sha256", "inference_sha256"))
    if same and fresh and all(path.is_file() for path in files.values()):
        return files, {}
    if (before != now or not fresh) and folder.is_dir():
        shutil.rmtree(folder)
    write_atomically(stamp, json.dumps({**now, "scans": scans}, indent=2) + "\n")
    folders = list(dict.fromkeys(next(iter(case.images.values())).paths[0].parent for case in cases))
    with growing_bar("segment", quiet=quiet) as (on_start, on_case):
        result = segment(
            folders,
            folder,
            bundle=run,
            device=device,
            only=list(files),
            save_probabilities=True,
            on_start=on_start,
            on_case=on_case,
        )
    failed = {case_id: reason for case_id, reason in result.failed.items() if case_id in files}
    return {case_id: path for case_id, path in files.items() if case_id not in failed}, failed
