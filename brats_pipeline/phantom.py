"""Synthetic cohorts: BraTS-like scans of made-up brains with made-up gliomas, for tests, demos and teaching.

They hold what a pipeline meets in real scans (four contrasts of one head, scanner-dependent intensities, bias field,
Rician noise after Gudbjartsson and Patz 1995, nested regions, cases without ET or with several lesions) and belong to
no patient.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt

from brats_pipeline.anatomy import ED, ET, HEAD_MM, NCR, TISSUES, Floats, Lesion, make_brain, smooth_noise
from transforms.labels import CONVENTIONS, MODALITIES, REGIONS, Convention, convention
from transforms.nifti import write_nifti

TISSUE_REGION = {NCR: "TC", ED: "WT", ET: "ET"}
"""Value of :attr:`PhantomCase.tumour` to the innermost region that the tissue belongs to."""

_MIDDLE_MM = np.array([-119.5, 119.5, 77.0])  # of a BraTS volume (240 x 240 x 155 voxels, origin (0, 239, 0) in RAS)
_SMALLEST_MM = 96.0

# Signal relative to white matter, in the order of TISSUES: csf, gm, wm, deep, vessel, ED, ET, NCR.
_SIGNAL = {
    "t1c": (0.38, 0.76, 1.00, 0.86, 2.00, 0.80, 1.75, 0.52),
    "t1": (0.36, 0.73, 1.00, 0.85, 0.70, 0.78, 0.76, 0.52),
    "t2": (2.50, 1.30, 0.88, 1.08, 0.70, 1.75, 1.50, 2.05),
    "flair": (0.28, 1.12, 0.92, 1.02, 0.60, 1.62, 1.42, 0.85),
}
_NON_ENHANCING = {"t1c": 0.66, "t1": 0.64, "t2": 1.90, "flair": 1.40}


@dataclass(frozen=True)
class PhantomCase:
    """One synthetic examination, in LPS array order.

    Args:
        images: modality to its scan, ``(x, y, z)`` int16, exactly 0 outside the brain and at least 1 inside.
        tumour: ``(x, y, z)`` uint8: 0 none, 1 necrotic or non-enhancing core, 2 edema, 3 enhancing.
        affine: ``(4, 4)``, voxel to RAS millimetres.
    """

    images: Mapping[str, npt.NDArray[np.int16]]
    tumour: npt.NDArray[np.uint8]
    affine: npt.NDArray[np.float64]


def _three(spacing_mm: float | Sequence[float]) -> tuple[float, float, float]:
    """One side for all axes, or one for each."""
    sides = [float(side) for side in np.atleast_1d(spacing_mm)]
    if len(sides) == 1:
        sides *= 3
    if len(sides) != 3 or min(sides) <= 0:
        raise ValueError(f"spacing_mm must be one or three positive lengths, got {spacing_mm!r}")
    return sides[0], sides[1], sides[2]


def _draw_lesions(generator: np.random.Generator) -> list[Lesion]:
    """Draw the lesions of one head, the largest first: 1 head in 5 has several, 1 in 5 does not enhance."""
    enhancing = bool(generator.random() < 0.8)
    count = int(generator.integers(2, 5)) if generator.random() < 0.2 else 1
    total_ml = float(np.exp(generator.uniform(np.log(6), np.log(140))))
    shares = np.array([1.0, *generator.uniform(0.08, 0.5, size=count - 1)])
    lesions: list[Lesion] = []
    for volume_ml in total_ml * shares / shares.sum():
        for _ in range(50):  # apart from the others, if there is room
            direction = generator.standard_normal(3)
            offset = direction / np.linalg.norm(direction) * generator.random() ** (1 / 3) * (26, 58, 36)
            centre = np.add(offset, (np.copysign(18, offset[0]), -4, 14))
            if all(np.linalg.norm(centre - other.centre_mm) > 38 for other in lesions):
                break
        lesions.append(
            Lesion(
                centre_mm=(float(centre[0]), float(centre[1]), float(centre[2])),
                stretch=tuple(generator.uniform(0.8, 1.25, size=3).tolist()),
                volume_ml=float(volume_ml),
                core_share=float(generator.uniform(0.2, 0.6)),
                necrosis_share=float(generator.uniform(0.15, 0.6)),
                enhancing=enhancing,
            )
        )
    return lesions


def _scan(
    signal: Floats, inside: npt.NDArray[np.bool_], bias: Floats, generator: np.random.Generator
) -> npt.NDArray[np.int16]:
    """Turn the signal of each brain voxel into a scan: bias field, noise, the scanner's own scale."""
    scale = np.exp(generator.uniform(np.log(250), np.log(1500)))
    noise = np.float32(generator.uniform(0.025, 0.05))
    real, imaginary = generator.standard_normal((2, len(signal)), dtype=np.float32) * noise
    seen = np.hypot(signal * bias + real, imaginary)
    scan = np.zeros(inside.shape, dtype=np.int16)
    scan[inside] = np.clip(np.rint(seen * np.float32(scale)), 1, np.iinfo(np.int16).max)
    return scan


