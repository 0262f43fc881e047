"""Who works where: the claim on a training, and the turn at a study's folder. Both end with the process, even killed.

The system itself keeps these locks (``flock``), on network file systems too; the files that they hang on may stay.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from brats_pipeline.errors import PipelineError

CLAIM = ".claim"
TURN = ".turn"


@contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Whether this process alone works in a folder; a process that is killed leaves no claim behind."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        import fcntl
    except ImportError:  # Windows: one process at a time is up to the person
        yield True
        return
    with (folder / CLAIM).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


@contextmanager
def taking_turns(folder: Path, *, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Let one process at a time at a folder; the others wait until it is done, or dead.

    A folder that was not there is not there afterwards, unless something was written into it.

    Args:
        folder: made when absent.
        on_wait: called before this process waits for another one.

    Raises:
        PipelineError: the folder cannot be made or written.
    """
    absent = [each for each in (folder, *folder.parents) if not each.exists()]
    file = _enter(folder, on_wait)
    try:
        yield
    finally:
        # The file goes with an empty folder while it is still locked: who waits for it finds it gone and looks again.
        with suppress(OSError):
            if absent and [path.name for path in folder.iterdir()] == [TURN]:
                (folder / TURN).unlink()
                for each in absent:
                    each.rmdir()
        file.close()


def _enter(folder: Path, on_wait: Callable[[], None]) -> IO[str]:
    """Open and lock the file that stands in the folder at that moment."""
    try:
        import fcntl
    except ImportError:
        fcntl = None  # type: ignore[assignment]  # Windows, as above
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = (folder / TURN).open("w")
        except FileNotFoundError:  # another process has just taken the empty folder away
            continue
        except OSError as error:
            raise PipelineError(
                f"{folder}: cannot be written ({error.strerror or error}); choose another one"
            ) from error
        if fcntl is None:
            return file
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat((folder / TURN).stat(), os.fstat(file.fileno())):
                return file
        file.close()
