"""A case small enough to travel inside a report: 8-bit images and both label maps, cropped to the head.

Axes grow towards Right, Anterior, Superior, so that a viewer need not turn them. A coarser grid takes the mean of each
block of voxels, and of labels what fills half of it; a lesion smaller than that vanishes from the picture, never from
the scores.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt

from brats_pipeline.report.overlay import grey_window, head_box, places_of

Mask = npt.NDArray[np.bool_]

GREYS = 64
"""Grey values that are kept apart: more cannot be seen, and fewer bits are noise that does not compress."""


@dataclass(frozen=True)
class CaseVolume:
    """One case for the viewer.

    Args:
        images: modality to gzipped NIfTI, 8-bit; the first is shown first.
        labels: gzipped NIfTI, 8-bit, on the grid of the images: 16 times the level of the prediction plus the level of
            the reference. Level 0 is background, level k the k-th of ``regions`` and none behind it.
        regions: names of the levels 1, 2, ..., widest first.
        place: voxel where the viewer opens, in the middle of the tumour.
        mm: what a voxel measures along its longest side.
        predicted: whether there is a prediction.
    """

    images: Mapping[str, bytes]
    labels: bytes
    regions: tuple[str, ...]
    place: tuple[int, int, int]
    mm: float
    predicted: bool


def _ras(array: npt.NDArray[Any], affine: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Turn and mirror the axes so that they grow towards Right, Anterior, Superior; the affine follows."""
    turn = nib.orientations.io_orientation(affine)
    turned: npt.NDArray[Any] = nib.orientations.apply_orientation(array, turn)
    return turned, affine @ nib.orientations.inv_ornt_aff(turn, array.shape)


def _blocks(array: npt.NDArray[Any], factors: tuple[int, ...]) -> npt.NDArray[np.float32]:
    """The mean of each block of voxels; blocks at the far ends are filled up with the border."""
    padded = np.pad(
        array, [(0, -side % factor) for side, factor in zip(array.shape, factors, strict=True)], mode="edge"
    )
    shape = [length for side, factor in zip(padded.shape, factors, strict=True) for length in (side // factor, factor)]
    means: npt.NDArray[np.float32] = padded.reshape(shape).mean(axis=(1, 3, 5), dtype=np.float32)
    return means


def _levels(masks: Mapping[str, Mask], regions: tuple[str, ...], shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Paint the regions, each over those before it."""
    levels = np.zeros(shape, np.uint8)
    for level, region in enumerate(regions, start=1):
        if region in masks:
            levels[masks[region]] = level
    return levels


def _coarser(levels: npt.NDArray[np.uint8], factors: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """Levels on a coarser grid: the highest one that, with those above it, fills half of the block."""
    coarse = np.zeros(tuple(-(-side // factor) for side, factor in zip(levels.shape, factors, strict=True)), np.uint8)
    for level in range(1, int(levels.max(initial=0)) + 1):
        coarse[_blocks(levels >= level, factors) >= 0.5] = level
    return coarse


def _nifti(array: npt.NDArray[np.uint8], affine: npt.NDArray[Any]) -> bytes:
    image = nib.Nifti1Image(array, affine)
    image.header.set_xyzt_units("mm")
    return gzip.compress(image.to_bytes(), compresslevel=9, mtime=0)


def case_volume(
    images: Mapping[str, npt.NDArray[Any]],
    reference: Mapping[str, Mask],
    prediction: Mapping[str, Mask] | None,
    *,
    affine: npt.NDArray[Any],
    mm: float,
) -> CaseVolume:
    """Make the volumes that a viewer shows of a case.

    Args:
        images: modality to ``(x, y, z)``, on one grid; the first is shown first.
        reference: region to mask, on the grid of the images.
        prediction: region to mask; None where there is none.
        affine: ``(4, 4)``, of that grid.
        mm: side of the voxels wanted; voxels of the scan that are larger stay as they are.

    Raises:
        ValueError: no image is given, or there are more than 15 regions.
    """
    if not images or len(reference) > 15:
        raise ValueError(
            f"case_volume takes at least one image and at most 15 regions, got {len(images)} and {len(reference)}"
        )
    scans = {name: np.nan_to_num(np.asarray(image, np.float32)) for name, image in images.items()}
    shape = next(iter(scans.values())).shape
    sides = [reference, prediction or {}]
    sizes = {name: sum(int(side[name].sum()) for side in sides if name in side) for name in reference}
    regions = tuple(sorted(reference, key=lambda name: -sizes[name]))
    levels = _levels(reference, regions, shape) + 16 * _levels(prediction or {}, regions, shape)

    windows = {name: grey_window(image) for name, image in scans.items()}
    scans = {name: _ras(image, affine)[0] for name, image in scans.items()}
    levels, turned_affine = _ras(levels, affine)
    box = head_box(list(scans.values()), [levels > 0])
    levels = levels[box]
    spacing = np.linalg.norm(turned_affine[:3, :3], axis=0)
    factors = tuple(max(1, int(mm / side + 0.01)) for side in spacing)
    start = [part.start + (factor - 1) / 2 for part, factor in zip(box, factors, strict=True)]
    step = np.diag([*factors, 1.0])
    step[:3, 3] = start

    def packed(name: str) -> bytes:
        low, high = windows[name]
        grey = np.clip((_blocks(scans[name][box], factors) - low) / ((high - low) or 1), 0, 1)
        levels_of_grey = np.round(grey * (GREYS - 1)) * (255 // (GREYS - 1))
        return _nifti(levels_of_grey.astype(np.uint8), turned_affine @ step)

    expected, guessed = _coarser(levels % 16, factors), _coarser(levels // 16, factors)
    tumour = expected if expected.any() else guessed
    return CaseVolume(
        images={name: packed(name) for name in scans},
        labels=_nifti(expected + 16 * guessed, turned_affine @ step),
        regions=regions,
        place=places_of(tumour > 0),
        mm=float(max(side * factor for side, factor in zip(spacing, factors, strict=True))),
        predicted=prediction is not None,
    )
