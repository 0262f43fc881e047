"""NIfTI files: every kind of damage named, every kind of header kept."""

import errno
import gzip
import re
import stat

import nibabel as nib
import numpy as np
import pytest

from brats_pipeline.errors import PipelineError
from transforms.nifti import (
    GRID_TOLERANCE,
    describe_grid,
    is_nifti_name,
    label_image,
    orientation,
    read_header,
    read_nifti,
    same_grid,
    spacing_mm,
    strip_suffix,
    voxels,
    write_nifti,
)

SHAPE = (5, 4, 3)
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
OBLIQUE = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.2, -0.1, 0.3) @ np.diag([0.9, -1.1, 1.3]), [12.5, -30.25, 7.75]
)
HEADERS = ("sform only", "qform only", "both", "both, with different codes and worlds", "neither")
GEOMETRY = (
    "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z",
    "srow_x", "srow_y", "srow_z", "pixdim", "xyzt_units", "dim_info", "toffset",
)  # fmt: skip


def picture(dtype=np.int16):
    return np.arange(np.prod(SHAPE), dtype=dtype).reshape(SHAPE)


def scan(kind="both", *, image_class=nib.Nifti1Image, dtype=np.int16):
    image = image_class(picture(dtype), None)
    image.header.set_xyzt_units("mm", "sec")
    image.header["pixdim"][1:4] = (0.9, 1.1, 1.3)
    sform, qform = {
        "sform only": ((OBLIQUE, 2), (None, 0)),
        "qform only": ((None, 0), (OBLIQUE, 1)),
        "both": ((OBLIQUE, 1), (OBLIQUE, 1)),
        "both, with different codes and worlds": ((OBLIQUE @ np.diag([1, 1, -1, 1]), 4), (OBLIQUE, 2)),
        "neither": ((None, 0), (None, 0)),
    }[kind]
    image.header.set_sform(*sform)
    image.header.set_qform(*qform)
    return image_class(picture(dtype), None, image.header)


def geometry(header):
    """Every field that places the voxels, as bytes; of ``pixdim`` what belongs to the three axes."""
    return {field: np.atleast_1d(header[field])[:4].tobytes() for field in GEOMETRY}


# --- reading -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "A.NII.GZ"])
@pytest.mark.parametrize("image_class", [nib.Nifti1Image, nib.Nifti2Image])
def test_what_is_written_is_read_again(tmp_path, name, image_class):
    image = scan(image_class=image_class)
    write_nifti(tmp_path / name, image)
    for again in (read_nifti(tmp_path / name), read_header(tmp_path / name)):
        assert type(again) is image_class
        assert geometry(again.header) == geometry(image.header)
        np.testing.assert_array_equal(again.affine, image.header.get_best_affine())
    np.testing.assert_array_equal(voxels(read_nifti(tmp_path / name)), picture())
    packed = (tmp_path / name).read_bytes()[:2] == b"\x1f\x8b"
    assert packed == name.lower().endswith(".gz")


@pytest.mark.parametrize(("written", "named"), [("a.nii.gz", "b.nii"), ("a.nii", "b.nii.gz")])
def test_the_content_and_not_the_name_says_whether_a_file_is_compressed(tmp_path, written, named):
    image = scan()
    write_nifti(tmp_path / written, image)
    (tmp_path / written).rename(tmp_path / named)
    for again in (read_nifti(tmp_path / named), read_header(tmp_path / named)):
        assert again.shape == image.shape
        assert geometry(again.header) == geometry(image.header)


def test_the_header_of_a_compressed_file_does_not_need_the_rest(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, size=(64, 64, 64), dtype=np.uint8)
    path = tmp_path / "a.nii.gz"
    write_nifti(path, nib.Nifti1Image(noise, np.eye(4)))
    path.write_bytes(path.read_bytes()[:100_000])
    assert read_header(path).shape == (64, 64, 64)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64])
def test_files_of_nibabel_are_read_as_nibabel_reads_them(tmp_path, name, dtype):
    nib.save(nib.Nifti1Image(picture(dtype), OBLIQUE), tmp_path / name)
    image = read_nifti(tmp_path / name)
    assert voxels(image).dtype == dtype
    np.testing.assert_array_equal(voxels(image), np.asarray(nib.load(tmp_path / name).dataobj))
    np.testing.assert_array_equal(image.affine, nib.load(tmp_path / name).affine)


