"""Headers that were changed at random, and files cut, extended and damaged: an error in words, or the right voxels.

What is read must be what nibabel (of NIfTI) and SimpleITK (of MetaImage and NRRD) read. Whatever else is raised than a
:class:`PipelineError`, a warning, or more than a few seconds, is a failure.
"""

import gzip
import tempfile
import zlib
from datetime import timedelta
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from brats_pipeline.cases.integrity import placing_notes, read_grid
from brats_pipeline.errors import PipelineError
from transforms.decoding import GZIP
from transforms.nifti import label_image, voxels
from transforms.reader import CaseReader
from transforms.scans import read_scan, read_scan_header

FEW = settings(max_examples=60, deadline=timedelta(seconds=5), suppress_health_check=list(HealthCheck))
MANY = settings(FEW, max_examples=4000, derandomize=False)
SHAPES = [(3, 2, 4), (1, 1, 1), (5, 4), (3, 2, 2, 2), (2, 3, 2, 1)]
ODD_NUMBERS = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from([0, 1, -1, 2, 3, 7, 8, 255, 348, 352, 540, 32767, -32768, 2**31 - 1, 2**32]),
    st.floats(),
    st.sampled_from([0.0, -1.0, 0.5, 1e-30, 1e30, 3e38]),
)


def values_of(shape, dtype):
    return np.random.default_rng(0).integers(0, 100, shape).astype(dtype)


def cast(number, dtype):
    """A number as bytes of a field; wrapped where it is too large."""
    with np.errstate(all="ignore"):
        if dtype.kind == "f":
            return np.array(float(number)).astype(dtype).tobytes()
        whole = int(number) if np.isfinite(number) else 0
        bits = 8 * dtype.itemsize
        return (whole % 2**bits).to_bytes(dtype.itemsize, "big" if dtype.str[0] == ">" else "little")


@st.composite
def damaged(draw, content):
    """Cut, extended, with flipped bytes, or as it is."""
    content = bytearray(content)
    kind = draw(st.sampled_from(["as it is", "as it is", "cut", "extended", "flipped"]))
    if kind == "cut":
        del content[draw(st.integers(0, len(content))) :]
    elif kind == "extended":
        content += draw(st.one_of(st.binary(max_size=20), st.integers(0, 10_000).map(bytes)))
    elif kind == "flipped" and content:
        for place in draw(st.lists(st.integers(0, len(content) - 1), min_size=1, max_size=3)):
            content[place] ^= draw(st.integers(1, 255))
    return bytes(content)


@st.composite
def nifti_files(draw):
    """Content of a NIfTI file with up to four fields changed."""
    kind = draw(st.sampled_from([nib.Nifti1Image, nib.Nifti2Image]))
    order = draw(st.sampled_from("<>"))
    dtype = np.dtype(draw(st.sampled_from(["u1", "i1", "i2", "u2", "i4", "u8", "f4", "f8", "c8"]))).newbyteorder(order)
    values = values_of(draw(st.sampled_from(SHAPES)), dtype)
    header = kind.header_class(endianness=order)
    header.set_data_dtype(dtype)
    image = kind(values, None, header)
    affine = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.1, 0.2, 0.3) @ np.diag([-1, 2, 0.5]), [5, -6, 7])
    image.header.set_sform(affine, draw(st.integers(0, 4)))
    image.header.set_qform(affine, draw(st.integers(0, 4)))
    content = bytearray(image.to_bytes())
    fields = header.binaryblock and header.structarr.dtype.fields
    for name in draw(st.lists(st.sampled_from(sorted(set(fields) - {"sizeof_hdr"})), max_size=4)):
        field, offset = fields[name][:2]
        base, shape = field.subdtype or (field, ())
        if base.kind not in "iuf":
            told = draw(st.binary(max_size=base.itemsize))
            content[offset : offset + len(told)] = told
            continue
        place = offset + base.itemsize * draw(st.integers(0, int(np.prod(shape)) - 1))
        content[place : place + base.itemsize] = cast(draw(ODD_NUMBERS), base)
    content = draw(damaged(content))
    if draw(st.booleans()):
        content = draw(damaged(gzip.compress(content, mtime=0)))
    return content


def as_nibabel(path):
    """Voxels and affine that nibabel reads, axes of one voxel behind the third left out."""
    image = nib.load(path)
    values = np.asanyarray(image.dataobj)
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    return values, image.affine


def as_simpleitk(path):
    """The same as SimpleITK reads it; a packed MetaImage unpacked, which it fills with anything where it cannot."""
    header, line, body = path.read_bytes().partition(b"ElementDataFile = LOCAL\n")
    if path.suffix == ".mha" and b"CompressedData = True" in header:
        plain = header.replace(b"CompressedData = True", b"CompressedData = False")
        path = path.with_name("plain.mha")
        path.write_bytes(plain + line + zlib.decompressobj(47).decompress(body))
    image = sitk.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).T, np.diag([-1, -1, 1, 1]) @ affine


def refusal(call, path):
    """What a call raises of a file, in words; None where it goes well."""
    try:
        call(path)
    except PipelineError as error:
        return str(error)
    return None


