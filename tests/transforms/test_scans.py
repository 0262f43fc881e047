"""MetaImage and NRRD files say the same as NIfTI files; SimpleITK, which has readers of its own, is the oracle."""

import re

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from brats_pipeline.errors import PipelineError
from transforms.nifti import label_image, voxels, write_nifti
from transforms.scans import implausible, peek_scan, placing_note, read_scan, read_scan_header

SHAPE = (5, 4, 3)
FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])
TURN = nib.eulerangles.euler2mat(0.3, -0.2, 0.5)
NAMES = ["a.mha", "a.nrrd"]


def foreign(path, values=None, *, direction=TURN, spacing=(0.9, 1.1, 1.3), origin=(12.5, -30.25, 7.75), packed=False):
    """Written by SimpleITK."""
    values = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE) if values is None else values
    image = sitk.GetImageFromArray(np.ascontiguousarray(values.T))
    image.SetSpacing(spacing)
    image.SetOrigin(origin)
    image.SetDirection(np.ravel(direction).tolist())
    sitk.WriteImage(image, str(path), useCompression=packed)
    return path


def oracle(path):
    """Voxels and RAS affine as SimpleITK reads them."""
    image = sitk.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image).T, FLIP @ affine


def assert_as_oracle(path):
    values, affine = oracle(path)
    image = read_scan(path)
    np.testing.assert_array_equal(voxels(image), values)
    np.testing.assert_allclose(image.affine, affine, atol=1e-5)
    header, whole = peek_scan(path)
    assert whole
    assert header.shape == values.shape
    np.testing.assert_array_equal(header.affine, image.affine)
    return image


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
def test_every_type_packed_or_not_is_read_as_simpleitk_reads_it(tmp_path, name, packed, dtype):
    values = np.random.default_rng(0).integers(0, 100, SHAPE).astype(dtype)
    image = assert_as_oracle(foreign(tmp_path / name, values, packed=packed))
    assert voxels(image).dtype == dtype


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(8))
def test_every_turn_spacing_and_origin_is_that_of_simpleitk(tmp_path, name, seed):
    generator = np.random.default_rng(seed)
    direction = nib.eulerangles.euler2mat(*generator.uniform(-3, 3, 3)) @ np.diag(generator.choice([-1, 1], 3))
    spacing, origin = generator.uniform(0.3, 5, 3), generator.uniform(-200, 200, 3)
    image = assert_as_oracle(
        foreign(tmp_path / name, direction=direction, spacing=spacing.tolist(), origin=origin.tolist())
    )
    np.testing.assert_allclose(image.header.get_qform(), image.affine, atol=1e-4)
    assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == (1, 1)


NRRD = """NRRD0004
# a comment: with a colon
type: {type}
dimension: 3
space: {space}
sizes: 5 4 3
space directions: (0.5,0,0.1) (0, 2, 0) (0.3,0,1.5)
kinds: domain domain domain
endian: {endian}
encoding: raw
space origin: (10,-20,30)
patient:=somebody: else

"""
MHA = """ObjectType = Image
NDims = 3
BinaryData = True
BinaryDataByteOrderMSB = {big}
CompressedData = False
TransformMatrix = 0 1 0 -1 0 0 0 0 1
Offset = 1.5 -2 3
CenterOfRotation = 0 0 0
AnatomicalOrientation = RAI
ElementSpacing = 0.5 2 3
DimSize = 5 4 3
ElementType = {type}
ElementDataFile = LOCAL
"""


def written(path, header, dtype="<i2", *, values=None):
    values = np.arange(np.prod(SHAPE), dtype=dtype).reshape(SHAPE) if values is None else values
    path.write_bytes(header.encode("latin-1") + values.tobytes(order="F"))
    return path


@pytest.mark.parametrize(
    "space",
    [
        "left-posterior-superior", "right-anterior-superior", "left-anterior-superior", "LPS", "RAS", "LAS",
        "Right-Anterior-Superior",
    ],
)  # fmt: skip
def test_every_space_of_nrrd_is_turned_into_that_of_nifti(tmp_path, space):
    path = written(tmp_path / "a.nrrd", NRRD.format(type="short", endian="little", space=space))
    assert_as_oracle(path)


@pytest.mark.parametrize("kind", [("short", "i2"), ("unsigned int", "u4"), ("double", "f8"), ("uint8", "u1")])
@pytest.mark.parametrize("endian", ["little", "big"])
def test_either_byte_order_of_nrrd_is_read(tmp_path, kind, endian):
    header = NRRD.format(type=kind[0], endian=endian, space="LPS")
    assert_as_oracle(written(tmp_path / "a.nrrd", header, {"little": "<", "big": ">"}[endian] + kind[1]))


