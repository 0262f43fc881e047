"""Fingerprint of a cohort: what its scans are like, and every defect by name. Defects are data here, not exceptions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from brats_pipeline.cases import Case, case_list_sha256, listing_defects, missing_modalities, settle_conventions
from brats_pipeline.cases.conventions import LabelCount, count_values, volume_of_voxel_ml
from brats_pipeline.cases.decathlon import missing_files
from brats_pipeline.cases.integrity import Grid, grid_defects, has_usable_grid, read_grid, slice_defects
from brats_pipeline.cases.layouts import modalities_of
from brats_pipeline.cases.stacks import is_stack, twin_defect
from brats_pipeline.cases.volumes import channel_defect, copied_modalities, file_notes, read_volumes
from brats_pipeline.errors import CaseError, PipelineError
from transforms.contrast import image_defects
from transforms.labels import MODALITIES, TABLE_ORDER, convention
from transforms.nifti import orientation, spacing_mm

SCHEMA_VERSION = 1
PERCENTILES = (1, 25, 50, 75, 99)
"""Of the nonzero voxels: the background of skull-stripped scans is 0."""
BRIGHT_SHARE = 0.1
"""Slices show the whole head before a background that is not 0: their percentiles are those of the voxels above this
share of the volume's maximum."""


@dataclass(frozen=True)
class CaseFingerprint:
    """What one case is like.

    Args:
        case_id: as in :class:`Case`; so are ``patient_id``, ``layout``, ``convention``.
        modalities: those that the case has.
        has_label: whether there is a label map.
        shape: voxels along each axis of the first image that can be read.
        spacing_mm: its voxel sides; empty for slices, which carry no voxel size.
        orientation: direction in which its axes grow, such as ``"LPS"``; empty for slices.
        labels_voxels: label value to number of voxels, background left out.
        labels_ml: the same as volumes; empty for slices.
        regions_voxels: region to number of voxels; empty without a label map or its convention.
        regions_ml: the same as volumes; empty for slices.
        intensities: modality to ``{"p1": ..., "p99": ...}`` over the nonzero voxels, or over the bright ones
            (:data:`BRIGHT_SHARE`) of slices.
        copied: modalities that equal another one bit for bit.
        defects: one sentence each.
        notes: what is worth knowing and no defect, one sentence each.
    """

    case_id: str
    patient_id: str
    layout: str
    convention: str | None
    modalities: tuple[str, ...]
    has_label: bool
    shape: tuple[int, ...] = ()
    spacing_mm: tuple[float, ...] = ()
    orientation: str = ""
    labels_voxels: Mapping[int, int] = field(default_factory=dict)
    labels_ml: Mapping[int, float] = field(default_factory=dict)
    regions_voxels: Mapping[str, int] = field(default_factory=dict)
    regions_ml: Mapping[str, float] = field(default_factory=dict)
    intensities: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    copied: tuple[str, ...] = ()
    defects: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def _joined(numbers: Sequence[float]) -> str:
    """``(240, 240, 155)`` to ``"240x240x155"``, rounded as a person reads spacings."""
    return "x".join(f"{number:.4g}" for number in numbers)


