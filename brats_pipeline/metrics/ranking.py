"""The ranking of the BraTS challenges: rank the runs in each case, then average.

Every run is ranked in each case, region and metric, all these ranks are averaged, and the averages are ranked (BraTS
2017-2020: Bakas et al. 2018, arXiv:1811.02629; challenge design of 2020, zenodo.org/record/3718904). Equal values share
the smallest of their ranks, as in the ranking of nnU-Net's BraTS 2020 entry (Isensee et al. 2020, arXiv:2011.00848);
the challenge publishes no rule for ties. How far the order depends on the cases is asked by drawing them anew
(Wiesenfarth et al., Methods and open-source toolkit for analyzing and visualizing challenge results, 2021).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from brats_pipeline.metrics.comparison import FEWEST_CASES, lower_is_better
from brats_pipeline.metrics.joining import Row, defined
from brats_pipeline.metrics.statistics import RESAMPLES, TIE_DECIMALS, Floats, resampled
from brats_pipeline.metrics.summary import patients_of

Ties = Literal["min", "average"]


@dataclass(frozen=True)
class RankedRun:
    """One run in a ranking.

    Args:
        name: of the run.
        rank: 1 is the best; equal averages share the smallest of their ranks.
        mean_rank: average over all cases, regions and metrics.
        shares: share of resamples in which the run has rank 1, 2, ...; None for a single case or patient.
    """

    name: str
    rank: int
    mean_rank: float
    shares: tuple[float, ...] | None


@dataclass(frozen=True)
class Ranking:
    """Runs in order.

    Args:
        runs: the best first; runs of equal rank by name.
        n: cases.
        patients: they belong to; these are drawn for the shares.
        cells: combinations of case, region and metric in which the runs were ranked.
        metrics: the columns ranked.
        ties: how equal values share ranks.
        resamples: drawn for the shares.
    """

    runs: tuple[RankedRun, ...]
    n: int
    patients: int
    cells: int
    metrics: tuple[str, ...]
    ties: Ties
    resamples: int

    def sentences(self) -> tuple[str, ...]:
        """How the ranking came about, in words."""
        cases = "1 case" if self.n == 1 else f"{self.n} cases"
        several = self.patients < self.n
        if several:
            cases += f" of {self.patients} patient{'' if self.patients == 1 else 's'}"
        drawn = "patients" if several else "cases"
        shared = "the smallest" if self.ties == "min" else "the mean"
        stability = f"Shares of ranks: {drawn} drawn with replacement, {self.resamples:,} times."
        if self.patients < FEWEST_CASES:
            stability = f"With {cases} drawing {drawn} anew says little about other {drawn}: the shares look too sure."
        return (
            f"Runs are ranked in each case, region and metric ({', '.join(self.metrics)}; {self.cells} ranks a run, "
            f"{cases}), the ranks are averaged, and the averages ranked. Equal values share {shared} of their ranks; "
            "a value that is not defined where another run's is comes last.",
            stability,
        )


def _doubled_ranks(losses: Floats, ties: Ties) -> npt.NDArray[np.int64]:
    """Twice the rank of each run, ``(runs, cells)``; the smallest loss has rank 1."""
    smaller = (losses[:, None] > losses[None]).sum(axis=1)
    if ties == "min":
        return np.asarray(2 * smaller + 2, dtype=np.int64)
    return np.asarray(2 * smaller + (losses[:, None] == losses[None]).sum(axis=1) + 1, dtype=np.int64)


def _order(sums: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Rank of each sum along the first axis, 1 for the smallest; equal sums share the smallest rank."""
    return np.asarray((sums[:, None] > sums[None]).sum(axis=1) + 1, dtype=np.int64)


def rank_runs(
    runs: Mapping[str, Sequence[Row]],
    *,
    metrics: Sequence[str] = ("dice", "hd95_mm"),
    ties: Ties = "min",
    patients: Mapping[str, str] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Ranking:
    """Rank runs over the same cases.

    A case, region and metric that no run defines is left out.

    Args:
        runs: name of a run to its rows, from :func:`join_runs`.
        metrics: columns to rank by; distances and errors are better when smaller.
        ties: what equal values of a case share: the smallest of their ranks, or the mean of them.
        patients: case id to patient, whose cases are drawn together; None where every case is another patient.
        resamples: of the cases or patients, for the stability of the order.
        seed: of the draws.

    Raises:
        ValueError: the runs have not the same cases and regions, nothing can be ranked, or a metric has no better
            side.
    """
    tables = {name: {(row.case_id, row.region): row for row in rows} for name, rows in runs.items()}
    keys = sorted({key for table in tables.values() for key in table})
    for name, table in tables.items():
        if lacking := [key for key in keys if key not in table]:
            raise ValueError(
                f"{name} lacks {lacking[0][0]}, {lacking[0][1]}; join the runs first, so that it is a miss"
            )
    signs = [1.0 if lower_is_better(metric) else -1.0 for metric in metrics]
    losses = np.array(
        [
            [
                sign * defined(getattr(table[key], metric))
                for key in keys
                for metric, sign in zip(metrics, signs, strict=True)
            ]
            for table in tables.values()
        ],
        dtype=np.float64,
    ).round(TIE_DECIMALS)
    case_ids = sorted({case_id for case_id, _ in keys})
    owners = patients_of(case_ids, patients) or case_ids
    drawn_ids = sorted(set(owners))
    numbers = {case_id: drawn_ids.index(owner) for case_id, owner in zip(case_ids, owners, strict=True)}
    owner_of_cell = np.array([numbers[case_id] for case_id, _ in keys for _ in metrics], dtype=np.int64)
    if losses.size == 0 or not (ranked := ~np.isnan(losses).all(axis=0)).any():
        raise ValueError("no case, region and metric in which a run has a value; rank at least one run and one case")
    doubled = _doubled_ranks(np.nan_to_num(losses[:, ranked], nan=np.inf), ties)
    by_owner = np.zeros((len(drawn_ids), len(tables)), dtype=np.int64)
    np.add.at(by_owner, owner_of_cell[ranked], doubled.T)
    per_owner = by_owner.T

    # Within a resample every run has equally many ranks, so the order of sums is that of averages.
    ranks, n = np.arange(1, len(tables) + 1), len(drawn_ids)
    counts = np.zeros((len(tables), len(tables)), dtype=np.int64)
    for indices in resampled(n, resamples=resamples, seed=seed) if n > 1 else ():
        flat = (indices + n * np.arange(len(indices))[:, None]).ravel()
        drawn = np.bincount(flat, minlength=indices.size).reshape(indices.shape)
        order = _order((per_owner.astype(np.float64) @ drawn.T.astype(np.float64)).astype(np.int64))
        counts += (order[:, :, None] == ranks).sum(axis=1)

    sums = per_owner.sum(axis=1)
    found = [
        RankedRun(
            name=name,
            rank=int(rank),
            mean_rank=float(total / (2 * ranked.sum())),
            shares=tuple(float(count / resamples) for count in own) if n > 1 else None,
        )
        for name, rank, total, own in zip(tables, _order(sums), sums, counts, strict=True)
    ]
    return Ranking(
        runs=tuple(sorted(found, key=lambda run: (run.rank, run.name))),
        n=len(case_ids),
        patients=n,
        cells=int(ranked.sum()),
        metrics=tuple(metrics),
        ties=ties,
        resamples=resamples,
    )
