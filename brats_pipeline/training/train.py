"""Train a bundle on a cohort; what comes out is a run, which is a bundle itself."""

from __future__ import annotations

import json
import platform
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import EllipsisType
from typing import Any

from brats_pipeline.bundles import (
    bundle_path,
    freeze_bundle,
    network_overlay,
    open_workflow,
    plain_errors,
    wanted_modalities,
    weights_path,
)
from brats_pipeline.cases import decide_conventions, find_cases
from brats_pipeline.cases.patients import read_patients, with_patients
from brats_pipeline.data.datalist import (
    item_case,
    read_whole_datalist,
    split_cases,
    training_items,
    unsplit_cases,
    write_datalist,
)
from brats_pipeline.data.fingerprint import check_headers
from brats_pipeline.errors import CaseError, PipelineError, was_interrupted
from brats_pipeline.files import write_atomically
from brats_pipeline.training.rehearsal import Rehearsal, rehearse

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Training:
    """What a training came to.

    Args:
        run: its folder, a bundle with weights.
        epochs: epochs finished, those before a resumption included.
        best_dice: highest mean validation Dice over the regions, None where nothing was validated.
        seconds: this call's wall time.
    """

    run: Path
    epochs: int
    best_dice: float | None
    seconds: float


def train(
    bundle: str | Path,
    out: str | Path,
    *,
    data: str | Path | None = None,
    datalist: str | Path | None = None,
    convention: str | None = None,
    patients: str | Path | None = None,
    folds: int = 5,
    fold: int | EllipsisType | None = ...,
    seed: int | None = None,
    network: str | None = None,
    device: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    minutes: float | None = None,
    resume: bool = False,
    on_start: Callable[[Any], None] | None = None,
    on_note: Callable[[str], None] | None = None,
) -> Training:
    """Train a bundle's network and write a run.

    The run holds ``configs/`` (the configuration with every override in it), ``models/model.pt`` (best) and
    ``models/last.pt``, ``curves.csv``, ``curves.png``, ``datalist.json`` and ``run.json``.

    Args:
        bundle: name or folder.
        out: folder of the run.
        data: folder that holds the cases; split here into ``folds`` patient-grouped folds.
        datalist: a datalist of ``split`` instead.
        convention: label convention of the reference, where the data leave it open.
        patients: CSV of case_id,patient_id for ``data`` whose names do not tell the patient.
        folds: number of folds made from ``data``.
        fold: the fold that validates, the others train; None: every case trains and the last epoch is kept. Left out:
            0, or that of the run which is resumed.
        seed: of the split, the weights, the patches; None: 0, or that of the run which is resumed.
        network: a name of :data:`networks.NETWORKS`; by default the bundle's own.
        device: ``cpu``, ``cuda`` or ``cuda:N``; by default the first GPU, else the CPU.
        overrides: configuration id to value; they change the chosen network too.
        minutes: train for about as long: a few steps are measured, and as many epochs set as fit.
        resume: continue the run in ``out`` after its last whole epoch; what is said of data, fold, seed and network
            must be what the run was begun with.
        on_start: called with the trainer before it runs, to attach a progress bar.
        on_note: told in words what the prepared cases will take, before they are kept, and the shares that a weighted
            loss is made of.

    Raises:
        PipelineError: data, configuration or folder cannot be used; the message says what to do. A folder that was new
            or empty is so again, unless an epoch was finished.
    """
    run = Path(out).resolve()
    source = bundle_path(bundle)
    last = run / "models" / "last.pt"
    if last.is_file() and not resume:
        raise PipelineError(f"{run} holds a run already; continue it with --resume, or choose another folder")
    resuming = resume and (run / "datalist.json").is_file() and (run / "configs" / "train.yaml").is_file()
    changes = dict(overrides or {})
    given = list(changes)
    origin: dict[str, Any] = {
        "data": None if data is None else str(Path(data).resolve()),
        "datalist": None if datalist is None else str(Path(datalist).resolve()),
        "fold": 0 if fold is ... else fold,
        "seed": seed or 0,
        "network": network,
    }
    record: dict[str, Any] = {"bundle": source.name, **origin, "overrides": {}}
    listing = None
    if resuming:
        left_out = {
            "data": data is None,
            "datalist": datalist is None,
            "fold": fold is ...,
            "seed": seed is None,
            "network": network is None,
        }
        begun = _origin(run)
        _refuse_contradictions(run, begun, {name: value for name, value in origin.items() if not left_out[name]})
        record |= begun
    else:
        wanted = wanted_modalities(source, changes)
        listing = _datalist(
            data,
            datalist,
            convention=convention,
            patients=patients,
            folds=folds,
            fold=origin["fold"],
            seed=origin["seed"],
            wanted=wanted,
        )
        training_items(listing, fold=origin["fold"], validation=False)  # refuses a fold that does not exist
        chosen = {} if network is None else network_overlay(source, network)
        changes = {"seed": origin["seed"], "fold": origin["fold"], **chosen, **changes}
        if minutes is not None:
            changes["max_epochs"] = rehearse(source, listing, changes, device=device).epochs_within(minutes)
            record["minutes"] = minutes
    with _no_half_run(run):
        return _run(
            run,
            source if listing is not None else run,
            listing,
            record,
            changes,
            given,
            device,
            resume,
            on_start,
            on_note,
        )