@pytest.mark.parametrize(
    "kind", [("MET_SHORT", "i2"), ("MET_LONG", "i4"), ("MET_ULONG_LONG", "u8"), ("MET_UCHAR", "u1")]
)
@pytest.mark.parametrize("big", [False, True])
def test_either_byte_order_of_metaimage_is_read(tmp_path, kind, big):
    header = MHA.format(type=kind[0], big=big)
    assert_as_oracle(written(tmp_path / "a.mha", header, (">" if big else "<") + kind[1]))


def test_lines_that_end_as_on_windows_are_read(tmp_path):
    header = NRRD.format(type="short", endian="little", space="LPS").replace("\n", "\r\n")
    np.testing.assert_array_equal(voxels(read_scan(written(tmp_path / "a.nrrd", header))), np.arange(60).reshape(SHAPE))


def test_axes_that_are_not_at_right_angles_have_a_sform_alone(tmp_path):
    image = read_scan(written(tmp_path / "a.nrrd", NRRD.format(type="short", endian="little", space="RAS")))
    expected = np.array([[0.5, 0, 0.3, 10], [0, 2, 0, -20], [0.1, 0, 1.5, 30], [0, 0, 0, 1]])
    np.testing.assert_allclose(image.affine, expected, atol=1e-6)
    assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == (0, 1)


@pytest.mark.parametrize("name", NAMES)
def test_a_label_map_of_a_foreign_scan_lies_where_the_scan_lies(tmp_path, name):
    """The way out is NIfTI; ITK must see both in one place."""
    path = foreign(tmp_path / name)
    labels = np.arange(60, dtype=np.uint8).reshape(SHAPE) % 4
    for like in (read_scan(path), read_scan_header(path)):
        write_nifti(tmp_path / "labels.nii.gz", label_image(labels, like))
        out, scan = sitk.ReadImage(str(tmp_path / "labels.nii.gz")), sitk.ReadImage(str(path))
        for told in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
            np.testing.assert_allclose(getattr(out, told)(), getattr(scan, told)(), atol=1e-5, err_msg=told)
        np.testing.assert_array_equal(sitk.GetArrayFromImage(out).T, labels)
        assert nib.load(tmp_path / "labels.nii.gz").header.get_xyzt_units()[0] == "mm"