def make_case(
    seed: int | Sequence[int],
    *,
    shape: tuple[int, int, int] = (240, 240, 155),
    spacing_mm: float | Sequence[float] = 1.0,
) -> PhantomCase:
    """Make one synthetic case.

    Args:
        seed: the case; the same seed on another grid shows the same head.
        shape: voxels along x, y and z.
        spacing_mm: voxel sides, one for all axes or one each. ``shape * spacing_mm`` is the field of view; the head
            lies in its middle and is drawn smaller where it would not fit.

    Raises:
        ValueError: the field of view is smaller than 96 mm, or an argument makes no sense.
    """
    sides = _three(spacing_mm)
    if len(shape) != 3:
        raise ValueError(f"shape must have three axes, got {shape}")
    field_mm = np.multiply(shape, sides)
    if min(field_mm) < _SMALLEST_MM:
        raise ValueError(
            f"a field of view of {'x'.join(f'{side:g}' for side in field_mm)} mm is too small for a head; "
            f"shape times spacing_mm must be at least {_SMALLEST_MM:g} mm along each axis"
        )
    shrink = float(min(1.0, *(field_mm / HEAD_MM)))
    direction = np.array([-1.0, -1.0, 1.0])
    axes_mm = [
        ((np.arange(count) - (count - 1) / 2) * side * sign / shrink).astype(np.float32)
        for count, side, sign in zip(shape, sides, direction, strict=True)
    ]
    # One stream for each step, so that none of them shifts the draws of another.
    head_rng, tumour_rng, texture_rng, scanner_rng, noise_rng = map(
        np.random.default_rng, np.random.SeedSequence(seed).spawn(5)
    )
    lesions = _draw_lesions(tumour_rng)
    brain = make_brain(head_rng, lesions, axes_mm=axes_mm, spacing_mm=[side / shrink for side in sides])
    texture = smooth_noise(texture_rng, 5, axes_mm)[brain.inside]
    coil = smooth_noise(texture_rng, 70, axes_mm)[brain.inside]
    images = {}
    for modality in MODALITIES:
        table = np.array(_SIGNAL[modality], dtype=np.float32)
        if not lesions[0].enhancing:
            table[TISSUES.index("NCR")] = _NON_ENHANCING[modality]
        lesion = slice(TISSUES.index("ED"), None)
        table[lesion] *= scanner_rng.uniform(0.88, 1.1, size=3).astype(np.float32)
        signal = (table @ brain.tissue) * (1 + np.float32(0.03) * texture)
        bias = np.exp(np.float32(scanner_rng.uniform(0.03, 0.12)) * coil)
        images[modality] = _scan(signal, brain.inside, bias, noise_rng)
    tumour = np.zeros(shape, dtype=np.uint8)
    tumour[brain.inside] = brain.tumour
    affine = np.diag([*(direction * sides), 1.0])
    affine[:3, 3] = _MIDDLE_MM - direction * sides * (np.array(shape) - 1) / 2
    return PhantomCase(images=images, tumour=tumour, affine=affine)


def to_convention(tumour: npt.NDArray[np.uint8], name: str) -> npt.NDArray[np.uint8]:
    """Translate :attr:`PhantomCase.tumour` to the values of a label convention.

    Raises:
        ValueError: the convention is unknown, or has no WT, TC and ET.
    """
    table = _nested(name)
    values = np.zeros(max(TISSUE_REGION) + 1, dtype=np.uint8)
    for tissue, region in TISSUE_REGION.items():
        values[tissue] = table.written(region)
    translated: npt.NDArray[np.uint8] = values[tumour]
    return translated


def _nested(name: str) -> Convention:
    """The convention, if it can tell the three regions apart."""
    table = convention(name)
    if not set(REGIONS) <= set(table.regions):
        able = ", ".join(row.name for row in CONVENTIONS.values() if set(REGIONS) <= set(row.regions))
        raise ValueError(f"label convention {name!r} has no WT, TC and ET; a phantom can be written as {able}")
    return table


@dataclass(frozen=True)
class _Layout:
    """How a dataset names things.

    Args:
        convention: the label convention of the dataset.
        case: name of case ``{number}`` (from 1).
        file: name of a file of ``{case}``, with ``{kind}`` from ``kinds``.
        kinds: how the four modalities and the label map are called there.
        graded: cases lie in folders HGG and LGG.
    """

    convention: str
    case: str
    file: str
    kinds: Mapping[str, str]
    graded: bool = False


