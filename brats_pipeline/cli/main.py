"""Every command in one list, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import logging
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from brats_pipeline import require_own_packages
from brats_pipeline.cli.bundles import (
    bundle_export,
    bundle_import,
    bundle_info,
    bundle_list,
    bundle_path_command,
    bundle_verify,
)
from brats_pipeline.cli.cohorts import inspect_command, phantom_command, split_command
from brats_pipeline.cli.evaluate import evaluate_command, report_verify
from brats_pipeline.cli.prepare import prepare_command
from brats_pipeline.cli.printing import DISCLAIMER, complain
from brats_pipeline.cli.segment import segment_command
from brats_pipeline.cli.study import demo_command, study_command
from brats_pipeline.cli.train import train_command
from brats_pipeline.cli.tune import tune_command
from brats_pipeline.errors import PipelineError, root_cause, was_interrupted

INTERRUPTED = 130

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
report_app = typer.Typer(help="Reports on disk.", no_args_is_help=True, rich_markup_mode=None)


@app.callback()
def _root(debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False) -> None:
    """Options that come before the command."""


app.command("inspect")(inspect_command)
app.command("split")(split_command)
app.command("phantom")(phantom_command)
app.command("prepare")(prepare_command)
app.command("train")(train_command)
app.command("segment")(segment_command)
app.command("evaluate")(evaluate_command)
app.command("study")(study_command)
app.command("tune")(tune_command)
app.command("demo")(demo_command)
app.add_typer(bundle_app, name="bundle")
bundle_app.command("list")(bundle_list)
bundle_app.command("info")(bundle_info)
bundle_app.command("path")(bundle_path_command)
bundle_app.command("verify")(bundle_verify)
bundle_app.command("import")(bundle_import)
bundle_app.command("export")(bundle_export)
app.add_typer(report_app, name="report")
report_app.command("verify")(report_verify)


def _say_once() -> None:
    """Quiet the loggers that repeat what a command prints itself: failed cases, and the error that ended an engine."""
    logging.getLogger("brats_pipeline.inference.cohort").setLevel(logging.ERROR)
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
            complain(f"error: {_message(error)}")
            return 2
        code = INTERRUPTED
    if code == INTERRUPTED:  # typer turns the interrupt into this number itself
        complain(
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