def test_the_content_tells_the_format_and_not_the_name(tmp_path):
    foreign(tmp_path / "a.nrrd").rename(tmp_path / "b.mha")
    np.testing.assert_array_equal(voxels(read_scan(tmp_path / "b.mha")), np.arange(60).reshape(SHAPE))
    write_nifti(tmp_path / "c.nii", nib.Nifti1Image(np.ones(SHAPE, np.uint8), np.eye(4)))
    (tmp_path / "c.nii").rename(tmp_path / "c.mha")
    assert voxels(read_scan(tmp_path / "c.mha")).all()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("= LOCAL", "= a.raw"), "its voxels lie in 'a.raw'; one .mha file with both is needed"),
        (("NDims = 3", "NDims = 4"), "it is Image with 4 axes; three are needed"),
        (("ObjectType = Image", "ObjectType = Mesh"), "it is Mesh"),
        (("CenterOfRotation = 0 0 0", "ElementNumberOfChannels = 3"), "it holds 3 values per voxel; one is needed"),
        (("BinaryData = True", "BinaryData = False"), "written as text"),
        (("MET_SHORT", "MET_OTHER"), "the type MET_OTHER is not known"),
        (("MSB = False", "MSB = maybe"), "BinaryDataByteOrderMSB is 'maybe'; True or False is needed"),
        (("DimSize = 5 4 3\n", ""), "it has no DimSize"),
        (("ElementSpacing = 0.5 2 3\n", ""), "it has no ElementSpacing"),
        (("DimSize = 5 4 3", "DimSize = 5 4 0"), "sizes '5 4 0' are those of no scan"),
        (("DimSize = 5 4 3", "DimSize = 5 -4 3"), "sizes '5 -4 3'; three whole numbers are needed"),
        (("DimSize = 5 4 3", "DimSize = 99999999 99999999 99999999"), "are those of no scan"),
        (("DimSize = 5 4 3", "DimSize = 5 4 4"), "the header promises .* bytes, the file holds .*: truncated"),
        (
            ("DimSize = 5 4 3", "DimSize = 5 4 2"),
            "the header promises .* bytes, and 40 follow behind them: header and voxels do not",
        ),
        (("ElementSpacing = 0.5 2 3", "ElementSpacing = 0.5 nan 3"), "'0.5 nan 3' is not 3 numbers"),
        (("ElementSpacing = 0.5 2 3", "ElementSpacing = 0.5 0 3"), "place no voxels"),
        (("Offset = 1.5 -2 3", "Offset = 1.\xa0 -2 3"), r"'1\.\\xa0 -2 3' is not 3 numbers"),
        (("Offset = 1.5 -2 3", "Offset = 1.5 -2 3\xa0"), r"'1\.5 -2 3\\xa0' is not 3 numbers"),
        (("Offset = 1.5 -2 3", "Offset = 1.5 ,2 3"), r"'1\.5 ,2 3' is not 3 numbers"),
        (("Offset = 1.5 -2 3", "Offset = 1_5 -2 3"), "'1_5 -2 3' is not 3 numbers"),
        (("DimSize = 5 4 3", "DimSize = 5\xa04 3"), r"sizes '5\\xa04 3'; three whole numbers are needed"),
        (("0 1 0 -1 0 0 0 0 1", "0 1 0 0 1 0 0 0 1"), "place no voxels"),
        (("CenterOfRotation", "Rotation"), "it has both TransformMatrix and Rotation; one of them is needed"),
        (("CenterOfRotation", "Position"), "it has both Offset and Position; one of them is needed"),
        (("CenterOfRotation = 0 0 0", "ElementSize = 1 1"), "'1 1' is not 3 numbers"),
        (("ElementDataFile = LOCAL\n", ""), "no line ElementDataFile ends it"),
        (("NDims = 3", "NDims = 3\nNDims = 3"), "no line ElementDataFile ends it"),
        (("CompressedData = False", "CompressedData = True"), "the zlib stream is truncated or damaged"),
    ],
)
def test_a_metaimage_that_makes_no_sense_is_refused(tmp_path, change, says):
    header = MHA.format(type="MET_SHORT", big=False)
    assert change[0] in header
    path = written(tmp_path / "a.mha", header.replace(*change))
    with pytest.raises(PipelineError, match=says) as caught:
        read_scan(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("encoding: raw", "encoding: raw\ndata file: a.raw"), "its voxels lie in 'a.raw'"),
        (("dimension: 3", "dimension: 4"), "it has 4 axes; three are needed, and one value per voxel"),
        (("type: short", "type: block"), "the type 'block' is not known, or none of one number"),
        (("encoding: raw", "encoding: bzip2"), "the encoding 'bzip2' is not read; raw or gzip is needed"),
        (("encoding: raw", "encoding: gzip"), "the zlib stream is truncated or damaged"),
        (("encoding: raw", "encoding: raw\nbyte skip: 4"), "bytes are to be skipped"),
        (("space: LPS", "space: scanner-xyz"), "'scanner-xyz' does not say which side is left"),
        (("space: LPS\n", ""), "None does not say which side is left"),
        (("space: LPS", 'space: LPS\nspace units: "m" "m" "m"'), "it measures in m, m, m; mm is needed"),
        (("endian: little", "endian: middle"), "endian is 'middle'; little or big is needed"),
        (("endian: little\n", ""), "it has no 'endian'"),
        (("sizes: 5 4 3\n", ""), "it has no 'sizes'"),
        (("sizes: 5 4 3", "sizes: 5 4 3\nsizes: 5 4 3"), "the field 'sizes' occurs twice"),
        (("sizes: 5 4 3", "sizes: 5 4 3\nspacings: 5 4 3"), "the field 'spacings' is not known here"),
        (("kinds: domain", "kinds: list"), "its axes are 'list domain domain'; three axes in space are needed"),
        (("sizes: 5 4 3", "sizes 5 4 3"), "the line 'sizes 5 4 3' is no 'field: value'"),
        (("sizes: 5 4 3", "sizes: 5 4"), "three whole numbers are needed"),
        (("sizes: 5 4 3", "sizes: 6 4 3"), "the header promises .* bytes, the file holds .*: truncated"),
        (("(0, 2, 0)", "none"), "three space directions and one space origin are needed, got 2 and 1"),
        (("(0, 2, 0)", "(0, 0, 0)"), "place no voxels"),
        (("(0, 2, 0)", "(0, inf, 0)"), "is not 3 numbers"),
        (("(0, 2, 0)", "(0, 2_0, 0)"), "is not 3 numbers"),
        (("(0, 2, 0)", "(0,, 2, 0)"), "is not 3 numbers"),
        (("(0, 2, 0)", "(0, 2\x85, 0)"), "is not 3 numbers"),
    ],
)
def test_a_nrrd_that_makes_no_sense_is_refused(tmp_path, change, says):
    header = NRRD.format(type="short", endian="little", space="LPS")
    assert change[0] in header
    path = written(tmp_path / "a.nrrd", header.replace(*change))
    with pytest.raises(PipelineError, match=says) as caught:
        read_scan(path)
    assert str(caught.value).startswith(f"{path}: ")


def test_the_spacing_of_a_metaimage_holds_before_the_size_of_its_voxels(tmp_path):
    header = MHA.format(type="MET_SHORT", big=False).replace("ElementSpacing", "ElementSize = 9 9 9\nElementSpacing")
    assert_as_oracle(written(tmp_path / "a.mha", header))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("packed", [False, True])
