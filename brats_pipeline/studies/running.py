"""Running a study's units: train, segment the tested fold, say that it is done. What is done is not done again."""

from __future__ import annotations

import csv
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from brats_pipeline.bundles import wanted_modalities, weights_path
from brats_pipeline.data.datalist import Item, read_whole_datalist, write_datalist
from brats_pipeline.errors import PipelineError, root_cause, was_interrupted
from brats_pipeline.files import file_sha256
from brats_pipeline.inference.result import Segmentation
from brats_pipeline.inference.segment import segment
from brats_pipeline.locking import claimed
from brats_pipeline.progress import growing_bar, training_bar
from brats_pipeline.studies.leaving import left_out
from brats_pipeline.studies.losing import loss_of_run
from brats_pipeline.studies.opening import DATALIST
from brats_pipeline.studies.plan import Plan
from brats_pipeline.studies.source import data_folder
from brats_pipeline.studies.units import Unit, own_bundle, tested, without_fold
from brats_pipeline.training.train import train

NO_PARAMETERS = ("running_mean", "running_var", "num_batches_tracked")
"""Ends of the names in a state dict that no optimiser changes."""


@dataclass(frozen=True)
class Progress:
    """What became of the units that were asked for.

    Args:
        done: finished now or before.
        failed: unit to the reason why it could not be finished.
        elsewhere: units that another process works on.
    """

    done: tuple[str, ...]
    failed: Mapping[str, str]
    elsewhere: tuple[str, ...]


def run_units(
    units: Sequence[Unit],
    plan: Plan,
    out: Path,
    record: Mapping[str, Any],
    *,
    device: str | None = None,
    quiet: bool = False,
    say: Callable[[str], None] = lambda sentence: None,
) -> Progress:
    """Run units in order; one that fails is told and passed over.

    Args:
        units: what to run.
        plan: their study.
        out: its folder.
        record: from :func:`open_study`.
        device: ``cpu``, ``cuda`` or ``cuda:N``; by default the first GPU, else the CPU.
        quiet: no progress bars.
        say: prints one line.
    """
    done, failed, elsewhere = [], {}, []
    started, finished_now = time.monotonic(), 0
    waiting = sum(unit.lacks(plan) for unit in units)
    for number, unit in enumerate(units, start=1):
        with claimed(unit.folder) as ours:
            if not ours:
                elsewhere.append(unit.name)
                say(f"{number}/{len(units)}  {unit.name}: another process works on it")
                continue
            if not unit.lacks(plan):
                done.append(unit.name)
                continue
            say(f"{number}/{len(units)}  {unit.name}{_outlook(started, finished_now, waiting)}")
            try:
                _run_unit(unit, plan, out, record, device=device, quiet=quiet, say=say)
            except Exception as error:
                if was_interrupted(error):
                    raise
                reason = _reason(error)
                failed[unit.name] = reason
                unit.write(state="failed", reason=reason)
                say(f"{unit.name} failed: {reason}")
            else:
                done.append(unit.name)
            finished_now += 1
    return Progress(tuple(done), failed, tuple(elsewhere))


def _reason(error: BaseException) -> str:
    if isinstance(error, PipelineError):
        return str(error)
    cause = root_cause(error)
    return f"{(str(cause).strip() or type(cause).__name__).splitlines()[0]} ({type(cause).__name__})"


def _outlook(started: float, finished: int, waiting: int) -> str:
    """How long the units that are left will take, as far as those of this call tell."""
    if not finished:
        return ""
    each = (time.monotonic() - started) / finished
    left = each * (waiting - finished)
    told = f"{left / 3600:.1f} h" if left >= 3600 else f"{left / 60:.0f} min" if left >= 60 else f"{left:.0f} s"
    count = waiting - finished
    return f" (about {told} left for {count} training{'' if count == 1 else 's'})"


