"""Train a bundle on a cohort; what comes out is a run, which is a bundle itself."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import EllipsisType
from typing import TYPE_CHECKING, Any

from brats_pipeline.bundles import (
    bundle_path,
    freeze_bundle,
    network_overlay,
    open_workflow,
    plain_errors,
    wanted_modalities,
    weights_path,
)
from brats_pipeline.data.datalist import training_items, write_datalist
from brats_pipeline.errors import PipelineError, was_interrupted
from brats_pipeline.files import file_sha256, write_atomically
from brats_pipeline.overlays import TUNED
from brats_pipeline.training.folder import (
    has_checkpoint,
    origin_of,
    own_folder,
    refuse_contradictions,
    refuse_other_contents,
    versions,
    write_record,
)
from brats_pipeline.training.listing import datalist_for
from brats_pipeline.training.rehearsal import Rehearsal, rehearse
from brats_pipeline.training.seeing import write_familiar
from brats_pipeline.training.settings import INIT_WEIGHTS, checked_settings

if TYPE_CHECKING:
    from monai.bundle import ConfigWorkflow

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
        minutes: train for about as long: a few steps are measured, and as many epochs set as fit. A run that is resumed
            keeps its epochs.
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
    changes = checked_settings(overrides)
    with own_folder(run):
        refuse_other_contents(run, resume=resume)
        resuming = resume and (run / "datalist.json").is_file() and (run / "configs" / "train.yaml").is_file()
        given = list(changes)  # what a person set, which errors name
        origin: dict[str, Any] = {
            "data": None if data is None else str(Path(data).resolve()),
            "datalist": None if datalist is None else str(Path(datalist).resolve()),
            "convention": convention,
            "patients": None if patients is None else str(Path(patients).resolve()),
            "fold": 0 if fold is ... else fold,
            "seed": seed or 0,
            "network": network,
        }
        record: dict[str, Any] = {"bundle": source.name, **origin, "overrides": {}}
        if changes.get(INIT_WEIGHTS) is not None:
            if has_checkpoint(run):
                raise PipelineError(
                    f"{run} has finished an epoch, and cannot start from other weights any more; leave out "
                    f"{INIT_WEIGHTS}, or train into another folder"
                )
            record["init_weights_sha256"] = file_sha256(changes[INIT_WEIGHTS])
        listing = None
        if resuming:
            left_out = {name for name, value in origin.items() if value is None}
            left_out |= {"seed"} if seed is None else set()
            left_out = left_out | {"fold"} if fold is ... else left_out - {"fold"}  # None is a fold: all
            begun = origin_of(run)
            refuse_contradictions(run, begun, {name: origin[name] for name in origin if name not in left_out})
            if minutes is not None and minutes != begun.get("minutes"):
                earlier = "without --minutes" if "minutes" not in begun else f"with --minutes {begun['minutes']:g}"
                raise PipelineError(
                    f"{run} was begun {earlier}; leave --minutes out, the epochs are settled; more of them are "
                    "--set max_epochs=N"
                )
            record |= begun
        else:
            listing, changes = _chosen(
                source,
                changes,
                data=data,
                datalist=datalist,
                convention=convention,
                patients=patients,
                folds=folds,
                fold=origin["fold"],
                seed=origin["seed"],
                network=network,
            )
            if minutes is not None:
                changes["max_epochs"] = rehearse(source, listing, changes, device=device).epochs_within(minutes)
                record["minutes"] = minutes
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
    source = bundle_path(bundle)
    listing, changes = _chosen(
        source,
        checked_settings(overrides),
        data=data,
        datalist=datalist,
        convention=convention,
        patients=patients,
        folds=folds,
        fold=fold,
        seed=seed,
        network=network,
    )
    return rehearse(source, listing, changes, device=device)


def _chosen(
    source: Path,
    changes: Mapping[str, Any],
    *,
    data: str | Path | None,
    datalist: str | Path | None,
    convention: str | None,
    patients: str | Path | None,
    folds: int,
    fold: int | None,
    seed: int,
    network: str | None,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The cases of a training, and all that is changed of its bundle; see :func:`train`."""
    listing = datalist_for(
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
    return listing, {"seed": seed, "fold": fold, **chosen, **changes}


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
    """Train by the bundle ``source``, and keep the record; without a ``listing`` the run has one."""
    started = time.monotonic()
    workflow = _opened(run, source, listing, changes, given, device, resume)
    record = {
        "schema_version": SCHEMA_VERSION,
        **origin,
        "overrides": {**origin["overrides"], **changes},
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "resumed": listing is None,
        "versions": versions(),
        "status": "running",
        **_shares(workflow.parser, on_note),
    }
    write_record(run, record)
    if listing is not None:
        write_datalist(listing, run / "datalist.json")
    trainer = workflow.parser.get_parsed_content("train::trainer")
    recorder = workflow.parser.get_parsed_content("train::recorder")
    epochs, best, status = 0, None, "failed"
    try:
        try:
            if trainer.state.epoch < trainer.state.max_epochs and not recorder.exhausted:
                if on_start is not None:
                    on_start(trainer)
                with plain_errors(given):
                    _prepare(workflow.parser.get_parsed_content, on_note)
                    _look(run, workflow.parser.get_parsed_content)
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
        write_record(
            run, {**record, "status": status, "epochs": epochs, "best_dice": best, "seconds": round(seconds, 1)}
        )
    if not weights_path(run).is_file():
        raise PipelineError(f"{run}: training ended without weights; set max_epochs to at least 1")
    return Training(run=run, epochs=epochs, best_dice=best, seconds=seconds)


def _opened(
    run: Path,
    source: Path,
    listing: Mapping[str, Any] | None,
    changes: Mapping[str, Any],
    given: Collection[str],
    device: str | None,
    resume: bool,
) -> ConfigWorkflow:
    """The workflow of a run, whose folder is not touched before its configuration has started, and resumed where asked.

    The bundle ``source`` is frozen elsewhere, and moves into the run then. What was tuned for other weights goes.
    """
    with tempfile.TemporaryDirectory() as folder:
        frozen = Path(folder) / run.name
        freeze_bundle(source, frozen, changes)
        if listing is not None:
            write_datalist(listing, frozen / "datalist.json")
        cases = (run if listing is None else frozen) / "datalist.json"
        runtime: dict[str, Any] = {"data_list_file_path": str(cases), "resume": resume}
        if device is not None:
            runtime["device"] = f"$torch.device('{device}')"
        workflow = open_workflow(
            frozen, ["train.yaml"], workflow_type="train", overrides=runtime, changed=given, root=run
        )
        for path in sorted(path for path in frozen.rglob("*") if path.is_file() and path != cases):
            write_atomically(run / path.relative_to(frozen), path.read_bytes())
    if listing is not None:
        for name in TUNED:
            (run / "configs" / name).unlink(missing_ok=True)
    return workflow


def _prepare(parsed: Callable[[str], Any], on_note: Callable[[str], None] | None) -> None:
    """Load every case before the first step, so that a bad one is known at once."""
    loading = {} if on_note is None else {"on_size": on_note}
    parsed("train::dataset").load(**loading)
    if parsed("fold") is not None:
        parsed("validate::dataset").load(**loading)


def _look(run: Path, parsed: Callable[[str], Any]) -> None:
    """Keep in the run what its training cases look like, so that others can be told from them."""
    from monai.transforms import Compose

    write_familiar(run, parsed("train::dataset").data, Compose(parsed("preprocessing")), parsed("modalities"))


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