@dataclass(frozen=True)
class Fingerprint:
    """What a cohort is like.

    Args:
        cases: sorted by case id.
    """

    cases: tuple[CaseFingerprint, ...]

    @property
    def defects(self) -> dict[str, tuple[str, ...]]:
        """Case id to its defects, sound cases left out."""
        return {case.case_id: case.defects for case in self.cases if case.defects}

    @property
    def notes(self) -> dict[str, tuple[str, ...]]:
        """Case id to its notes, cases without any left out."""
        return {case.case_id: case.notes for case in self.cases if case.notes}

    def cohort(self) -> dict[str, Any]:
        """Counts and spreads over all cases, as JSON-able values."""

        def counts(names: Iterator[str | None]) -> dict[str, int]:
            return dict(Counter(name or "none" for name in names).most_common())

        def spreads(held: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
            regions = {region for sizes in held for region in sizes}
            order = sorted(regions, key=(*TABLE_ORDER, *sorted(regions)).index)
            return {region: _spread([sizes[region] for sizes in held if region in sizes]) for region in order}

        return {
            "cases": len(self.cases),
            "patients": len({case.patient_id for case in self.cases}),
            "labelled": sum(case.has_label for case in self.cases),
            "with_defects": len(self.defects),
            "layouts": counts(case.layout for case in self.cases),
            "conventions": counts(case.convention for case in self.cases),
            "shapes": counts(_joined(case.shape) for case in self.cases),
            "spacings_mm": counts(_joined(case.spacing_mm) for case in self.cases),
            "orientations": counts(case.orientation for case in self.cases),
            "regions_ml": spreads([case.regions_ml for case in self.cases]),
            "regions_voxels": spreads([case.regions_voxels for case in self.cases if not case.spacing_mm]),
            "with_copied_modalities": sum(bool(case.copied) for case in self.cases),
            "intensity_medians": {
                modality: _spread(
                    [case.intensities[modality]["p50"] for case in self.cases if modality in case.intensities]
                )
                for modality in MODALITIES
                if any(modality in case.intensities for case in self.cases)
            },
            "case_list_sha256": case_list_sha256(case.case_id for case in self.cases),
        }

    def to_json(self) -> str:
        """The whole fingerprint as a JSON document."""
        document = {
            "schema_version": SCHEMA_VERSION,
            "percentiles_of": f"nonzero voxels; of slices, voxels above {BRIGHT_SHARE:g} of the maximum",
            "cohort": self.cohort(),
            "cases": [vars(case) for case in self.cases],
        }
        return json.dumps(document, indent=2, allow_nan=False) + "\n"

    def rows(self) -> list[dict[str, str | int | float | None]]:
        """One row of plain values per case, for a table.

        Sizes are None where there is no label map, and those in ml where voxels have no size.
        """
        return [
            {
                "case_id": case.case_id,
                "patient_id": case.patient_id,
                "layout": case.layout,
                "convention": case.convention,
                "modalities": " ".join(case.modalities),
                "shape": _joined(case.shape),
                "spacing_mm": _joined(case.spacing_mm),
                "orientation": case.orientation,
                "labels": " ".join(map(str, case.labels_voxels)),
                **{f"{region}_ml": case.regions_ml.get(region) for region in TABLE_ORDER},
                **{f"{region}_voxels": case.regions_voxels.get(region) for region in TABLE_ORDER},
                "copied": " ".join(case.copied),
                "defects": len(case.defects),
            }
            for case in self.cases
        ]


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"min": min(values), "median": float(np.median(values)), "max": max(values)}


def _missing(case: Case, wanted: Sequence[str]) -> list[str]:
    missing = missing_modalities(case, wanted)
    if not case.images:
        return ["label map without any image"]
    return [f"missing modality {', '.join(missing)} (there are {', '.join(case.images)})"] if missing else []


def _stack_header_defects(case: Case) -> tuple[list[str], list[str]]:
    """Defects that the headers of slices and of masks show; none for cases that are no slices."""
    source = next(iter(case.images.values()), None)
    images: list[str] = []
    masks: list[str] = []
    sizes: set[tuple[int, int]] = set()
    if source is not None and is_stack(source):
        images, sizes = slice_defects("slice", source.paths, ["RGB"])
    if case.label is not None and is_stack(case.label):
        masks, mask_sizes = slice_defects("mask", case.label.paths, ["L", "1"])
        if not images and not masks and sizes and sizes != mask_sizes:
            (width, height), (mask_width, mask_height) = *sizes, *mask_sizes
            masks.append(
                f"masks of {mask_width}x{mask_height} for slices of {width}x{height}; they must be of one size"
            )
    return images, masks


