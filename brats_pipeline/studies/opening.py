"""Opening a study's folder: what it was begun with is written down, and another study or other data are refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from brats_pipeline.bundles import bundle_path
from brats_pipeline.cases import decide_conventions, find_cases
from brats_pipeline.cases.patients import read_patients, with_patients, write_patients
from brats_pipeline.data.datalist import (
    CONVENTION_IN_DATALIST,
    case_items,
    read_whole_datalist,
    split_cases,
    write_datalist,
)
from brats_pipeline.errors import PipelineError
from brats_pipeline.files import write_atomically
from brats_pipeline.locking import claimed, taking_turns
from brats_pipeline.studies.plan import Plan, as_json
from brats_pipeline.studies.source import COHORT, choose_source
from brats_pipeline.studies.units import data_sha256, identity, own_bundle, units_of

SCHEMA_VERSION = 1
RECORD = "study.json"
DATALIST = "datalist.json"
PATIENTS = "patients.csv"
"""Which case is whose, as :func:`brats_pipeline.cases.patients.read_patients` reads it."""
REPORT = ("report.html", "report.md", "figures")
"""What people read; it must not outlive what it tells of."""


def open_study(
    plan: Plan,
    out: Path,
    *,
    data: str | Path | None = None,
    datalist: str | Path | None = None,
    convention: str | None = None,
    patients: str | Path | None = None,
    new: bool = False,
    on_case: Callable[[str], None] | None = None,
    say: Callable[[str], None] = lambda sentence: None,
) -> dict[str, Any]:
    """Begin a study, or go on with one that was begun alike. Processes that open one folder do so one after the other.

    Args:
        plan: the study.
        out: its folder.
        data: folder of the cases; may be left out for a study that has begun, or that makes its own cohort.
        datalist: folds made by ``split``, instead of those made here; its own number of folds must suit the study.
        convention: label convention of the references, where the data leave it open.
        patients: CSV of case_id,patient_id for ``data`` whose names do not tell the patient.
        new: take a changed study or changed data; units that the change does not touch are kept, and so are data,
            convention, patients and folds that neither the call nor the change gives anew.
        on_case: called with the id of each case whose label map was read.
        say: told in a line what is waited for, and that folds are made anew.

    Returns:
        The record: ``study`` (the plan as JSON), ``data`` (see ``source.data_folder``), ``data_sha256``, and ``units``
        (name to :func:`identity`).

    Raises:
        PipelineError: the folder holds another study, the data cannot be used, or there are none; or ``new`` would
            remove a training that another process works on.
    """
    out = Path(out).resolve()
    _earlier(out)  # what is no study's folder is left as it is
    with ExitStack() as claims, taking_turns(out, on_wait=lambda: say(f"waiting: another process is opening {out}")):
        return _open(plan, out, data, datalist, convention, patients, new=new, on_case=on_case, claims=claims, say=say)


def _open(
    plan: Plan,
    out: Path,
    data: str | Path | None,
    datalist: str | Path | None,
    convention: str | None,
    patients: str | Path | None,
    *,
    new: bool,
    on_case: Callable[[str], None] | None,
    claims: ExitStack,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """What :func:`open_study` does once it is its turn."""
    earlier = _earlier(out)
    if earlier is not None and not new:
        _refuse_changes(out, plan, earlier)
    source = choose_source(plan, out, data, earlier, new=new)
    before = _listing(out) if earlier is not None and (out / DATALIST).is_file() else None
    begun = before is not None and not new
    remembered = convention if convention is not None or earlier is None else earlier.get("convention")
    if before is not None and not new and datalist is None:
        listing = _same_cases(out, source, before)
    elif datalist is not None:
        listing = _listed(plan, datalist, patients, convention)
    else:
        known = {} if before is None else {item["case_id"]: item["patient_id"] for item in before["training"]}
        listing = _split(plan, source, remembered, patients, known, on_case)
        if earlier is not None and before is not None:
            listing = _keep_folds(plan, earlier, before, listing, say)
    told = data_sha256(listing)
    if earlier is not None and not new and earlier["data_sha256"] != told:
        raise PipelineError(f"{source}: the scans or the folds are not those that the study began with; {_advice(out)}")
    if earlier is not None and not new and convention is not None:
        _refuse_convention(out, listing, convention)
    if begun and patients is not None:
        _refuse_patients(out, listing, patients)
    if new:
        _claim_units(out, claims)
    _keep_bundles(plan, out, anew=new)
    identities = {unit.name: identity(unit, plan, out, told) for unit in units_of(plan, out)}
    record = {
        "schema_version": SCHEMA_VERSION,
        "study": as_json(plan),
        "content": plan.content,
        "data": source.relative_to(out).as_posix() if source.is_relative_to(out) else str(source),
        "convention": remembered,
        "data_sha256": told,
        "units": identities,
    }
    if new:
        _forget_changed(plan, out, identities)
    write_datalist(listing, out / DATALIST)
    write_patients({item["case_id"]: item["patient_id"] for item in listing["training"]}, out / PATIENTS)
    write_atomically(out / "study.yaml", plan.path.read_bytes())
    write_atomically(out / RECORD, json.dumps(record, indent=2, default=str) + "\n")
    return record


def _advice(out: Path) -> str:
    return f"restore what {out} was begun with, choose another folder, or take the change with --new"


def _earlier(out: Path) -> dict[str, Any] | None:
    """The record of the study in a folder; None in an empty one.

    Raises:
        PipelineError: the folder holds something else.
    """
    try:
        record: dict[str, Any] = json.loads((out / RECORD).read_text(encoding="utf-8"))
        if record["schema_version"] != SCHEMA_VERSION:
            raise ValueError(f"schema version {record['schema_version']}, {SCHEMA_VERSION} is known")
    except FileNotFoundError:
        others = [path.name for path in out.iterdir() if not path.name.startswith(".")] if out.is_dir() else []
        # What was begun and killed before its record stood there holds these at most, or another process wrote it now.
        if set(others) - {"bundles", COHORT, DATALIST, PATIENTS, "study.yaml", "units", RECORD}:
            raise PipelineError(f"{out} is not empty and holds no study; choose another folder with --out") from None
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PipelineError(f"{out / RECORD}: cannot be read ({error}); choose another folder") from error
    return record


def _refuse_changes(out: Path, plan: Plan, earlier: Mapping[str, Any]) -> None:
    if earlier["study"]["sha256"] != plan.sha256:
        was, now = earlier["content"], json.loads(json.dumps(dict(plan.content), default=str))
        differing = sorted(key for key in was.keys() | now.keys() if was.get(key) != now.get(key))
        what = f"in {', '.join(differing)}" if differing else "in its budget"
        raise PipelineError(f"{plan.path}: differs from the study that {out} was begun with, {what}; {_advice(out)}")


def _refuse_convention(out: Path, listing: Mapping[str, Any], convention: str) -> None:
    """Scores by another convention than the networks were trained with would mean nothing."""
    if others := sorted({item["convention"] for item in listing["training"]} - {convention}):
        raise PipelineError(f"--convention is {convention}, {out} was begun with {', '.join(others)}; {_advice(out)}")


def _refuse_patients(out: Path, listing: Mapping[str, Any], patients: str | Path) -> None:
    """The folds were made from the patients as they were known then."""
    known = {item["case_id"]: item["patient_id"] for item in listing["training"]}
    told = read_patients(patients)
    if differing := [case_id for case_id in known if told.get(case_id, known[case_id]) != known[case_id]]:
        raise PipelineError(
            f"--patients {patients}: gives {', '.join(differing[:3])} to another patient than when the folds of {out} "
            f"were made; {_advice(out)}"
        )


def _claim_units(out: Path, claims: ExitStack) -> None:
    """A change must not take a training away from the process that works on it."""
    for folder in sorted((out / "units").glob("*/*")):
        if not claims.enter_context(claimed(folder)):
            raise PipelineError(
                f"another process works on {folder.relative_to(out)}; end it before --new changes the study"
            )


def _keep_bundles(plan: Plan, out: Path, *, anew: bool) -> None:
    """Copy the bundles into the study: a later version of them must not be mixed with this one.

    Raises:
        PipelineError: two bundles of one name.
    """
    sources = {own_bundle(out, arm): bundle_path(arm.bundle) for arm in plan.arms}
    for arm in plan.arms:
        if sources[own_bundle(out, arm)] != bundle_path(arm.bundle):
            raise PipelineError(f"{plan.path}: two bundles are called {Path(arm.bundle).name}; rename one of them")
    for home, source in sources.items():
        if home.is_dir() and not anew:
            continue
        making = home.with_name(f".{home.name}-{os.getpid()}")
        shutil.rmtree(making, ignore_errors=True)
        shutil.copytree(source, making, ignore=shutil.ignore_patterns("models", "eval", "*.pt"))
        shutil.rmtree(home, ignore_errors=True)
        try:
            making.rename(home)
        except OSError:  # another process of the same study was first
            shutil.rmtree(making, ignore_errors=True)
            if not home.is_dir():
                raise


def _forget_changed(plan: Plan, out: Path, identities: Mapping[str, str]) -> None:
    """Remove the units that are no longer what they were, and all that was made of them."""
    kept = {unit.folder for unit in units_of(plan, out) if unit.read().get("identity") == identities[unit.name]}
    for folder in (out / "units").glob("*/*"):
        if folder not in kept:
            shutil.rmtree(folder)
            if not any(folder.parent.iterdir()):
                folder.parent.rmdir()
    shutil.rmtree(out / "arms", ignore_errors=True)
    forget_report(out)


def _listing(out: Path) -> dict[str, Any]:
    """The datalist of a study that was begun, as it was written."""
    content: dict[str, Any] = json.loads((out / DATALIST).read_text(encoding="utf-8"))
    return content


def forget_report(out: Path) -> None:
    """Remove the report of a study, where there is one."""
    for name in REPORT:
        if (out / name).is_dir():
            shutil.rmtree(out / name)
        else:
            (out / name).unlink(missing_ok=True)


def _same_cases(out: Path, source: Path, listing: Mapping[str, Any]) -> dict[str, Any]:
    """The datalist of a study that was begun, its cases as they lie now.

    Raises:
        PipelineError: a case is gone, or there is one more.
    """
    seen = {case.case_id: case for case in find_cases(source)}
    known = {item["case_id"] for item in listing["training"]}
    if gone := sorted(known - seen.keys()):
        raise PipelineError(f"{source}: has no case {', '.join(gone[:3])} of the study; {_advice(out)}")
    if more := sorted({name for name, case in seen.items() if case.label is not None} - known):
        raise PipelineError(f"{source}: has cases that the study lacks ({', '.join(more[:3])}); {_advice(out)}")
    items = []
    for item in listing["training"]:
        case = replace(seen[item["case_id"]], patient_id=item["patient_id"], convention=item["convention"])
        items += [case_items([case], modalities=item["modalities"])[0] | {"fold": item["fold"]}]
    return {**listing, "training": items, "testing": []}


def _listed(plan: Plan, datalist: str | Path, patients: str | Path | None, convention: str | None) -> dict[str, Any]:
    """The datalist of the study from a file.

    Raises:
        PipelineError: its number of folds does not suit the study, or what it names itself is told beside it.
    """
    if patients is not None:
        raise PipelineError("a datalist names its patients already; give --patients to `split`, or leave it out")
    if convention is not None:
        raise PipelineError(CONVENTION_IN_DATALIST)
    listing = read_whole_datalist(datalist)
    folds = {item.get("fold") for item in listing["training"]}
    if folds != set(range(plan.folds.k)):
        told = ", ".join(map(str, sorted(folds, key=str)))
        raise PipelineError(
            f"{datalist}: has the folds {told}, the study has {plan.folds.k}; write it with --folds {plan.folds.k}"
        )
    return listing


def _split(
    plan: Plan,
    source: Path,
    convention: str | None,
    patients: str | Path | None,
    known: Mapping[str, str],
    on_case: Callable[[str], None] | None,
) -> dict[str, Any]:
    """The datalist of the study from its data; without a table of patients, cases keep those that are ``known``."""
    cases = find_cases(source)
    if patients is not None:
        cases = with_patients(cases, read_patients(patients))
    else:
        cases = [replace(case, patient_id=known.get(case.case_id, case.patient_id)) for case in cases]
    cases = decide_conventions([case for case in cases if case.label is not None], convention)
    return split_cases(cases, folds=plan.folds.k, seed=plan.folds.seed, name=plan.name, on_case=on_case)


def _keep_folds(
    plan: Plan,
    earlier: Mapping[str, Any],
    before: Mapping[str, Any],
    listing: dict[str, Any],
    say: Callable[[str], None],
) -> dict[str, Any]:
    """The new datalist with the folds of the earlier one, wherever those came from, if these still mean something."""

    def patients(content: Mapping[str, Any]) -> dict[str, str]:
        return {item["case_id"]: item["patient_id"] for item in content["training"]}

    folds = earlier["study"]["folds"]
    if (folds["k"], folds["seed"]) != (plan.folds.k, plan.folds.seed):
        why = "their number or seed"
    elif patients(before) != patients(listing):
        why = "the cases or their patients"
    else:
        fold = {item["case_id"]: item["fold"] for item in before["training"]}
        items = [item | {"fold": fold[item["case_id"]]} for item in listing["training"]]
        return {**before, "training": items, "testing": listing["testing"]}
    say(f"the folds are made anew, since {why} changed; give --datalist to have others")
    return listing
