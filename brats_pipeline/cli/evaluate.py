"""`evaluate` and `report verify`: figures from label maps, and the proof of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from brats_pipeline.cli.options import ConventionName, Json, Out, Patients, Quiet, Workers, as_request
from brats_pipeline.cli.printing import complain, print_evaluation, say

# Spelled out and not read from the table, which would cost the help page an import of SciPy; a test compares them.
RULES_HELP = (
    "Scoring rules: brats2023-{gli,ssa,ped,men,met}, brats2024-{gli,ped,met,men-rt}, brats2020 or lgg; by default "
    "brats2023-gli for volumes and lgg for slices."
)


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
    patients: Patients = None,
    images: Annotated[bool, typer.Option(help="Show the scans in the report.")] = True,
    workers: Workers = 2,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Score the regions and lesions of every case and write a report.

    --out gets report.html (one file, opens offline), report.md, cases.csv, lesions.csv (slices.csv for slices),
    summary.json, figures/ as PNG and SVG, and manifest.json, with which `report verify` makes the figures again.
    """
    from brats_pipeline.evaluation.evaluate import evaluate
    from brats_pipeline.progress import case_bar

    total = len([*predictions.glob("*.nii*"), *{path.parent for path in predictions.glob("*/*_mask.tif")}]) or None
    with case_bar("evaluate", total, quiet=quiet) as on_case, as_request():
        evaluation = evaluate(
            predictions,
            references,
            out,
            rules=rules,
            convention=convention,
            prediction_convention=prediction_convention,
            probabilities=probabilities,
            patients=patients,
            workers=workers,
            images=images,
            on_case=on_case,
        )
    if as_json:
        print((out / "summary.json").read_text(encoding="utf-8"), end="")  # noqa: T201
    else:
        print_evaluation(evaluation)
    return 0 if evaluation.complete else 1


def report_verify(
    out: Annotated[Path, typer.Argument(help="Folder that `evaluate` or `study` wrote.")],
    workers: Workers = 2,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Make a report's figures again from its predictions and name each difference."""
    from brats_pipeline.evaluation.manifest import read_manifest
    from brats_pipeline.progress import case_bar

    if read_manifest(out)["call"].get("command") == "study":
        from brats_pipeline.studies.verifying import verify_study as verify
    else:
        from brats_pipeline.evaluation.verification import verify_report as verify

    with case_bar("verify", None, quiet=quiet) as on_case:
        found = verify(out, workers=workers, on_case=on_case)
    differences = [*found.files, *found.figures]
    if as_json:
        names = ("files", "figures", "versions")
        print(json.dumps({"holds": found.holds, **{name: getattr(found, name) for name in names}}))  # noqa: T201
    else:
        for sentence in found.versions:
            say(f"note: {sentence}")
        for sentence in differences:
            complain(sentence)
        say(f"{out}: {'holds' if found.holds else f'{len(differences)} differences'}")
    return 0 if found.holds else 1