def test_files_of_the_system_gzip_with_several_members_are_read(tmp_path):
    content = scan().to_bytes()
    (tmp_path / "a.nii.gz").write_bytes(gzip.compress(content[:200]) + gzip.compress(content[200:]))
    np.testing.assert_array_equal(voxels(read_nifti(tmp_path / "a.nii.gz")), picture())


@pytest.mark.parametrize("image_class", [nib.Nifti1Image, nib.Nifti2Image])
def test_big_endian_files_are_read(tmp_path, image_class):
    header = image_class.header_class(endianness=">")
    header.set_data_dtype(">i2")
    image = image_class(picture(">i2"), OBLIQUE, header)
    content = image.to_bytes()
    assert content[:4] in ((348).to_bytes(4, "big"), (540).to_bytes(4, "big"))
    (tmp_path / "a.nii").write_bytes(content)
    again = read_nifti(tmp_path / "a.nii")
    np.testing.assert_array_equal(voxels(again), picture())
    np.testing.assert_allclose(again.affine, OBLIQUE, atol=1e-5)


def test_scaled_voxels_are_scaled(tmp_path):
    image = scan()
    content = bytearray(image.to_bytes())
    content[112:120] = np.array([0.5, 10], dtype="<f4").tobytes()  # scl_slope, scl_inter
    (tmp_path / "a.nii").write_bytes(content)
    np.testing.assert_allclose(voxels(read_nifti(tmp_path / "a.nii")), picture() * 0.5 + 10)


def test_a_slope_of_zero_means_unscaled(tmp_path):
    content = bytearray(scan().to_bytes())
    content[112:120] = np.array([0, 10], dtype="<f4").tobytes()
    (tmp_path / "a.nii").write_bytes(content)
    np.testing.assert_array_equal(voxels(read_nifti(tmp_path / "a.nii")), picture())


# --- damage --------------------------------------------------------------------------------------------------------


