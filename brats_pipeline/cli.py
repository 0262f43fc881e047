"""The command line: parse, call one function of the library, print what came of it."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from brats_pipeline import require_own_packages
from brats_pipeline.errors import PipelineError, root_cause, was_interrupted

if TYPE_CHECKING:
    from brats_pipeline.cases import Case
    from brats_pipeline.evaluation import Evaluation

DISCLAIMER = "Research software, not a medical device."
PIPE_WIDTH = 1000
INTERRUPTED = 130
INSPECT_COLUMNS = {
    "case_id": "case",
    "convention": "convention",
    "shape": "voxels",
    "spacing_mm": "spacing (mm)",
    "orientation": "axes",
    "labels": "labels",
    "WT_ml": "WT (ml)",
    "TC_ml": "TC (ml)",
    "ET_ml": "ET (ml)",
    "WT_voxels": "WT (voxels)",
    "copied": "copies",
    "defects": "defects",
}
"""Columns of the fingerprint that fit a terminal, and their headings; the JSON has them all."""

app = typer.Typer(
    name="brats-pipeline",
    help=f"Segment brain tumours in MRI: find cases, train, segment, evaluate, report. {DISCLAIMER}",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help answers in half the time
    context_settings={"help_option_names": ["-h", "--help"]},
)
bundle_app = typer.Typer(help="Bundles on disk.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(bundle_app, name="bundle")
report_app = typer.Typer(help="Reports on disk.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(report_app, name="report")

Out = Annotated[Path, typer.Option("--out", "-o", help="Where the result goes.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for a machine.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N; by default the first GPU, else the CPU.")]
Workers = Annotated[int, typer.Option(min=1, help="Cases handled at a time.")]
Seed = Annotated[int, typer.Option(min=0, help="Every random choice follows from it.")]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="ID=VALUE", help="Change the configuration.")]
Patients = Annotated[
    Path | None, typer.Option("--patients", help="CSV of case_id,patient_id, where names do not tell the patient.")
]
ConventionName = Annotated[
    str | None, typer.Option("--convention", help="Label convention, where layout and values leave it open.")
]


@app.callback()
def _root(debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False) -> None:
    """Options that come before the command."""


@app.command("inspect")
def inspect_command(
    data: Annotated[list[Path], typer.Argument(help="Folders that hold cases.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write the fingerprint (JSON) here.")] = None,
    convention: ConventionName = None,
    patients: Patients = None,
    workers: Workers = 2,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Recognise the layout, list the cases, name every defect; of several folders, name the patients they share."""
    from brats_pipeline.cases.identity import find_shared
    from brats_pipeline.files import write_atomically
    from brats_pipeline.fingerprint import inspect_cases
    from brats_pipeline.progress import case_bar

    cases = _cases(data, convention, patients)
    with case_bar("inspect", len(cases), quiet=quiet) as on_case:
        fingerprint = inspect_cases(cases, workers=workers, on_case=on_case)
    shared = []
    if len(data) > 1:
        sound = [case for case in cases if case.case_id not in fingerprint.defects]
        with case_bar("compare", len(sound), quiet=quiet) as on_case:
            shared = find_shared(sound, workers=workers, on_case=on_case)
    if out is not None:
        write_atomically(out, fingerprint.to_json())
    if as_json:
        print(fingerprint.to_json(), end="")  # noqa: T201
    else:
        rows = fingerprint.rows()
        measured = any(row["WT_ml"] is not None for row in rows)
        shown = {
            column: heading
            for column, heading in INSPECT_COLUMNS.items()
            if any(row[column] not in (None, "") for row in rows) and not (measured and column == "WT_voxels")
        }
        _print_table(list(shown.values()), [[_cell(row[column]) for column in shown] for row in rows])
        cohort = fingerprint.cohort()
        layouts = ", ".join(f"{count} {layout}" for layout, count in cohort["layouts"].items())
        _print(f"{cohort['cases']} cases ({layouts}) of {cohort['patients']} patients")
        _print(f"{cohort['with_defects']} with defects")
        for defect, case_ids in _by_sentence(fingerprint.defects).items():
            _print(f"{', '.join(case_ids)}: {defect}")
        for case_id, notes in fingerprint.notes.items():
            for note in notes:
                _print(f"{case_id}: note: {note}")
        for pair in shared:
            _print(f"{pair.first} and {pair.second} are one patient: {pair.reason}")
        for patient_id, names in _repeated_patients(cases).items():
            _print(f"patient {patient_id} has {len(names)} cases: {', '.join(names)}")
        if out is not None:
            _print(f"fingerprint: {out}")
    if not fingerprint.defects:
        return 0
    return 1 if len(fingerprint.defects) < len(cases) else 2


