"""`train`: a run from a bundle and a cohort."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from brats_pipeline.cli.options import ConventionName, Device, Out, Patients, Quiet, Settings, overrides_of
from brats_pipeline.cli.printing import note, say
from brats_pipeline.errors import PipelineError


def train_command(
    bundle: Annotated[str, typer.Argument(help="Name or folder of a bundle; see `bundle list`.")],
    out: Out,
    data: Annotated[
        Path | None,
        typer.Option(help="Folder that holds the cases; names tell the patients (`split` compares the scans too)."),
    ] = None,
    datalist: Annotated[Path | None, typer.Option(help="Datalist of `split`, instead of --data.")] = None,
    folds: Annotated[int, typer.Option(min=2, help="Folds made from --data.")] = 5,
    fold: Annotated[
        str | None, typer.Option(help="Fold that validates, by default 0; or `all`: every case trains.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Every random choice follows from it; by default 0.")] = None,
    network: Annotated[
        str | None, typer.Option(help="unet, residual_unet, attention_unet, segnet, deeplabv3plus or pspnet.")
    ] = None,
    device: Device = None,
    convention: ConventionName = None,
    patients: Patients = None,
    modalities: Annotated[
        str | None, typer.Option(help="Train on these alone, such as `flair` or `t1c,flair`.")
    ] = None,
    settings: Settings = None,
    cache_dir: Annotated[
        Path | None, typer.Option(help="Keep prepared cases in this folder, for this run and others; else in memory.")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0, help="Train for about as long instead of the bundle's epochs.")
    ] = None,
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="The same bits in every run, on a GPU too; prints what it costs.")
    ] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Run a few steps, print memory, disk, steps a second and hours, and stop.")
    ] = False,
    quiet: Quiet = False,
) -> int:
    """Train a bundle; the run that comes out is a bundle with weights."""
    from brats_pipeline.progress import training_bar
    from brats_pipeline.training.train import rehearse_training, train

    if fold not in (None, "all") and not fold.isdigit():
        raise PipelineError(f"--fold is {fold!r}; give the number of a fold, or `all`")
    overrides = dict(overrides_of(settings))
    if modalities:
        overrides["modalities"] = modalities.split(",")
    if cache_dir is not None:
        overrides["cache_dir"] = str(cache_dir.resolve())
    rehearse = partial(
        rehearse_training,
        bundle,
        data=data,
        datalist=datalist,
        convention=convention,
        patients=patients,
        folds=folds,
        fold=0 if fold is None else None if fold == "all" else int(fold),
        seed=seed or 0,
        network=network,
        device=device,
    )
    if minutes is not None and "max_epochs" in overrides:
        raise PipelineError("--minutes and --set max_epochs both say how long to train; give one of them")
    if resume and dry_run:
        raise PipelineError("--dry-run tells of a training that begins; leave out --resume, or look into curves.csv")
    if deterministic:
        overrides["deterministic"] = True
    if deterministic and not resume and not quiet:
        free, fixed = (
            rehearse(overrides=overrides | {"deterministic": switch}).steps_per_second for switch in (False, True)
        )
        note(f"deterministic: {fixed:.2f} steps a second instead of {free:.2f}, {free / fixed - 1:+.0%} time")
    if dry_run:
        expected = rehearse(overrides=overrides)
        say("\n".join((expected if minutes is None else expected.within(minutes)).lines()))
        return 0
    with training_bar(quiet=quiet) as on_start:
        result = train(
            bundle,
            out,
            data=data,
            datalist=datalist,
            convention=convention,
            patients=patients,
            folds=folds,
            fold=... if fold is None else None if fold == "all" else int(fold),
            seed=seed,
            network=network,
            device=device,
            overrides=overrides,
            minutes=minutes,
            resume=resume,
            on_start=on_start,
            on_note=None if quiet else note,
        )
    score = "not validated" if result.best_dice is None else f"best validation Dice {result.best_dice:.3f}"
    say(f"{result.epochs} epochs, {score}, {result.seconds / 60:.1f} min: {result.run}")
    return 0