def assert_refused(path, reason):
    with pytest.raises(PipelineError, match=reason) as caught:
        read_nifti(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: "), "the message begins with the file"
    assert "\n" not in message


@pytest.mark.parametrize("times", [1, 40])  # one whose voxels end inside the first gzip block, one that spans several
def test_a_truncated_gzip_stream_is_refused_wherever_it_ends(tmp_path, times):
    noise = np.random.default_rng(0).integers(0, 1000, size=(9, 8, 7 * times), dtype=np.int16)
    content = gzip.compress(nib.Nifti1Image(noise, LPS).to_bytes())
    path = tmp_path / "a.nii.gz"
    lengths = np.unique([*range(2, 30), *np.linspace(30, len(content) - 10, 60, dtype=int), *range(-9, 0)])
    for length in lengths:
        path.write_bytes(content[:length])
        assert_refused(path, "the gzip stream is truncated or damaged .*copy or download the file again")
    path.write_bytes(content)
    np.testing.assert_array_equal(voxels(read_nifti(path)), noise)


def test_a_gzip_stream_with_a_flipped_byte_is_refused(tmp_path):
    noise = np.random.default_rng(0).integers(0, 1000, size=(9, 8, 7), dtype=np.int16)
    content = bytearray(gzip.compress(nib.Nifti1Image(noise, LPS).to_bytes()))
    content[len(content) // 2] ^= 0xFF
    (tmp_path / "a.nii.gz").write_bytes(content)
    assert_refused(tmp_path / "a.nii.gz", "the gzip stream is truncated or damaged")


@pytest.mark.parametrize("missing", [1, 2, 7, 100])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_missing_voxels_are_refused_with_both_sizes(tmp_path, missing, name):
    content = scan().to_bytes()
    cut = content[:-missing]
    (tmp_path / name).write_bytes(gzip.compress(cut) if name.endswith("gz") else cut)
    assert_refused(
        tmp_path / name,
        f"the header promises {len(content)} bytes, the file holds {len(cut)}: truncated, copy it again",
    )


@pytest.mark.parametrize("length", [1, 4, 100, 347])
def test_a_file_that_ends_inside_its_header_is_refused(tmp_path, length):
    (tmp_path / "a.nii").write_bytes(scan().to_bytes()[:length])
    assert_refused(tmp_path / "a.nii", "no NIfTI file|the NIfTI header cannot be used")


@pytest.mark.parametrize("name", ["notes.nii.gz", "notes.nii"])
def test_a_text_file_is_refused_by_how_it_starts(tmp_path, name):
    (tmp_path / name).write_text("dear colleague, the scans follow\n" * 40)
    assert_refused(tmp_path / name, "this is no NIfTI file .*dear col.*give a .nii or .nii.gz file")


def test_a_packed_text_file_is_refused(tmp_path):
    (tmp_path / "notes.nii.gz").write_bytes(gzip.compress(b"dear colleague"))
    assert_refused(tmp_path / "notes.nii.gz", "this is no NIfTI file")


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_an_empty_file_is_refused(tmp_path, name):
    (tmp_path / name).touch()
    assert_refused(tmp_path / name, "the file is empty; copy or download it again")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert_refused(tmp_path / "absent.nii.gz", r"cannot be read \(No such file or directory\); check the path")
    assert_refused(tmp_path, r"cannot be read \(Is a directory\)")


@pytest.mark.parametrize(
    ("offset", "value"),
    [
        (70, (9999).to_bytes(2, "little")),  # datatype
        (40, (-3).to_bytes(2, "little", signed=True)),  # number of axes
        (42, (-5).to_bytes(2, "little", signed=True)),  # first side
        (44, (0).to_bytes(2, "little")),  # second side
        (40, np.array([7, *[32767] * 7], dtype="<i2").tobytes()),  # more voxels than an int64 counts
        (344, b"xyz\x00"),  # magic
    ],
)
def test_a_header_that_makes_no_sense_is_refused(tmp_path, offset, value):
    content = bytearray(scan().to_bytes())
    content[offset : offset + len(value)] = value
    (tmp_path / "a.nii").write_bytes(content)
    assert_refused(tmp_path / "a.nii", "the NIfTI header cannot be used|no NIfTI file|the header promises")


def test_a_picture_of_two_axes_keeps_the_third_side_of_its_voxels(tmp_path):
    image = nib.Nifti1Image(np.zeros((5, 4), np.uint8), None)
    image.header.set_qform(OBLIQUE, 1)
    (tmp_path / "a.nii").write_bytes(image.to_bytes())
    np.testing.assert_array_equal(read_nifti(tmp_path / "a.nii").affine, nib.load(tmp_path / "a.nii").affine)
    np.testing.assert_allclose(read_header(tmp_path / "a.nii").affine, OBLIQUE, atol=1e-5)


@pytest.mark.parametrize(("image_class", "place", "least"), [(nib.Nifti1Image, 108, 352), (nib.Nifti2Image, 168, 544)])
@pytest.mark.parametrize("short", [1, 4, 352])
def test_voxels_that_begin_within_the_header_are_refused(tmp_path, image_class, place, least, short):
    content = bytearray(scan(image_class=image_class).to_bytes())
    content[place : place + 4] = np.array([max(0, least - short)], "<f4" if least == 352 else "<i4").tobytes()
    (tmp_path / "a.nii").write_bytes(content)
    assert_refused(tmp_path / "a.nii", "the NIfTI header cannot be used .*(begin at byte|vox offset)")


def test_what_is_wrong_with_a_header_is_said_once(tmp_path, capfd, caplog):
    content = bytearray(scan().to_bytes())
    content[70:72] = (590).to_bytes(2, "little")
    (tmp_path / "a.nii").write_bytes(content)
    assert_refused(tmp_path / "a.nii", "the NIfTI header cannot be used .*590")
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("absent.nii.gz", None, r"cannot be read \(No such file or directory\)"),
        ("empty.nii", b"", "the file is empty"),
        ("text.nii.gz", b"hello", "no NIfTI file"),
        ("cut.nii.gz", gzip.compress(b"\x5c" * 99), "no NIfTI file"),
        ("short.nii.gz", gzip.compress(b"\x5c\x01\0\0" * 20), "the NIfTI header cannot be used"),
        ("damaged.nii.gz", b"\x1f\x8b\x08\x00 cut", "the gzip stream is truncated or damaged"),
    ],
)
def test_headers_alone_are_as_strict(tmp_path, name, content, says):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    for read in (read_header, read_nifti):
        with pytest.raises(PipelineError, match=says) as caught:
            read(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}: ")


