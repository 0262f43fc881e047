"""MetaImage files in one piece (``.mha``): the header in words, and how the voxels lie. No torch.

As https://itk.org/Wiki/MetaIO/Documentation describes them, and as ITK writes them: millimetres towards Left, Posterior
and Superior, the direction of each axis as a row of ``TransformMatrix``. What that page allows beyond one volume of one
real number per voxel, in the same file, is refused.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from brats_pipeline.errors import PipelineError
from transforms.decoding import Body, Stream
from transforms.world import BLANKS, Affine, affine_of, numbers, sizes

TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}  # fmt: skip
BEGINNINGS = (b"ObjectType", b"NDims", b"Comment")
"""The keys that a file may begin with."""
LONGEST = 2**20
"""Bytes of a header; more are none."""


def read_mha_start(stream: Stream) -> tuple[Affine, Body, bool]:
    """Read the header of a ``.mha`` file.

    Args:
        stream: of the file as it is, at its beginning.

    Returns:
        The affine ``(4, 4)`` in RAS millimetres, how the voxels lie (``offset``: where they begin in the file), and
        whether they are packed.

    Raises:
        PipelineError: the header makes no sense, or says what is refused here.
    """
    fields, length = _fields(stream)
    try:
        return _understood(fields, length)
    except (ValueError, KeyError, OverflowError) as error:
        told = f"it has no {error.args[0]}" if isinstance(error, KeyError) else str(error)
        raise PipelineError(
            f"{stream.path}: the MetaImage header cannot be used ({told}); write the file again"
        ) from error


def _fields(stream: Stream) -> tuple[dict[str, str], int]:
    """Key to value, and the bytes of the header: it ends with the line that says where the voxels are."""
    content = stream.take(LONGEST)
    fields: dict[str, str] = {}
    place = 0
    while (end := content.find(b"\n", place)) >= 0:
        key, equals, value = content[place:end].decode("latin-1").partition("=")
        place = end + 1
        key = key.strip(BLANKS)
        if not equals or key in fields:
            break
        fields[key] = value.strip(BLANKS)
        if key == "ElementDataFile":
            return fields, place
    raise PipelineError(
        f"{stream.path}: the MetaImage header cannot be used (no line ElementDataFile ends it); write the file again"
    )


def _understood(fields: Mapping[str, str], length: int) -> tuple[Affine, Body, bool]:
    if fields["ElementDataFile"] != "LOCAL":
        raise ValueError(f"its voxels lie in {fields['ElementDataFile']!r}; one .mha file with both is needed")
    if fields.get("ObjectType", "Image") != "Image" or fields["NDims"] != "3":
        raise ValueError(f"it is {fields.get('ObjectType', 'Image')} with {fields['NDims']} axes; three are needed")
    if fields.get("ElementNumberOfChannels", "1") != "1":
        raise ValueError(f"it holds {fields['ElementNumberOfChannels']} values per voxel; one is needed")
    if fields.get("HeaderSize", "0") != "0" or not _flag(fields, "BinaryData", "True"):
        raise ValueError("its voxels are written as text, or behind a header of their own; write them as plain binary")
    if fields["ElementType"] not in TYPES:
        raise ValueError(f"the type {fields['ElementType']} is not known")
    big = _flag(fields, "BinaryDataByteOrderMSB", fields.get("ElementByteOrderMSB", "False"))
    dtype = np.dtype(TYPES[fields["ElementType"]]).newbyteorder(">" if big else "<")
    numbers(fields.get("CenterOfRotation", "0 0 0"), 3)
    matrix = _only(fields, ("TransformMatrix", "Orientation", "Rotation"), "1 0 0 0 1 0 0 0 1")
    origin = _only(fields, ("Offset", "Position", "Origin"), "0 0 0")
    size = _only(fields, ("ElementSize",), "1 1 1")
    numbers(size, 3)
    spacing = numbers(_only(fields, ("ElementSpacing",), size if "ElementSize" in fields else None), 3)
    axes = np.reshape(numbers(matrix, 9), (3, 3)) * np.reshape(spacing, (3, 1))
    body = Body(sizes(fields["DimSize"]), dtype, length)
    return affine_of(axes, numbers(origin, 3)), body, _flag(fields, "CompressedData", "False")


def _flag(fields: Mapping[str, str], key: str, default: str) -> bool:
    value = fields.get(key, default)
    if value.lower() not in ("true", "false"):
        raise ValueError(f"{key} is {value!r}; True or False is needed")
    return value.lower() == "true"


def _only(fields: Mapping[str, str], keys: tuple[str, ...], default: str | None = None) -> str:
    """The value of the one key of several that is there.

    Raises:
        KeyError: none is, and there is no default.
        ValueError: two are, and each says where the voxels lie.
    """
    there = [key for key in keys if key in fields]
    if len(there) > 1:
        raise ValueError(f"it has both {there[0]} and {there[1]}; one of them is needed")
    if not there and default is None:
        raise KeyError(keys[0])
    return fields[there[0]] if there else str(default)
