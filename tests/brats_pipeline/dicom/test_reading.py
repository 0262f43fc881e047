"""Voxels of a series lie where the headers say; whatever would put them elsewhere is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

pytest.importorskip("pydicom")

import pydicom
from pydicom.encaps import encapsulate
from pydicom.uid import EnhancedMRImageStorage, HTJ2KLossless, JPEG2000Lossless, RLELossless

from brats_pipeline.dicom.finding import find_series
from brats_pipeline.dicom.reading import read_only_series, read_series, slices_in_order
from brats_pipeline.dicom.stacks import stack_of, thinned
from brats_pipeline.errors import PipelineError
from brats_pipeline.prepare.exam import Exam, file_notes

UNKNOWN = "1.2.840.10008.1.2.4.299"
"""Stands where a compression of the future would."""


def read(folder: Path) -> sitk.Image:
    return read_series(read_only_series(folder))


def points_of(image: sitk.Image) -> np.ndarray:
    """Where SimpleITK says that each voxel lies."""
    size = image.GetSize()
    points = [image.TransformIndexToPhysicalPoint(tuple(map(int, index))) for index in np.ndindex(size)]
    return np.array(points).reshape(*size, 3)


ANGLES = [
    (0.0, 0.0, 0.0),
    (12.0, -7.0, 20.0),
    (90.0, 0.0, 0.0),
    (0.0, 90.0, 5.0),
    (180.0, 10.0, 0.0),
    (-80.0, 35.0, 160.0),
]


@pytest.mark.parametrize("degrees", ANGLES)
def test_each_voxel_holds_the_number_of_its_place_in_the_patient(
    scanner: Any, tmp_path: Path, degrees: tuple[float, float, float]
) -> None:
    scan = scanner.Scan(degrees=degrees)
    image = read(scanner.save(scan.slices(), tmp_path / "series"))
    values = sitk.GetArrayFromImage(image).T
    assert image.GetSize() == scan.size
    assert np.abs(points_of(image) - scan.points).max() < 1e-4
    assert np.array_equal(values, scanner.place(scan.points))


def test_the_same_voxels_as_the_series_reader_of_simpleitk(scanner: Any, tmp_path: Path) -> None:
    folder = scanner.save(scanner.Scan().slices(), tmp_path / "series")
    image = read(folder)
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    peer = sitk.ReadImage(names, sitk.sitkFloat32)
    assert np.allclose(image.GetOrigin(), peer.GetOrigin(), atol=1e-4)
    assert np.allclose(image.GetDirection(), peer.GetDirection(), atol=1e-6)
    assert np.allclose(image.GetSpacing(), peer.GetSpacing(), atol=1e-4)
    assert np.array_equal(sitk.GetArrayViewFromImage(image), sitk.GetArrayViewFromImage(peer))


def test_files_come_back_in_order_of_their_slices(scanner: Any, tmp_path: Path) -> None:
    slices = scanner.Scan().slices()
    folder = scanner.save(slices, tmp_path / "series")
    found = read_only_series(folder)
    uids = {each.path: each.header.SOPInstanceUID for each in found.instances}
    assert [uids[path] for path in slices_in_order(found)] == [each.SOPInstanceUID for each in slices]


def test_each_slice_is_rescaled_by_its_own_slope(scanner: Any, tmp_path: Path) -> None:
    scan = scanner.Scan()
    slices = scan.slices()
    for index, each in enumerate(slices):
        each.RescaleSlope, each.RescaleIntercept = 0.25 * (index + 1), -100.5 + index
    values = sitk.GetArrayFromImage(read(scanner.save(slices, tmp_path / "series"))).T
    index = np.arange(scan.size[2])
    expected = scanner.place(scan.points) * 0.25 * (index + 1) - 100.5 + index
    assert np.allclose(values, expected, rtol=1e-6, atol=1e-3)


def test_compressed_pixels_are_decoded(scanner: Any, tmp_path: Path) -> None:
    scan = scanner.Scan()
    slices = scan.slices()
    folder = scanner.save(slices, tmp_path / "series")
    for path in folder.iterdir():
        each = pydicom.dcmread(path)
        each.compress(RLELossless)
        each.save_as(path)
    assert np.array_equal(sitk.GetArrayFromImage(read(folder)).T, scanner.place(scan.points))


def drop_one(slices: list[Any]) -> list[Any]:
    return slices[:3] + slices[4:]


def drop_many(slices: list[Any]) -> list[Any]:
    return slices[:2] + slices[4:5] + slices[6:]


@pytest.mark.parametrize(
    ("every", "told", "thickness", "said"),
    [
        (2, 3.0, 3.0, "its slices lie 6 mm apart, and SpacingBetweenSlices is 3: some between them may be missing"),
        (3, 3.0, 2.5, "its slices lie 9 mm apart, and SpacingBetweenSlices is 3: some between them may be missing"),
        (1, 3.0, 3.0, None),
        (1, 3.0, 6.0, None),  # overlapping slices
        (2, 2.0, 4.0, None),  # scanners that count it from the edge of one slice to the edge of the next
        (2, 0.0, 3.0, None),
    ],
)
def test_slices_that_are_evenly_missing_are_told(
    scanner: Any, tmp_path: Path, every: int, told: float, thickness: float, said: str | None
) -> None:
    scan = scanner.Scan(size=(12, 10, 16), tags={"SpacingBetweenSlices": told, "SliceThickness": thickness})
    series = read_only_series(scanner.save(scan.slices()[::every], tmp_path / "series"))
    assert thinned(stack_of(series.instances, series.name)) == said
    notes = file_notes(Exam("case", {"t1c": series}), links=True)
    assert notes == ([] if said is None else [f"t1c: {said}"])


def shift_one(slices: list[Any]) -> list[Any]:
    place = np.array(slices[4].ImagePositionPatient, float)
    step = np.array(slices[5].ImagePositionPatient, float) - place
    slices[4].ImagePositionPatient = [f"{value:.6f}" for value in place + 0.4 * step]
    return slices


def copy_one(slices: list[Any]) -> list[Any]:
    return [*slices, slices[2].copy()]


def copy_two(slices: list[Any]) -> list[Any]:
    return [*slices, slices[2], slices[5]]


def tilt(slices: list[Any]) -> list[Any]:
    down = np.array(slices[0].ImageOrientationPatient[3:], float)
    for index, each in enumerate(slices):
        place = np.array(each.ImagePositionPatient, float) + 0.6 * index * down
        each.ImagePositionPatient = [f"{value:.6f}" for value in place]
    return slices


def another_size(slices: list[Any]) -> list[Any]:
    slices[3].Rows, slices[3].PixelData = 5, slices[3].PixelData[: len(slices[3].PixelData) // 2]
    return slices


def other_pixels(slices: list[Any]) -> list[Any]:
    slices[3].PixelSpacing = [2.2, 1.5]
    return slices


def turn_one(slices: list[Any]) -> list[Any]:
    across, down = np.reshape(slices[3].ImageOrientationPatient, (2, 3)).astype(float)
    slices[3].ImageOrientationPatient = [
        f"{value:.9f}" for value in (*(across + 0.005 * down), *(down - 0.005 * across))
    ]
    return slices


def zero_spacing(slices: list[Any]) -> list[Any]:
    for each in slices:
        each.PixelSpacing = [0.0, 0.0]
    return slices


def no_position(slices: list[Any]) -> list[Any]:
    del slices[5].ImagePositionPatient
    return slices


def no_orientation(slices: list[Any]) -> list[Any]:
    for each in slices:
        each.ImageOrientationPatient = [1, 0, 0, 1, 0, 0]
    return slices


def multi_frame(slices: list[Any]) -> list[Any]:
    first = slices[0]
    first.SOPClassUID, first.NumberOfFrames = EnhancedMRImageStorage, len(slices)
    first.PixelData = b"".join(each.PixelData for each in slices)
    return [first]


def colours(slices: list[Any]) -> list[Any]:
    for each in slices:
        each.SamplesPerPixel, each.PhotometricInterpretation, each.PlanarConfiguration = 3, "RGB", 0
        each.PixelData = each.PixelData * 3
    return slices


def few(slices: list[Any]) -> list[Any]:
    return slices[:3]


def empty(slices: list[Any]) -> list[Any]:
    for each in slices:
        each.PixelData = bytes(len(each.PixelData))
    return slices


def no_pixels(slices: list[Any]) -> list[Any]:
    for each in slices:
        del each.PixelData
    return slices


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (drop_one, r"1 slice is missing, the first after IM\S+ \(6 mm to the next, 3 mm elsewhere\)"),
        (drop_many, r"3 slices are missing, the first after IM\S+ \(9 mm to the next, 3 mm elsewhere\)"),
        (shift_one, r"its slices lie 1\.8 to 4\.2 mm apart; equal distances are needed"),
        (copy_one, r"2 slices share a place .* the same file twice"),
        (copy_two, r"4 slices share a place .* the same file twice"),
        (tilt, r"gantry tilt of 11 degrees"),
        (another_size, r"slices of different sizes, 12x10 .* and 12x5|slices of different sizes, 12x5 .* and 12x10"),
        (other_pixels, r"pixels of different sizes"),
        (turn_one, r"slices of different orientations"),
        (zero_spacing, r"has the PixelSpacing 0.*; two lengths between 0 and 50 mm are needed"),
        (no_position, r"has no ImagePositionPatient"),
        (no_orientation, r"two unit vectors at right angles are needed"),
        (multi_frame, r"multi-frame, enhanced MR"),
        (colours, r"holds colours"),
        (few, r"has 3 slices, at least 4 are needed"),
        (empty, r"is 0 in every voxel"),
        (no_pixels, r"cannot be decoded|does not hold the pixels|is 0 in every voxel"),
    ],
)
def test_a_series_that_is_no_straight_and_complete_stack_is_refused(
    scanner: Any, tmp_path: Path, spoil: Any, said: str
) -> None:
    folder = scanner.save(spoil(scanner.Scan().slices()), tmp_path / "series")
    with pytest.raises(PipelineError, match=said) as error:
        read(folder)
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)


@pytest.mark.parametrize("keep", [-1, -40, -240])
def test_a_file_cut_short_within_its_pixels_is_refused(scanner: Any, tmp_path: Path, keep: int) -> None:
    folder = scanner.save(scanner.Scan().slices(), tmp_path / "series")
    path = sorted(folder.iterdir())[2]
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(PipelineError, match=rf"{path.name} .*(truncated or damaged|does not hold)"):
        read(folder)


@pytest.mark.parametrize("keep", [140, 300, 500, 700])
def test_a_file_cut_short_within_its_header_is_never_taken_for_no_file(scanner: Any, tmp_path: Path, keep: int) -> None:
    folder = scanner.save(scanner.Scan().slices(), tmp_path / "series")
    path = sorted(folder.iterdir())[0]
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(PipelineError, match="truncated or damaged"):
        read(folder)


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, HTJ2KLossless, UNKNOWN])
def test_pixels_that_cannot_be_decoded_are_said_to_be_compressed(scanner: Any, tmp_path: Path, syntax: str) -> None:
    slices = scanner.Scan().slices()
    for each in slices:
        each.PixelData = encapsulate([b"no picture at all, only text"])
        each["PixelData"].is_undefined_length = True
    written = HTJ2KLossless if syntax == UNKNOWN else syntax
    folder = scanner.save(slices, tmp_path / "series", syntax=written)
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes().replace(written.encode(), syntax.encode()))
    with pytest.raises(PipelineError, match=r"cannot be decoded; its pixels are compressed \(.*gdcmconv --raw"):
        read(folder)


def test_a_folder_of_two_series_is_no_scan(scanner: Any, tmp_path: Path) -> None:
    for seed in (1, 2):
        scanner.save(scanner.Scan(tags={"SeriesNumber": seed}).slices(), tmp_path / "exam", seed=seed)
    with pytest.raises(PipelineError, match=r"holds 2 series: 1 \(no description\), 2 \(no description\)"):
        read_only_series(tmp_path / "exam")
    assert [read_series(each).GetSize() for each in find_series(tmp_path / "exam").series] == [(12, 10, 8)] * 2
