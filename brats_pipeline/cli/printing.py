"""What a command prints: results on standard output, everything else on standard error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from brats_pipeline.evaluation.evaluate import Evaluation

DISCLAIMER = "Research software, not a medical device."
PIPE_WIDTH = 1000


def say(text: str) -> None:
    from rich.console import Console

    Console(soft_wrap=True, highlight=False, markup=False).print(text)


def note(text: str) -> None:
    """Something to know, on standard error: what a program reads stays clean."""
    from rich.console import Console

    Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(text)


def complain(text: str) -> None:
    from rich.console import Console

    Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(text)


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(*header, box=box.SIMPLE_HEAD, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    console = Console()
    # A pipe has no width of its own; a table wrapped to some other width would break what reads it.
    (console if console.is_terminal else Console(width=PIPE_WIDTH)).print(table)


def cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def print_evaluation(evaluation: Evaluation) -> None:
    """The headline table, what the labels were taken to mean, what is missing, and where the report lies."""
    from brats_pipeline.report.words import convention_sentences

    header, *rows = evaluation.table()
    print_table(header, rows)
    for sentence in convention_sentences(evaluation.conventions):
        say(sentence)
    for case_id in evaluation.missing:
        complain(f"{case_id}: has no prediction and counts as a miss")
    for case_id, reason in evaluation.failed.items():
        complain(f"{case_id}: {reason}")
    for case_id in evaluation.unmatched:
        complain(f"{case_id}: is a prediction without a reference; not scored")
    for case_id, reason in evaluation.calibration.without.items() if evaluation.calibration else ():
        complain(f"{case_id}: takes no part in the calibration: {reason}")
    say(f"report: {evaluation.out / 'report.html'}")
