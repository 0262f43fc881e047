"""Progress bars on standard error; silent when nobody watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


@contextmanager
def case_bar(task: str, total: int | None, *, quiet: bool) -> Iterator[Callable[[str], None]]:
    """A bar over cases; the value is a callback to call with each finished case's id.

    Args:
        task: what is being done, in a word.
        total: number of cases, None where it is not known yet.
        quiet: draw nothing.
    """
    with _progress(quiet) as progress:
        bar = progress.add_task(task, total=total, detail="")
        yield lambda case_id: progress.update(bar, advance=1, detail=case_id)


@contextmanager
def growing_bar(task: str, *, quiet: bool) -> Iterator[tuple[Callable[[int], None], Callable[[str], None]]]:
    """As :func:`case_bar` for a number of cases known only later: callbacks for the number, and for each case."""
    with _progress(quiet) as progress:
        bar = progress.add_task(task, total=None, detail="getting ready")
        yield (
            lambda total: progress.update(bar, total=total, detail="loading the network"),
            lambda case_id: progress.update(bar, advance=1, detail=case_id),
        )


@contextmanager
def training_bar(*, quiet: bool) -> Iterator[Callable[[Any], None]]:
    """A bar over training steps with loss and validation Dice; the value is a callback that takes the trainer."""
    from ignite.engine import Events

    with _progress(quiet) as progress:
        bar = progress.add_task("train", total=None, detail="getting ready")

        def attach(trainer: Any) -> None:
            total = trainer.state.max_epochs * trainer.state.epoch_length
            progress.update(bar, total=total, completed=trainer.state.iteration, detail="loading cases")

            def step(engine: Any) -> None:
                state = engine.state
                loss = float(state.output[0]["loss"])
                detail = f"epoch {state.epoch}/{state.max_epochs}, loss {loss:.3f}"
                progress.update(bar, completed=state.iteration, detail=detail)

            trainer.add_event_handler(Events.ITERATION_COMPLETED, step)

        yield attach


def _progress(quiet: bool) -> Progress:
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}"),
        console=console,
        disable=quiet or not console.is_terminal,
    )
