"""DICOM segmentations, read back with pydicom and highdicom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

pytest.importorskip("highdicom")

import highdicom as hd
import pydicom

from brats_pipeline.dicom.segmentation import write_dicom_seg
from brats_pipeline.errors import PipelineError
from transforms.labels import CONVENTIONS
from transforms.slicer import COLOURS


@pytest.fixture
def scan(scanner: Any) -> Any:
    return scanner.Scan()


@pytest.fixture
def series(scanner: Any, scan: Any, tmp_path: Path) -> Path:
    return Path(scanner.save(scan.slices(), tmp_path / "series"))


def draw(scan: Any, values: tuple[int, ...]) -> np.ndarray:
    """Labels drawn at random, so that no turn or flip of them looks the same."""
    return np.random.default_rng(3).choice([0, 0, *values], size=scan.size).astype(np.uint8)


def write(labels: np.ndarray, affine: np.ndarray, path: Path) -> Path:
    nib.Nifti1Image(labels, affine).to_filename(path)
    return path


def points_of(found: Any, segment: int) -> set[tuple[float, ...]]:
    """Where the voxels of a segment lie, from the frames alone: LPS millimetres, rounded to 0.01."""
    pixels = found.pixel_array.reshape(-1, found.Rows, found.Columns)
    shared = found.SharedFunctionalGroupsSequence[0]
    across, down = np.reshape(shared.PlaneOrientationSequence[0].ImageOrientationPatient, (2, 3)).astype(float)
    row_mm, column_mm = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    points = set()
    for frame, groups in zip(pixels, found.PerFrameFunctionalGroupsSequence, strict=True):
        which = groups if "SegmentIdentificationSequence" in groups else shared
        if which.SegmentIdentificationSequence[0].ReferencedSegmentNumber != segment:
            continue
        corner = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
        for row, column in np.argwhere(frame):
            point = corner + column * column_mm * across + row * row_mm * down
            points.add(tuple((np.round(point, 2) + 0.0).tolist()))
    return points


@pytest.mark.parametrize("name", sorted(CONVENTIONS))
def test_every_label_comes_back_where_it_was_in_the_patient(scan: Any, series: Path, tmp_path: Path, name: str) -> None:
    tissues = sorted(CONVENTIONS[name].tissues.items())
    labels = draw(scan, tuple(value for value, _ in tissues))
    out = write_dicom_seg(write(labels, scan.affine, tmp_path / "l.nii"), series, tmp_path / "o.dcm", convention=name)
    found = pydicom.dcmread(out)
    for number, (value, tissue) in enumerate(tissues, start=1):
        expected = {tuple((np.round(point, 2) + 0.0).tolist()) for point in scan.points[labels == value]}
        assert len(expected) > 10
        assert points_of(found, number) == expected
        described = found.SegmentSequence[number - 1]
        assert described.SegmentAlgorithmType == "AUTOMATIC"
        assert described.SegmentAlgorithmName == "brats-pipeline"
        shown = hd.color.CIELabColor.from_dicom_value(described.RecommendedDisplayCIELabValue).to_rgb()
        assert np.abs(np.subtract(shown, COLOURS[tissue])).max() <= 2


def test_highdicom_gives_the_label_map_back_voxel_for_voxel(scan: Any, series: Path, tmp_path: Path) -> None:
    labels = draw(scan, (1, 2, 3))
    out = write_dicom_seg(
        write(labels, scan.affine, tmp_path / "l.nii"), series, tmp_path / "o.dcm", convention="brats2023"
    )
    volume = hd.seg.segread(out).get_volume(combine_segments=True)
    back = np.zeros_like(labels)
    to_voxel = np.linalg.inv(np.diag([-1.0, -1, 1, 1]) @ scan.affine)
    for index in np.ndindex(volume.array.shape):
        point = to_voxel @ volume.affine @ [*index, 1]
        assert np.abs(point - np.rint(point)).max() < 1e-3
        back[tuple(np.rint(point[:3]).astype(int))] = volume.array[index]
    assert np.array_equal(back, labels)


def test_a_label_map_with_its_axes_in_another_order_goes_to_the_same_places(
    scan: Any, series: Path, tmp_path: Path
) -> None:
    labels = draw(scan, (1, 2, 3))
    image = nib.Nifti1Image(labels, scan.affine)
    outs = []
    for number, turned in enumerate((image, nib.as_closest_canonical(image))):
        turned.to_filename(tmp_path / f"{number}.nii")
        outs.append(
            write_dicom_seg(tmp_path / f"{number}.nii", series, tmp_path / f"{number}.dcm", convention="brats2023")
        )
    one, other = map(pydicom.dcmread, outs)
    assert not np.allclose(nib.as_closest_canonical(image).affine, image.affine)
    for segment in (1, 2, 3):
        assert points_of(one, segment) == points_of(other, segment)


def test_regions_are_added_as_segments_that_overlap(scan: Any, series: Path, tmp_path: Path) -> None:
    labels = draw(scan, (1, 2, 3))
    out = write_dicom_seg(
        write(labels, scan.affine, tmp_path / "l.nii"),
        series,
        tmp_path / "o.dcm",
        convention="brats2023",
        regions=["WT", "TC"],
    )
    found = pydicom.dcmread(out)
    assert [each.SegmentLabel for each in found.SegmentSequence][3:] == ["whole tumour (WT)", "tumour core (TC)"]
    assert points_of(found, 4) == points_of(found, 1) | points_of(found, 2) | points_of(found, 3)
    assert points_of(found, 5) == points_of(found, 1) | points_of(found, 3)


def test_each_frame_names_the_slice_it_lies_on(scan: Any, series: Path, tmp_path: Path) -> None:
    labels = draw(scan, (1, 2, 3))
    out = write_dicom_seg(
        write(labels, scan.affine, tmp_path / "l.nii"), series, tmp_path / "o.dcm", convention="brats2023"
    )
    found = pydicom.dcmread(out)
    slices = {each.SOPInstanceUID: each for each in map(pydicom.dcmread, series.iterdir())}
    assert found.FrameOfReferenceUID == next(iter(slices.values())).FrameOfReferenceUID
    assert found.PatientID == "PID-1234"
    assert found.StudyInstanceUID == next(iter(slices.values())).StudyInstanceUID
    (referenced,) = found.ReferencedSeriesSequence
    assert {each.ReferencedSOPInstanceUID for each in referenced.ReferencedInstanceSequence} == set(slices)
    for groups in found.PerFrameFunctionalGroupsSequence:
        (source,) = groups.DerivationImageSequence[0].SourceImageSequence
        there = slices[source.ReferencedSOPInstanceUID].ImagePositionPatient
        assert np.allclose(np.array(there, float), groups.PlanePositionSequence[0].ImagePositionPatient, atol=1e-4)


def test_a_scan_without_tumour_gives_an_empty_segmentation(scan: Any, series: Path, tmp_path: Path) -> None:
    empty = write(np.zeros(scan.size, np.uint8), scan.affine, tmp_path / "l.nii")
    out = write_dicom_seg(empty, series, tmp_path / "o.dcm", convention="lgg")
    assert pydicom.dcmread(out).pixel_array.sum() == 0


def strings(dataset: Any) -> str:
    return str(dataset) + str(dataset.file_meta)


def test_a_deidentified_segmentation_holds_no_word_number_or_identifier_of_the_patient(
    scan: Any, series: Path, tmp_path: Path
) -> None:
    label_map = write(draw(scan, (1, 2, 3)), scan.affine, tmp_path / "l.nii")
    plain = write_dicom_seg(label_map, series, tmp_path / "a.dcm", convention="brats2023")
    bare = write_dicom_seg(label_map, series, tmp_path / "b.dcm", convention="brats2023", deidentify=True)
    source = pydicom.dcmread(next(series.iterdir()))
    secrets = ["Doe", "Jane", "PID-1234", "19700102", "20260102", "A-99", "House", "Hospital", "SCANNERS"]
    secrets += [source.StudyInstanceUID, source.SeriesInstanceUID, source.FrameOfReferenceUID]
    secrets += [pydicom.dcmread(path).SOPInstanceUID for path in series.iterdir()]
    assert all(secret in strings(pydicom.dcmread(plain)) for secret in ("Doe", "PID-1234", source.StudyInstanceUID))
    content = bare.read_bytes()
    assert [
        secret for secret in secrets if secret in strings(pydicom.dcmread(bare)) or secret.encode() in content
    ] == []
    found = pydicom.dcmread(bare)
    assert found.PatientIdentityRemoved == "YES"
    assert found.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
    assert found.ContentDate == "19000101"
    for segment in (1, 2, 3):
        assert points_of(found, segment) == points_of(pydicom.dcmread(plain), segment)


def test_a_label_map_on_another_grid_is_refused_with_both_grids(scan: Any, series: Path, tmp_path: Path) -> None:
    moved = scan.affine.copy()
    moved[:3, 3] += 2.0
    label_map = write(draw(scan, (1, 2, 3)), moved, tmp_path / "l.nii")
    with pytest.raises(PipelineError, match=r"(?s)lies on .* the series .* on .*--native"):
        write_dicom_seg(label_map, series, tmp_path / "o.dcm", convention="brats2023")
    assert not (tmp_path / "o.dcm").exists()


def test_a_value_of_another_convention_is_refused(scan: Any, series: Path, tmp_path: Path) -> None:
    label_map = write(draw(scan, (1, 4)), scan.affine, tmp_path / "l.nii")
    with pytest.raises(PipelineError, match="holds the value 4, which the convention brats2023 does not know"):
        write_dicom_seg(label_map, series, tmp_path / "o.dcm", convention="brats2023")


def test_of_several_series_in_a_folder_one_must_be_named(scanner: Any, scan: Any, series: Path, tmp_path: Path) -> None:
    label_map = write(draw(scan, (1,)), scan.affine, tmp_path / "l.nii")
    scanner.save(scan.slices(), series, seed=5)
    with pytest.raises(PipelineError, match="holds 2 series"):
        write_dicom_seg(label_map, series, tmp_path / "o.dcm", convention="lgg")
    uid = pydicom.dcmread(next(series.iterdir())).SeriesInstanceUID
    out = write_dicom_seg(label_map, series, tmp_path / "o.dcm", convention="lgg", series_uid=uid)
    assert pydicom.dcmread(out).ReferencedSeriesSequence[0].SeriesInstanceUID == uid


def test_headers_without_patient_and_study_do(scanner: Any, scan: Any, tmp_path: Path) -> None:
    slices = scan.slices()
    for each in slices:
        for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"):
            delattr(each, keyword)
        del each.AccessionNumber, each.StudyID, each.ReferringPhysicianName, each.SliceThickness
    label_map = write(draw(scan, (1,)), scan.affine, tmp_path / "l.nii")
    folder = scanner.save(slices, tmp_path / "bare")
    for deidentify in (False, True):
        out = write_dicom_seg(label_map, folder, tmp_path / "o.dcm", convention="lgg", deidentify=deidentify)
        assert pydicom.dcmread(out).PatientBirthDate == ""


def test_without_a_frame_of_reference_nothing_is_written(scanner: Any, scan: Any, tmp_path: Path) -> None:
    slices = scan.slices()
    for each in slices:
        del each.FrameOfReferenceUID
    label_map = write(draw(scan, (1,)), scan.affine, tmp_path / "l.nii")
    with pytest.raises(PipelineError, match="has no FrameOfReferenceUID"):
        write_dicom_seg(label_map, scanner.save(slices, tmp_path / "bare"), tmp_path / "o.dcm", convention="lgg")
    assert not (tmp_path / "o.dcm").exists()


def test_names_in_any_script_are_kept(scanner: Any, scan: Any, tmp_path: Path) -> None:
    slices = scan.slices()
    for each in slices:
        each.SpecificCharacterSet, each.PatientName = "ISO_IR 192", "M\u00fcller^J\u00f6rg=\u5c71\u7530^\u592a\u90ce"
    label_map = write(draw(scan, (1,)), scan.affine, tmp_path / "l.nii")
    out = write_dicom_seg(label_map, scanner.save(slices, tmp_path / "s"), tmp_path / "o.dcm", convention="lgg")
    assert str(pydicom.dcmread(out).PatientName) == "M\u00fcller^J\u00f6rg=\u5c71\u7530^\u592a\u90ce"


def test_headers_that_cannot_be_written_again_are_refused_and_can_be_left_out(
    scanner: Any, scan: Any, tmp_path: Path
) -> None:
    slices = scan.slices()
    for each in slices:
        each.PatientSex = "W"  # weiblich
    label_map = write(draw(scan, (1,)), scan.affine, tmp_path / "l.nii")
    folder = scanner.save(slices, tmp_path / "s")
    with pytest.raises(PipelineError, match=r"cannot be written again .* --deidentify"):
        write_dicom_seg(label_map, folder, tmp_path / "o.dcm", convention="lgg")
    out = write_dicom_seg(label_map, folder, tmp_path / "o.dcm", convention="lgg", deidentify=True)
    assert pydicom.dcmread(out).PatientSex == ""
