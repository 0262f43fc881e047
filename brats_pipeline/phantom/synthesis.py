"""From anatomy to pictures: what a scanner would make of a made-up head, as volumes or as 8-bit slices. No files.

Signals are relative to white matter; noise is Rician after Gudbjartsson and Patz 1995.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from brats_pipeline.phantom.anatomy import HEAD_MM, TISSUES, Floats, Lesion, Point, make_brain, smooth_noise
from brats_pipeline.phantom.skull import surround
from transforms.labels import MODALITIES

_MIDDLE_MM = np.array([-119.5, 119.5, 77.0])  # of a BraTS volume (240 x 240 x 155 voxels, origin (0, 239, 0) in RAS)
_SMALLEST_MM = 96.0

# Signal relative to white matter, in the order of TISSUES: csf, gm, wm, deep, vessel, ED, ET, NCR.
_SIGNAL = {
    "t1c": (0.38, 0.76, 1.00, 0.86, 2.00, 0.80, 1.75, 0.52),
    "t1": (0.36, 0.73, 1.00, 0.85, 0.70, 0.78, 0.76, 0.52),
    "t2": (2.50, 1.30, 0.88, 1.08, 0.70, 1.75, 1.50, 2.05),
    "flair": (0.28, 1.12, 0.92, 1.02, 0.60, 1.62, 1.42, 0.85),
}
# What surrounds the brain, in the order of MATERIALS: air, fat, muscle, bone, marrow, mucosa, fluid.
_AROUND = {
    "t1c": (0.0, 1.90, 0.80, 0.12, 0.95, 1.70, 0.36),
    "t1": (0.0, 2.10, 0.68, 0.10, 1.00, 0.75, 0.34),
    "flair": (0.0, 1.70, 0.55, 0.10, 0.75, 1.30, 0.25),
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


def _place(generator: np.random.Generator, others: Sequence[Lesion]) -> Point:
    """Draw a place in either hemisphere, apart from the others if there is room."""
    for _ in range(50):
        direction = generator.standard_normal(3)
        offset = direction / np.linalg.norm(direction) * generator.random() ** (1 / 3) * (26, 58, 36)
        x, y, z = np.add(offset, (np.copysign(18, offset[0]), -4, 14)).tolist()
        if all(np.linalg.norm(np.subtract((x, y, z), other.centre_mm)) > 38 for other in others):
            break
    return x, y, z


def _draw_lesions(generator: np.random.Generator) -> list[Lesion]:
    """Draw the lesions of one head, the largest first: 1 head in 5 has several, 1 in 5 does not enhance."""
    enhancing = bool(generator.random() < 0.8)
    count = int(generator.integers(2, 5)) if generator.random() < 0.2 else 1
    total_ml = float(np.exp(generator.uniform(np.log(6), np.log(140))))
    shares = np.array([1.0, *generator.uniform(0.08, 0.5, size=count - 1)])
    lesions: list[Lesion] = []
    for volume_ml in total_ml * shares / shares.sum():
        lesions.append(
            Lesion(
                centre_mm=_place(generator, lesions),
                stretch=tuple(generator.uniform(0.8, 1.25, size=3).tolist()),
                volume_ml=float(volume_ml),
                core_share=float(generator.uniform(0.2, 0.6)),
                necrosis_share=float(generator.uniform(0.15, 0.6)),
                enhancing=enhancing,
            )
        )
    return lesions


def _draw_low_grade(generator: np.random.Generator) -> list[Lesion]:
    """Draw one diffuse lesion without an enhancing rim."""
    return [
        Lesion(
            centre_mm=_place(generator, []),
            stretch=tuple(generator.uniform(0.8, 1.25, size=3).tolist()),
            volume_ml=float(np.exp(generator.uniform(np.log(14), np.log(110)))),
            core_share=float(generator.uniform(0.4, 0.75)),
            necrosis_share=0.5,
            enhancing=False,
        )
    ]


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


@dataclass(frozen=True)
class PhantomSlices:
    """One synthetic patient as the slices of an exam before skull stripping.

    Args:
        images: modality (t1, flair, t1c) to its slices, ``(x, y, z)`` uint8: columns from the patient's right to the
            left, rows from front to back, slices from the bottom up.
        tumour: ``(x, y, z)``, the FLAIR abnormality.
    """

    images: Mapping[str, npt.NDArray[np.uint8]]
    tumour: npt.NDArray[np.bool_]


def make_slices(seed: int | Sequence[int], *, shape: tuple[int, int, int | None] = (256, 256, None)) -> PhantomSlices:
    """Make one synthetic patient with a low-grade glioma, skull and face included.

    Args:
        seed: the patient.
        shape: columns, rows and slices; None draws 20 to 30 slices. The field of view is that of a whole head.

    Raises:
        ValueError: a side is too small to show a head.
    """
    if min(shape[:2]) < 24 or (shape[2] is not None and shape[2] < 6):
        raise ValueError(f"a head needs at least 24 columns, 24 rows and 6 slices, got {shape}")
    head_rng, tumour_rng, around_rng, texture_rng, scanner_rng, noise_rng = map(
        np.random.default_rng, np.random.SeedSequence(seed).spawn(6)
    )
    drawn = int(scanner_rng.integers(20, 31))
    grid = (shape[0], shape[1], drawn if shape[2] is None else shape[2])
    field_mm = (240.0, 240.0, float(scanner_rng.uniform(152, 166)))
    spacing_mm = [field / count for field, count in zip(field_mm, grid, strict=True)]
    axes_mm = [
        ((np.arange(count) - (count - 1) / 2) * side * sign + middle).astype(np.float32)
        for count, side, sign, middle in zip(grid, spacing_mm, (-1, -1, 1), (0, 0, -4), strict=True)
    ]
    edge_mm = max(1.2, 0.7 * max(spacing_mm[:2]))
    lesions = _draw_low_grade(tumour_rng)
    brain = make_brain(head_rng, lesions, axes_mm=axes_mm, spacing_mm=spacing_mm, edge_mm=edge_mm)
    around = surround(around_rng, brain.inside, axes_mm=axes_mm, spacing_mm=spacing_mm, edge_mm=edge_mm)
    texture, coil, tilt = (smooth_noise(texture_rng, scale_mm, axes_mm) for scale_mm in (5, 70, 90))
    images = {}
    for modality, materials in _AROUND.items():
        table = np.array(_SIGNAL[modality], dtype=np.float32)
        table[TISSUES.index("NCR")] = _NON_ENHANCING[modality]
        table[TISSUES.index("ED") :] *= scanner_rng.uniform(0.88, 1.1, size=3).astype(np.float32)
        signal = np.tensordot(np.array(materials, np.float32), around, axes=1)
        signal[brain.inside] = table @ brain.tissue
        signal *= 1 + np.float32(0.03) * texture
        signal *= np.exp(np.float32(scanner_rng.uniform(0.05, 0.18)) * coil)
        # The coil lies behind the head: what is near it is brighter.
        signal *= np.exp(-axes_mm[1] * np.float32(scanner_rng.uniform(0, 0.004)))[:, np.newaxis]
        noise = np.float32(scanner_rng.uniform(0.02, 0.05))
        real, imaginary = noise_rng.standard_normal((2, *grid), dtype=np.float32) * noise
        seen = np.hypot(signal + real, imaginary)
        if modality != "flair":  # brought to the grid of the FLAIR, a sequence ends before the last slices do
            above, below = scanner_rng.uniform(62, 90, size=2)
            height = axes_mm[2] + 4 + 3 * tilt
            seen[(height > above) | (height < -below)] = 0
        images[modality] = np.clip(seen * (255 / np.quantile(seen, 0.9995)), 0, 255).astype(np.uint8)
    tumour = np.zeros(grid, dtype=bool)
    tumour[brain.inside] = brain.tumour > 0
    return PhantomSlices(images=images, tumour=tumour)