def _file_defects(case: Case, wanted: Sequence[str]) -> tuple[list[str], list[str]]:
    """Defects of the files as they lie, and the names of the images, ``"label"`` among them, that can be decoded."""
    absent = set(missing_files(case))
    images, masks = _stack_header_defects(case)
    sources = {name: source for name, source in case.images.items() if name in wanted and not images}
    if case.label is not None and not masks:
        sources["label"] = case.label
    readable = [
        name
        for name, source in sources.items()
        if absent.isdisjoint(source.paths) and twin_defect(source, name) is None
    ]
    return [*_missing(case, wanted), *listing_defects(case), *images, *masks], readable


def check_headers(case: Case, *, wanted: Sequence[str] = MODALITIES) -> list[str]:
    """Defects of a case that show without decoding its voxels.

    A missing modality or file, unreadable files, differing grids; of slices, numbers and masks that do not match, and
    files of the wrong kind or size.

    Args:
        case: what to look at.
        wanted: the modalities needed; others are not looked at.

    Returns:
        One sentence per defect, none for a sound case.
    """
    defects, readable = _file_defects(case, wanted)
    grids = {}
    broken = set()
    for name in readable:
        source = case.label if name == "label" else case.images[name]
        if source is None or is_stack(source) or source.paths in broken:
            continue
        try:
            shape, affine = read_grid(source.paths[0])
            if source.channel is not None:
                if defect := channel_defect(source.paths[0], shape, source.channel):
                    raise PipelineError(defect)
                shape = shape[:3]
            grids[name] = shape, affine
        except PipelineError as error:
            broken.add(source.paths)
            defects.append(str(error))
    return defects + grid_defects(grids)


def _percentiles(tissue: npt.NDArray[Any]) -> dict[str, float]:
    return {f"p{q}": float(value) for q, value in zip(PERCENTILES, np.percentile(tissue, PERCENTILES), strict=True)}


def _copies_notes(copied: Mapping[str, str]) -> tuple[str, ...]:
    """One sentence for each image that others repeat."""
    sentences = []
    for original in dict.fromkeys(copied.values()):
        names = [name for name in MODALITIES if copied.get(name) == original]
        are = "are copies" if len(names) > 1 else "is a copy"
        sentences.append(
            f"{' and '.join(names)} {are} of {original} (a missing sequence replaced by {original.upper()})"
            if original == "flair"
            else f"{' and '.join(names)} {are} of {original} (a missing sequence, or one file given twice)"
        )
    return tuple(sentences)


def _inspect(
    case: Case, *, wanted: Sequence[str] | None, intensities: bool
) -> tuple[CaseFingerprint, LabelCount | None]:
    """Read every file of a case once, one after the other, so that only one is in memory."""
    defects, readable = _file_defects(case, modalities_of(case.layout) if wanted is None else wanted)
    grids: dict[str, Grid] = {}
    shapes: list[tuple[int, ...]] = []
    percentiles = {}
    count = None
    for name, volume in read_volumes(case, readable):
        if isinstance(volume, PipelineError):
            defects.append(str(volume))
            continue
        shapes.append(volume.values.shape)
        if volume.affine is not None:
            grids[name] = volume.values.shape, volume.affine
        if name == "label":
            try:
                values = count_values(volume.values)
            except PipelineError as error:
                defects.append(str(error))
                continue
            if name not in grids or has_usable_grid(*grids[name]):
                count = LabelCount(values, volume_of_voxel_ml(volume.affine))
            continue
        found, tissue = image_defects(name, volume.values)
        defects += found
        if intensities and tissue.size:
            bright = tissue if name in grids else tissue[tissue > BRIGHT_SHARE * tissue.max()]
            percentiles[name] = _percentiles(bright)
    defects += grid_defects(grids)
    usable = [grid for grid in grids.values() if has_usable_grid(*grid)]
    shape, affine = usable[0] if usable else ((), None)
    if not grids and shapes:
        shape = shapes[0]
    # Equal percentiles are no proof: only then are the voxels compared.
    told = list(percentiles.values())
    suspects = {name: source for name, source in case.images.items() if told.count(percentiles.get(name, {})) > 1}
    copied = copied_modalities(replace(case, images=suspects)) if suspects else {}
    return CaseFingerprint(
        case_id=case.case_id,
        patient_id=case.patient_id,
        layout=case.layout,
        convention=case.convention,
        modalities=tuple(case.images),
        has_label=case.label is not None,
        shape=shape,
        spacing_mm=() if affine is None else tuple(round(float(side), 6) for side in spacing_mm(affine)),
        orientation="" if affine is None else orientation(affine),
        labels_voxels=dict(count.voxels) if count else {},
        labels_ml=_in_ml(count, {value: [value] for value in count.voxels}) if count else {},
        intensities=percentiles,
        copied=tuple(copied),
        defects=tuple(defects),
        notes=(*_copies_notes(copied), *file_notes(case, tuple(case.images))),
    ), count


