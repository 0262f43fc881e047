"""Scores of slices: the ways to average Dice over a patient's slices, each by its name and never mixed.

On one set of predictions they differ by more than ten points, because most slices are empty (Buda et al. 2019 report
the Dice of patient volumes; many ports of their work that of slices).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from brats_pipeline.metrics.overlap import Counts, dice, iou, precision, recall
from brats_pipeline.metrics.rows import RegionScore
from brats_pipeline.metrics.rules import Rules
from brats_pipeline.metrics.statistics import bootstrap_interval
from brats_pipeline.metrics.summary import Spread, patients_of, spread

Mask = npt.NDArray[np.bool_]

PER_PATIENT = "Dice per patient volume (slices pooled)"
PER_TUMOUR_SLICE = "Mean Dice per tumour slice"
PER_SLICE = "Mean Dice per slice (empty slices counted)"
POOLED = "Dice pooled over the cohort"


@dataclass(frozen=True, slots=True)
class SliceScore:
    """One row of ``slices.csv``. Counts are in pixels; Dice follows the rule for empty regions."""

    case_id: str
    slice: str
    dice: float
    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def has_tumour(self) -> bool:
        """Whether the reference shows tumour here."""
        return self.tp + self.fn > 0


SLICE_COLUMNS = tuple(field.name for field in fields(SliceScore))
"""Columns of ``slices.csv``."""


@dataclass(frozen=True)
class SliceGroup:
    """The figures of a group of patients.

    Args:
        name: which patients.
        patients: how many.
        volumes: theirs; more than patients where some have several time points.
        slices: of all of them.
        tumour_slices: slices whose reference shows tumour.
        per_patient: Dice, IoU, precision and recall of patient volumes, the slices of a patient pooled.
        dice_interval_95: of the mean of :data:`PER_PATIENT`; None for fewer than three patients.
        dice_per_tumour_slice: over the slices whose reference shows tumour; None where there is none.
        dice_per_slice: over all slices, a slice that is empty on both sides counting as 1.
        pooled: Dice, IoU, precision and recall of all voxels of all patients counted together; None where not defined.
    """

    name: str
    patients: int
    volumes: int
    slices: int
    tumour_slices: int
    per_patient: dict[str, Spread]
    dice_interval_95: tuple[float, float] | None
    dice_per_tumour_slice: Spread | None
    dice_per_slice: Spread | None
    pooled: dict[str, float | None]


def score_slices(
    prediction: Mask | None, reference: Mask, *, case_id: str, names: Sequence[str], rules: Rules
) -> list[SliceScore]:
    """Score every slice by itself.

    Args:
        prediction: ``(x, y, z)``; None for a patient without a usable prediction, which is a miss in every slice.
        reference: ``(x, y, z)``.
        case_id: goes into each row.
        names: of the slices along z.
        rules: with the rule for empty slices.

    Raises:
        ValueError: the shapes differ, or there are more or fewer names than slices.
    """
    if prediction is not None and prediction.shape != reference.shape:
        raise ValueError(f"masks must have one shape, got {prediction.shape} and {reference.shape}")
    if len(names) != reference.shape[2]:
        raise ValueError(f"got {len(names)} names for {reference.shape[2]} slices")
    rows = []
    for number, name in enumerate(names):
        expected = reference[:, :, number]
        predicted = np.zeros_like(expected) if prediction is None else prediction[:, :, number]
        tp = int(np.count_nonzero(predicted & expected))
        fp, fn = int(np.count_nonzero(predicted)) - tp, int(np.count_nonzero(expected)) - tp
        counts = Counts(tp=tp, fp=fp, fn=fn, tn=expected.size - tp - fp - fn)
        if prediction is None or bool(counts.predicted) != bool(counts.reference):
            value = rules.empties.one_overlap
        else:
            value = dice(counts) if counts.reference else rules.empties.both_overlap
        rows.append(SliceScore(case_id, name, value, tp=tp, fp=fp, fn=fn, tn=counts.tn))
    return rows


def interval_95(values: Sequence[float], owners: Sequence[str] | None = None) -> tuple[float, float] | None:
    """Interval of the mean by :func:`bootstrap_interval`; None for fewer than three patients.

    Args:
        values: one per case.
        owners: whose case each is; None where every case is another patient.
    """
    return bootstrap_interval(values, patients=owners) if len(set(owners or range(len(values)))) > 2 else None


def _group(
    name: str, rows: Sequence[RegionScore], slices: Sequence[SliceScore], patients: Mapping[str, str] | None
) -> SliceGroup:
    owners = patients_of([row.case_id for row in rows], patients)
    counts = Counts(*(sum(getattr(row, count) for row in rows) for count in ("tp", "fp", "fn", "tn")))
    measures = {"dice": dice, "iou": iou, "precision": precision, "recall": recall}
    per_patient = {measure: spread([getattr(row, measure) for row in rows]) for measure in measures}
    pooled = {measure: function(counts) for measure, function in measures.items()}
    return SliceGroup(
        name=name,
        patients=len(rows) if owners is None else len(set(owners)),
        volumes=len(rows),
        slices=len(slices),
        tumour_slices=sum(row.has_tumour for row in slices),
        per_patient={measure: value for measure, value in per_patient.items() if value is not None},
        dice_interval_95=interval_95([row.dice for row in rows], owners),
        dice_per_tumour_slice=spread([row.dice for row in slices if row.has_tumour]),
        dice_per_slice=spread([row.dice for row in slices]),
        pooled={measure: None if math.isnan(value) else value for measure, value in pooled.items()},
    )


def summarise_slices(
    rows: Sequence[RegionScore],
    slices: Sequence[SliceScore],
    *,
    incomplete: Collection[str],
    patients: Mapping[str, str] | None = None,
) -> list[SliceGroup]:
    """Summarise a cohort of slices: all patients, then those with every sequence where some lack one.

    Args:
        rows: one per volume.
        slices: one per slice.
        incomplete: case ids of volumes that lack a sequence.
        patients: case id to patient, whose cases are drawn together; None where every case is another patient.
    """
    groups = [_group("all patients", rows, slices, patients)]
    if incomplete:
        whole = [row for row in rows if row.case_id not in incomplete]
        whole_slices = [row for row in slices if row.case_id not in incomplete]
        groups.append(_group("patients with every sequence", whole, whole_slices, patients))
    return groups