_T1CE = {"t1c": "t1ce", "t1": "t1", "t2": "t2", "flair": "flair", "label": "seg"}
_T1N = {"t1c": "t1c", "t1": "t1n", "t2": "t2w", "flair": "t2f", "label": "seg"}
_OWN = {"t1c": "t1c", "t1": "t1", "t2": "t2", "flair": "flair", "label": "seg"}

# A dataset of one file per modality is a row here; one that stacks modalities or slices (MSD, LGG) needs a writer
# beside _write_files.
LAYOUTS: Mapping[str, _Layout] = {
    "brats2017": _Layout("brats2017", "Brats18_SYN01_{number}_1", "{case}_{kind}.nii.gz", _T1CE, graded=True),
    "brats2020": _Layout("brats2017", "BraTS20_Training_{number:03}", "{case}_{kind}.nii.gz", _T1CE),
    "brats2021": _Layout("brats2017", "BraTS2021_{number:05}", "{case}_{kind}.nii.gz", _T1CE),
    "brats2023": _Layout("brats2023", "BraTS-GLI-{number:05}-000", "{case}-{kind}.nii.gz", _T1N),
    "plain": _Layout("brats2017", "case_{index:03}", "{kind}.nii.gz", _OWN),
}


def _nifti(voxels: npt.NDArray[np.generic], affine: npt.NDArray[np.float64], axes: str) -> nib.Nifti1Image:
    """Wrap LPS voxels as a NIfTI image whose array axes grow towards ``axes``; world space stays the same."""
    image = nib.Nifti1Image(voxels, affine)
    start, end = nib.io_orientation(affine), nib.orientations.axcodes2ornt(tuple(axes))
    turned: nib.Nifti1Image = image.as_reoriented(nib.orientations.ornt_transform(start, end))
    turned.set_qform(turned.affine, 1)
    turned.set_sform(turned.affine, 1)
    turned.header.set_xyzt_units("mm")
    return turned


def _write_files(
    out: Path, case: PhantomCase, index: int, layout: _Layout, *, convention: str, orientation: str, labels: bool
) -> Path:
    """Write one case as one file per modality; returns its folder."""
    name = layout.case.format(index=index, number=index + 1)
    folder = out / name
    if layout.graded and labels:
        folder = out / ("HGG" if (case.tumour == ET).any() else "LGG") / name
    arrays: dict[str, npt.NDArray[np.generic]] = dict(case.images)
    if labels:
        arrays["label"] = to_convention(case.tumour, convention)
    for key, voxels in arrays.items():
        path = folder / layout.file.format(case=name, kind=layout.kinds[key])
        write_nifti(path, _nifti(voxels, case.affine, orientation))
    return folder


def write_cohort(
    out: Path,
    *,
    cases: int = 8,
    layout: str = "brats2021",
    seed: int = 0,
    convention: str | None = None,
    orientation: str = "LPS",
    shape: tuple[int, int, int] = (240, 240, 155),
    spacing_mm: float | Sequence[float] = 1.0,
    labels: bool = True,
    on_case: Callable[[str], None] | None = None,
) -> list[Path]:
    """Write a synthetic cohort in the naming of a public dataset.

    Args:
        out: the cohort's folder; made where it does not exist.
        cases: how many; case ``i`` is the same in cohorts of any size.
        layout: a key of :data:`LAYOUTS`.
        seed: of the cohort.
        convention: label convention, by default the layout's own.
        orientation: direction in which each array axis grows, such as ``"LPS"`` (BraTS) or ``"RAS"``.
        shape: voxels along x, y and z, in LPS order; another orientation permutes them.
        spacing_mm: voxel sides, one for all axes or one each, in LPS order.
        labels: whether to write label maps.
        on_case: called with the id of each finished case.

    Returns:
        The case folders, in order.

    Raises:
        ValueError: a name is unknown, or the field of view cannot hold a head.
        PipelineError: ``out`` cannot be written.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"unknown layout {layout!r}; a phantom can be written as {', '.join(LAYOUTS)}")
    if cases < 1:
        raise ValueError(f"a cohort needs at least one case, got {cases}")
    if len(orientation) != 3 or any(len(set(pair) & set(orientation)) != 1 for pair in ("LR", "PA", "IS")):
        raise ValueError(f"orientation must name one of L/R, P/A and I/S per axis, such as LPS, got {orientation!r}")
    scheme = LAYOUTS[layout]
    written_as = _nested(convention or scheme.convention).name
    folders = []
    for index in range(cases):
        case = make_case((seed, index), shape=shape, spacing_mm=spacing_mm)
        folder = _write_files(
            Path(out), case, index, scheme, convention=written_as, orientation=orientation, labels=labels
        )
        folders.append(folder)
        if on_case is not None:
            on_case(folder.name)
    return folders
