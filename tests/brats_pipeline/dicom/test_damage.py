"""One damaged file among whole ones: the series is refused in words, or read with every voxel in its place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

pytest.importorskip("pydicom")

from brats_pipeline.dicom.choosing import choose_series
from brats_pipeline.dicom.reading import read_only_series, read_series
from brats_pipeline.errors import PipelineError


@pytest.fixture(scope="module")
def series(scanner: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    scan = scanner.Scan(size=(8, 6, 9), tags={"SeriesDescription": "AX T1 +C", "EchoTime": 12, "RepetitionTime": 500})
    folder: Path = scanner.save(scan.slices(), tmp_path_factory.mktemp("damage") / "series")
    return folder


def outcome(folder: Path, whole: sitk.Image) -> str:
    """``refused`` or ``read``; fails where a voxel lies elsewhere, or more than one slice holds something else."""
    try:
        choose_series(folder, {"t1c": "1"})
        image = read_series(read_only_series(folder))
    except PipelineError:
        return "refused"
    assert image.GetSize()[:2] == whole.GetSize()[:2]
    assert np.allclose(image.GetDirection(), whole.GetDirection(), atol=2e-3)
    assert np.allclose(image.GetSpacing(), whole.GetSpacing(), rtol=2e-2)
    count = image.GetSize()[2]
    first = whole.TransformPhysicalPointToContinuousIndex(image.GetOrigin())
    assert np.abs(np.array(first) - np.rint(first)).max() < 0.2
    start = round(first[2])
    found, expected = sitk.GetArrayFromImage(image), sitk.GetArrayFromImage(whole)[start : start + count]
    assert (found != expected).any(axis=(1, 2)).sum() <= 1
    return "read"


def damaged(series: Path, folder: Path, content: bytes, place: int) -> Path:
    """The series with other content in one of its files, in order of names."""
    folder.mkdir()
    for number, path in enumerate(sorted(series.iterdir())):
        (folder / path.name).write_bytes(content if number == place else path.read_bytes())
    return folder


def test_a_file_cut_anywhere_is_never_a_slice_that_nobody_misses(series: Path, tmp_path: Path) -> None:
    whole = read_series(read_only_series(series))
    content = sorted(series.iterdir())[0].read_bytes()
    lengths = [132, 133, 200, 332, *range(400, len(content), 61), len(content) - 1]
    told = {length: outcome(damaged(series, tmp_path / f"{length}", content[:length], 0), whole) for length in lengths}
    assert set(told.values()) == {"refused"}, told


def fuzz(series: Path, tmp_path: Path, count: int) -> set[str]:
    whole = read_series(read_only_series(series))
    files = sorted(series.iterdir())
    told = set()
    for seed in range(count):
        rng = np.random.default_rng(seed)
        place = int(rng.integers(len(files)))
        content = bytearray(files[place].read_bytes())
        for where in rng.integers(132, len(content), size=int(rng.integers(1, 6))):
            content[where] = int(rng.integers(256))
        told.add(outcome(damaged(series, tmp_path / f"{seed}", bytes(content), place), whole))
    return told


def test_bytes_changed_at_random_never_move_a_voxel(series: Path, tmp_path: Path) -> None:
    assert fuzz(series, tmp_path, 40) == {"refused", "read"}


@pytest.mark.slow
def test_bytes_changed_at_random_a_thousand_times_never_move_a_voxel(series: Path, tmp_path: Path) -> None:
    assert fuzz(series, tmp_path, 1500) == {"refused", "read"}