def _in_ml(count: LabelCount, parts: Mapping[Any, Iterable[int]]) -> dict[Any, float]:
    """The volume of each part, which is some label values; nothing where voxels have no size."""
    if count.voxel_ml is None:
        return {}
    return {name: round(count.size(values), 6) for name, values in parts.items()}


def _with_regions(found: CaseFingerprint, count: LabelCount | None) -> CaseFingerprint:
    """Add what the label convention tells: region volumes, and values that it does not know."""
    if count is None or found.convention is None:
        return found
    row = convention(found.convention)
    odd = {value: number for value, number in count.voxels.items() if value not in row.values}
    defects = [
        f"label value {value} ({number} voxels) is not in {row.name} ({' '.join(map(str, sorted(row.values)))})"
        for value, number in odd.items()
    ]
    regions = {region: row.regions[region] for region in (*TABLE_ORDER, *row.regions) if region in row.regions}
    return replace(
        found,
        regions_voxels={region: count.number(values) for region, values in regions.items()},
        regions_ml=_in_ml(count, regions),
        defects=(*found.defects, *defects),
    )


def check_case(case: Case, *, wanted: Sequence[str] = MODALITIES) -> list[str]:
    """Every defect of one case; decodes all its files.

    Beyond :func:`check_headers`: NaN or infinite voxels, an image that is constant or 0 everywhere, label values that
    are no whole numbers or, once the case has its convention, not in it.

    Args:
        case: what to look at.
        wanted: the modalities needed; others are not looked at.

    Returns:
        One sentence per defect, none for a sound case.
    """
    found, count = _inspect(case, wanted=wanted, intensities=False)
    return list(_with_regions(found, count).defects)


def inspect_cases(
    cases: Sequence[Case], *, workers: int = 2, on_case: Callable[[str], None] | None = None
) -> Fingerprint:
    """Read a whole cohort once and describe it.

    Cases whose convention is not decided yet are decided from the label maps as they are read; where that is refused,
    the refusal becomes a defect of each case it is about.

    Args:
        cases: from :func:`brats_pipeline.cases.find_cases`.
        workers: cases read at a time.
        on_case: called with the id of each case that is done.

    Returns:
        The fingerprint; defects are part of it and raise nothing.
    """
    found: dict[str, CaseFingerprint] = {}
    counts: dict[str, LabelCount] = {}
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for fingerprint, count in pool.map(lambda case: _inspect(case, wanted=None, intensities=True), cases):
            found[fingerprint.case_id] = fingerprint
            if count is not None:
                counts[fingerprint.case_id] = count
            if on_case:
                on_case(fingerprint.case_id)

    def set_aside(error: PipelineError, about: Sequence[Case]) -> None:
        reason = error.reason if isinstance(error, CaseError) else str(error)
        for case in about:
            old = found[case.case_id]
            found[case.case_id] = replace(old, defects=(*old.defects, reason))

    for case in settle_conventions(cases, counts, set_aside=set_aside):
        settled = replace(found[case.case_id], convention=case.convention)
        found[case.case_id] = _with_regions(settled, counts.get(case.case_id))
    return Fingerprint(tuple(found[case_id] for case_id in sorted(found)))
