"""The voxels of a file on disk, packed or not: as many bytes as its header promises, and in memory once.

A stream that holds less is truncated; one that holds more was not written for this header, be it by accident or to fill
the memory of who unpacks it. Either is refused, the latter at once. A little padding with zeros harms nobody.
"""

from __future__ import annotations

import io
import math
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from brats_pipeline.errors import PipelineError
from transforms.room import check_room

try:
    from isal import igzip
except ImportError:  # the same functions, slower
    import gzip as igzip  # type: ignore[no-redef]

GZIP = b"\x1f\x8b"
CHUNK = 2**22
"""Bytes taken from a stream at a time."""
PADDING = 4096
"""So many zeros may follow behind the voxels."""
DENSEST = 1032
"""Deflate packs no more bytes than this into one."""


@dataclass(frozen=True)
class Body:
    """How the voxels lie in a stream, the first axis fastest.

    Args:
        shape: voxels along each axis.
        dtype: of one voxel, with its byte order.
        offset: bytes of the stream in front of the first voxel.
        slope, inter: a value is ``slope * stored + inter``.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    slope: float = 1.0
    inter: float = 0.0

    @property
    def scaled(self) -> bool:
        """Whether values are other than what is stored."""
        return (self.slope, self.inter) != (1.0, 0.0)

    @property
    def promised(self) -> int:
        """Bytes of the whole stream."""
        return self.offset + math.prod(self.shape) * self.dtype.itemsize

    def dtype_in_memory(self, *, narrow: bool) -> np.dtype[Any]:
        """As stored; scaled values as float64. ``narrow``: float32 instead of floats with 8 bytes or more."""
        if self.scaled:
            return np.dtype(np.float32 if narrow else np.float64)
        if narrow and self.dtype.kind == "f" and self.dtype.itemsize > 4:
            return np.dtype(np.float32)
        return self.dtype

    def bytes_in_memory(self, *, narrow: bool) -> int:
        """Bytes of the array that :func:`read_values` gives."""
        return math.prod(self.shape) * self.dtype_in_memory(narrow=narrow).itemsize


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """A file to read; pipes and devices, which may never end, are none.

    Raises:
        PipelineError: it is missing, empty, no file, or its rights forbid to read it.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
            raise OSError("it is a pipe or a device, no file")
        file = path.open("rb")
    except (OSError, ValueError) as error:  # a name with a null character is a ValueError
        told = getattr(error, "strerror", None) or error
        link = f", a link to {os.readlink(path)}" if isinstance(error, FileNotFoundError) and path.is_symlink() else ""  # noqa: PTH115 -- as it is written
        raise PipelineError(f"{path}: cannot be read ({told}{link}); check the path and its rights") from error
    with file:
        if not status.st_size:
            raise PipelineError(f"{path}: the file is empty; copy or download it again")
        yield file


class Stream:
    """Bytes of an open file from where it stands, unpacked where they are packed.

    Args:
        file: whose bytes these are.
        path: for messages.
        packing: ``""``, ``"gzip"``, or ``"zlib"`` (with either header).

    Attributes:
        left: bytes on disk from the beginning of the stream.
    """

    def __init__(self, file: BinaryIO, path: Path, *, packing: str) -> None:
        self.path = path
        self.packing = packing
        self.left = os.fstat(file.fileno()).st_size - file.tell()
        self._raw: Any = file
        if packing:
            self._raw = igzip.GzipFile(fileobj=file) if packing == "gzip" else _Zlib(file)

    def fill(self, view: npt.NDArray[np.uint8]) -> int:
        """Fill ``view`` as far as the stream goes; returns the number of bytes.

        Raises:
            PipelineError: the packed stream is damaged, or ends before its end.
        """
        held = 0
        try:
            while held < len(view):
                got = self._raw.readinto(view[held : held + CHUNK].data)
                if not got:
                    break
                held += got
        except Exception as error:  # gzip, zlib and ISA-L each raise kinds of their own
            self._damaged(error)
        return held

    def take(self, count: int) -> bytes:
        """The next bytes, fewer at the end."""
        view = np.empty(count, np.uint8)
        return view[: self.fill(view)].tobytes()

    def skip(self, count: int) -> int:
        """Leave bytes out; returns their number, smaller at the end."""
        skipped = 0
        while skipped < count and (got := len(self.take(min(CHUNK, count - skipped)))):
            skipped += got
        return skipped

    def _damaged(self, error: Exception) -> None:
        if not self.packing:
            raise PipelineError(f"{self.path}: cannot be read ({error}); copy it again") from error
        raise PipelineError(
            f"{self.path}: the {self.packing} stream is truncated or damaged ({error}); copy or download the file again"
        ) from error


