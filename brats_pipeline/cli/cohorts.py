"""`inspect`, `split` and `phantom`: cohorts before anything is trained on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from brats_pipeline.cli.options import (
    ConventionName,
    Json,
    Out,
    Patients,
    Quiet,
    Seed,
    Workers,
    as_request,
    cases_below,
)
from brats_pipeline.cli.printing import cell, print_table, say
from brats_pipeline.errors import PipelineError

if TYPE_CHECKING:
    from brats_pipeline.cases import Case

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
    from brats_pipeline.data.fingerprint import inspect_cases
    from brats_pipeline.files import write_atomically
    from brats_pipeline.progress import case_bar

    cases = cases_below(data, convention, patients)
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
        print_table(list(shown.values()), [[cell(row[column]) for column in shown] for row in rows])
        cohort = fingerprint.cohort()
        layouts = ", ".join(f"{count} {layout}" for layout, count in cohort["layouts"].items())
        say(f"{cohort['cases']} cases ({layouts}) of {cohort['patients']} patients")
        say(f"{cohort['with_defects']} with defects")
        for defect, case_ids in by_sentence(fingerprint.defects).items():
            say(f"{', '.join(case_ids)}: {defect}")
        for case_id, notes in fingerprint.notes.items():
            for note in notes:
                say(f"{case_id}: note: {note}")
        for pair in shared:
            say(f"{pair.first} and {pair.second} are one patient: {pair.reason}")
        for patient_id, names in repeated_patients(cases).items():
            say(f"patient {patient_id} has {len(names)} cases: {', '.join(names)}")
        if out is not None:
            say(f"fingerprint: {out}")
    if not fingerprint.defects:
        return 0
    return 1 if len(fingerprint.defects) < len(cases) else 2


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
    from brats_pipeline.data.datalist import split_cases, write_datalist
    from brats_pipeline.data.fingerprint import check_headers
    from brats_pipeline.progress import case_bar

    cases = cases_below(data, convention, patients)
    defects = {case.case_id: check_headers(case, wanted=tuple(case.images)) for case in cases}
    if any(defects.values()):
        reasons = [f"{', '.join(names)}: {defect}" for defect, names in by_sentence(defects).items()]
        raise PipelineError("\n  ".join(["some cases cannot be trained on; repair them or leave them out", *reasons]))
    with case_bar("compare", len(cases), quiet=quiet) as on_case:
        shared = find_shared(cases, workers=workers, on_case=on_case)
    for pair in shared:
        say(f"{pair.first} and {pair.second} are one patient and stay together: {pair.reason}")
    with case_bar("split", len(cases), quiet=quiet) as on_case:
        datalist = split_cases(
            cases, folds=folds, seed=seed, name=data[0].resolve().name, shared=shared, workers=workers, on_case=on_case
        )
    write_datalist(datalist, out)
    sizes = [sum(item["fold"] == fold for item in datalist["training"]) for fold in range(folds)]
    say(f"{len(datalist['training'])} cases in {folds} folds of {', '.join(map(str, sizes))}: {out}")
    return 0


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
    with case_bar("phantom", cases, quiet=quiet) as on_case, as_request():
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
    say(f"{len(written)} cases: {out}")
    return 0


def by_sentence(defects: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Each defect once, with the cases that have it: what the whole cohort shares is said once."""
    found: dict[str, list[str]] = {}
    for case_id, sentences in defects.items():
        for sentence in sentences:
            found.setdefault(sentence, []).append(case_id)
    return found


def repeated_patients(cases: Sequence[Case]) -> dict[str, list[str]]:
    """Patients of several cases, by their names; such cases never stand on two sides of a split."""
    names: dict[str, list[str]] = {}
    for case in cases:
        names.setdefault(case.patient_id, []).append(case.case_id)
    return {patient_id: found for patient_id, found in names.items() if len(found) > 1}