@app.command("split")
def split_command(
    data: Annotated[list[Path], typer.Argument(help="Folders that hold cases.")],
    out: Out,
    folds: Annotated[int, typer.Option(min=2, help="Number of folds.")] = 5,
    seed: Seed = 0,
    convention: ConventionName = None,
    patients: Patients = None,
    workers: Workers = 2,
    quiet: Quiet = False,
) -> int:
    """Write a datalist with patient-grouped folds, stratified by tumour volume."""
    from brats_pipeline.cases.identity import find_shared
    from brats_pipeline.datalist import split_cases, write_datalist
    from brats_pipeline.fingerprint import check_headers
    from brats_pipeline.progress import case_bar

    cases = _cases(data, convention, patients)
    defects = {case.case_id: check_headers(case, wanted=tuple(case.images)) for case in cases}
    if any(defects.values()):
        reasons = [f"{', '.join(names)}: {defect}" for defect, names in _by_sentence(defects).items()]
        raise PipelineError("\n  ".join(["some cases cannot be trained on; repair them or leave them out", *reasons]))
    with case_bar("compare", len(cases), quiet=quiet) as on_case:
        shared = find_shared(cases, workers=workers, on_case=on_case)
    for pair in shared:
        _print(f"{pair.first} and {pair.second} are one patient and stay together: {pair.reason}")
    with case_bar("split", len(cases), quiet=quiet) as on_case:
        datalist = split_cases(
            cases, folds=folds, seed=seed, name=data[0].resolve().name, shared=shared, workers=workers, on_case=on_case
        )
    write_datalist(datalist, out)
    sizes = [sum(item["fold"] == fold for item in datalist["training"]) for fold in range(folds)]
    _print(f"{len(datalist['training'])} cases in {folds} folds of {', '.join(map(str, sizes))}: {out}")
    return 0


@app.command("phantom")
def phantom_command(
    out: Annotated[Path, typer.Argument(help="Folder to write the cohort into.")],
    cases: Annotated[int, typer.Option(min=1, help="Number of cases.")] = 8,
    layout: Annotated[str, typer.Option(help="brats2017 to brats2024-met, msd, lgg or plain.")] = "brats2021",
    seed: Seed = 0,
    convention: ConventionName = None,
    orientation: Annotated[str, typer.Option(help="Axis codes of the files, such as LPS or RAS.")] = "LPS",
    size: Annotated[int | None, typer.Option(min=24, help="Voxels a side; by default 240x240x155.")] = None,
    spacing: Annotated[float | None, typer.Option(min=0.1, help="Voxel side in mm, by default 1.")] = None,
    quiet: Quiet = False,
) -> int:
    """Write a synthetic cohort: brains with tumours that nobody has."""
    from brats_pipeline.phantom import write_cohort
    from brats_pipeline.progress import case_bar

    shape = None if size is None else (size, size, size)
    with case_bar("phantom", cases, quiet=quiet) as on_case, _as_request():
        written = write_cohort(
            out,
            cases=cases,
            layout=layout,
            seed=seed,
            convention=convention,
            orientation=orientation,
            shape=shape,
            spacing_mm=spacing,
            on_case=on_case,
        )
    _print(f"{len(written)} cases: {out}")
    return 0


@app.command("train")
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
    from brats_pipeline.training import rehearse_training, train

    if fold not in (None, "all") and not fold.isdigit():
        raise PipelineError(f"--fold is {fold!r}; give the number of a fold, or `all`")
    overrides = dict(_overrides(settings))
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
    if deterministic:
        overrides["deterministic"] = True
    if deterministic and not resume and not quiet:
        free, fixed = (
            rehearse(overrides=overrides | {"deterministic": switch}).steps_per_second for switch in (False, True)
        )
        _note(f"deterministic: {fixed:.2f} steps a second instead of {free:.2f}, {free / fixed - 1:+.0%} time")
    if dry_run:
        _print("\n".join(rehearse(overrides=overrides).lines()))
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
            on_note=None if quiet else _note,
        )
    score = "not validated" if result.best_dice is None else f"best validation Dice {result.best_dice:.3f}"
    _print(f"{result.epochs} epochs, {score}, {result.seconds / 60:.1f} min: {result.run}")
    return 0


