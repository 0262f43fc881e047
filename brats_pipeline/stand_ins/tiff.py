"""In place of ``PIL``: TIFF files as the LGG MRI Segmentation set has them, with 8 bits a value and not compressed.

What is here has the names of what it stands in for. The format is that of TIFF 6.0, part 1 (Adobe, 1992): a header, a
directory of tags, and the pixels in strips of rows.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

Tags = dict[int, tuple[int, ...]]
WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC, OFFSETS, SAMPLES, ROWS, SIZES, PLANES = (
    *(256, 257, 258, 259, 262, 273, 277, 278, 279, 284),
)
UNSIGNED = {1: "B", 3: "H", 4: "I"}
"""Type of a tag's values to its letter in :mod:`struct`; tags of other types are passed over."""
MOST_CHANNELS = 16
MODES = {(1, 1): "L", (2, 3): "RGB"}
"""Kind of colour and number of channels to Pillow's name."""


class UnidentifiedImageError(OSError):
    """The file is no TIFF picture."""


class TiffImageFile:
    """One picture, whose pixels are taken from the file's content when they are asked for.

    Args:
        content: of the file.
        tags: the first directory.
        is_animated: whether another picture follows.
    """

    def __init__(self, content: bytes, tags: Tags, is_animated: bool) -> None:
        self.tag_v2 = tags
        self.is_animated = is_animated
        self._content = content

    def __enter__(self) -> TiffImageFile:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows."""
        return self.tag_v2[WIDTH][0], self.tag_v2[HEIGHT][0]

    @property
    def mode(self) -> str:
        """``L`` for grey, ``RGB`` for three colours, ``other`` for what is not read here."""
        kind = self.tag_v2.get(PHOTOMETRIC, (1,))[0], len(self.getbands())
        return MODES.get(kind, "other")

    def getbands(self) -> tuple[str, ...]:
        """A name for each channel."""
        return tuple(map(str, range(self.tag_v2.get(SAMPLES, (1,))[0])))

    def load(self) -> None:
        """Make sure that the pixels can be read.

        Raises:
            OSError: they are stored in a way that needs Pillow, or end too early.
        """
        np.asarray(self)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[np.uint8]:
        """Rows, columns and, of colours, channels."""
        tags, bits = self.tag_v2, set(self.tag_v2.get(BITS, (1,)))
        one_plane = tags.get(PLANES, (1,))[0] == 1 or len(self.getbands()) == 1
        if tags.get(COMPRESSION, (1,))[0] != 1 or not one_plane or OFFSETS not in tags or self.mode == "other":
            raise OSError("it is compressed, in tiles or of other colours, which needs Pillow: pip install Pillow")
        if bits != {8}:
            raise OSError(f"it holds {max(bits)}-bit values, which needs Pillow: pip install Pillow")
        columns, rows = self.size
        shape = (rows, columns) if self.mode == "L" else (rows, columns, len(self.getbands()))
        strips = zip(tags[OFFSETS], tags.get(SIZES, (math.prod(shape),)), strict=True)
        pixels = b"".join(self._content[start : start + size] for start, size in strips)
        if len(pixels) < math.prod(shape):
            raise OSError(f"it ends after {len(pixels)} of {math.prod(shape)} bytes")
        return np.frombuffer(pixels, np.uint8, math.prod(shape)).reshape(shape)


class NewPicture:
    """Grey pixels ``(rows, columns)`` that can be saved."""

    def __init__(self, pixels: npt.NDArray[np.uint8]) -> None:
        self.pixels = pixels

    def save(self, file: IO[bytes], *, format: str) -> None:
        """Write a TIFF file of one strip."""
        rows, columns = self.pixels.shape
        held = {WIDTH: columns, HEIGHT: rows, BITS: 8, COMPRESSION: 1, PHOTOMETRIC: 1, SAMPLES: 1, ROWS: rows}
        strip = 8 + 2 + 12 * (len(held) + 2) + 4
        entries = sorted((held | {OFFSETS: strip, SIZES: self.pixels.size}).items())
        file.write(struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", len(entries)))
        file.write(b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in entries) + bytes(4))
        file.write(np.ascontiguousarray(self.pixels).tobytes())


class Image:
    """Pillow's module of that name."""

    fromarray = NewPicture

    @staticmethod
    def open(path: str | Path) -> TiffImageFile:
        """Read the file, and the tags of its first picture.

        Raises:
            UnidentifiedImageError: it is no TIFF picture.
        """
        content = Path(path).read_bytes()
        order = {b"II*\0": "<", b"MM\0*": ">"}.get(content[:4])
        if order is None:
            raise UnidentifiedImageError("no TIFF picture; others need Pillow: pip install Pillow")
        try:
            tags, more = _tags(lambda form, start: struct.unpack_from(order + form, content, start))
        except struct.error as error:
            raise UnidentifiedImageError("its directory is cut off") from error
        if not {WIDTH, HEIGHT} <= tags.keys() or not 1 <= tags.get(SAMPLES, (1,))[0] <= MOST_CHANNELS:
            raise UnidentifiedImageError("its directory is damaged")
        return TiffImageFile(content, tags, more)


class TiffImagePlugin:
    """Pillow's module of that name."""

    TiffImageFile = TiffImageFile


def _tags(unpack: Callable[[str, int], tuple[Any, ...]]) -> tuple[Tags, bool]:
    """The unsigned values of the first directory, and whether a second one follows.

    Args:
        unpack: takes a format and a place in the file.
    """
    (start,) = unpack("I", 4)
    (count,) = unpack("H", start)
    tags: Tags = {}
    for entry in range(start + 2, start + 2 + 12 * count, 12):
        tag, kind, number = unpack("HHI", entry)
        if number and (letter := UNSIGNED.get(kind)):
            form = f"{number}{letter}"
            (place,) = unpack("I", entry + 8)
            tags[tag] = unpack(form, entry + 8 if struct.calcsize("=" + form) <= 4 else place)
    (following,) = unpack("I", start + 2 + 12 * count)
    return tags, following not in (0, start)
