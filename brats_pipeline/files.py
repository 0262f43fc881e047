"""Writing files so that nobody ever sees half of one, and telling them apart. Standard library only."""

from __future__ import annotations

import glob
import hashlib
import os
import tempfile
from pathlib import Path

from brats_pipeline.errors import PipelineError


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes, as hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_dicom(path: str | os.PathLike[str]) -> bool:
    """Whether a file begins as DICOM does: ``DICM`` after 128 bytes, or, in old files without it, a tag of group 8.

    What cannot be read, and what is no plain file, is none.
    """
    try:
        if not Path(path).is_file():
            return False
        with Path(path).open("rb") as file:
            head = file.read(132)
    except OSError:
        return False
    old = head[:2] == b"\x08\x00" and len(head) == 132 and head[4:6].isalpha() and head[4:6].isupper()
    return head[128:] == b"DICM" or old


def write_atomically(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write a file under a temporary name beside it, then rename, so that no reader ever sees half of it.

    Raises:
        PipelineError: the folder cannot be written, or the disk is full; nothing is left behind. What is there is a
            device or a pipe, which a rename would replace.
    """
    path = Path(path)
    data = content.encode() if isinstance(content, str) else content
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise PipelineError(f"{path} is a device or a pipe, which no file can take the place of; name a file")
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        mask = os.umask(0)
        os.umask(mask)
        Path(temporary).chmod(0o666 & ~mask)
        Path(temporary).replace(path)
    except OSError as error:
        blocked = isinstance(error, FileExistsError | NotADirectoryError)
        reason = "a part of the path is a file, not a folder" if blocked else error.strerror or error
        raise PipelineError(
            f"{path}: cannot be written ({reason}); check the path, the folder's rights and the free disk space"
        ) from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)


def remove_leftovers(path: str | os.PathLike[str]) -> None:
    """Remove what :func:`write_atomically` left beside a file when it was killed; nobody may be writing the file."""
    path = Path(path)
    for left in path.parent.glob(f".{glob.escape(path.name)}.{'?' * 8}"):
        left.unlink(missing_ok=True)
