"""Series as a scanner writes them: one file for each slice, names that say nothing, a head that lies at an angle."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("pydicom")

from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

STUDY, FRAME = generate_uid(), generate_uid()


def turn(degrees: tuple[float, float, float]) -> npt.NDArray[np.float64]:
    """``(3, 3)``: turned around x, then y, then z."""
    made = np.eye(3)
    for axis, angle in enumerate(np.radians(degrees)):
        one, other = (axis + 1) % 3, (axis + 2) % 3
        step = np.eye(3)
        step[one, one] = step[other, other] = np.cos(angle)
        step[other, one], step[one, other] = np.sin(angle), -np.sin(angle)
        made = step @ made
    return made


@dataclass
class Scan:
    """A series to write.

    Args:
        size: columns, rows, slices.
        spacing_mm: of columns, rows, slices.
        degrees: how the head is turned.
        middle: of the volume, LPS millimetres.
        tags: what else the headers hold.
    """

    size: tuple[int, int, int] = (12, 10, 8)
    spacing_mm: tuple[float, float, float] = (1.5, 2.0, 3.0)
    degrees: tuple[float, float, float] = (12.0, -7.0, 20.0)
    middle: tuple[float, float, float] = (5.0, -20.0, 30.0)
    tags: Mapping[str, Any] = field(default_factory=dict)

    @property
    def axes(self) -> npt.NDArray[np.float64]:
        return turn(self.degrees)

    @property
    def points(self) -> npt.NDArray[np.float64]:
        """Where each voxel lies, ``(columns, rows, slices, 3)``, LPS millimetres."""
        steps = [
            (np.arange(count) - (count - 1) / 2) * side for count, side in zip(self.size, self.spacing_mm, strict=True)
        ]
        grid = np.stack(np.meshgrid(*steps, indexing="ij"), axis=-1)
        points: npt.NDArray[np.float64] = grid @ self.axes.T + self.middle
        return points

    @property
    def affine(self) -> npt.NDArray[np.float64]:
        """Voxel to RAS millimetres."""
        made = np.eye(4)
        made[:3, :3] = self.axes * self.spacing_mm
        made[:3, 3] = self.points[0, 0, 0]
        ras: npt.NDArray[np.float64] = np.diag([-1.0, -1, 1, 1]) @ made
        return ras

    def slices(self, values: npt.NDArray[Any] | None = None) -> list[Dataset]:
        """One data set for each slice, first to last; by default each voxel holds :func:`place`."""
        points = self.points
        voxels = place(points) if values is None else values
        series = generate_uid()
        made = []
        for index in range(self.size[2]):
            each = Dataset()
            each.SOPClassUID, each.SOPInstanceUID = MRImageStorage, generate_uid()
            each.StudyInstanceUID, each.SeriesInstanceUID, each.FrameOfReferenceUID = STUDY, series, FRAME
            each.PatientName, each.PatientID, each.PatientBirthDate, each.PatientSex = (
                "Doe^Jane",
                "PID-1234",
                "19700102",
                "F",
            )
            each.StudyDate, each.StudyTime, each.StudyID = "20260102", "101112", "77"
            each.AccessionNumber, each.ReferringPhysicianName = "A-99", "House^Gregory"
            each.StudyDescription, each.InstitutionName, each.Manufacturer = (
                "MR HEAD of Jane Doe",
                "Hospital X",
                "SCANNERS",
            )
            each.Modality, each.SeriesNumber, each.InstanceNumber = "MR", 1, index + 1
            each.ImageType = ["ORIGINAL", "PRIMARY", "M"]
            each.Rows, each.Columns = self.size[1], self.size[0]
            each.PixelSpacing = [self.spacing_mm[1], self.spacing_mm[0]]
            each.SliceThickness = self.spacing_mm[2]
            each.ImageOrientationPatient = [f"{value:.9f}" for value in self.axes[:, :2].T.ravel()]
            each.ImagePositionPatient = [f"{value:.7f}" for value in points[0, 0, index]]
            each.SamplesPerPixel, each.PhotometricInterpretation = 1, "MONOCHROME2"
            each.BitsAllocated, each.BitsStored, each.HighBit, each.PixelRepresentation = 16, 16, 15, 1
            each.PixelData = np.ascontiguousarray(voxels[:, :, index].T).astype("<i2").tobytes()
            for keyword, value in self.tags.items():
                setattr(each, keyword, value)
            made.append(each)
        return made


def place(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """A number for each point of the patient, different along every axis."""
    x, y, z = np.moveaxis(points, -1, 0)
    rounded: npt.NDArray[np.float64] = np.rint(3000 + 40 * x + 7 * y - 23 * z)
    return rounded


def save(slices: list[Dataset], folder: Path, *, seed: int = 0, syntax: str = ExplicitVRLittleEndian) -> Path:
    """Write data sets under names that say nothing, in an order that says nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    names = np.random.default_rng(seed).permutation(10 * len(slices))[: len(slices)]
    for each, name in zip(slices, names, strict=True):
        each.file_meta = FileMetaDataset()
        each.file_meta.TransferSyntaxUID = syntax
        each.file_meta.MediaStorageSOPClassUID = each.SOPClassUID
        each.file_meta.MediaStorageSOPInstanceUID = each.SOPInstanceUID
        each.save_as(folder / f"IM{seed}{name:05d}", enforce_file_format=True)
    return folder


class Scanner:
    """What tests need of this file."""

    Scan = Scan
    place: Callable[..., Any] = staticmethod(place)
    save: Callable[..., Path] = staticmethod(save)


@pytest.fixture(scope="session")
def scanner() -> type[Scanner]:
    return Scanner
