"""Which settings are chosen, and what choosing is worth on cases that had no say in it.

A region's settings are replaced by those of the highest mean gain, if that gain exceeds its own standard error (the
one-standard-error rule of Breiman et al., Classification and Regression Trees, 1984): among many settings some look
better by chance. What remains of chance is measured: every patient in turn is left out, the settings are chosen by the
others, and the patient's cases are scored with them (leave-one-out; Stone, JRSS B 1974).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from brats_pipeline.metrics import Comparison, compare_paired, lower_is_better, verdict
from brats_pipeline.tuning.grid import RegionSettings, Settings
from brats_pipeline.tuning.scoring import Table

Options = Mapping[str, Sequence[RegionSettings]]
TUNED, UNTUNED = "the tuned label map", "the untuned one"
MEAN = "mean"
_DECIMALS = 9


@dataclass(frozen=True)
class CaseRow:
    """One row of ``tuning.csv``: the metric of a region of a case.

    Args:
        case_id: the case.
        patient_id: whose it is.
        region: the region.
        untuned: by the configuration as it is.
        held_out: by the settings that the other patients chose.
        in_sample: by the settings that all patients chose, this one included.
        settings: those that the other patients chose, in words.
    """

    case_id: str
    patient_id: str
    region: str
    untuned: float
    held_out: float
    in_sample: float
    settings: str


ROW_COLUMNS = tuple(CaseRow.__dataclass_fields__)


def choose(tables: Mapping[str, Table], patients: Mapping[str, str], options: Options, *, lower: bool) -> Settings:
    """The settings of each region by the cases of some patients.

    Args:
        tables: case to its metric under every option.
        patients: case to patient; patients count alike.
        options: region to what is tried, what is in force first; of equals the first is taken.
        lower: whether the metric is the better the lower it is.
    """
    chosen = {}
    for region, some in options.items():
        gains = _gains([tables[case][region] for case in tables], [patients[case] for case in tables], lower=lower)
        means = np.round(gains.mean(axis=0), _DECIMALS)
        errors = gains.std(axis=0, ddof=1) / np.sqrt(len(gains)) if len(gains) > 1 else np.zeros(len(some))
        means[means <= np.round(errors, _DECIMALS)] = 0
        chosen[region] = some[int(means.argmax())] if means.max() > 0 else some[0]
    return chosen


def _gains(rows: Sequence[Sequence[float]], owners: Sequence[str], *, lower: bool) -> npt.NDArray[np.float64]:
    """What every option is better than the first, one row per patient."""
    values = np.asarray(rows, np.float64)
    gains = (values[:, :1] - values) if lower else (values - values[:, :1])
    names = sorted(set(owners))
    return np.stack([gains[[owner == name for owner in owners]].mean(axis=0) for name in names])


def left_out(
    tables: Mapping[str, Table], patients: Mapping[str, str], options: Options, *, lower: bool
) -> dict[str, Settings]:
    """For each case the settings that the other patients choose; what is in force where there are no others."""
    chosen: dict[str, Settings] = {}
    for patient in sorted({patients[case] for case in tables}):
        others = {case: table for case, table in tables.items() if patients[case] != patient}
        told = (
            choose(others, patients, options, lower=lower) if others else {name: options[name][0] for name in options}
        )
        chosen |= {case: told for case in tables if patients[case] == patient}
    return chosen


@dataclass(frozen=True)
class Verdict:
    """What the patients that were left out say.

    Args:
        metric: the column.
        comparisons: region, and ``mean`` for the mean over the regions of each case, to tuned less untuned.
        helps: whether the mean over the regions is shown to be better, see :meth:`Comparison.shown`.
        sentences: in words.
    """

    metric: str
    comparisons: Mapping[str, Comparison]
    helps: bool
    sentences: tuple[str, ...]


def judge(rows: Sequence[CaseRow], regions: Sequence[str], metric: str) -> Verdict:
    """Compare what was left out with the configuration as it is.

    Args:
        rows: of every case and region.
        regions: in the order of tables.
        metric: the column.
    """
    patients = {row.case_id: row.patient_id for row in rows}

    def comparison(of: Sequence[str]) -> Comparison:
        tuned, untuned = (
            {
                case: float(np.mean([getattr(row, name) for row in rows if row.case_id == case and row.region in of]))
                for case in patients
            }
            for name in ("held_out", "untuned")
        )
        return compare_paired(tuned, untuned, patients=patients)

    comparisons = {region: comparison([region]) for region in regions}
    comparisons[MEAN] = comparison(regions)
    overall = comparisons[MEAN]
    helps = overall.shown() == (-1 if lower_is_better(metric) else 1)
    said = verdict(overall, metric=metric, first=TUNED, second=UNTUNED)
    sentences = [said[0].upper() + said[1:]]
    low, high = overall.interval_95 or (1.0, 1.0)
    if low <= 0 <= high and overall.equal < overall.n:
        sentences.append(
            "The interval of the cross-validated gain includes 0: it is not shown that tuning helps on other cases."
        )
    return Verdict(metric, comparisons, helps, tuple(sentences))
