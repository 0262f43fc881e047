"""A study from its file to its report."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from brats_pipeline.errors import PipelineError
from brats_pipeline.progress import case_bar
from brats_pipeline.studies.checks import check_plan
from brats_pipeline.studies.merging import Merged, merge
from brats_pipeline.studies.opening import open_study
from brats_pipeline.studies.plan import FULL, Arm, Plan
from brats_pipeline.studies.reading import read_plan
from brats_pipeline.studies.running import Progress, run_units
from brats_pipeline.studies.units import units_of


@dataclass(frozen=True)
class Study:
    """What a call came to.

    Args:
        plan: the study.
        out: its folder.
        progress: of the units that were run; None where only the report was asked for.
        merged: the report; None where one arm was run.
    """

    plan: Plan
    out: Path
    progress: Progress | None
    merged: Merged | None

    @property
    def complete(self) -> bool:
        """Whether everything that was asked for is there."""
        if self.progress is not None and (self.progress.failed or self.progress.elsewhere):
            return False
        return self.merged is None or self.merged.complete


def arms_asked(plan: Plan, arm: str | None, environment: Mapping[str, str] = os.environ) -> tuple[Arm, ...]:
    """The arms that one process is to run.

    Args:
        plan: the study.
        arm: number from 0 or name; ``env``: number ``SLURM_ARRAY_TASK_ID``, or under torchrun every
            ``WORLD_SIZE``-th arm from ``RANK`` on; None: all.
        environment: where the variables stand.

    Raises:
        PipelineError: there is no such arm, or no such variable.
    """
    if arm is None:
        return plan.arms
    if arm != "env":
        return (plan.arm(arm),)
    if "SLURM_ARRAY_TASK_ID" in environment:
        return (plan.arm(environment["SLURM_ARRAY_TASK_ID"]),)
    if "RANK" in environment:
        rank, size = int(environment["RANK"]), int(environment.get("WORLD_SIZE", "1"))
        return plan.arms[rank::size]
    raise PipelineError(
        "--arm env needs SLURM_ARRAY_TASK_ID or RANK in the environment; start it in a SLURM array or by torchrun, or "
        "give the number or the name of an arm"
    )


def _device(device: str | None, arm: str | None, environment: Mapping[str, str] = os.environ) -> str | None:
    """Under torchrun each process has a GPU of its own."""
    if device is not None or arm != "env" or "LOCAL_RANK" not in environment:
        return device
    import torch

    return f"cuda:{environment['LOCAL_RANK']}" if torch.cuda.is_available() else None


def study(
    file: str | Path,
    out: str | Path,
    *,
    data: str | Path | None = None,
    datalist: str | Path | None = None,
    convention: str | None = None,
    patients: str | Path | None = None,
    budget: str = FULL,
    arm: str | None = None,
    only_merge: bool = False,
    new: bool = False,
    images: bool = True,
    device: str | None = None,
    workers: int = 1,
    quiet: bool = True,
    say: Callable[[str], None] = lambda sentence: None,
) -> Study:
    """Train, segment and score every arm of a study, compare them, and write the report.

    Killed at any moment, a second call goes on where the first was: what is finished is not done again, a training that
    was half done is resumed after its last whole epoch.

    Args:
        file: a study file, or the name of a study that comes with this distribution.
        out: folder of the study.
        data: folder of the cases; may be left out when a study goes on, or makes its own cohort.
        datalist: folds made by ``split``, instead of those made here.
        convention: label convention of the references, where the data leave it open.
        patients: CSV of case_id,patient_id for ``data`` whose names do not tell the patient.
        budget: name of a budget of the study.
        arm: run this arm alone and write no report, see :func:`arms_asked`.
        only_merge: write the report from what is there, and train nothing.
        new: take a changed study or changed data; units that the change does not touch are kept.
        images: whether reports show the scans.
        device: ``cpu``, ``cuda`` or ``cuda:N``; by default the first GPU, else the CPU.
        workers: processes that score.
        quiet: no progress bars.
        say: prints one line.

    Raises:
        PipelineError: the study, the data or the folder cannot be used, or every unit failed.
    """
    out = Path(out).resolve()
    plan = read_plan(file, budget)
    check_plan(plan)
    asked = arms_asked(plan, arm)
    with case_bar("read cases", None, quiet=quiet) as on_case:
        record = open_study(
            plan,
            out,
            data=data,
            datalist=datalist,
            convention=convention,
            patients=patients,
            new=new,
            on_case=on_case,
            say=say,
        )
    say(f"{plan.title}: {len(plan.arms)} arms, {len(units_of(plan, out))} trainings, {plan.budget_in_words}")
    progress = None
    if not only_merge:
        units = [unit for unit in units_of(plan, out) if unit.arm in asked]
        progress = run_units(units, plan, out, record, device=_device(device, arm), quiet=quiet, say=say)
        if units and len(progress.failed) == len(units):
            reasons = [f"{name}: {reason}" for name, reason in progress.failed.items()]
            raise PipelineError("\n  ".join(["no training of the study could be finished:", *reasons]))
    merged = None
    if arm is None or only_merge:
        merged = merge(plan, out, record, workers=workers, images=images, on_arm=lambda name: say(f"scoring {name}"))
    return Study(plan, out, progress, merged)
