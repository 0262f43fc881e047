"""``run.json`` of a folder of predictions: what made them, and the state of every case."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
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
from brats_pipeline.predictions import files_by_case, files_to_write

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


def recorded(out: Path) -> dict[str, Any] | None:
    """The record of a folder; None where there is none, empty where it cannot be read."""
    try:
        record = json.loads((out / RECORD).read_text(encoding="utf-8"))
        return record if isinstance(record["cases"], dict) else {}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def earlier_cases(
    out: Path,
    identity: Mapping[str, Any],
    items: Sequence[Mapping[str, Any]],
    inputs_now: Mapping[str, Mapping[str, Any]],
    *,
    overwrite: bool,
) -> dict[str, Any]:
    """The cases that earlier calls of the same identity recorded; predictions of any other are not mixed with ours.

    With ``overwrite``, what others left for these cases is removed at once: a call that is interrupted must not leave
    it to be taken for ours.

    Args:
        out: folder of the predictions.
        identity: of this call, see :func:`identity_of`.
        items: the cases about to be segmented, as items of a datalist.
        inputs_now: case to what it is made from, see :func:`brats_pipeline.inference.inputs.inputs_of`.
        overwrite: segment again what is there already.

    Raises:
        PipelineError: predictions of another identity, or from other files, lie there; or a prediction would replace
            a scan.
    """
    wanted = set(inputs_now)
    for item in items:
        scans = {Path(image).resolve() for image in item["image"]}
        for path in files_to_write(out, item):
            if path in scans:
                raise PipelineError(f"the prediction would replace the scan {path}; choose another folder")
    files = files_by_case(out)
    there = set(files)
    record = recorded(out)
    if record is None:
        there &= wanted  # not a folder of ours: the other files are none of our business
        record = {}
    cases: dict[str, Any] = record.get("cases", {})
    differing = _differing(record, identity)
    if not differing:
        for case_id in sorted(wanted & cases.keys() & there) if not overwrite else ():
            if origin := other_origin(cases[case_id].get("inputs", {}), inputs_now[case_id]):
                raise CaseError(
                    case_id,
                    f"{out} already holds a prediction for a case of this name, made from {origin}; choose another "
                    "folder, or --overwrite",
                )
        return cases
    if there:
        why = f"that differ in {', '.join(differing)}" if record else f"without a {RECORD} that tells what made them"
        if not overwrite:
            raise PipelineError(f"{out} holds predictions {why}; choose another folder, or --overwrite")
        if others := sorted(there - wanted):
            raise PipelineError(
                f"{out} holds predictions of other cases ({', '.join(others[:3])}) {why}, which would stay; "
                "choose another folder"
            )
        for case_id in there:
            for path in files[case_id]:
                path.unlink()
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

    A call that is killed leaves its record as it was at the start: the files of pending cases that are there by then
    were made from these inputs.

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
