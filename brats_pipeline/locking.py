"""Who works where: the claim on a training, and the turn at a study's folder. Both end with the process, even killed.

The system itself keeps these locks (``flock``), on network file systems too. The files that they hang on go with the
lock, and so does a folder that was not there, unless something was written into it; a killed process leaves them.
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
    """Whether this process alone works in a folder; a process that is killed leaves no claim behind.

    Args:
        folder: made when absent.

    Raises:
        PipelineError: the folder cannot be made or written.
    """
    with _held(folder, CLAIM, None) as ours:
        yield ours


@contextmanager
def taking_turns(folder: Path, *, on_wait: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Let one process at a time at a folder; the others wait until it is done, or dead.

    Args:
        folder: made when absent.
        on_wait: called before this process waits for another one.

    Raises:
        PipelineError: the folder cannot be made or written.
    """
    with _held(folder, TURN, on_wait):
        yield


@contextmanager
def _held(folder: Path, name: str, on_wait: Callable[[], None] | None) -> Iterator[bool]:
    """Hold the lock of a file in a folder; False where another process has it and nobody wants to wait."""
    absent = [each for each in (folder, *folder.parents) if not each.exists()]
    file = _enter(folder, name, on_wait)
    if file is None:
        yield False
        return
    try:
        yield True
    finally:
        # The file goes while it is still locked: who waits for it finds it gone and looks again.
        with suppress(OSError):
            (folder / name).unlink()
            for each in absent:
                each.rmdir()
        file.close()


def _enter(folder: Path, name: str, on_wait: Callable[[], None] | None) -> IO[str] | None:
    """Open and lock the file that stands in the folder at that moment; None where that would mean to wait."""
    try:
        import fcntl
    except ImportError:  # Windows: one process at a time is up to the person
        fcntl = None  # type: ignore[assignment]
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = (folder / name).open("w")
        except OSError as error:
            if isinstance(error, FileNotFoundError | FileExistsError) and (folder.is_dir() or not folder.exists()):
                continue  # another process has just taken the empty folder away, or made it
            raise PipelineError(
                f"{folder}: cannot be written ({error.strerror or error}); choose another one"
            ) from error
        if fcntl is None:
            return file
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if on_wait is None:
                file.close()
                return None
            on_wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat((folder / name).stat(), os.fstat(file.fileno())):
                return file
        file.close()
