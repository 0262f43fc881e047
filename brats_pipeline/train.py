"""Train a bundle on a cohort; what comes out is a run, which is a bundle itself."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from brats_pipeline.bundles import bundle_path, freeze_bundle, open_workflow, plain_errors, weights_path
from brats_pipeline.cases import decide_conventions, find_cases
from brats_pipeline.datalist import read_datalist, split_cases, write_datalist
from brats_pipeline.errors import CaseError, PipelineError
from brats_pipeline.files import write_atomically
from brats_pipeline.fingerprint import check_headers

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
    folds: int = 5,
    fold: int | None = 0,
    seed: int = 0,
    device: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    resume: bool = False,
    on_start: Callable[[Any], None] | None = None,
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
        folds: number of folds made from ``data``.
        fold: the fold that validates, the others train; None: every case trains and the last epoch is kept.
        seed: of the split, the weights, the patches.
        device: ``cpu``, ``cuda`` or ``cuda:N``; by default the first GPU, else the CPU.
        overrides: configuration id to value.
        resume: continue the run in ``out`` after its last whole epoch.
        on_start: called with the trainer before it runs, to attach a progress bar.

    Raises:
        PipelineError: data, configuration or folder cannot be used; the message says what to do.
    """
    run = Path(out).resolve()
    source = bundle_path(bundle)
    last = run / "models" / "last.pt"
    if last.is_file() and not resume:
        raise PipelineError(f"{run} holds a run already; continue it with --resume, or choose another folder")
    resuming = resume and (run / "datalist.json").is_file() and (run / "configs" / "train.yaml").is_file()
    changes = dict(overrides or {})
    if not resuming:
        listing = _datalist(data, datalist, convention=convention, folds=folds, seed=seed)
        write_datalist(listing, run / "datalist.json")
        changes = {"seed": seed, "fold": fold, **changes}
    freeze_bundle(run if resuming else source, run, changes)

    started = time.monotonic()
    record = {
        "schema_version": SCHEMA_VERSION,
        "bundle": source.name,
        "seed": seed,
        "fold": fold,
        "overrides": changes,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "resumed": resuming,
        "versions": _versions(),
    }
    runtime: dict[str, Any] = {"data_list_file_path": str(run / "datalist.json"), "resume": resume}
    if device is not None:
        runtime["device"] = f"$torch.device('{device}')"
    workflow = open_workflow(run, ["train.yaml"], workflow_type="train", overrides=runtime)
    trainer = workflow.parser.get_parsed_content("train::trainer")
    recorder = workflow.parser.get_parsed_content("train::recorder")
    status = "failed"
    try:
        if trainer.state.epoch < trainer.state.max_epochs:
            if on_start is not None:
                on_start(trainer)
            with plain_errors():
                workflow.run()
                workflow.finalize()
        status = "finished"
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    finally:
        best = recorder.best if recorder.best >= 0 else None
        seconds = time.monotonic() - started
        record |= {"status": status, "epochs": len(recorder.history), "best_dice": best, "seconds": round(seconds, 1)}
        write_atomically(run / "run.json", json.dumps(record, indent=2, default=str) + "\n")
    if not weights_path(run).is_file():
        raise PipelineError(f"{run}: training ended without weights; set max_epochs to at least 1")
    return Training(run=run, epochs=len(recorder.history), best_dice=best, seconds=seconds)


def _datalist(
    data: str | Path | None, datalist: str | Path | None, *, convention: str | None, folds: int, seed: int
) -> dict[str, Any]:
    """The datalist of a run, from a folder of cases or a file, every case checked by its headers."""
    if (data is None) == (datalist is None):
        raise PipelineError("give either a folder of cases (--data) or a datalist of `split` (--datalist)")
    if datalist is not None:
        return {"schema_version": SCHEMA_VERSION, "training": read_datalist(Path(datalist)), "testing": []}
    cases = decide_conventions(find_cases(Path(str(data))), convention)
    for case in cases:
        defects = check_headers(case)
        if case.label is None:
            defects = [*defects, "it has no label map, which training needs"]
        if defects:
            raise CaseError(case.case_id, "; ".join(defects))
    return split_cases(cases, folds=folds, seed=seed)


def _versions() -> dict[str, str]:
    """Versions that decide a result."""
    from importlib.metadata import version

    packages = ("brats-pipeline", "monai", "torch", "numpy", "nibabel", "pytorch-ignite")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}