@app.command("segment")
def segment_command(
    out: Out,
    inputs: Annotated[list[Path] | None, typer.Argument(help="Case folders or cohort folders.")] = None,
    t1c: Annotated[Path | None, typer.Option(help="Contrast-enhanced T1 of one case.")] = None,
    t1: Annotated[Path | None, typer.Option(help="Native T1 of one case.")] = None,
    t2: Annotated[Path | None, typer.Option(help="T2 of one case.")] = None,
    flair: Annotated[Path | None, typer.Option(help="FLAIR of one case.")] = None,
    bundle: Annotated[str | None, typer.Option(help="Name or folder of a bundle or run with weights.")] = None,
    convention: Annotated[str | None, typer.Option(help="Label convention to write.")] = None,
    device: Device = None,
    settings: Settings = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Segment again what is there.")] = False,
    save_probabilities: Annotated[
        bool, typer.Option("--save-probabilities", help="Also write the probability of each region (float16, .npz).")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Write a label map for every case, in the space of its own T1c."""
    from brats_pipeline.progress import growing_bar
    from brats_pipeline.segmentation import segment

    files = {name: path for name, path in (("t1c", t1c), ("t1", t1), ("t2", t2), ("flair", flair)) if path is not None}
    if bool(files) == bool(inputs):
        raise PipelineError("give either folders of cases, or the four files --t1c --t1 --t2 --flair")
    with growing_bar("segment", quiet=quiet) as (on_start, on_case):
        result = segment(
            files or inputs or [],
            out,
            bundle=bundle,
            convention=convention,
            device=device,
            overrides=_overrides(settings),
            overwrite=overwrite,
            save_probabilities=save_probabilities,
            on_start=on_start,
            on_case=on_case,
        )
    for case_id, reason in result.failed.items():
        _complain(f"{case_id}: {reason}")
    if as_json:
        names = ("done", "skipped", "failed", "notes")
        print(json.dumps({"out": str(result.out), **{name: getattr(result, name) for name in names}}))  # noqa: T201
    else:
        for case_id, note in result.notes.items():
            _print(f"{case_id}: {note}")
        kept = f", {len(result.skipped)} were there already" if result.skipped else ""
        _print(f"{len(result.done)} cases segmented{kept}, {len(result.failed)} failed: {result.out}")
        _print(DISCLAIMER)
    if result.failed:
        return 1 if result.done or result.skipped else 2
    return 0


# Spelled out and not read from the table, which would cost the help page an import of SciPy; a test compares them.
RULES_HELP = (
    "Scoring rules: brats2023-{gli,ssa,ped,men,met}, brats2024-{gli,ped,met,men-rt}, brats2020 or lgg; by default "
    "brats2023-gli for volumes and lgg for slices."
)


@app.command("evaluate")
def evaluate_command(
    predictions: Annotated[Path, typer.Argument(help="Folder of <case_id>.nii.gz, or of folders of masks.")],
    references: Annotated[list[Path], typer.Argument(help="Datasets, or one folder of label maps.")],
    out: Out,
    rules: Annotated[str | None, typer.Option(help=RULES_HELP)] = None,
    convention: ConventionName = None,
    prediction_convention: Annotated[str | None, typer.Option(help="Label convention of the predictions.")] = None,
    probabilities: Annotated[
        Path | None,
        typer.Option(help="Folder of <case_id>.npz; by default `probabilities` in that of the predictions."),
    ] = None,
    images: Annotated[bool, typer.Option(help="Show the scans in the report.")] = True,
    workers: Workers = 2,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Score the regions and lesions of every case and write a report.

    --out gets report.html (one file, opens offline), report.md, cases.csv, lesions.csv (slices.csv for slices),
    summary.json, figures/ as PNG and SVG, and manifest.json, with which `report verify` makes the figures again.
    """
    from brats_pipeline.evaluation import evaluate
    from brats_pipeline.progress import case_bar

    total = len([*predictions.glob("*.nii*"), *{path.parent for path in predictions.glob("*/*_mask.tif")}]) or None
    with case_bar("evaluate", total, quiet=quiet) as on_case, _as_request():
        evaluation = evaluate(
            predictions,
            references,
            out,
            rules=rules,
            convention=convention,
            prediction_convention=prediction_convention,
            probabilities=probabilities,
            workers=workers,
            images=images,
            on_case=on_case,
        )
    if as_json:
        print((out / "summary.json").read_text(encoding="utf-8"), end="")  # noqa: T201
    else:
        print_evaluation(evaluation)
    return 0 if evaluation.complete else 1


def print_evaluation(evaluation: Evaluation) -> None:
    """The headline table, what is missing, and where the report lies."""
    header, *rows = evaluation.table()
    _print_table(header, rows)
    for case_id in evaluation.missing:
        _complain(f"{case_id}: has no prediction and counts as a miss")
    for case_id, reason in evaluation.failed.items():
        _complain(f"{case_id}: {reason}")
    for case_id in evaluation.unmatched:
        _complain(f"{case_id}: is a prediction without a reference")
    for case_id, reason in evaluation.calibration.without.items() if evaluation.calibration else ():
        _complain(f"{case_id}: takes no part in the calibration: {reason}")
    _print(f"report: {evaluation.out / 'report.html'}")


@app.command("study")
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
        _print_table(*printing.units_table(study, out, budget))
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
        say=_print,
    )
    if result.merged is not None:
        _print_table(*printing.arms_table(result.merged))
    for sentence in printing.complaints(result):
        _complain(sentence)
    for sentence in printing.sentences(result):
        _print(sentence)
    return 0 if result.complete else 1


@report_app.command("verify")
def report_verify(
    out: Annotated[Path, typer.Argument(help="Folder that `evaluate` or `study` wrote.")],
    workers: Workers = 2,
    as_json: Json = False,
) -> int:
    """Make a report's figures again from its predictions and name each difference."""
    from brats_pipeline.manifest import read_manifest

    if read_manifest(out)["call"].get("command") == "study":
        from brats_pipeline.studies.verifying import verify_study as verify
    else:
        from brats_pipeline.verification import verify_report as verify

    found = verify(out, workers=workers)
    differences = [*found.files, *found.figures]
    if as_json:
        names = ("files", "figures", "versions")
        print(json.dumps({"holds": found.holds, **{name: getattr(found, name) for name in names}}))  # noqa: T201
    else:
        for sentence in found.versions:
            _print(f"note: {sentence}")
        for sentence in differences:
            _complain(sentence)
        _print(f"{out}: {'holds' if found.holds else f'{len(differences)} differences'}")
    return 0 if found.holds else 1


@bundle_app.command("list")
def bundle_list(as_json: Json = False) -> int:
    """The bundles that come with this installation."""
    from brats_pipeline.bundles import list_bundles, read_metadata, weights_path

    rows = [
        [path.name, read_metadata(path)["version"], "yes" if weights_path(path).is_file() else "no", str(path)]
        for path in list_bundles()
    ]
    header = ["bundle", "version", "weights", "path"]
    if as_json:
        print(json.dumps([dict(zip(header, row, strict=True)) for row in rows]))  # noqa: T201
    else:
        _print_table(header, rows)
    return 0


@bundle_app.command("info")
def bundle_info(name: Annotated[str, typer.Argument(help="Name or folder.")]) -> int:
    """What a bundle says of itself (metadata.json)."""
    from brats_pipeline.bundles import bundle_path, read_metadata

    print(json.dumps(read_metadata(bundle_path(name)), indent=2))  # noqa: T201
    return 0


@bundle_app.command("path")
def bundle_path_command(name: Annotated[str, typer.Argument(help="Name or folder.")]) -> int:
    """Where a bundle lies, for `--bundle_root`."""
    from brats_pipeline.bundles import bundle_path

    print(bundle_path(name))  # noqa: T201
    return 0


@app.command("demo")
def demo_command(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the demo.")] = Path("demo"),
    seed: Seed = 0,
    quiet: Quiet = False,
) -> int:
    """The whole loop on a synthetic cohort: phantom, train, segment, evaluate, report."""
    from brats_pipeline.demo import WANTED_WT_DICE, run_demo

    evaluation, dice = run_demo(out, seed=seed, quiet=quiet, say=_print)
    print_evaluation(evaluation)
    if dice < WANTED_WT_DICE:
        _complain(f"the network has not learned enough: mean WT Dice {dice:.3f}, at least {WANTED_WT_DICE} is needed")
        return 1
    _print(f"the network has learned: mean WT Dice {dice:.3f} on synthetic cases it never saw")
    return 0


def _cases(data: Sequence[Path], convention: str | None, patients: Path | None) -> list[Case]:
    """The cases below some folders, with the convention and the patients that the person at the keyboard knows."""
    from brats_pipeline.cases import decide_conventions, find_cases
    from brats_pipeline.cases.patients import read_patients, with_patients

    cases = find_cases(*data)
    if patients is not None:
        cases = with_patients(cases, read_patients(patients))
    return decide_conventions(cases, convention) if convention is not None else cases


def _by_sentence(defects: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Each defect once, with the cases that have it: what the whole cohort shares is said once."""
    found: dict[str, list[str]] = {}
    for case_id, sentences in defects.items():
        for sentence in sentences:
            found.setdefault(sentence, []).append(case_id)
    return found


def _repeated_patients(cases: Sequence[Case]) -> dict[str, list[str]]:
    """Patients of several cases, by their names; such cases never stand on two sides of a split."""
    names: dict[str, list[str]] = {}
    for case in cases:
        names.setdefault(case.patient_id, []).append(case.case_id)
    return {patient_id: found for patient_id, found in names.items() if len(found) > 1}


def _overrides(settings: Sequence[str] | None) -> Mapping[str, Any]:
    """``["a::b=[1, 2]"]`` to ``{"a::b": [1, 2]}``; values are YAML."""
    import yaml

    overrides: dict[str, Any] = {}
    for setting in settings or ():
        key, equals, value = setting.partition("=")
        if not equals or not key:
            raise PipelineError(f"--set {setting!r} is not ID=VALUE; write for example --set max_epochs=20")
        try:
            overrides[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise PipelineError(f"--set {key}: {value!r} is no YAML value ({error}); quote it") from error
    return overrides


class _as_request:  # noqa: N801
    """Arguments that the library refuses with ``ValueError`` came from the person at the keyboard."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ValueError):
            raise PipelineError(str(error)) from error


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def _print(text: str) -> None:
    from rich.console import Console

    Console(soft_wrap=True, highlight=False, markup=False).print(text)


def _note(text: str) -> None:
    """Something to know, on standard error: what a program reads stays clean."""
    from rich.console import Console

    Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(text)


def _complain(text: str) -> None:
    from rich.console import Console

    Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(text)


def _print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(*header, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    console = Console()
    # A pipe has no width of its own; a table wrapped to some other width would break what reads it.
    (console if console.is_terminal else Console(width=PIPE_WIDTH)).print(table)


def _say_once() -> None:
    """Quiet the loggers that repeat what a command prints itself: failed cases, and the error that ended an engine."""
    logging.getLogger("brats_pipeline.inference").setLevel(logging.ERROR)
    logging.getLogger("ignite").setLevel(logging.CRITICAL)


def run(arguments: Sequence[str]) -> int:
    """Run the command line and return its exit code; the one place where errors become messages."""
    _say_once()
    try:
        require_own_packages()
        code = app(args=list(arguments), standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except Exception as error:
        if hasattr(error, "show") and hasattr(error, "exit_code"):  # how click, or typer's own copy of it, says "usage"
            error.show()
            return 2
        if "--debug" in arguments:
            traceback.print_exc()
        if not was_interrupted(error):
            _complain(f"error: {_message(error)}")
            return 2
        code = INTERRUPTED
    if code == INTERRUPTED:  # typer turns the interrupt into this number itself
        _complain(
            "interrupted; what was finished is kept. Run the same command again to continue (train: with --resume)"
        )
        # MONAI evaluates its configuration by eval(), and Python remembers that an interrupt passed through one: it
        # would end by the signal instead of this exit code. Any other eval() makes it forget.
        eval("None")
    return code if isinstance(code, int) else 0


def _message(error: BaseException) -> str:
    if isinstance(error, PipelineError):
        return str(error)
    error = root_cause(error)  # MONAI's layers say only that something failed
    kind = type(error).__name__
    first = (str(error).strip() or kind).splitlines()[0]
    return f"{first} ({kind}); this was not foreseen: run `brats-pipeline --debug ...` to see where, and report it"