def test_a_foreign_file_cut_anywhere_is_refused(tmp_path, name, packed):
    noise = np.random.default_rng(0).integers(0, 1000, SHAPE).astype(np.int16)
    content = foreign(tmp_path / name, noise, packed=packed).read_bytes()
    for length in range(len(content)):
        (tmp_path / name).write_bytes(content[:length])
        with pytest.raises(PipelineError, match=re.escape(f"{tmp_path / name}: ")):
            read_scan(tmp_path / name)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("packed", [False, True])
def test_bytes_behind_the_voxels_of_a_foreign_file_are_refused(tmp_path, name, packed):
    path = foreign(tmp_path / name, packed=packed)
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(PipelineError, match=r"header and voxels do not|more bytes follow"):
        read_scan(path)


# --- how a header places its voxels --------------------------------------------------------------------------------


def placed(sform, qform, *, unit="mm"):
    image = nib.Nifti1Image(np.zeros((101, 11, 11), np.uint8), None)
    image.header.set_sform(*sform)
    image.header.set_qform(*qform)
    image.header.set_xyzt_units(unit)
    return nib.Nifti1Image(image.dataobj, image.header.get_best_affine(), image.header)


def test_of_two_places_the_one_that_holds_is_named_with_how_far_the_other_is():
    shifted = nib.affines.from_matvec(np.eye(3), [3, 4, 0])
    note = placing_note(placed((np.eye(4), 2), (shifted, 1)))
    assert note == "qform (code 1) and sform (code 2) place the voxels up to 5 mm apart; the sform holds"


@pytest.mark.parametrize(
    ("sform", "qform"), [((np.eye(4), 1), (np.eye(4), 1)), ((np.eye(4), 1), (None, 0)), ((None, 0), (np.eye(4), 1))]
)
def test_one_place_needs_no_note(sform, qform):
    assert placing_note(placed(sform, qform)) is None


def test_a_header_that_places_nothing_is_noted_with_what_is_assumed():
    note = placing_note(placed((None, 0), (None, 0)))
    assert note == "neither qform nor sform is set, so the header does not say which side is left; LAS is assumed"


def test_a_quaternion_of_no_rotation_is_noted():
    image = placed((np.eye(4), 1), (np.eye(4), 1))
    image.header["quatern_b"] = image.header["quatern_c"] = 3
    assert placing_note(image) == "qform (code 1) and sform (code 1) place the voxels apart; the sform holds"


def test_a_qform_of_numbers_whose_squares_are_none_is_noted():
    image = nib.Nifti2Image(np.zeros(SHAPE, np.uint8), np.eye(4))
    image.header.set_qform(nib.affines.from_matvec(np.eye(3), [1e200, 0, 0]), 1)
    assert placing_note(image) == "qform (code 1) and sform (code 2) place the voxels apart; the sform holds"


@pytest.mark.parametrize("read", [read_scan, read_scan_header])
def test_numbers_whose_squares_are_none_place_no_voxels(tmp_path, read):
    image = nib.Nifti2Image(np.zeros(SHAPE, np.uint8), None)
    image.header["sform_code"] = 1
    image.header["srow_x"], image.header["srow_y"], image.header["srow_z"] = np.diag([1, 1e200, 1, 1])[:3]
    (tmp_path / "a.nii").write_bytes(image.to_bytes())
    with pytest.raises(PipelineError, match="the affine of the header places no voxels"):
        read(tmp_path / "a.nii")
    header = MHA.format(type="MET_SHORT", big=False).replace("0.5 2 3", "0.5 2e200 3")
    with pytest.raises(PipelineError, match=r"'0\.5 2e200 3' is not 3 numbers"):
        read(written(tmp_path / "a.mha", header))


@pytest.mark.parametrize(
    ("sides", "unit", "says"),
    [
        ((1, 1, 1), "mm", None),
        ((1, 1, 1), "unknown", None),
        ((0.2, 0.2, 80), "mm", None),
        ((1000, 1, 1), "mm", r"voxels of 1000x1x1 mm make a field of view of 1\.01e\+05x11x11 mm; sides of 0\.01 to"),
        ((1, 1, 0.001), "mm", "voxels of 1x1x0.001 mm make a field"),
        ((25, 1, 1), "mm", "voxels of 25x1x1 mm make a field of view of 2525x11x11 mm"),
        ((0.001, 0.001, 0.001), "meter", "the header measures in metres; write the file again in millimetres"),
        ((900, 900, 900), "micron", "the header measures in micrometres"),
    ],
)
def test_voxels_that_are_those_of_no_head_are_named(sides, unit, says):
    found = implausible(placed((np.diag([*sides, 1]), 1), (None, 0), unit=unit))
    assert found is None if says is None else re.match(says, found)