def test_another_format_is_refused(tmp_path):
    nib.save(nib.MGHImage(picture(np.int32), LPS), tmp_path / "a.mgz")
    with pytest.raises(PipelineError, match=r"a\.mgz: this is no NIfTI file"):
        read_header(tmp_path / "a.mgz")


# --- label maps in the header of a scan -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", HEADERS)
@pytest.mark.parametrize("image_class", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_a_label_map_keeps_the_geometry_of_its_scan_to_the_bit(tmp_path, kind, image_class, name):
    source = tmp_path / f"scan-{name}"
    write_nifti(source, scan(kind, image_class=image_class))
    labels = np.array([0, 1, 2, 4], dtype=np.uint8)[np.random.default_rng(0).integers(0, 4, SHAPE)]
    for like in (read_nifti(source), read_header(source)):
        write_nifti(tmp_path / name, label_image(labels, like))
        header = nib.load(tmp_path / name).header
        assert geometry(header) == geometry(nib.load(source).header)
        assert header.get_data_dtype() == np.uint8
        assert header.get_data_shape() == SHAPE
        np.testing.assert_array_equal(np.asarray(nib.load(tmp_path / name).dataobj), labels)
        np.testing.assert_array_equal(nib.load(tmp_path / name).affine, nib.load(source).affine)


def test_the_kinds_of_headers_above_are_what_they_say():
    codes = {kind: tuple(int(scan(kind).header[key]) for key in ("sform_code", "qform_code")) for kind in HEADERS}
    assert list(codes.values()) == [(2, 0), (0, 1), (1, 1), (4, 2), (0, 0)]


def test_a_big_endian_scan_lends_its_geometry(tmp_path):
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(">i2")
    header.set_xyzt_units("mm")
    image = nib.Nifti1Image(picture(">i2"), OBLIQUE, header)
    (tmp_path / "scan.nii").write_bytes(image.to_bytes())
    like = read_nifti(tmp_path / "scan.nii")
    labels = np.ones(SHAPE, dtype=np.uint8)
    write_nifti(tmp_path / "a.nii.gz", label_image(labels, like))
    again = nib.load(tmp_path / "a.nii.gz")
    for field in GEOMETRY:
        np.testing.assert_array_equal(again.header[field], like.header[field], err_msg=field)
    np.testing.assert_array_equal(np.asarray(again.dataobj), labels)


def test_a_label_map_takes_over_nothing_that_describes_intensities(tmp_path):
    like = scan()
    like.header["cal_max"], like.header["cal_min"] = 900, 10
    like.header.set_slope_inter(2, 5)
    like.header["descrip"] = b"patient Smith, 3T"
    like.header["aux_file"] = b"smith.txt"
    like.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"patient Smith"))
    write_nifti(tmp_path / "a.nii", label_image(np.full(SHAPE, 4, dtype=np.uint8), like))
    content = (tmp_path / "a.nii").read_bytes()
    assert b"smith" not in content.lower()
    again = nib.load(tmp_path / "a.nii")
    assert (again.header["cal_min"], again.header["cal_max"]) == (0, 0)
    np.testing.assert_array_equal(np.asarray(again.dataobj), 4)
    assert like.header["cal_max"] == 900, "the header that was lent is left alone"
    assert len(like.header.extensions) == 1


def test_a_label_map_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=re.escape("shape (5, 4, 4) cannot take a header of shape (5, 4, 3)")):
        label_image(np.zeros((5, 4, 4), dtype=np.uint8), scan())


# --- writing -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("failing", ["os.fsync", "pathlib.Path.replace"])
@pytest.mark.parametrize("before", [None, b"an older prediction"])
def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch, failing, before):
    path = tmp_path / "a.nii.gz"
    if before is not None:
        path.write_bytes(before)

    def disk_full(*_arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(failing, disk_full)
        with pytest.raises(PipelineError, match=r"a\.nii\.gz: cannot be written \(No space left on device\)"):
            write_nifti(path, scan())
    assert [entry.name for entry in tmp_path.iterdir()] == ([path.name] if before is not None else [])
    assert before is None or path.read_bytes() == before


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "out").write_text("not a folder")
    with pytest.raises(PipelineError, match="cannot be written"):
        write_nifti(tmp_path / "out" / "a.nii.gz", scan())


