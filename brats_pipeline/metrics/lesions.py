"""Lesions one by one: told apart, matched and scored as the official BraTS scripts of 2023 and 2024 do it.

A lesion of the reference is what meets when dilated. Since dilation distributes over unions, a lesion's own dilation is
the very component of the dilated mask that it lies in: one labelling of the dilated mask gives the lesions and their
match zones, and two tables of voxel counts (zone against predicted component, lesion against predicted component) give
every match and every Dice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import cc3d
import numpy as np
import numpy.typing as npt

from brats_pipeline.metrics.distances import SurfacePair, normalised_surface_dice, robust_hausdorff_mm
from brats_pipeline.metrics.rules import LesionRules
from brats_pipeline.metrics.surface import Mask
from transforms.components import box_around

Numbers = npt.NDArray[np.int32]
"""A map of components: 0 outside, their numbers inside."""


@dataclass(frozen=True, slots=True)
class LesionScore:
    """One row of ``lesions.csv``: a lesion of the reference, or a predicted one without a counterpart.

    Args:
        case_id: the case.
        region: its region.
        lesion: its number; false positives are numbered after the reference's lesions.
        kind: ``tp`` found, ``fn`` missed, ``fp`` predicted where there is none.
        counted: whether it enters the lesion-wise scores; lesions at or below the rules' volume do not.
        reference_ml: its volume in the reference.
        predicted_ml: volume of all predicted lesions that it is scored against.
        dice: of this lesion; 0 where missed or invented.
        hd95_mm: of this lesion; the rules' penalty where missed or invented.
        predicted_lesions: how many predicted lesions it is scored against.
        nsd_voxel_0p5mm: voxel-surface NSD under the rules of 2024, else None.
        nsd_voxel_1mm: likewise.
    """

    case_id: str
    region: str
    lesion: int
    kind: str
    counted: bool
    reference_ml: float
    predicted_ml: float
    dice: float
    hd95_mm: float
    predicted_lesions: int
    nsd_voxel_0p5mm: float | None = None
    nsd_voxel_1mm: float | None = None


LESION_COLUMNS = tuple(field.name for field in fields(LesionScore))
"""Columns of ``lesions.csv`` under rules with a voxel NSD; see :func:`lesion_columns`."""


def lesion_columns(rules: LesionRules) -> tuple[str, ...]:
    """Columns of ``lesions.csv`` under these rules."""
    return LESION_COLUMNS if rules.nsd_voxel_mm else LESION_COLUMNS[:-2]


def dilated(mask: Mask, steps: int) -> Mask:
    """Dilate by the 18-neighbourhood (faces and edges), ``steps`` times; what would leave the array is lost.

    The neighbourhood is the union of three 3 x 3 squares, one in each plane, and a square is two lines, which makes
    twelve passes of a step.
    """

    def along(axis: int, part: Mask) -> Mask:
        wide = part.copy()
        low, high = (tuple(cut if other == axis else slice(None) for other in range(3)) for cut in _SHIFTS)
        wide[low] |= part[high]
        wide[high] |= part[low]
        return wide

    for _ in range(steps):
        x, y = along(0, mask), along(1, mask)
        mask = along(1, x)
        mask |= along(2, x)
        mask |= along(2, y)
    return mask


_SHIFTS = (slice(None, -1), slice(1, None))


def components(mask: Mask) -> Numbers:
    """Number the 26-connected components in the order of their first voxels."""
    sides = mask.shape
    if not mask.size:
        return np.zeros(sides, np.int32)
    # 2026-11: of truth values cc3d 4.1 at times reserves too little room, and fails; of bytes it never did.
    volume = np.ascontiguousarray(mask, dtype=bool).view(np.uint8)
    numbers = cc3d.connected_components(volume, connectivity=26, out_dtype=np.uint32)
    return numbers.view(np.int32)


def numbered(mask: Mask, *, steps: int) -> tuple[Numbers, Numbers]:
    """Number the parts of a mask that meet when dilated.

    Returns:
        The lesions, and their dilations by the same numbers.
    """
    zones = np.zeros(mask.shape, np.int32)
    inner = box_around(mask)
    box = tuple(
        slice(max(0, side.start - steps), min(length, side.stop + steps))
        for side, length in zip(inner, mask.shape, strict=True)
    )
    if mask.any():
        zones[box] = components(dilated(mask[box], steps))
    return np.where(mask, zones, 0), zones


def touching(lesions: Numbers, others: Numbers) -> list[tuple[int, int]]:
    """Pairs of lesions of two regions that are neighbours (18), sorted; the regions share no voxel."""
    pairs: set[tuple[int, int]] = set()
    for step in _NEIGHBOURS:
        here = tuple(slice(max(0, -move), min(0, -move) or None) for move in step)
        there = tuple(slice(max(0, move), min(0, move) or None) for move in step)
        a, b = lesions[here], others[there]
        both = (a > 0) & (b > 0)
        if both.any():
            found = np.unique(np.stack((a[both], b[both]), axis=1), axis=0)
            pairs.update((int(one), int(other)) for one, other in found)
    return sorted(pairs)


_NEIGHBOURS = tuple(
    (x, y, z) for x in (-1, 0, 1) for y in (-1, 0, 1) for z in (-1, 0, 1) if 0 < abs(x) + abs(y) + abs(z) < 3
)


def joined_across(lesions: Numbers, others: Sequence[Numbers]) -> npt.NDArray[np.int32]:
    """New numbers for lesions, one for all that touch the same lesion of another tissue; by old number, 0 for 0.

    As the official code of 2024 does it, oddities included: a lesion follows the lowest-numbered neighbour alone, so
    that a chain stays in pieces; the other tissues are taken one after the other, each on the outcome of the one
    before; and where only one pair touches nothing is renumbered, which changes no score. The official code goes
    through all tissues twice; the second time starts from the same maps and gives the same.
    """
    new = np.arange(int(lesions.max(initial=0)) + 1, dtype=np.int32)
    for other in others:
        pairs = touching(new[lesions], other)
        if len(pairs) < 2:
            continue
        # Numbers above all that are in use: first come the neighbours' order, then each lesion's first neighbour.
        place = {neighbour: new.max() + 1 + rank for rank, neighbour in enumerate(dict.fromkeys(b for _, b in pairs))}
        follows: dict[int, int] = {}
        for lesion, neighbour in pairs:
            follows.setdefault(lesion, int(place[neighbour]))
        new = np.array([follows.get(int(number), int(number)) for number in new], np.int32)
    used = np.unique(new[new > 0])
    return np.searchsorted(used, new).astype(np.int32) + (new > 0)


@dataclass(frozen=True)
class Lesions:
    """The lesions of one region of one side.

    Args:
        numbers: of each voxel's lesion, counted from 1; 0 outside.
        zones: numbers of the lesions' dilations, likewise; of a prediction, whose zones nobody asks for, the same map.
        sizes: voxels of each lesion, by number; 0 for 0.
    """

    numbers: Numbers
    zones: Numbers
    sizes: npt.NDArray[np.int64]


def _lesions(numbers: Numbers, zones: Numbers, new: npt.NDArray[np.int32] | None = None) -> Lesions:
    if new is not None:
        numbers, zones = new[numbers], new[zones]
    sizes = np.bincount(numbers[numbers > 0], minlength=int(numbers.max(initial=0)) + 1)
    return Lesions(numbers, zones, sizes)


def find_lesions(
    masks: Mapping[str, Mask], region: str, rules: LesionRules, *, predicted: bool, voxel_mm3: float
) -> Lesions:
    """Tell the lesions of a region of one side apart.

    Args:
        masks: region to mask, ``(x, y, z)``: the region's own, and those of :func:`tissues_beside` it.
        region: the one wanted.
        rules: how.
        predicted: whether this is the prediction.
        voxel_mm3: volume of a voxel.
    """
    if predicted and not rules.merged_predictions:
        numbers = components(masks[region])
        return _lesions(numbers, numbers)

    def parts(name: str) -> tuple[Numbers, Numbers]:
        numbers, zones = numbered(masks[name], steps=rules.steps(name))
        if not predicted or rules.small_predictions == "none":
            return numbers, zones
        # The official code compares a number of voxels with a threshold in mm3; radiotherapy meningiomas excepted.
        limit = rules.smallest_mm3(name) / (voxel_mm3 if rules.small_predictions == "mm3" else 1.0)
        kept = np.bincount(numbers.ravel(), minlength=1) > limit
        numbers = np.where(kept[numbers], numbers, 0)
        return numbers, numbers

    others = [parts(other)[0] for other in tissues_beside(region, rules)]
    numbers, zones = parts(region)
    return _lesions(numbers, zones, joined_across(numbers, others) if others else None)


def tissues_beside(region: str, rules: LesionRules | None) -> tuple[str, ...]:
    """Other regions that decide what one lesion of this region is."""
    return dict(rules.tissues).get(region, ()) if rules else ()


@dataclass(frozen=True)
class LesionWise:
    """What the lesions of one region come to; the fields of a case's row."""

    dice: float
    hd95_mm: float
    tp: int
    fp: int
    fn: int
    nsd_voxel: Mapping[float, float]


