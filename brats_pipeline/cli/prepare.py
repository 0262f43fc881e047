"""`prepare`: a raw exam becomes a case like those of BraTS."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from brats_pipeline.cli.options import Json, Quiet, Seed, as_request
from brats_pipeline.cli.printing import DISCLAIMER, note, print_table, say
from brats_pipeline.errors import PipelineError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from brats_pipeline.dicom.choosing import Choice
    from brats_pipeline.prepare import Prepared

Out = Annotated[Path, typer.Option("--out", "-o", help="The case's folder; it names the case where files do not.")]


def prepare_command(
    out: Out,
    exam: Annotated[
        Path | None,
        typer.Argument(help="Folder of the exam: NIfTI told apart by their names, or DICOM by its headers."),
    ] = None,
    t1c: Annotated[
        Path | None,
        typer.Option(help="Contrast-enhanced T1, the reference. Beside a DICOM exam: number of its series, or none."),
    ] = None,
    t1: Annotated[Path | None, typer.Option(help="Native T1.")] = None,
    t2: Annotated[Path | None, typer.Option(help="T2.")] = None,
    flair: Annotated[Path | None, typer.Option(help="FLAIR.")] = None,
    grid: Annotated[str, typer.Option(help="1mm, or reference: the voxels of the T1c.")] = "1mm",
    atlas: Annotated[Path | None, typer.Option(help="A scan to whose space and grid everything is brought.")] = None,
    atlas_transform: Annotated[str, typer.Option(help="rigid or affine.")] = "rigid",
    n4: Annotated[bool, typer.Option("--n4", help="Take slow changes of brightness out.")] = False,
    brain_extraction: Annotated[
        str, typer.Option(help="auto (HD-BET where it is installed, else classical), hd-bet, classical or none.")
    ] = "auto",
    brain_mask: Annotated[Path | None, typer.Option(help="A mask of the brain on the grid of the T1c.")] = None,
    no_brain_extraction: Annotated[
        bool, typer.Option("--no-brain-extraction", help="Keep the head: --brain-extraction none.")
    ] = False,
    interpolation: Annotated[str, typer.Option(help="bspline or linear.")] = "bspline",
    device: Annotated[str, typer.Option(help="For HD-BET: cpu, cuda or mps.")] = "cpu",
    seed: Seed = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Prepare a case again that is there.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Bring the scans of one exam to one grid, match them to its T1c, and take the brain out."""
    from brats_pipeline.prepare import prepare_case
    from brats_pipeline.progress import case_bar

    files = {name: path for name, path in (("t1c", t1c), ("t1", t1), ("t2", t2), ("flair", flair)) if path is not None}
    series = _series(exam, files) if exam is not None else None
    if series is None and bool(files) == bool(exam):
        raise PipelineError("give either the folder of an exam, or its files by --t1c --t1 --t2 --flair")
    if brain_mask is not None and (no_brain_extraction or brain_extraction != "auto"):
        raise PipelineError("--brain-mask is itself the brain extraction; leave the other option out")
    if series is not None and not as_json:
        _show(series)
    with case_bar("prepare", None, quiet=quiet) as on_step, as_request():
        prepared = prepare_case(
            series.chosen if series is not None else files or exam or {},
            out,
            grid=grid,
            atlas=atlas,
            atlas_transform=atlas_transform,  # type: ignore[arg-type]  # refused with the two that there are
            n4=n4,
            brain="none" if no_brain_extraction else brain_extraction,
            brain_mask=brain_mask,
            interpolation=interpolation,
            seed=seed,
            device=device,
            overwrite=overwrite,
            on_step=on_step,
        )
    _tell(prepared, as_json=as_json)
    return 0


def _series(exam: Path, named: Mapping[str, Path]) -> Choice | None:
    """What was made of the series of a DICOM exam, and of the options; None where it is none."""
    from brats_pipeline.dicom.choosing import choose_series
    from brats_pipeline.dicom.finding import holds_dicom

    if not holds_dicom(exam):
        return None
    return choose_series(exam, {modality: str(told) for modality, told in named.items()})


def _show(choice: Choice) -> None:
    """The series of an exam, what was chosen in capitals."""
    from brats_pipeline.dicom.choosing import HEADER

    print_table(HEADER, choice.rows())
    if choice.aside:
        note(f"note: set aside: {choice.aside}")


def _tell(prepared: Prepared, *, as_json: bool) -> None:
    """Say how well the scans match, and what else a person should know."""
    record: dict[str, Any] = dict(prepared.record)
    if as_json:
        print(json.dumps({"folder": str(prepared.folder), **record}))  # noqa: T201
        return
    rows = [*record["registration"].items(), *([("atlas", record["atlas"])] if record["atlas"] else [])]
    if rows:
        print_table(
            (f"to {record['reference']}", "mutual information", "after", "moved mm", "turned degrees"),
            [
                (
                    name,
                    f"{row['mutual_information_before']:.3f}",
                    f"{row['mutual_information_after']:.3f}",
                    f"{row['moved_mm']:.1f}",
                    f"{row['rotated_degrees']:.1f}",
                )
                for name, row in rows
            ],
        )
    brain = record["brain"]
    if brain["volume_ml"] is not None:
        say(f"brain: {brain['volume_ml']:.0f} ml ({brain['method']})")
    for sentence in prepared.notes:
        note(f"note: {sentence}")
    say(f"{prepared.case_id}: {prepared.folder} in {record['seconds']['total']:.0f} s; look at preview.png")
    say(DISCLAIMER)