class _Zlib(io.RawIOBase):
    """What a zlib stream in a file unpacks to, a bounded piece at a time; bytes behind it are an error."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file = file
        self._inflate = zlib.decompressobj(wbits=47)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._file.read(2**16)
            piece = self._inflate.decompress(packed, len(buffer))
            if piece:
                buffer[: len(piece)] = piece
                return len(piece)
            if not packed:
                raise EOFError("it ends before its end")
        if (self._inflate.unused_data or self._file.read(1)).strip(b"\0"):
            raise ValueError("more bytes follow behind its end")
        return 0


def check_length(body: Body, held: int, path: Path) -> None:
    """Refuse a stream that is shorter or longer than its header promises.

    Raises:
        PipelineError: says both lengths.
    """
    if held < body.promised:
        raise PipelineError(
            f"{path}: the header promises {body.promised} bytes, the file holds {held}: truncated, copy it again"
        )
    if held > body.promised + PADDING:
        raise _surplus(body, f"the file holds {held}", path)


def _surplus(body: Body, what: str, path: Path) -> PipelineError:
    return PipelineError(
        f"{path}: the header promises {body.promised} bytes, {what}: header and voxels do not belong together, write "
        "the file again"
    )


def read_values(stream: Stream, body: Body, *, begun: int, narrow: bool) -> npt.NDArray[Any]:
    """The voxels of a stream as an array in Fortran order.

    Args:
        stream: stands behind the first ``begun`` bytes.
        body: how they lie.
        begun: bytes that were taken already.
        narrow: as in :meth:`Body.dtype_in_memory`.

    Raises:
        PipelineError: the stream is damaged, shorter or longer than promised, or memory is too small.
    """
    path = stream.path
    if not stream.packing:
        check_length(body, stream.left, path)
    elif body.promised > DENSEST * stream.left + CHUNK:
        raise PipelineError(
            f"{path}: the header promises {body.promised} bytes, and the {stream.left} packed ones cannot hold them: "
            "truncated or damaged, copy it again"
        )
    check_room(body.bytes_in_memory(narrow=narrow), str(path))
    target = body.dtype_in_memory(narrow=narrow)
    try:
        values: npt.NDArray[Any] = np.empty(math.prod(body.shape), target)
    except (MemoryError, ValueError) as error:
        raise PipelineError(f"{path}: does not fit into memory ({error}); check the shape in its header") from error
    held = begun + stream.skip(body.offset - begun)
    if held == body.offset:
        held += _decode(stream, body, values)
    check_length(body, held, path)
    more = stream.take(PADDING + 1)
    if len(more) > PADDING or any(more):
        count = f"more than {PADDING}" if len(more) > PADDING else str(len(more))
        raise _surplus(body, f"and {count} follow behind them", path)
    return values.reshape(body.shape, order="F")


def _decode(stream: Stream, body: Body, values: npt.NDArray[Any]) -> int:
    """Fill ``values``; returns the number of bytes that were there."""
    if values.dtype == body.dtype and not body.scaled:
        return stream.fill(values.view(np.uint8))
    size = body.dtype.itemsize
    buffer = np.empty(CHUNK // size * size, np.uint8)
    held = 0
    while held < len(values) * size:
        got = stream.fill(buffer[: min(len(buffer), len(values) * size - held)])
        pieces = buffer[: got // size * size].view(body.dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = pieces.astype(np.float64) * body.slope + body.inter if body.scaled else pieces
            values[held // size : held // size + len(pieces)] = scaled
        held += got
        if got < size:
            break
    return held
