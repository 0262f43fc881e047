"""``run.json`` of a folder of predictions: what made them, and the state of every case."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from brats_pipeline.bundles import weights_path
from brats_pipeline.errors import CaseError, PipelineError
from brats_pipeline.files import file_sha256, write_atomically
from brats_pipeline.inference.inputs import other_origin
from brats_pipeline.locking import taking_turns
from brats_pipeline.overlays import configuration_sha256
from brats_pipeline.predictions import files_by_case

SCHEMA_VERSION = 3
RECORD = "run.json"


def identity_of(root: Path, convention: str | None, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """What two calls must share for their predictions to lie in one folder.

    Raises:
        PipelineError: the bundle has no weights, and ``ckpt_path`` names none.
    """
    weights = weights_path(root)
    if not weights.is_file() and "ckpt_path" not in overrides:
        raise PipelineError(
            f"{root.name} has no weights ({weights} is missing); train it with "
            f"`brats-pipeline train {root.name} --data DATA -o RUN`, then give --bundle RUN"
        )
    identity = {
        "schema_version": SCHEMA_VERSION,
        "weights_sha256": file_sha256(weights) if weights.is_file() else None,
        "configuration_sha256": configuration_sha256(root),
        "convention": convention,
        "overrides": dict(overrides),
    }
    plain: dict[str, Any] = json.loads(json.dumps(identity, default=str))
    return plain


def remove_predictions(out: Path, case_ids: Collection[str]) -> None:
    """Delete the predictions of these cases."""
    for case_id, paths in files_by_case(out).items():
        for path in paths if case_id in case_ids else ():
            path.unlink()


def recorded(out: Path) -> dict[str, Any]:
    """The record of a folder of predictions; empty where there is none.

    Raises:
        PipelineError: there is a ``run.json`` of another kind, such as that of a training, or a damaged one.
    """
    try:
        record: dict[str, Any] = json.loads((out / RECORD).read_text(encoding="utf-8"))
        if "weights_sha256" in record and all(isinstance(state, dict) for state in record["cases"].values()):
            return record
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        pass
    raise PipelineError(f"{out / RECORD}: is no record of predictions and would be replaced; choose another folder")


def vouched(cases: Mapping[str, Mapping[str, Any]]) -> set[str]:
    """Of recorded cases those whose files we wrote, or were about to write; what failed has none."""
    return {case_id for case_id, state in cases.items() if state.get("status") != "failed"}


def earlier_cases(
    out: Path,
    record: Mapping[str, Any],
    identity: Mapping[str, Any],
    inputs_now: Mapping[str, Mapping[str, Any]],
    *,
    overwrite: bool,
) -> dict[str, Any]:
    """The cases that earlier calls of the same identity recorded; predictions of any other are not mixed with ours.

    With ``overwrite``, the predictions of another identity for these cases are removed at once: a call that is
    interrupted must not leave them to be taken for ours.

    Args:
        out: folder of the predictions.
        record: of the folder, see :func:`recorded`; files of cases that it does not know are none of our business.
        identity: of this call, see :func:`identity_of`.
        inputs_now: case to what it is made from, see :func:`brats_pipeline.inference.inputs.inputs_of`.
        overwrite: segment again what is there already.

    Raises:
        PipelineError: predictions of another identity, or from other files, lie there.
    """
    wanted = set(inputs_now)
    cases: dict[str, Any] = record.get("cases", {})
    there = vouched(cases) & files_by_case(out).keys()
    differing = _differing(record, identity)
    if not differing:
        for case_id in sorted(wanted & there) if not overwrite else ():
            if origin := other_origin(cases[case_id].get("inputs", {}), inputs_now[case_id]):
                raise CaseError(
                    case_id,
                    f"{out} already holds a prediction for a case of this name, made from {origin}; choose another "
                    "folder, or --overwrite",
                )
        return cases
    why = f"that differ in {', '.join(differing)}"
    if there and not overwrite:
        raise PipelineError(f"{out} holds predictions {why}; choose another folder, or --overwrite")
    if others := sorted(there - wanted):
        raise PipelineError(
            f"{out} holds predictions of other cases ({', '.join(others[:3])}) {why}, which would stay; "
            "choose another folder"
        )
    remove_predictions(out, there)
    return {}


def _differing(record: Mapping[str, Any], identity: Mapping[str, Any]) -> list[str]:
    return [key for key, value in identity.items() if record.get(key, "absent") != value]


def write_record(
    out: Path,
    identity: Mapping[str, Any],
    earlier: Mapping[str, Any],
    cases: Mapping[str, Mapping[str, Any]],
    *,
    bundle: str,
    seconds: float,
    shared: bool = False,
) -> None:
    """Write ``run.json``: what segmented, and the state of every case with the files it is about.

    A call that is killed leaves a record that vouches for the files of pending cases too, whole or not.

    Args:
        out: folder of the predictions.
        identity: of this call.
        earlier: cases that earlier calls recorded.
        cases: what this call says about its own cases.
        bundle: its name.
        seconds: wall time of this call so far.
        shared: other processes work at other cases in this folder, and write what they say about them.
    """
    with taking_turns(out) if shared else nullcontext():
        others = earlier
        if shared and (there := recorded(out)) and not _differing(there, identity):
            others = {**earlier, **there["cases"]}
        record = {
            **identity,
            "bundle": bundle,
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(seconds, 2),
            "cases": dict(sorted({**others, **cases}.items())),
        }
        write_atomically(out / RECORD, json.dumps(record, indent=2) + "\n")


def sparingly(
    call: Callable[[], None], *, share: float = 0.05, clock: Callable[[], float] = time.monotonic
) -> Callable[[], None]:
    """The same function, passed over where it would take more than a share of the time."""
    due = clock()

    def called() -> None:
        nonlocal due
        if (begun := clock()) >= due:
            call()
            due = clock() + (clock() - begun) / share

    return called
