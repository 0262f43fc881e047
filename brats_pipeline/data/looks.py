"""What a prepared scan looks like, in a few numbers: size, background, grey values, how well its images lie on another.

Only a grid of some 40 samples along each axis is looked at, which takes some hundredths of a second. No torch.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Pair = tuple[str, str]

SAMPLES = 40
"""Along each axis, about."""
LEVELS = 32
"""Grey values of equal frequency that mutual information is counted with."""
QUANTILES = np.concatenate([[0.005], np.arange(1, LEVELS) / LEVELS, [0.995]])
"""Of the voxels that are not zero."""
MOVED = 0.06
"""How far an image is moved to see whether it lay better there: this share of the head, some 9 mm."""
LEAST_SAMPLES = 16
"""Along an axis that images are moved along."""
LEAST_BITS = 0.01
"""Less mutual information than this is none."""


@dataclass(frozen=True)
class Look:
    """What one scan looks like.

    Args:
        spacing_mm: voxel sides of its files towards left, posterior, superior; empty where they carry none.
        extent_mm: of the box around everything that is not zero, along the same axes; empty where voxels have no size.
        zeros: share of that box that is exactly zero in every image.
        quantiles: modality to its normalised grey values at :data:`QUANTILES`; those that are missing are left out.
        information: two modalities, in the order of the tensor, to their mutual information in bits.
        moved: modality to how much of its information with the one that knows most of it is there after a move by
            :data:`MOVED`, at best. Images that lie on each other have less after any move; above 1 they lay better.
    """

    spacing_mm: tuple[float, ...]
    extent_mm: tuple[float, ...]
    zeros: float
    quantiles: Mapping[str, Array] = field(default_factory=dict)
    information: Mapping[Pair, float] = field(default_factory=dict)
    moved: Mapping[str, float] = field(default_factory=dict)


def sampled(image: Any) -> tuple[Any, tuple[int, ...]]:
    """``(C, x, y, z)`` at about :data:`SAMPLES` places along each axis, and the steps between them in voxels."""
    steps = tuple(max(1, side // SAMPLES) for side in image.shape[1:])
    return image[(slice(None), *(slice(None, None, step) for step in steps))], steps


def look_at(
    samples: Array,
    steps: Sequence[int],
    *,
    modalities: Sequence[str],
    voxel_mm: Sequence[float] | None,
    file_spacing_mm: Sequence[float] = (),
) -> Look | None:
    """Describe a scan.

    Args:
        samples: ``(C, x, y, z)``, normalised, 0 where there is nothing; axes towards left, posterior, superior.
        steps: voxels from one sample to the next along each axis.
        modalities: of the channels. A channel of zeros is a modality that is missing.
        voxel_mm: sides of the voxels; None where they have no size.
        file_spacing_mm: voxel sides of the files, along the same axes.

    Returns:
        None where everything is zero.
    """
    inside = samples != 0
    somewhere = inside.any(axis=0)
    lines = [np.flatnonzero(somewhere.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    if not lines[0].size:
        return None
    box = tuple(slice(int(line[0]), int(line[-1]) + 1) for line in lines)
    counts = [part.stop - part.start for part in box]
    samples, inside = samples[(slice(None), *box)], inside[(slice(None), *box)]
    quantiles, ranks = {}, {}
    for name, channel, there in zip(modalities, samples, inside, strict=True):
        if there.any():
            quantiles[name] = np.quantile(channel[there], QUANTILES)
            ranks[name] = np.searchsorted(quantiles[name][1:-1], channel, side="right").astype(np.int16)
    masks = dict(zip(modalities, inside, strict=True))
    information = {
        (one, other): _information(ranks[one], ranks[other], masks[one] & masks[other])
        for one, other in itertools.combinations(ranks, 2)
    }
    shifts = [(axis, way * max(1, round(MOVED * count))) for axis, count in enumerate(counts) for way in (-1, 1)]
    shifts = [(axis, shift) for axis, shift in shifts if counts[axis] >= LEAST_SAMPLES]
    sides = () if voxel_mm is None else tuple(n * s * mm for n, s, mm in zip(counts, steps, voxel_mm, strict=True))
    return Look(
        spacing_mm=tuple(map(float, file_spacing_mm)),
        extent_mm=tuple(map(float, sides)),
        zeros=float(1 - somewhere[box].mean()),
        quantiles=quantiles,
        information=information,
        moved=_moved(ranks, masks, information, shifts),
    )


def _information(one: Array, other: Array, where: Array) -> float:
    """Mutual information in bits of two images of ranks, over a mask."""
    joint = np.bincount(one[where].astype(np.intp) * LEVELS + other[where], minlength=LEVELS**2)
    share = joint.reshape(LEVELS, LEVELS) / max(1, joint.sum())
    alone = np.outer(share.sum(axis=1), share.sum(axis=0))
    filled = share > 0
    return float((share[filled] * np.log2(share[filled] / alone[filled])).sum())


def _moved(
    ranks: Mapping[str, Array],
    masks: Mapping[str, Array],
    information: Mapping[Pair, float],
    shifts: Sequence[tuple[int, int]],
) -> dict[str, float]:
    """For each modality the share of information that is left after the best move, see :class:`Look`."""
    found: dict[Pair, float] = {}
    moved = {}
    for name in ranks:
        shared = {pair: bits for pair, bits in information.items() if name in pair}
        if not shared or not shifts:
            continue
        one, other = pair = max(shared, key=lambda each: shared[each])
        if pair not in found:
            best = 0.0
            for axis, shift in shifts:
                here, there = _overlap(ranks[one].ndim, axis, shift)
                both = masks[one][here] & masks[other][there]
                best = max(best, _information(ranks[one][here], ranks[other][there], both))
            found[pair] = best / max(LEAST_BITS, shared[pair])
        moved[name] = found[pair]
    return moved


def _overlap(axes: int, axis: int, shift: int) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
    """What two arrays of one shape have in common once the second is moved along an axis."""
    here, there = [slice(None)] * axes, [slice(None)] * axes
    here[axis] = slice(shift, None) if shift > 0 else slice(None, shift)
    there[axis] = slice(None, -shift) if shift > 0 else slice(-shift, None)
    return tuple(here), tuple(there)
