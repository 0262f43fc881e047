"""All figures of a study, made from the scores of its arms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from brats_pipeline.data.datalist import read_whole_datalist
from brats_pipeline.metrics import RegionScore
from brats_pipeline.metrics.ranking import Ranking
from brats_pipeline.metrics.statistics import RESAMPLES
from brats_pipeline.report.missing import WithoutModality
from brats_pipeline.report.study import ArmFigures, Compared
from brats_pipeline.studies.comparing import arm_figures, compare_arms, rank_arms, without_modalities
from brats_pipeline.studies.gathering import Scored
from brats_pipeline.studies.opening import DATALIST
from brats_pipeline.studies.plan import Plan


@dataclass(frozen=True)
class Figures:
    """A study in figures.

    Args:
        arms: those that have figures.
        compared: each arm against the reference arm.
        ranking: of the arms, or None.
        missing: each arm without each of its modalities; empty where that was not asked for.
    """

    arms: tuple[ArmFigures, ...]
    compared: tuple[Compared, ...]
    ranking: Ranking | None
    missing: tuple[WithoutModality, ...]

    def as_json(self) -> dict[str, Any]:
        """What is kept of them in ``summary.json``."""
        return {
            "arms": [_plain(arm) for arm in self.arms],
            "compared": [asdict(each) for each in self.compared],
            "ranking": None if self.ranking is None else asdict(self.ranking),
            "without_modalities": [asdict(each) for each in self.missing],
        }


def _plain(arm: ArmFigures) -> dict[str, Any]:
    """An arm's figures as JSON: region to metric to figures."""
    told = asdict(arm)
    told["figures"] = {}
    for (region, metric), figures in arm.figures.items():
        told["figures"].setdefault(region, {})[metric] = asdict(figures)
    return told


def figures_of(
    plan: Plan,
    out: Path,
    scored: Sequence[Scored],
    rows: Mapping[str, Sequence[RegionScore]],
    *,
    resamples: int = RESAMPLES,
) -> Figures:
    """The figures of a study: arms, comparisons, ranking, and what missing modalities cost."""
    patients = {item["case_id"]: item["patient_id"] for item in read_whole_datalist(out / DATALIST)["training"]}
    patients = {row.case_id: patients[row.case_id] for own in rows.values() for row in own}
    return Figures(
        arms=tuple(arm_figures(plan, scored, rows, patients=patients, resamples=resamples)),
        compared=tuple(compare_arms(plan, rows, patients=patients, resamples=resamples)),
        ranking=rank_arms(plan, rows, patients=patients, resamples=resamples),
        missing=tuple(without_modalities(plan, scored, rows, patients=patients, resamples=resamples)),
    )
