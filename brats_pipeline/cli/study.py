"""`study` and `demo`: whole loops from data to report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from brats_pipeline.cli.options import ConventionName, Device, Out, Patients, Quiet, Seed, Workers
from brats_pipeline.cli.printing import complain, print_evaluation, print_table, say


def study_command(
    study: Annotated[str, typer.Argument(help="A study file, or the name of a study that comes with this program.")],
    out: Out,
    data: Annotated[
        Path | None, typer.Option(help="Folder that holds the cases; not needed to continue, or for synthetic ones.")
    ] = None,
    datalist: Annotated[Path | None, typer.Option(help="Folds of `split`, instead of those made here.")] = None,
    budget: Annotated[str, typer.Option(help="A budget of the study, such as full or smoke.")] = "full",
    arm: Annotated[
        str | None,
        typer.Option(help="Run one arm: its number or name, or `env` for SLURM_ARRAY_TASK_ID or torchrun's RANK."),
    ] = None,
    merge: Annotated[bool, typer.Option("--merge", help="Only write the report, from what is there.")] = False,
    listing: Annotated[bool, typer.Option("--list", help="Only print the trainings and their states.")] = False,
    new: Annotated[bool, typer.Option("--new", help="Take a changed study or changed data.")] = False,
    convention: ConventionName = None,
    patients: Patients = None,
    images: Annotated[bool, typer.Option(help="Show the scans in the reports.")] = True,
    device: Device = None,
    workers: Workers = 2,
    quiet: Quiet = False,
) -> int:
    """Train, segment, score and compare every arm of a study; killed, the same command continues."""
    from brats_pipeline.studies import printing
    from brats_pipeline.studies.study import study as run_study

    if listing:
        print_table(*printing.units_table(study, out, budget))
        return 0
    result = run_study(
        study,
        out,
        data=data,
        datalist=datalist,
        convention=convention,
        patients=patients,
        budget=budget,
        arm=arm,
        only_merge=merge,
        new=new,
        images=images,
        device=device,
        workers=workers,
        quiet=quiet,
        say=say,
    )
    if result.merged is not None:
        print_table(*printing.arms_table(result.merged))
    for sentence in printing.complaints(result):
        complain(sentence)
    for sentence in printing.sentences(result):
        say(sentence)
    return 0 if result.complete else 1


def demo_command(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the demo.")] = Path("demo"),
    seed: Seed = 0,
    quiet: Quiet = False,
) -> int:
    """The whole loop on a synthetic cohort: phantom, train, segment, evaluate, report."""
    from brats_pipeline.demo import WANTED_WT_DICE, run_demo

    demo = run_demo(out, seed=seed, quiet=quiet, say=say)
    if demo.shipped is not None:
        say("the weights of the bundle, on one synthetic brain:")
        print_evaluation(demo.shipped)
    say("the network that was trained here, on the cohort:")
    print_evaluation(demo.trained)
    if demo.wt_dice < WANTED_WT_DICE:
        complain(
            f"the network has not learned enough: mean WT Dice {demo.wt_dice:.3f}, at least {WANTED_WT_DICE} is needed"
        )
        return 1
    say(f"the network has learned: mean WT Dice {demo.wt_dice:.3f} on synthetic cases it never saw")
    return 0
