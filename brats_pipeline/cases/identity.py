"""Patients under two names: cases that are the same scan, within a cohort or across cohorts.

The public collections overlap: Task01 of the Decathlon is BraTS 2016 and 2017 renamed, each BraTS holds most of the one
before, and the LGG slices and BraTS share patients of The Cancer Genome Atlas. A network must not be tested on a
patient it was trained on, so these are found by their voxels: by hash where nothing but the name, the orientation, the
padding or the label convention changed, and by the likeness of small pictures where the voxels were changed too.
"""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from scipy.ndimage import binary_erosion, gaussian_filter

from brats_pipeline.cases.case import Case
from brats_pipeline.cases.layouts import institution_of
from brats_pipeline.cases.volumes import Volume, read_volumes
from brats_pipeline.errors import PipelineError
from transforms.labels import MODALITIES

logger = logging.getLogger(__name__)

SIDE = 32
"""Voxels a side of the small pictures."""
BLUR = 4.0
"""A voxel of a picture is compared with the tissue around it, weighted by a Gaussian of so many voxels."""
LIKENESS = 0.75
"""Pictures that correlate so well show one patient.

Measured on the FLAIR images of 10 BraTS and 58 LGG patients, 2278 pairs: different patients reach 0.36 at most, and
five standard deviations above the mean of BraTS patients lie at 0.50 (Fisher's z); phantoms, which share one anatomy,
reach 0.64. The same scan keeps 0.88 or more under 1 % noise, 0.86 after z-scores, 0.88 with two voxels of its rim gone,
0.84 at half the resolution, and 0.71-0.88 when turned by 3 degrees; turned by 8 degrees (0.42-0.69) it is lost.
"""
PICTURED = ("flair", "t1c", "t2", "t1")
"""The first of these that a case has is the one pictured."""
SMALLEST_MASK = 50
"""Masks of fewer voxels may be equal by chance once they are cut out."""
BRIGHT = 0.15
"""A voxel is bright above this share of the way from the background to the brightest tissue."""
BRIGHT_PLANE = 0.02
"""Planes with fewer bright voxels than this share of those in the fullest plane lie outside the picture."""
_ROWS = 256

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Shared:
    """Two cases of one patient.

    Args:
        first: case id.
        second: case id, later in the alphabet.
        reason: how it shows, in words.
    """

    first: str
    second: str
    reason: str


@dataclass
class _Traits:
    """What two cases are compared by."""

    label: str | None = None
    images: dict[str, str] = field(default_factory=dict)
    pictured: str | None = None
    picture: Array | None = None


def _upright(volume: Volume) -> Array:
    """The voxels with their axes growing to the left, back and top, as BraTS stores them; slices as they are."""
    if volume.affine is None:
        return volume.values
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(volume.affine), nib.orientations.axcodes2ornt(("L", "P", "S"))
    )
    upright: Array = nib.orientations.apply_orientation(volume.values, turn)
    return upright


def _span(inside: Array) -> slice:
    places = np.flatnonzero(inside)
    return slice(int(places[0]), int(places[-1]) + 1)


def _tight_box(mask: Array) -> tuple[slice, slice, slice]:
    """The smallest box that holds all that is set."""
    # The first axis is the fastest in memory, so that each of these reads it in one stream.
    front, side = np.any(mask, axis=0), np.any(mask, axis=2)
    return _span(np.any(side, axis=1)), _span(np.any(front, axis=1)), _span(np.any(front, axis=0))


def _bright_box(mask: Array, share: float) -> tuple[slice, ...]:
    """The planes along each axis in which more voxels are set than a share of those in the fullest plane."""
    planes = [mask.sum(axis=tuple(other for other in range(3) if other != axis)) for axis in range(3)]
    return tuple(_span(counts > share * counts.max()) for counts in planes)


def _smallest_type(values: Array) -> Array:
    """The same values in the first type that holds them exactly, so that a file's own type does not matter."""
    for kind in (np.int16, np.int32):
        if values.dtype.kind in "biu" and np.can_cast(values.dtype, kind):
            return values.astype(kind, copy=False)
        with np.errstate(invalid="ignore"):
            cast = values.astype(kind)
        if np.array_equal(cast, values):
            return cast
    return values.astype(np.float32)


def _digest(values: Array) -> str:
    # A NIfTI file holds its first axis fastest: transposed, its voxels lie in a row.
    content = np.ascontiguousarray(_smallest_type(values).T)
    digest = hashlib.sha256(repr(content.shape).encode())
    digest.update(content.data)
    return digest.hexdigest()


def _shares(length: int) -> npt.NDArray[np.float32]:
    """Matrix ``(SIDE, length)`` that averages an axis into :data:`SIDE` parts of equal width."""
    edges = np.linspace(0, length, SIDE + 1)[:, None]
    covered = np.clip(np.arange(length)[None] + 1, edges[:-1], edges[1:]) - np.clip(
        np.arange(length)[None], edges[:-1], edges[1:]
    )
    return (covered * SIDE / length).astype(np.float32)


