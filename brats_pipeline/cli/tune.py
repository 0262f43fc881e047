"""`tune`: post-processing chosen on the cases that a run was not trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from brats_pipeline.cli.options import ConventionName, Device, Json, Quiet, Workers, as_request
from brats_pipeline.cli.printing import complain, note, print_table, say


def tune_command(
    run: Annotated[str, typer.Argument(help="Folder of a run, or of a bundle with weights.")],
    fold: Annotated[
        list[str] | None,
        typer.Option(
            help="A run of the same recipe, asked for the cases that it never saw, in place of RUN; once for each."
        ),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Cases with label maps, instead of the validation fold.")] = None,
    datalist: Annotated[
        Path | None, typer.Option(help="A datalist of `split`, instead of the validation fold.")
    ] = None,
    metric: Annotated[str, typer.Option(help="dice, lesionwise_dice or hd95_mm.")] = "dice",
    rules: Annotated[str | None, typer.Option(help="Scoring rules, as for `evaluate`.")] = None,
    write_anyway: Annotated[
        bool, typer.Option("--write-anyway", help="Write the settings also where they are not shown to help.")
    ] = False,
    convention: ConventionName = None,
    device: Device = None,
    workers: Workers = 2,
    as_json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Choose thresholds, smallest parts, filling of holes and smallest ET by validation predictions.

    RUN/tuning gets tuning.md, tuning.csv and tuning.json. RUN/configs/postprocessing.yaml, which `segment` obeys, is
    written where the gain is shown on patients that were left out in turn.
    """
    from brats_pipeline.tuning.tune import FOLDER, tune

    with as_request():
        tuning = tune(
            run,
            folds=fold or (),
            data=data,
            datalist=datalist,
            convention=convention,
            metric=metric,
            rules=rules,
            write_anyway=write_anyway,
            device=device,
            workers=workers,
            quiet=quiet,
            on_note=None if quiet else note,
        )
    for case_id, reason in tuning.failed.items():
        complain(f"{case_id}: {reason}")
    if as_json:
        print((tuning.run / FOLDER / "tuning.json").read_text(encoding="utf-8"), end="")  # noqa: T201
    else:
        header, *rows = tuning.table()
        print_table(header, rows)
        for sentence in (*tuning.sentences(), *tuning.expectations()):
            say(sentence)
        say(f"report: {tuning.run / FOLDER / 'tuning.md'}")
    return 1 if tuning.failed else 0