def check(content, oracle, *, packed, plain):
    """Read one file, named by its content, in every way there is."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{packed if content.startswith(GZIP) else plain}"
        path.write_bytes(content)
        for read in (CaseReader().read, read_grid):
            assert str(path) in (refusal(read, path) or str(path))
        placing_notes({"t1": path})
        told = refusal(read_scan, path)
        if told is not None:
            event("refused: " + told.partition(": ")[2][:25])
            assert told.startswith(f"{path}: ")
            assert "\n" not in told
            return
        image = read_scan(path)
        event("read")
        try:
            values, affine = oracle(path)
        except RuntimeError:  # SimpleITK is stricter about remarks that say nothing of voxels and their place
            event("read, and not by the oracle")
            return
        np.testing.assert_array_equal(voxels(image), values)
        np.testing.assert_allclose(image.affine, affine, rtol=1e-6, atol=1e-5)
        narrow = voxels(read_scan(path, narrow=True))
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(narrow.astype(np.float32), values.astype(np.float32))
        header = read_scan_header(path)
        assert header.shape == image.shape
        np.testing.assert_array_equal(header.affine, image.affine)
        if len(image.shape) >= 3:
            labels = label_image(np.zeros(image.shape[:3], np.uint8), header)
            again = type(labels).from_bytes(labels.to_bytes())
            np.testing.assert_array_equal(again.affine, image.affine)


def check_nifti(content):
    check(content, as_nibabel, packed=".nii.gz", plain=".nii")


MHA = """ObjectType = Image
NDims = 3
BinaryData = True
BinaryDataByteOrderMSB = False
CompressedData = {packed}
TransformMatrix = 0 1 0 -1 0 0 0 0 1
Offset = 1.5 -2 3
CenterOfRotation = 0 0 0
ElementSpacing = 0.5 2 3
DimSize = 3 2 4
ElementType = MET_SHORT
ElementDataFile = LOCAL
"""
NRRD = """NRRD0004
type: short
dimension: 3
space: left-posterior-superior
sizes: 3 2 4
space directions: (0,0.5,0) (-2,0,0) (0,0,3)
kinds: domain domain domain
endian: little
encoding: {packed}
space origin: (1.5,-2,3)

"""
LIKELY = """
True False LOCAL list Image 0 1 2 3 4 5 -1 0.5 nan 1e400 1e-320 99999999999 MET_SHORT MET_FLOAT MET_UCHAR MET_CHAR
short float uchar block raw gzip none (1,0,0) (0,0,0) (1,2) RAS LAS big little NDims ElementNumberOfChannels HeaderSize
Position Rotation ElementSize spacings thicknesses
"""
WORDS = st.one_of(
    st.sampled_from(LIKELY.split()),
    st.text(st.characters(codec="latin-1", exclude_characters="\n"), max_size=5),
)


@st.composite
def texts(draw, header, joint):
    """A header with up to three words or lines changed."""
    lines = header.split("\n")
    for _ in range(draw(st.sampled_from([0, 1, 1, 1, 2, 3]))):
        number = draw(st.integers(min(1, len(lines) - 1), len(lines) - 1))
        kind = draw(st.sampled_from(["word", "word", "word", "without", "twice", "new"]))
        if kind == "word":
            words = lines[number].split(" ")
            words[draw(st.integers(0, len(words) - 1))] = draw(WORDS)
            lines[number] = " ".join(words)
        elif kind == "without" and len(lines) > 1:
            del lines[number]
        elif kind == "twice":
            lines.insert(number, lines[number])
        elif kind == "new":
            lines.insert(number, draw(WORDS) + joint + draw(WORDS))
    return "\n".join(lines).encode("latin-1")


@st.composite
def foreign_files(draw):
    """Content of a ``.mha`` or ``.nrrd`` file."""
    packed, voxel = draw(st.booleans()), values_of((3, 2, 4), "<i2").tobytes(order="F")
    if draw(st.booleans()):
        body = zlib.compress(voxel) if packed else voxel
        return draw(damaged(draw(texts(MHA.format(packed=packed), " = ")) + body))
    body = gzip.compress(voxel, mtime=0) if packed else voxel
    return draw(damaged(draw(texts(NRRD.format(packed="gzip" if packed else "raw"), ": ")) + body))


def check_foreign(content):
    suffix = ".nrrd" if content.startswith(b"NRRD") else ".mha"
    if not content.startswith((b"NRRD", b"ObjectType", b"NDims", b"Comment")):
        suffix = ".nii"
    check(content, as_simpleitk, packed=suffix, plain=suffix)


@FEW
@given(nifti_files())
def test_a_nifti_file_is_refused_in_words_or_read_as_nibabel_reads_it(content):
    check_nifti(content)


@FEW
@given(foreign_files())
def test_a_foreign_file_is_refused_in_words_or_read_as_simpleitk_reads_it(content):
    check_foreign(content)


@FEW
@given(st.binary(max_size=800))
def test_bytes_without_any_sense_are_refused_in_words(content):
    check_nifti(content)


@pytest.mark.slow
@MANY
@given(nifti_files())
def test_so_are_thousands_of_nifti_files(content):
    check_nifti(content)


@pytest.mark.slow
@MANY
@given(foreign_files())
def test_so_are_thousands_of_foreign_files(content):
    check_foreign(content)
