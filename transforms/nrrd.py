"""NRRD files in one piece (``.nrrd``): the header in words, and how the voxels lie. No torch.

As https://teem.sourceforge.net/nrrd/format.html describes them. What it allows beyond one volume of one real number per
voxel, in the same file and with a space that says where Left, Posterior and Superior are, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

from brats_pipeline.errors import PipelineError
from transforms.decoding import Body, Stream
from transforms.world import BLANKS, LPS, Affine, affine_of, numbers, sizes

MAGIC = b"NRRD000"
_NAMES = {
    "i1": "signed char,int8,int8_t",
    "u1": "uchar,unsigned char,uint8,uint8_t",
    "i2": "short,short int,signed short,signed short int,int16,int16_t",
    "u2": "ushort,unsigned short,unsigned short int,uint16,uint16_t",
    "i4": "int,signed int,int32,int32_t",
    "u4": "uint,unsigned int,uint32,uint32_t",
    "i8": "longlong,long long,long long int,signed long long,signed long long int,int64,int64_t",
    "u8": "ulonglong,unsigned long long,unsigned long long int,uint64,uint64_t",
    "f4": "float",
    "f8": "double",
}
TYPES = {name: kind for kind, names in _NAMES.items() for name in names.split(",")}
WORLDS = {
    "left-posterior-superior": LPS,
    "lps": LPS,
    "right-anterior-superior": np.eye(3),
    "ras": np.eye(3),
    "left-anterior-superior": np.diag([-1.0, 1.0, 1.0]),
    "las": np.diag([-1.0, 1.0, 1.0]),
}
"""Space to what turns it into RAS."""
REMARKS = {
    "content",
    "centers",
    "centerings",
    "labels",
    "sampleunits",
    "measurementframe",
    "min",
    "max",
    "oldmin",
    "oldmax",
}
"""Fields that change neither voxels nor their place."""
FIELDS = REMARKS | {
    "type", "dimension", "sizes", "encoding", "endian", "space", "spacedirections", "spaceorigin", "spaceunits",
    "kinds", "lineskip", "byteskip", "datafile",
}  # fmt: skip
PACKINGS = {"raw": False, "gzip": True, "gz": True}
LONGEST = 2**20
"""Bytes of a header; more are none."""
_VECTOR = re.compile(r"\(([^()]*)\)")


def read_nrrd_start(stream: Stream) -> tuple[Affine, Body, bool]:
    """Read the header of a ``.nrrd`` file.

    Args:
        stream: of the file as it is, at its beginning.

    Returns:
        The affine ``(4, 4)`` in RAS millimetres, how the voxels lie (``offset``: where they begin in the file), and
        whether they are packed.

    Raises:
        PipelineError: the header makes no sense, or says what is refused here.
    """
    try:
        fields, length = _fields(stream.take(LONGEST))
        return _understood(fields, length)
    except (ValueError, KeyError, OverflowError) as error:
        told = f"it has no {error.args[0]!r}" if isinstance(error, KeyError) else str(error)
        raise PipelineError(f"{stream.path}: the NRRD header cannot be used ({told}); write the file again") from error


def _fields(content: bytes) -> tuple[dict[str, str], int]:
    """Field to value, and the bytes of the header: an empty line ends it."""
    fields: dict[str, str] = {}
    place = content.find(b"\n") + 1
    while (end := content.find(b"\n", place)) >= 0:
        line = content[place:end].decode("latin-1").rstrip("\r")
        place = end + 1
        if not line:
            return fields, place
        if line.startswith("#") or ":=" in line:  # a comment, or a note of whoever wrote the file
            continue
        key, colon, value = line.partition(": ")
        if not colon:
            raise ValueError(f"the line {line[:40]!r} is no 'field: value'")
        name = key.strip(BLANKS).lower().replace(" ", "")
        if name in fields or name not in FIELDS:
            raise ValueError(f"the field {key[:40]!r} {'occurs twice' if name in fields else 'is not known here'}")
        fields[name] = value.strip(BLANKS)
    raise ValueError("no empty line ends it")


def _understood(fields: Mapping[str, str], length: int) -> tuple[Affine, Body, bool]:
    if "datafile" in fields:
        raise ValueError(f"its voxels lie in {fields['datafile']!r}; one .nrrd file with both is needed")
    if fields["dimension"] != "3":
        raise ValueError(f"it has {fields['dimension']} axes; three are needed, and one value per voxel")
    if fields["type"].lower() not in TYPES:
        raise ValueError(f"the type {fields['type']!r} is not known, or none of one number")
    if fields["encoding"].lower() not in PACKINGS:
        raise ValueError(f"the encoding {fields['encoding']!r} is not read; raw or gzip is needed")
    if any(fields.get(name, "0") != "0" for name in ("lineskip", "byteskip")):
        raise ValueError("bytes are to be skipped in front of its voxels; write it without")
    if fields.get("space", "").lower() not in WORLDS:
        raise ValueError(
            f"the space {fields.get('space')!r} does not say which side is left; left-posterior-superior does"
        )
    kinds = fields.get("kinds", "domain domain domain").lower().split()
    if len(kinds) != 3 or not set(kinds) <= {"domain", "space", "none", "???"}:
        raise ValueError(f"its axes are {fields['kinds']!r}; three axes in space are needed, and one value per voxel")
    units = re.findall(r'"([^"]*)"', fields.get("spaceunits", ""))
    if any(unit not in ("mm", "") for unit in units):
        raise ValueError(f"it measures in {', '.join(units)}; mm is needed")
    dtype = np.dtype(TYPES[fields["type"].lower()])
    if dtype.itemsize > 1:
        if fields["endian"].lower() not in ("little", "big"):
            raise ValueError(f"endian is {fields['endian']!r}; little or big is needed")
        dtype = dtype.newbyteorder(">" if fields["endian"].lower() == "big" else "<")
    steps = [numbers(vector, 3, commas=True) for vector in _VECTOR.findall(fields["spacedirections"])]
    origin = _VECTOR.findall(fields["spaceorigin"])
    if len(steps) != 3 or len(origin) != 1:
        raise ValueError(f"three space directions and one space origin are needed, got {len(steps)} and {len(origin)}")
    affine = affine_of(steps, numbers(origin[0], 3, commas=True), world=WORLDS[fields["space"].lower()])
    return affine, Body(sizes(fields["sizes"]), dtype, length), PACKINGS[fields["encoding"].lower()]
