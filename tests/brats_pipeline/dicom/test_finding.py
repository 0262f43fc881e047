"""Which files of a folder are slices of which series, and what becomes of the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pydicom")

from pydicom.uid import (
    BasicTextSRStorage,
    GrayscaleSoftcopyPresentationStateStorage,
    RTStructureSetStorage,
    SegmentationStorage,
)

from brats_pipeline.dicom.finding import find_series, holds_dicom
from brats_pipeline.errors import PipelineError
from brats_pipeline.files import is_dicom


def test_series_in_one_heap_of_shuffled_names_come_apart(scanner: Any, tmp_path: Path) -> None:
    for number in (3, 11, 2):
        scan = scanner.Scan(size=(12, 10, 4 + number), tags={"SeriesNumber": number, "SeriesDescription": f"S{number}"})
        scanner.save(scan.slices(), tmp_path / "heap", seed=number)
    found = find_series(tmp_path / "heap")
    told = [(each.number, each.description, len(each.instances)) for each in found.series]
    assert told == [("2", "S2", 6), ("3", "S3", 7), ("11", "S11", 15)]
    assert all(each.spacing_mm == pytest.approx((1.5, 2.0, 3.0), abs=1e-3) for each in found.series)
    assert found.aside == {}


def test_a_series_spread_over_folders_is_one(scanner: Any, tmp_path: Path) -> None:
    slices = scanner.Scan().slices()
    scanner.save(slices[:3], tmp_path / "disc" / "A", seed=1)
    scanner.save(slices[3:], tmp_path / "disc" / "B" / "C", seed=2)
    (found,) = find_series(tmp_path / "disc").series
    assert len(found.instances) == 8
    assert found.folder == tmp_path / "disc"


@pytest.mark.parametrize(
    ("uid", "name"),
    [
        (BasicTextSRStorage, "Basic Text SR Storage"),
        (SegmentationStorage, "Segmentation Storage"),
        ("1.3.12.2.1107.5.9.1", "vendor's own object (1.3.12.2.1107.5.9.1)"),
        (RTStructureSetStorage, "RT Structure Set Storage"),
        (GrayscaleSoftcopyPresentationStateStorage, "Grayscale Softcopy Presentation State Storage"),
    ],
)
def test_objects_that_are_no_mr_images_are_set_aside_by_name(scanner: Any, tmp_path: Path, uid: str, name: str) -> None:
    scanner.save(scanner.Scan().slices(), tmp_path / "exam")
    (other, *_) = scanner.Scan(tags={"SOPClassUID": uid}).slices()
    scanner.save([other], tmp_path / "exam", seed=7)
    found = find_series(tmp_path / "exam")
    assert found.aside == {name: 1}
    assert len(found.series) == 1


def test_texts_and_the_table_of_contents_do_not_disturb(scanner: Any, tmp_path: Path) -> None:
    folder = scanner.save(scanner.Scan().slices(), tmp_path / "exam")
    (folder / "readme.txt").write_text("Dear colleague, " * 50)
    (folder / "autorun.inf").write_bytes(b"")
    (folder / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM" + b"\2\0\0\0UL\4\0\0\0\0\0")
    (folder / ".DS_Store").write_bytes(b"\0\1")
    (folder / "picture.jpg").write_bytes(bytes(range(256)) * 3)
    found = find_series(folder)
    assert found.aside == {"no DICOM file": 3}
    assert len(found.series[0].instances) == 8


def test_a_deflated_file_is_not_inflated(scanner: Any, tmp_path: Path) -> None:
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    folder = scanner.save(scanner.Scan().slices(), tmp_path / "exam")
    scanner.save(scanner.Scan().slices()[:1], folder, seed=3, syntax=DeflatedExplicitVRLittleEndian)
    assert find_series(folder).aside == {"deflated file": 1}


def test_a_link_that_leaves_the_folder_is_not_followed(scanner: Any, tmp_path: Path) -> None:
    folder = scanner.save(scanner.Scan().slices(), tmp_path / "exam")
    elsewhere = scanner.save(scanner.Scan().slices(), tmp_path / "elsewhere")
    (folder / "more").symlink_to(elsewhere)
    (folder / "one").symlink_to(next(elsewhere.iterdir()))
    (folder / "own").symlink_to(folder / "nothing")
    found = find_series(folder)
    assert len(found.series) == 1
    assert found.aside == {"link that leaves the folder": 1, "no DICOM file": 1}


def another_echo(slices: list[Any], index: int) -> None:
    slices[index].EchoNumbers, slices[index].EchoTime = 2, 95


def another_time(slices: list[Any], index: int) -> None:
    slices[index].TemporalPositionIdentifier = 2


def another_kind(slices: list[Any], index: int) -> None:
    slices[index].ImageType = ["ORIGINAL", "PRIMARY", "P"]


def another_way(slices: list[Any], index: int) -> None:
    slices[index].ImageOrientationPatient = [0, 1, 0, 0, 0, -1]


@pytest.mark.parametrize("change", [another_echo, another_time, another_kind, another_way])
def test_one_series_that_mixes_stacks_is_several(scanner: Any, tmp_path: Path, change: Any) -> None:
    slices = scanner.Scan(tags={"SeriesNumber": 5, "EchoNumbers": 1, "EchoTime": 12}).slices()
    for index in (5, 6, 7):
        change(slices, index)
    found = find_series(scanner.save(slices, tmp_path / "exam"))
    assert [(each.number, len(each.instances)) for each in found.series] == [("5a", 5), ("5b", 3)]


def test_a_series_whose_directions_differ_in_the_last_digits_stays_one(scanner: Any, tmp_path: Path) -> None:
    slices = scanner.Scan().slices()
    rng = np.random.default_rng(0)
    for each in slices:
        cosines = np.array(each.ImageOrientationPatient, float) + rng.uniform(-4e-4, 4e-4, 6)
        each.ImageOrientationPatient = [f"{value:.6f}" for value in cosines]
    assert len(find_series(scanner.save(slices, tmp_path / "exam")).series) == 1


def test_a_folder_without_mr_images_says_what_it_holds(scanner: Any, tmp_path: Path) -> None:
    (other, *_) = scanner.Scan(tags={"SOPClassUID": SegmentationStorage}).slices()
    scanner.save([other], tmp_path / "exam", seed=7)
    (tmp_path / "exam" / "a.txt").write_text("a")
    with pytest.raises(PipelineError, match=r"no MR image \(found: 1 x Segmentation Storage, 1 x no DICOM file\)"):
        find_series(tmp_path / "exam")


def test_dicom_is_told_from_other_files(scanner: Any, tmp_path: Path) -> None:
    folder = scanner.save(scanner.Scan().slices(), tmp_path / "exam")
    one = next(folder.iterdir())
    old = tmp_path / "old"
    old.write_bytes(b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100" + one.read_bytes()[400:])
    for name, content in {"text": b"x" * 500, "short": b"DICM", "empty": b"", "zeros": bytes(600)}.items():
        (tmp_path / name).write_bytes(content)
        assert not is_dicom(tmp_path / name)
    assert is_dicom(one)
    assert is_dicom(old)
    assert not is_dicom(tmp_path)
    assert not is_dicom(tmp_path / "nowhere")


def test_a_folder_with_volumes_in_single_files_is_no_dicom_folder(scanner: Any, tmp_path: Path) -> None:
    folder = scanner.save(scanner.Scan().slices(), tmp_path / "exam" / "dicom")
    assert holds_dicom(tmp_path / "exam")
    (tmp_path / "exam" / "t1.nii.gz").write_bytes(b"")
    assert not holds_dicom(tmp_path / "exam")
    assert holds_dicom(folder)
    assert not holds_dicom(tmp_path / "nowhere")


def test_without_pydicom_the_message_says_what_to_install(
    scanner: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib.util

    folder = scanner.save(scanner.Scan().slices(), tmp_path / "exam")
    monkeypatch.setattr(importlib.util, "find_spec", {}.get)
    with pytest.raises(
        PipelineError, match=r'needs pydicom, which is not installed; .*pip install "brats-pipeline\[di'
    ):
        find_series(folder)


def test_preparing_other_files_needs_no_pydicom(tmp_path: Path, python: Any) -> None:
    code = "import sys; sys.modules['pydicom'] = sys.modules['highdicom'] = None; import brats_pipeline.prepare"
    done = python(["-c", code], cwd=tmp_path)
    assert done.returncode == 0, done.stderr
