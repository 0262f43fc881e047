"""Files that promise one thing and hold another: refused early, and never more of them in memory than once."""

import gzip
import os
import re
import threading
import tracemalloc
import zlib

import nibabel as nib
import numpy as np
import pytest

from brats_pipeline.errors import PipelineError
from transforms import room
from transforms.decoding import PADDING
from transforms.nifti import peek_nifti, read_header, read_nifti, voxels
from transforms.reader import CaseReader
from transforms.scans import peek_scan, read_scan

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
MIB = 2**20


def content_of(shape=(2, 2, 2), dtype=np.int16, *, image_class=nib.Nifti1Image, values=None):
    values = np.arange(np.prod(shape)).reshape(shape).astype(dtype) if values is None else values
    return bytearray(image_class(values, LPS, dtype=values.dtype).to_bytes())


def put(content, offset, value, dtype):
    """Change one field of a header."""
    value = np.array(value, dtype).tobytes()
    content[offset : offset + len(value)] = value
    return content


def peak_of(call):
    """Most bytes that Python and NumPy held at a time above what they held before."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ["a.nii.gz", "a.mha", "a.nrrd"])
def test_a_bomb_is_stopped_where_its_header_ends(tmp_path, name):
    """Eight voxels are promised, 64 MiB of zeros follow: a part of them at most are ever unpacked."""
    path, zeros = tmp_path / name, bytes(16 * MIB)
    texts = {
        "a.mha": b"NDims = 3\nCompressedData = True\nElementSpacing = 1 1 1\nDimSize = 2 2 2\nElementType = MET_SHORT\n"
        b"ElementDataFile = LOCAL\n",
        "a.nrrd": b"NRRD0004\ntype: short\ndimension: 3\nsizes: 2 2 2\nendian: little\nencoding: gzip\nspace: LPS\n"
        b"space directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\n\n",
    }
    packer = zlib.compressobj(9, zlib.DEFLATED, 15 if name == "a.mha" else 31)
    with path.open("wb") as file:
        file.write(texts.get(name, b""))
        file.write(packer.compress(bytes(content_of() if name == "a.nii.gz" else b"")))
        for _ in range(4):
            file.write(packer.compress(zeros))
        file.write(packer.flush())
    assert path.stat().st_size < 2 * MIB

    def read():
        with pytest.raises(
            PipelineError, match=f"bytes, and more than {PADDING} follow behind them: header and voxels"
        ):
            read_scan(path)

    assert peak_of(read) < 16 * MIB
    assert peak_of(lambda: peek_scan(path)) < 16 * MIB


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("more", [b"\1", b"\0" * 100 + b"x", b"\0" * (PADDING + 1)])
def test_more_bytes_than_promised_are_refused(tmp_path, packed, more):
    content = bytes(content_of()) + more
    path = tmp_path / "a.nii"
    path.write_bytes(gzip.compress(content) if packed else content)
    with pytest.raises(
        PipelineError, match=r"the header promises 368 bytes, .*: header and voxels do not belong together"
    ):
        read_nifti(path)


@pytest.mark.parametrize("packed", [False, True])
def test_a_little_padding_with_zeros_harms_nobody(tmp_path, packed):
    content = bytes(content_of()) + bytes(PADDING)
    (tmp_path / "a.nii").write_bytes(gzip.compress(content) if packed else content)
    np.testing.assert_array_equal(voxels(read_nifti(tmp_path / "a.nii")).ravel(), range(8))


def test_a_promise_that_the_packed_bytes_cannot_hold_is_refused_before_memory_is_taken(tmp_path):
    content = put(content_of(), 42, [2000, 1000, 500], "<i2")
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content))

    def read():
        with pytest.raises(PipelineError, match=r"promises 2000000352 bytes, and the .* packed ones cannot hold them"):
            read_nifti(tmp_path / "a.nii.gz")

    assert peak_of(read) < 16 * MIB


def test_a_scan_larger_than_memory_is_refused_by_its_header(tmp_path, monkeypatch):
    """4 GB of float64 in a file with a hole in it: read as float32, 2 GB are needed."""
    path = tmp_path / "large.nii"
    path.write_bytes(put(put(content_of(dtype=np.float64), 42, [1000, 1000, 500], "<i2"), 70, 64, "<i2"))
    os.truncate(path, 352 + 4 * 10**9)
    assert read_header(path).shape == (1000, 1000, 500)
    for free, needed, narrow in (
        (10**9, "1.86 GiB of memory, 0.93 GiB", True),
        (3 * 10**9, "3.73 GiB of memory", False),
    ):
        monkeypatch.setattr(room, "free_bytes", lambda free=free: free)
        with pytest.raises(PipelineError, match=re.escape(f"{path}: needs {needed}")):
            read_nifti(path, narrow=narrow)


def test_a_case_larger_than_memory_is_refused_before_any_voxel_is_read(tmp_path, monkeypatch):
    paths = [tmp_path / f"{name}.nii" for name in "abcd"]
    for path in paths:
        path.write_bytes(content_of((50, 50, 50), np.float64))
    needed = 2 * 4 * 50**3 * 4
    monkeypatch.setattr(room, "free_bytes", lambda: needed - 1)
    with pytest.raises(PipelineError, match=r"a\.nii: the case: needs .* GiB of memory, .* are free; check the shape"):
        CaseReader().read(paths)
    monkeypatch.setattr(room, "free_bytes", lambda: needed)
    assert len(CaseReader().read(paths)) == 4


def test_free_memory_is_that_of_the_machine_or_of_its_container(tmp_path, monkeypatch):
    monkeypatch.setattr(room, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(room, "CGROUP", tmp_path)
    assert room.free_bytes() is None
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   7 kB\n")
    assert room.free_bytes() == 7 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert room.free_bytes() == 7 * 1024
    (tmp_path / "memory.max").write_text("4000\n")
    assert room.free_bytes() == 3000


@pytest.mark.parametrize(
    ("folder", "limit", "used", "prefix"),
    [
        ("", "memory.max", "memory.current", ""),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_"),
    ],
    ids=["v2", "v1"],
)
def test_files_that_a_container_keeps_in_memory_are_free(tmp_path, monkeypatch, folder, limit, used, prefix):
    monkeypatch.setattr(room, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(room, "CGROUP", tmp_path)
    group = tmp_path / folder
    group.mkdir(exist_ok=True)
    (group / limit).write_text("4000\n")
    (group / used).write_text("3900\n")
    assert room.free_bytes() == 100
    stat = {"anon": 500, "file": 3400, "shmem": 400, "inactive_anon": 7, "inactive_file": 2000, "active_file": 1000}
    (group / "memory.stat").write_text("".join(f"{prefix}{name} {size}\n" for name, size in stat.items()))
    assert room.free_bytes() == 100 + 3000
    (group / used).write_text("2000\n")  # not told at the same time: never more than the limit
    assert room.free_bytes() == 4000


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("dtype", "scaled"), [("f8", False), ("i2", True), ("i2", False), ("f4", False)])
def test_a_volume_is_in_memory_once(tmp_path, packed, dtype, scaled):
    """The array itself and pieces of the stream; no packed copy, no unpacked one, none with another type."""
    shape = (160, 160, 160)
    content = content_of(values=np.zeros(shape, dtype))
    if scaled:
        put(content, 112, [2, 1], "<f4")
    (tmp_path / "a.nii").write_bytes(gzip.compress(bytes(content), 1) if packed else content)
    of_the_array = np.prod(shape) * min(4, np.dtype("f4" if scaled else dtype).itemsize)
    pieces = 40 * MIB if scaled else 16 * MIB
    assert peak_of(lambda: read_nifti(tmp_path / "a.nii", narrow=True)) < of_the_array + pieces


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", ">i2", ">f8"])
@pytest.mark.parametrize("scaling", [None, (0.5, -3), (0, 7), (np.nan, 7), (np.inf, 0), (1, 0), (2, 0)])
def test_values_are_those_of_nibabel(tmp_path, dtype, scaling):
    values = np.random.default_rng(0).integers(0, 120, (50, 4, 3)).astype(dtype)
    big = dtype[0] == ">"
    header = nib.Nifti1Header(endianness=">" if big else "<")
    header.set_data_dtype(values.dtype)
    content = bytearray(nib.Nifti1Image(values, LPS, header).to_bytes())
    if scaling is not None:
        put(content, 112, scaling, ">f4" if big else "<f4")
    (tmp_path / "a.nii").write_bytes(content)
    expected = np.asanyarray(nib.load(tmp_path / "a.nii").dataobj)
    read = voxels(read_nifti(tmp_path / "a.nii"))
    np.testing.assert_array_equal(read, expected)
    narrow = voxels(read_nifti(tmp_path / "a.nii", narrow=True))
    np.testing.assert_array_equal(narrow, expected.astype(np.float32))
    assert narrow.dtype.itemsize <= 4 or narrow.dtype.kind in "iu"


def test_a_slope_with_an_intercept_that_is_no_number_is_refused(tmp_path):
    (tmp_path / "a.nii").write_bytes(put(content_of(), 112, [2, np.nan], "<f4"))
    with pytest.raises(PipelineError, match=r"the NIfTI header cannot be used .*intercept"):
        read_nifti(tmp_path / "a.nii")


@pytest.mark.parametrize("kind", ["RGB", "RGBA", "complex64", "complex128"])
def test_colours_and_complex_numbers_are_refused(tmp_path, kind):
    dtype = {"RGB": [(c, "u1") for c in "RGB"], "RGBA": [(c, "u1") for c in "RGBA"]}.get(kind, kind)
    (tmp_path / "a.nii").write_bytes(content_of(values=np.zeros((2, 2, 2), dtype)))
    with pytest.raises(
        PipelineError, match="holds colours or complex numbers; a scan of one number per voxel is needed"
    ):
        read_nifti(tmp_path / "a.nii")


@pytest.mark.parametrize("image_class", [nib.Nifti1Image, nib.Nifti2Image])
def test_half_a_pair_is_refused(tmp_path, image_class):
    content = content_of(image_class=image_class)
    if image_class is nib.Nifti1Image:
        put(content, 344, bytearray(b"ni1\0"), "u1")
    else:
        put(content, 4, bytearray(b"ni2\0\r\n\x1a\n"), "u1")
    (tmp_path / "a.hdr").write_bytes(content)
    with pytest.raises(PipelineError, match=r"is one half of a pair \(\.hdr and \.img\), .* write one \.nii file"):
        read_scan(tmp_path / "a.hdr")


@pytest.mark.parametrize("shape", [(2, 2, 2, 1), (2, 2, 2, 1, 1)])
def test_axes_of_one_voxel_behind_the_third_are_left_out(tmp_path, shape):
    (tmp_path / "a.nii").write_bytes(content_of(shape))
    assert read_nifti(tmp_path / "a.nii").shape == read_header(tmp_path / "a.nii").shape == (2, 2, 2)
    np.testing.assert_array_equal(
        voxels(read_nifti(tmp_path / "a.nii")), np.asarray(nib.load(tmp_path / "a.nii").dataobj).reshape(2, 2, 2)
    )


def test_voxels_far_behind_their_header_are_found(tmp_path):
    """Scanners put extensions of megabytes in between; how long they say they are does not matter."""
    content = content_of()
    long = put(content[:352], 108, 5 * MIB, "<f4") + bytes(5 * MIB - 352) + content[352:]
    for packed in (False, True):
        (tmp_path / "a.nii").write_bytes(gzip.compress(long) if packed else long)
        np.testing.assert_array_equal(voxels(read_nifti(tmp_path / "a.nii")).ravel(order="C"), range(8))


def test_an_offset_beyond_the_end_is_refused(tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(put(content_of(), 108, 1e7, "<f4")))
    with pytest.raises(PipelineError, match=r"the header promises 10000016 bytes, .* truncated"):
        read_nifti(tmp_path / "a.nii.gz")


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.nii")
    found = []

    def read():
        with pytest.raises(PipelineError, match=r"cannot be read \(it is a pipe or a device, no file\)") as caught:
            read_nifti(tmp_path / "a.nii")
        found.append(caught)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(10)
    assert found


def test_a_device_is_refused():
    with pytest.raises(PipelineError, match="it is a pipe or a device"):
        read_nifti("/dev/zero")


def test_a_file_without_rights_is_refused_with_the_reason(tmp_path, monkeypatch):
    path = tmp_path / "a.nii"
    path.write_bytes(content_of())

    def refuse(self, *_arguments):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    for read in (read_nifti, read_scan, peek_nifti):
        with pytest.raises(PipelineError, match=r"cannot be read \(Permission denied\); check the path and its rights"):
            read(path)


def test_a_link_is_followed_and_a_broken_one_named_with_where_it_leads(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "4711").write_bytes(content_of())
    (tmp_path / "a.nii").symlink_to(tmp_path / "store" / "4711")
    np.testing.assert_array_equal(voxels(read_scan(tmp_path / "a.nii")).ravel(), range(8))
    (tmp_path / "b.nii").symlink_to("nowhere")
    with pytest.raises(PipelineError, match="No such file or directory, a link to nowhere"):
        read_scan(tmp_path / "b.nii")
    (tmp_path / "c.nii").symlink_to("c.nii")
    with pytest.raises(PipelineError, match=r"cannot be read .*[Tt]oo many levels of symbolic links"):
        read_scan(tmp_path / "c.nii")


@pytest.mark.parametrize("name", ["näme mit Umlaut 脑.nii.gz", "two  words (1)'.nii", "-dash.nii"])
def test_any_name_is_read(tmp_path, name):
    content = bytes(content_of())
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith("gz") else content)
    np.testing.assert_array_equal(voxels(read_scan(tmp_path / name)).ravel(), range(8))


def test_a_name_that_no_file_can_have_is_refused():
    with pytest.raises(PipelineError, match="cannot be read"):
        read_scan("a\0.nii")
