"""Fingerprint of a cohort: what its scans are like, and every defect by name. Defects are data here, not exceptions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brats_pipeline.cases import Case, case_list_sha256, missing_modalities, settle_conventions
from brats_pipeline.conventions import LabelCount, count_values, volume_of_voxel_ml
from brats_pipeline.errors import CaseError, PipelineError
from brats_pipeline.integrity import Grid, grid_defects, has_usable_grid, image_defects, read_grid
from transforms.labels import MODALITIES, TABLE_ORDER, convention
from transforms.nifti import orientation, read_nifti, spacing_mm, voxels

SCHEMA_VERSION = 1
PERCENTILES = (1, 25, 50, 75, 99)
"""Of the nonzero voxels: the background of skull-stripped scans is 0."""


@dataclass(frozen=True)
class CaseFingerprint:
    """What one case is like.

    Args:
        case_id: as in :class:`Case`; so are ``patient_id``, ``layout``, ``convention``.
        modalities: those that the case has.
        has_label: whether there is a label map.
        shape: voxels along each axis of the first image that can be read.
        spacing_mm: its voxel sides.
        orientation: direction in which its axes grow, such as ``"LPS"``.
        labels_ml: label value to volume, background left out.
        regions_ml: region to volume; empty without a label map or its convention.
        intensities: modality to ``{"p1": ..., "p99": ...}`` over the nonzero voxels.
        defects: one sentence each.
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
    labels_ml: Mapping[int, float] = field(default_factory=dict)
    regions_ml: Mapping[str, float] = field(default_factory=dict)
    intensities: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    defects: tuple[str, ...] = ()


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

    def cohort(self) -> dict[str, Any]:
        """Counts and spreads over all cases, as JSON-able values."""

        def counts(names: Iterator[str | None]) -> dict[str, int]:
            return dict(Counter(name or "none" for name in names).most_common())

        labelled = [case for case in self.cases if case.regions_ml]
        regions = {name for case in labelled for name in case.regions_ml}
        spread = {
            region: _spread([case.regions_ml[region] for case in labelled if region in case.regions_ml])
            for region in sorted(regions, key=(*TABLE_ORDER, *sorted(regions)).index)
        }
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
            "regions_ml": spread,
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
            "percentiles_of": "nonzero voxels",
            "cohort": self.cohort(),
            "cases": [vars(case) for case in self.cases],
        }
        return json.dumps(document, indent=2, allow_nan=False) + "\n"

    def rows(self) -> list[dict[str, str | int | float | None]]:
        """One row of plain values per case, for a table; volumes in ml, None where there is no label map."""
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
                "labels": " ".join(map(str, case.labels_ml)),
                **{f"{region}_ml": case.regions_ml.get(region) for region in TABLE_ORDER},
                "defects": len(case.defects),
            }
            for case in self.cases
        ]


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"min": min(values), "median": float(np.median(values)), "max": max(values)}


def _sources(case: Case) -> dict[str, Path]:
    paths = {modality: source.paths[0] for modality, source in case.images.items()}
    return paths | ({"label": case.label.paths[0]} if case.label else {})


def _missing(case: Case, wanted: Sequence[str]) -> list[str]:
    missing = missing_modalities(case, wanted)
    if not case.images:
        return ["label map without any image"]
    return [f"missing modality {', '.join(missing)} (there are {', '.join(case.images)})"] if missing else []


def check_headers(case: Case, *, wanted: Sequence[str] = MODALITIES) -> list[str]:
    """Defects of a case that show without decoding its voxels: a missing modality, unreadable files, differing grids.

    Args:
        case: what to look at.
        wanted: the modalities needed; others are not looked at.

    Returns:
        One sentence per defect, none for a sound case.
    """
    defects = _missing(case, wanted)
    grids = {}
    for name, path in _sources(case).items():
        if name in wanted or name == "label":
            try:
                grids[name] = read_grid(path)
            except PipelineError as error:
                defects.append(str(error))
    return defects + grid_defects(grids)


def _percentiles(tissue: npt.NDArray[Any]) -> dict[str, float]:
    return {f"p{q}": float(value) for q, value in zip(PERCENTILES, np.percentile(tissue, PERCENTILES), strict=True)}


def _inspect(case: Case, *, wanted: Sequence[str], intensities: bool) -> tuple[CaseFingerprint, LabelCount | None]:
    """Read every file of a case once, one after the other, so that only one is in memory."""
    defects = _missing(case, wanted)
    grids: dict[str, Grid] = {}
    percentiles = {}
    count = None
    for name, path in _sources(case).items():
        if name != "label" and name not in wanted:
            continue
        try:
            image = read_nifti(path)
            grids[name] = image.shape, image.affine
            if name == "label":
                values = count_values(voxels(image))
                if has_usable_grid(*grids[name]):
                    count = LabelCount(values, volume_of_voxel_ml(image.affine))
                continue
            found, tissue = image_defects(name, voxels(image))
        except PipelineError as error:
            defects.append(str(error))
            continue
        defects += found
        if intensities and tissue.size:
            percentiles[name] = _percentiles(tissue)
    defects += grid_defects(grids)
    shape, affine = next((grid for grid in grids.values() if has_usable_grid(*grid)), ((), None))
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
        labels_ml={value: round(count.size([value]), 6) for value in count.voxels} if count else {},
        intensities=percentiles,
        defects=tuple(defects),
    ), count


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
        regions_ml={region: round(count.size(values), 6) for region, values in regions.items()},
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
        for fingerprint, count in pool.map(lambda case: _inspect(case, wanted=MODALITIES, intensities=True), cases):
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