def overlaps(first: Numbers, second: Numbers) -> npt.NDArray[np.int64]:
    """Voxels by number in the first and in the second map."""
    rows, columns = int(first.max(initial=0)) + 1, int(second.max(initial=0)) + 1
    both = np.flatnonzero((first > 0) & (second > 0))
    cells = first.ravel()[both].astype(np.int64) * columns + second.ravel()[both]
    return np.bincount(cells, minlength=rows * columns).reshape(rows, columns)


def score_lesions(
    prediction: Lesions,
    reference: Lesions,
    pair: SurfacePair,
    voxels: SurfacePair | None,
    *,
    case_id: str,
    region: str,
    rules: LesionRules,
    percentile: float,
    spacing_mm: tuple[float, ...],
    penalty: float,
) -> tuple[LesionWise, list[LesionScore]]:
    """Match the lesions of a region and score each.

    Args:
        prediction: its predicted lesions.
        reference: its lesions.
        pair: the surfaces of both sides, labelled by lesion.
        voxels: likewise by border voxels, for the voxel NSD; None without one.
        case_id: goes into each row.
        region: goes into each row.
        rules: of lesions.
        percentile: of HD95.
        spacing_mm: voxel side along each axis.
        penalty: distance of a missed or invented lesion.

    Returns:
        The scores of the region, and one row per lesion.
    """
    voxel_mm3 = math.prod(spacing_mm)
    matched = overlaps(reference.zones, prediction.numbers) > 0
    shared = overlaps(reference.numbers, prediction.numbers)
    rows = []
    for number in range(1, len(reference.sizes)):
        partners = matched[number]
        size, partner_size = int(reference.sizes[number]), int(prediction.sizes[partners].sum())
        near = dict.fromkeys(rules.nsd_voxel_mm, 0.0)
        dice, hd95 = 0.0, penalty
        if partner_size:
            own = np.arange(len(reference.sizes)) == number
            dice = 2 * int(shared[number, partners].sum()) / (size + partner_size)
            hd95 = robust_hausdorff_mm(pair.between(own, partners), percentile=percentile)
            if voxels is not None:
                distances = voxels.between(own, partners)
                for tolerance in near:
                    near[tolerance] = normalised_surface_dice(distances, tolerance_mm=tolerance, definition="voxels")
        rows.append(
            LesionScore(
                case_id,
                region,
                number,
                "tp" if partner_size else "fn",
                size * voxel_mm3 > rules.smallest_mm3(region),
                size * voxel_mm3 / 1000,
                partner_size * voxel_mm3 / 1000,
                dice,
                hd95,
                int(partners.sum()),
                *near.values(),
            )
        )
    alone = [int(number) for number in np.flatnonzero(prediction.sizes) if not matched[:, number].any()]
    for place, number in enumerate(alone):
        volume_ml = int(prediction.sizes[number]) * voxel_mm3 / 1000
        zeros = (0.0 for _ in rules.nsd_voxel_mm)
        lesion = len(reference.sizes) + place
        rows.append(
            LesionScore(case_id, region, lesion, "fp", rules.false_positives, 0.0, volume_ml, 0.0, penalty, 1, *zeros)
        )
    return average_lesions(rows, rules), rows


def average_lesions(rows: Sequence[LesionScore], rules: LesionRules) -> LesionWise:
    """Average the rows of one region of one case."""
    counted = [row for row in rows if row.counted]

    def mean(values: Sequence[float], nothing: float) -> float:
        return sum(values) / len(values) if values else nothing

    columns = {0.5: "nsd_voxel_0p5mm", 1.0: "nsd_voxel_1mm"}
    return LesionWise(
        dice=mean([row.dice for row in counted], 1.0),
        hd95_mm=mean([row.hd95_mm for row in counted], 0.0),
        tp=sum(row.kind == "tp" for row in counted),
        fp=sum(row.kind == "fp" for row in rows),
        fn=sum(row.kind == "fn" for row in counted),
        nsd_voxel={
            tolerance: mean([getattr(row, columns[tolerance]) for row in counted], 1.0)
            for tolerance in rules.nsd_voxel_mm
        },
    )