def test_a_write_replaces_the_old_file_and_nothing_else_remains(tmp_path):
    path = tmp_path / "new" / "folder" / "a.nii.gz"
    write_nifti(path, scan(dtype=np.uint8))
    write_nifti(path, scan(dtype=np.float32))
    assert voxels(read_nifti(path)).dtype == np.float32
    assert [entry.name for entry in path.parent.iterdir()] == ["a.nii.gz"]


def test_a_written_file_has_the_rights_of_any_new_file(tmp_path):
    write_nifti(tmp_path / "a.nii.gz", scan())
    (tmp_path / "plain").touch()
    written, plain = (stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a.nii.gz", "plain"))
    assert written == plain


def test_the_same_image_gives_the_same_bytes(tmp_path):
    for name in ("a.nii.gz", "b.nii.gz"):
        write_nifti(tmp_path / name, scan())
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


# --- grids and names -----------------------------------------------------------------------------------------------


def shifted(millimetres):
    return nib.affines.from_matvec(LPS[:3, :3], [millimetres, 0, 0])


def test_grids_are_one_within_a_tenth_of_a_voxel():
    assert GRID_TOLERANCE == 0.1
    shape = (240, 240, 155)
    assert same_grid(shape, LPS, shape, LPS)
    assert same_grid(shape, LPS, shape, shifted(0.09))
    assert not same_grid(shape, LPS, shape, shifted(0.11))
    assert not same_grid(shape, LPS, (240, 240, 154), LPS)
    assert not same_grid(shape, LPS, shape, np.diag([-1, 1, 1, 1]))


def test_the_tolerance_grows_with_the_voxel():
    assert same_grid(SHAPE, LPS @ np.diag([3, 3, 3, 1]), SHAPE, shifted(0.25) @ np.diag([3, 3, 3, 1]))
    assert not same_grid(SHAPE, LPS @ np.diag([3, 3, 1, 1]), SHAPE, shifted(0.25) @ np.diag([3, 3, 1, 1]))


def test_a_small_turn_shows_at_the_far_corner():
    def turned(degrees):
        return nib.affines.from_matvec(nib.eulerangles.euler2mat(np.radians(degrees)) @ LPS[:3, :3])

    shape = (101, 101, 101)  # the far edge lies 141 mm from the axis: 0.04 degrees move it 0.099 mm
    assert same_grid(shape, LPS, shape, turned(0.04))
    assert not same_grid(shape, LPS, shape, turned(0.042))
    assert same_grid((11, 11, 11), LPS, (11, 11, 11), turned(0.042))


def test_a_grid_with_nan_equals_none():
    assert not same_grid(SHAPE, LPS, SHAPE, np.full((4, 4), np.nan))


def test_a_grid_is_described_for_a_person():
    affine = nib.affines.from_matvec(np.diag([-1, -1, 1]), [0, 239, 0])
    assert describe_grid((240, 240, 155), affine) == "240x240x155 voxels of 1x1x1 mm, LPS, origin (0, 239, 0)"
    affine = nib.affines.from_matvec([[0, 0.9375, 0], [0, 0, -1.5], [3, 0, 0]], [1.23456, -7, 0])
    assert describe_grid(SHAPE, affine) == "5x4x3 voxels of 3x0.9375x1.5 mm, SRP, origin (1.235, -7, 0)"


def test_spacing_and_orientation_are_those_of_the_affine():
    np.testing.assert_allclose(spacing_mm(OBLIQUE), [0.9, 1.1, 1.3])
    assert orientation(LPS) == "LPS"
    assert orientation(np.eye(4)) == "RAS"
    assert orientation(OBLIQUE) == "".join(nib.aff2axcodes(OBLIQUE))


@pytest.mark.parametrize(
    ("name", "stem", "is_nifti"),
    [
        ("A-t1c.nii.gz", "A-t1c", True),
        ("A-t1c.NII.GZ", "A-t1c", True),
        ("a.b.nii", "a.b", True),
        ("a.nii.gz.tmp", "a.nii.gz.tmp", False),
        ("a.gz", "a.gz", False),
        ("nii", "nii", False),
    ],
)
def test_suffixes_are_known_in_any_case(name, stem, is_nifti):
    assert strip_suffix(name) == stem
    assert is_nifti_name(name) == is_nifti
