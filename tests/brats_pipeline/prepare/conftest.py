"""A made-up head with skull and face in four contrasts, and the same head moved and scanned on another grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from brats_pipeline.phantom.anatomy import TISSUES, Lesion, make_brain
from brats_pipeline.phantom.skull import MATERIALS, surround
from brats_pipeline.prepare.grids import Grid
from brats_pipeline.prepare.images import array_of, nifti_of
from transforms.nifti import write_nifti

SIDE_MM = 3.0
SHAPE = (68, 82, 70)
# Signals of csf, grey and white matter, nuclei, vessels, edema, enhancing and dead tumour; of air, fat, muscle, bone,
# marrow, mucosa, fluid.
SIGNALS = {
    "t1c": ((0.38, 0.76, 1.00, 0.86, 2.00, 0.80, 1.75, 0.52), (0.0, 1.90, 0.80, 0.12, 0.95, 1.70, 0.36)),
    "t1": ((0.36, 0.73, 1.00, 0.85, 0.70, 0.78, 0.76, 0.52), (0.0, 2.10, 0.68, 0.10, 1.00, 0.75, 0.34)),
    "t2": ((2.50, 1.30, 0.88, 1.08, 0.70, 1.75, 1.50, 2.05), (0.0, 1.50, 0.45, 0.10, 0.80, 1.80, 2.60)),
    "flair": ((0.28, 1.12, 0.92, 1.02, 0.60, 1.62, 1.42, 0.85), (0.0, 1.70, 0.55, 0.10, 0.75, 1.30, 0.25)),
}


@dataclass(frozen=True)
class Head:
    """One head.

    Args:
        scans: modality to its scan; all lie on one grid and match.
        brain: mask on that grid.
        tumour: 0 none, 1 dead, 2 edema, 3 enhancing, on that grid.
    """

    scans: Mapping[str, sitk.Image]
    brain: sitk.Image
    tumour: sitk.Image

    @property
    def points(self) -> np.ndarray:
        """Where the voxels of the brain lie, ``(N, 3)`` LPS millimetres."""
        inside = np.argwhere(array_of(self.brain) > 0)
        return inside * self.brain.GetSpacing() + self.brain.GetOrigin()


def draw_head(seed: int = 0, *, shape: tuple[int, ...] = SHAPE, side_mm: float = SIDE_MM) -> Head:
    """Draw a head on cubes along Left, Posterior, Superior, the origin in its middle."""
    axes = [
        ((np.arange(count) - (count - 1) / 2) * side_mm * sign + middle).astype(np.float32)
        for count, sign, middle in zip(shape, (-1, -1, 1), (0, 0, -12), strict=True)
    ]
    brain_rng, around_rng = (np.random.default_rng(each) for each in np.random.SeedSequence(seed).spawn(2))
    lesion = Lesion((28.0, 14.0, 16.0), (1.0, 1.1, 0.9), 60.0, 0.4, 0.4, True)
    spacing = [side_mm] * 3
    brain = make_brain(brain_rng, [lesion], axes_mm=axes, spacing_mm=spacing)
    around = surround(around_rng, brain.inside, axes_mm=axes, spacing_mm=spacing, edge_mm=2.0)
    assert len(TISSUES) == len(SIGNALS["t1"][0])
    assert len(MATERIALS) == len(SIGNALS["t1"][1])

    def image(values: np.ndarray) -> sitk.Image:
        made = sitk.GetImageFromArray(np.ascontiguousarray(values.T))
        made.SetSpacing(spacing)
        made.SetOrigin([-(count - 1) / 2 * side_mm for count in shape])
        return made

    scans = {}
    for modality, (tissues, materials) in SIGNALS.items():
        signal = np.tensordot(np.array(materials, np.float32), around, axes=1)
        signal[brain.inside] = np.array(tissues, np.float32) @ brain.tissue
        scans[modality] = image((signal * 400).astype(np.float32))
    tumour = np.zeros(shape, np.uint8)
    tumour[brain.inside] = brain.tumour
    return Head(scans, image(brain.inside.astype(np.uint8)), image(tumour))


def motion(degrees: tuple[float, ...], shift_mm: tuple[float, ...]) -> sitk.Euler3DTransform:
    """A turn around the middle of the head, then a shift."""
    made = sitk.Euler3DTransform()
    made.SetRotation(*np.radians(degrees).tolist())
    made.SetTranslation(list(shift_mm))
    return made


def rescan(image: sitk.Image, moved: sitk.Transform, *, spacing: tuple[float, ...], seed: int = 0) -> sitk.Image:
    """Scan a head again after it moved: noise, voxels of another size, on a grid that is turned a little."""
    turned = motion((5, -4, 3), (0, 0, 0))
    size = [
        round(count * step / side)
        for count, step, side in zip(image.GetSize(), image.GetSpacing(), spacing, strict=True)
    ]
    axes = np.reshape(turned.GetMatrix(), (3, 3))
    origin = axes @ (-(np.array(size) - 1) / 2 * spacing)
    grid = Grid(tuple(size), spacing, tuple(origin.tolist()), tuple(axes.ravel().tolist()))
    seen = grid.resample(image, moved.GetInverse(), interpolator=sitk.sitkBSpline)
    rng = np.random.default_rng(seed)
    values = array_of(seen)
    noisy = np.hypot(values + rng.normal(0, 12, values.shape), rng.normal(0, 12, values.shape)).astype(np.float32)
    made = sitk.GetImageFromArray(np.ascontiguousarray(noisy.T))
    made.CopyInformation(seen)
    return made


def save(image: sitk.Image, path: Path) -> Path:
    """Write a scan as a scanner's software would: int16."""
    write_nifti(path, nifti_of(np.rint(array_of(image)).astype(np.int16), Grid.of(image)))
    return path


MOVES = {
    "t1": (motion((3, 0, -4), (4, 2, -3)), (3.0, 3.0, 4.0)),
    "t2": (motion((-6, 4, 5), (5, -8, 6)), (2.6, 2.6, 5.0)),
    "flair": (motion((2, -7, 3), (-6, 3, 4)), (3.0, 3.0, 4.5)),
}
"""How the head moved before each scan of :func:`exam`, and the scan's voxels."""


class Scanner:
    """What tests need of this file."""

    moves = MOVES
    draw_head, motion, rescan, save = map(staticmethod, (draw_head, motion, rescan, save))


@pytest.fixture(scope="session")
def scanner() -> type[Scanner]:
    return Scanner


@pytest.fixture(scope="session")
def head() -> Head:
    return draw_head()


@pytest.fixture(scope="session")
def exam(head: Head, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exam of four modalities, T1c where the head was drawn, the others moved; must not be changed."""
    folder = tmp_path_factory.mktemp("exams") / "exam 7"
    save(head.scans["t1c"], folder / "t1c.nii.gz")
    for modality, (moved, spacing) in MOVES.items():
        save(rescan(head.scans[modality], moved, spacing=spacing), folder / f"{modality}.nii.gz")
    return folder


@pytest.fixture(scope="session")
def prepared(exam: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The exam on the voxels of its T1c; must not be changed."""
    from brats_pipeline.prepare import prepare_case

    return prepare_case(
        exam, tmp_path_factory.mktemp("prepared") / "exam 7", grid="reference", brain="classical"
    ).folder