def rehearse_training(
    bundle: str | Path,
    *,
    data: str | Path | None = None,
    datalist: str | Path | None = None,
    convention: str | None = None,
    patients: str | Path | None = None,
    folds: int = 5,
    fold: int | None = 0,
    seed: int = 0,
    network: str | None = None,
    device: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Rehearsal:
    """What :func:`train` with the same arguments will take: steps per second, memory, disk and hours.

    A few steps are measured; nothing is kept, and nothing is written but a temporary folder (and, where the
    configuration names a ``cache_dir``, the cases that these steps needed).

    Raises:
        PipelineError: as :func:`train`.
    """
    source, changes = bundle_path(bundle), dict(overrides or {})
    listing = _datalist(
        data,
        datalist,
        convention=convention,
        patients=patients,
        folds=folds,
        fold=fold,
        seed=seed,
        wanted=wanted_modalities(source, changes),
    )
    training_items(listing, fold=fold, validation=False)  # refuses a fold that does not exist
    chosen = {} if network is None else network_overlay(source, network)
    return rehearse(source, listing, {"seed": seed, "fold": fold, **chosen, **changes}, device=device)


def _run(
    run: Path,
    source: Path,
    listing: Mapping[str, Any] | None,
    origin: Mapping[str, Any],
    changes: Mapping[str, Any],
    given: Collection[str],
    device: str | None,
    resume: bool,
    on_start: Callable[[Any], None] | None,
    on_note: Callable[[str], None] | None,
) -> Training:
    """Freeze the bundle ``source`` into the run, train, and keep the record; without a ``listing`` the run has one."""
    freeze_bundle(source, run, changes)
    record = {
        "schema_version": SCHEMA_VERSION,
        **origin,
        "overrides": {**origin["overrides"], **changes},
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "resumed": listing is None,
        "versions": _versions(),
        "status": "running",
    }
    _write_record(run, record)
    if listing is not None:
        write_datalist(listing, run / "datalist.json")

    runtime: dict[str, Any] = {"data_list_file_path": str(run / "datalist.json"), "resume": resume}
    if device is not None:
        runtime["device"] = f"$torch.device('{device}')"
    started = time.monotonic()
    epochs, best, status = 0, None, "failed"
    try:
        workflow = open_workflow(run, ["train.yaml"], workflow_type="train", overrides=runtime, changed=given)
        trainer = workflow.parser.get_parsed_content("train::trainer")
        recorder = workflow.parser.get_parsed_content("train::recorder")
        record |= _shares(workflow.parser, on_note)
        try:
            if trainer.state.epoch < trainer.state.max_epochs and not recorder.exhausted:
                if on_start is not None:
                    on_start(trainer)
                with plain_errors(given):
                    _prepare(workflow.parser.get_parsed_content, on_note)
                    workflow.run()
                    workflow.finalize()
        finally:
            epochs, best = len(recorder.history), recorder.best_dice
        status = "finished"
    except BaseException as error:
        if was_interrupted(error):
            status = "interrupted"
        raise
    finally:
        seconds = time.monotonic() - started
        _write_record(
            run, {**record, "status": status, "epochs": epochs, "best_dice": best, "seconds": round(seconds, 1)}
        )
    if not weights_path(run).is_file():
        raise PipelineError(f"{run}: training ended without weights; set max_epochs to at least 1")
    return Training(run=run, epochs=epochs, best_dice=best, seconds=seconds)


def _prepare(parsed: Callable[[str], Any], on_note: Callable[[str], None] | None) -> None:
    """Load every case before the first step, so that a bad one is known at once."""
    loading = {} if on_note is None else {"on_size": on_note}
    parsed("train::dataset").load(**loading)
    if parsed("fold") is not None:
        parsed("validate::dataset").load(**loading)


@contextmanager
def _no_half_run(run: Path) -> Iterator[None]:
    """Take back what an error leaves in a folder that was new or empty, unless an epoch was finished."""
    absent = [folder for folder in (run, *run.parents) if not folder.exists()]
    fresh = bool(absent) or (run.is_dir() and not any(run.iterdir()))
    try:
        yield
    except Exception:
        if fresh and run.is_dir() and not (run / "models" / "last.pt").is_file():
            for path in run.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            with suppress(OSError):  # somebody else may have put something there meanwhile
                for folder in absent:
                    folder.rmdir()
        raise


def _shares(parser: Any, on_note: Callable[[str], None] | None) -> dict[str, Any]:
    """What a weighted loss was made of: the mean share of the training masks that each region fills."""
    shares = parser.get_parsed_content("region_shares") if "region_shares" in parser else None
    if shares is None:
        return {}
    by_region = dict(zip(parser["regions"], shares, strict=True))
    if on_note is not None:
        listed = ", ".join(f"{region} {100 * share:.3g} %" for region, share in by_region.items())
        on_note(f"mean share of the training masks: {listed}")
    return {"region_shares": by_region}


def _write_record(run: Path, record: Mapping[str, Any]) -> None:
    write_atomically(run / "run.json", json.dumps(record, indent=2, default=str) + "\n")


def _origin(run: Path) -> dict[str, Any]:
    """What the record of an earlier call says of how the run began; nothing where there is none yet."""
    try:
        record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    names = ("bundle", "data", "datalist", "fold", "seed", "network", "overrides")
    return {name: record[name] for name in names if name in record}


def _refuse_contradictions(run: Path, begun: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """A run goes on with the data, the fold and the seed that it was begun with."""

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


def _datalist(
    data: str | Path | None,
    datalist: str | Path | None,
    *,
    convention: str | None,
    patients: str | Path | None,
    folds: int,
    fold: int | None,
    seed: int,
    wanted: Sequence[str],
) -> dict[str, Any]:
    """The datalist of a run, from a folder of cases or a file, every case checked by its headers."""
    if (data is None) == (datalist is None):
        raise PipelineError("give either a folder of cases (--data) or a datalist of `split` (--datalist)")
    if datalist is not None and patients is not None:
        raise PipelineError("a datalist names its patients already; give --patients to `split`, or train with --data")
    if datalist is not None:
        listing = read_whole_datalist(datalist)
        cases = [item_case(item) for item in listing["training"]]
    else:
        cases = find_cases(Path(str(data)))
        if patients is not None:
            cases = with_patients(cases, read_patients(patients))
        cases = decide_conventions(cases, convention)
    for case in cases:
        defects = check_headers(case, wanted=wanted)
        if case.label is None:
            defects = [*defects, "it has no label map, which training needs"]
        if defects:
            raise CaseError(case.case_id, "; ".join(defects))
    if datalist is not None:
        return listing
    if fold is None:
        return unsplit_cases(cases, modalities=wanted)
    return split_cases(cases, folds=folds, seed=seed, modalities=wanted)


def _versions() -> dict[str, str]:
    """Versions that decide a result."""
    from importlib.metadata import version

    packages = ("brats-pipeline", "monai", "torch", "numpy", "nibabel", "pytorch-ignite")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