def _picture(values: Array) -> Array | None:
    """A small picture of the head, normalised so that a product of two is their correlation; None without contrast."""
    steps = tuple(slice(None, None, max(1, side // 100)) for side in values.shape)
    sample = np.nan_to_num(values[steps].astype(np.float32))
    empty = None
    tissue = np.count_nonzero(sample)
    if tissue < 0.7 * sample.size and np.count_nonzero(sample < 0) > 0.2 * tissue:
        # A normalised scan before zeros: its background is put back below its tissue.
        empty = np.percentile(sample[sample != 0], 1)
        sample = np.where(sample == 0, empty, sample)
    low = np.percentile(sample, 5)
    high = np.percentile(sample[sample >= sample.mean()], 99)
    mask = sample > low + BRIGHT * (high - low)
    if not mask.any():
        return None
    box = tuple(
        slice(span.start * step.step, span.stop * step.step)
        for span, step in zip(_bright_box(mask, BRIGHT_PLANE), steps, strict=True)
    )
    small: Array = np.ascontiguousarray(np.nan_to_num(values[box]).T, dtype=np.float32)
    if empty is not None:
        small = np.where(small == 0, empty, small)
    small = np.clip(small, low, high)
    z, y, x = small.shape
    small = (_shares(z) @ (_shares(y) @ (small @ _shares(x).T)).reshape(z, -1)).reshape((SIDE,) * 3)
    # Heads have much the same outline: what counts is how a voxel differs from the tissue around it, inside. Voxels of
    # the rim are part background and tell the outline again.
    inside = binary_erosion(small > low + BRIGHT * (high - low)).astype(np.float32)
    around = gaussian_filter(small * inside, BLUR) / np.maximum(gaussian_filter(inside, BLUR), 1e-6)
    small = (small - around) * inside
    small -= small.mean()
    length = float(np.linalg.norm(small))
    return (small / length).ravel().astype(np.float32) if length > 0 else None


def _read(case: Case) -> _Traits:
    """Traits of one case; a file that cannot be read has none, and `inspect` names the defect."""
    traits = _Traits()
    wanted = next((name for name in PICTURED if name in case.images), None)
    for name, volume in read_volumes(case, [*MODALITIES, "label"]):
        if isinstance(volume, PipelineError) or volume.values.ndim != 3 or volume.values.dtype.kind not in "biuf":
            logger.info("%s: %s takes no part in the search for shared patients", case.case_id, name)
            continue
        try:
            values = _upright(volume)
        except ValueError:  # an affine that tells no axes
            values = volume.values
        mask = values != 0
        number = np.count_nonzero(mask)
        if not number or (name == "label" and number < SMALLEST_MASK):
            continue
        box = _tight_box(mask)
        if name == "label":
            # Conventions differ in the numbers; what is marked at all is the same in every one.
            traits.label = _digest(mask[box])
        elif values[box].min() < values[box].max():
            traits.images[name] = _digest(values[box])
            if name == wanted:
                traits.pictured, traits.picture = name, _picture(values)
    return traits


def _equal(traits: Mapping[str, _Traits]) -> dict[tuple[str, str], list[str]]:
    """Pairs with equal label maps or images, and the names of these."""
    holders: dict[tuple[str, str], list[str]] = defaultdict(list)
    for case_id, own in traits.items():
        for name, digest in [*own.images.items(), *([("label map", own.label)] if own.label else [])]:
            holders[name, digest].append(case_id)
    pairs: dict[tuple[str, str], list[str]] = defaultdict(list)
    for (name, _), case_ids in holders.items():
        for pair in combinations(case_ids, 2):
            pairs[pair].append(name)
    return pairs


def _alike(traits: Mapping[str, _Traits]) -> dict[tuple[str, str], tuple[str, float]]:
    """Pairs whose pictures correlate by :data:`LIKENESS` or more: the modality pictured, and the correlation."""
    found = {}
    for modality in PICTURED:
        names = [case_id for case_id, own in traits.items() if own.pictured == modality and own.picture is not None]
        if len(names) < 2:
            continue
        pictures = np.stack([traits[name].picture for name in names])  # type: ignore[misc]
        for start in range(0, len(names), _ROWS):  # so that the products of a large cohort fit
            rows = pictures[start : start + _ROWS] @ pictures.T
            for row, column in np.argwhere(rows >= LIKENESS).tolist():
                if start + row < column:
                    found[names[start + row], names[column]] = modality, float(rows[row, column])
    return found


def find_shared(
    cases: Sequence[Case], *, workers: int = 2, on_case: Callable[[str], None] | None = None
) -> list[Shared]:
    """Find the pairs of cases that are one patient although their names do not say so.

    Equal label maps, equal images, and images that look alike (:data:`LIKENESS`); between collections, also the same
    barcode of The Cancer Genome Atlas. Orientation, padding with zeros and label convention make no difference.

    Args:
        cases: of one cohort or of several.
        workers: cases read at a time.
        on_case: called with the id of each case that was read.

    Returns:
        The pairs, sorted; files that cannot be read find nobody.
    """
    ordered = sorted(cases, key=lambda case: case.case_id)
    traits: dict[str, _Traits] = {}
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for case, own in zip(ordered, pool.map(_read, ordered), strict=True):
            traits[case.case_id] = own
            if on_case:
                on_case(case.case_id)
    reasons: dict[tuple[str, str], list[str]] = defaultdict(list)
    for pair, names in _equal(traits).items():
        reasons[pair].append(f"equal {', '.join(names)}")
    for pair, (modality, likeness) in _alike(traits).items():
        if pair not in reasons:
            reasons[pair].append(f"{modality} images look alike (correlation {likeness:.3f})")
    barcodes: dict[str, list[Case]] = defaultdict(list)
    for case in ordered:
        if institution_of(case.patient_id):
            barcodes[case.patient_id].append(case)
    for patient, named in barcodes.items():
        for one, other in combinations(named, 2):
            if one.layout != other.layout:
                reasons[one.case_id, other.case_id].append(f"both named {patient}")
    return [Shared(*pair, "; ".join(why)) for pair, why in sorted(reasons.items())]