def _run_unit(
    unit: Unit,
    plan: Plan,
    out: Path,
    record: Mapping[str, Any],
    *,
    device: str | None,
    quiet: bool,
    say: Callable[[str], None],
) -> None:
    """Train and segment; each step is skipped where it is finished, and goes on where it was killed."""
    listing = read_whole_datalist(out / DATALIST)
    cases = tested(listing, unit.fold)
    if not cases:
        raise PipelineError(f"fold {unit.fold} holds no case; ask for fewer folds or add cases")
    if unit.read().get("state") not in ("trained", "done"):
        unit.write(state="training", identity=record["units"][unit.name], reason="")
        _train(unit, plan, own_bundle(out, unit.arm), listing, device=device, quiet=quiet, say=say)
        unit.write(state="trained", **_training_facts(unit.run))
    started = time.monotonic()
    segment_tested = partial(_segment, unit, data_folder(record, out), cases, device=device, quiet=quiet)
    result = segment_tested(unit.predictions)
    facts: dict[str, Any] = {}
    if result.done:
        facts = {"segmented": len(result.done), "segment_seconds": round(time.monotonic() - started, 2)}
    if plan.test_loss and unit.read().get("test_loss") is None:
        facts["test_loss"] = loss_of_run(unit.run, out / DATALIST, fold=unit.fold, device=device)
    if plan.missing:
        facts["missing"] = left_out(wanted_modalities(unit.run, {}), plan.missing)
        for name in facts["missing"]:
            segment_tested(unit.predictions_without(name), without=name.split("+"))
    unit.write(state="done", cases=len(cases), segment_failed=result.failed, **facts)


def _segment(
    unit: Unit,
    data: Path,
    cases: Sequence[Item],
    out: Path,
    *,
    device: str | None,
    quiet: bool,
    without: Sequence[str] = (),
) -> Segmentation:
    """Segment the tested cases, and no others that lie beside them."""
    what = f"segment {unit.arm.name}" + (f" without {', '.join(without)}" if without else "")
    with growing_bar(what, quiet=quiet) as (on_start, on_case):
        return segment(
            [data],
            out,
            bundle=unit.run,
            device=device,
            without=without,
            only={item["case_id"] for item in cases},
            on_start=on_start,
            on_case=on_case,
        )


def _train(
    unit: Unit,
    plan: Plan,
    bundle: Path,
    listing: Mapping[str, Any],
    *,
    device: str | None,
    quiet: bool,
    say: Callable[[str], None],
) -> None:
    begun = (unit.run / "datalist.json").is_file() and (unit.run / "configs" / "train.yaml").is_file()
    told: dict[str, Any] = {}
    if not begun:
        write_datalist(without_fold(listing, unit.fold), unit.folder / DATALIST)
        told = {
            "datalist": unit.folder / DATALIST,
            "fold": plan.folds.validating(unit.fold),
            "seed": unit.seed,
            "network": unit.arm.network,
            "overrides": unit.arm.settings,
            "minutes": plan.minutes,
        }
    with training_bar(quiet=quiet) as attach:

        def on_start(trainer: Any) -> None:
            attach(trainer)
            if note := _weights_in_words(trainer.loss_function, unit):
                unit.write(note=note)

        train(bundle, unit.run, device=device, resume=True, on_start=on_start, on_note=None if quiet else say, **told)


def _weights_in_words(loss: Any, unit: Unit) -> str:
    """What a weighted loss took from the training masks; nothing of another loss."""
    loss = getattr(loss, "loss", loss)  # deep supervision holds the loss of a level
    shares = getattr(loss, "shares", None)
    if not shares:
        return ""
    weights = ", ".join(
        f"{100 * share:.3g} % (weight {1 / (2 * share):.3g} inside, {1 / (2 * (1 - share)):.3g} outside)"
        for share in shares
    )
    return f"Mean tumour share of the training masks while fold {unit.fold} was held out: {weights}."


def _training_facts(run: Path) -> dict[str, Any]:
    """What a trained run has cost: seconds in epochs, epochs, parameters; and the hash of its weights."""
    from brats_pipeline.weights import read_checkpoint

    weights = weights_path(run)
    rows = read_curves(run / "curves.csv")
    state = read_checkpoint(weights)
    return {
        "weights_sha256": file_sha256(weights),
        "training_seconds": round(sum(rows.get("seconds", [])), 2),
        "epochs": len(rows.get("epoch", [])),
        "parameters": sum(value.numel() for name, value in state.items() if not name.endswith(NO_PARAMETERS)),
    }


def read_curves(path: Path) -> dict[str, list[float]]:
    """The columns of a ``curves.csv``; NaN where a cell is empty, nothing where there is no file."""
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {
        name: [float(row[name]) if row[name] not in ("", None) else float("nan") for row in rows]
        for name in (rows[0] if rows else ())
    }
