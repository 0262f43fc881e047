"""Tables of several runs side by side: the same cases in each, and a miss where a run lacks one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

_NAMED = 5


class Row(Protocol):
    """What is read of a row of ``cases.csv`` beside its metrics; :class:`RegionScore` is one."""

    @property
    def case_id(self) -> str: ...
    @property
    def region(self) -> str: ...
    @property
    def reference_ml(self) -> float: ...
    @property
    def tp(self) -> int: ...
    @property
    def fn(self) -> int: ...


AnyRow = TypeVar("AnyRow", bound=Row)


@dataclass(frozen=True)
class Joined(Generic[AnyRow]):
    """Runs over the same cases.

    Args:
        runs: name of a run to its rows; every run has the same cases and regions, in the same order.
        missing: name of a run to the cases that it lacked, each of them now a miss; runs that lacked none are left
            out.
    """

    runs: Mapping[str, tuple[AnyRow, ...]]
    missing: Mapping[str, tuple[str, ...]]

    @property
    def case_ids(self) -> tuple[str, ...]:
        """All cases, by name."""
        return tuple(sorted({row.case_id for rows in self.runs.values() for row in rows}))

    def sentences(self) -> tuple[str, ...]:
        """Which run lacked what, in words; empty where none did."""
        return tuple(
            f"{name} has no score for {len(cases)} of {len(self.case_ids)} cases ({_some(cases)}); "
            f"{'it counts' if len(cases) == 1 else 'each counts'} as a miss."
            for name, cases in self.missing.items()
        )


def _some(names: Sequence[str]) -> str:
    """Names, and how many more there are."""
    more = len(names) - _NAMED
    return ", ".join(names[:_NAMED]) + (f" and {more} more" if more > 0 else "")


def _table(name: str, rows: Sequence[AnyRow]) -> dict[tuple[str, str], AnyRow]:
    table: dict[tuple[str, str], AnyRow] = {}
    for row in rows:
        if (row.case_id, row.region) in table:
            raise ValueError(f"{name} scores {row.case_id}, {row.region} twice; one row per case and region is needed")
        table[row.case_id, row.region] = row
    return table


def join_runs(runs: Mapping[str, Sequence[AnyRow]], *, miss: Callable[[AnyRow], AnyRow]) -> Joined[AnyRow]:
    """Give every run a row for every case and region that any run scored.

    Args:
        runs: name of a run to its rows.
        miss: makes the row of a run that lacks a case out of another run's row of it, by the rule for empty regions.

    Raises:
        ValueError: a run scores a case and region twice, runs score different regions, or the reference of a case has
            not the same size in all of them.
    """
    tables = {name: _table(name, rows) for name, rows in runs.items()}
    regions = {name: {region for _, region in table} for name, table in tables.items() if table}
    everywhere = set().union(*regions.values())
    for name, own in regions.items():
        if own != everywhere:
            raise ValueError(
                f"{name} scores {', '.join(sorted(own))} and the runs together {', '.join(sorted(everywhere))}; "
                "score all runs by the same rules"
            )
    known = {key: row for table in reversed(tables.values()) for key, row in table.items()}
    # Cases by name; regions as the first run that has them orders them.
    order = list(dict.fromkeys(region for table in tables.values() for _, region in table))
    keys = sorted(known, key=lambda key: (key[0], order.index(key[1])))
    joined = {
        name: tuple(table[key] if key in table else miss(known[key]) for key in keys) for name, table in tables.items()
    }
    for name, rows in joined.items():
        for key, row in zip(keys, rows, strict=True):
            size, other = row.tp + row.fn, known[key].tp + known[key].fn
            if size != other:
                raise ValueError(
                    f"the reference of {key[0]}, {key[1]} has {size} voxels in {name} and {other} in another run; "
                    "score all runs against the same references"
                )
    missing = {
        name: tuple(sorted({case_id for case_id, region in keys if (case_id, region) not in table}))
        for name, table in tables.items()
    }
    return Joined(runs=joined, missing={name: cases for name, cases in missing.items() if cases})


def by_case(rows: Sequence[Row], *, region: str, metric: str) -> dict[str, float]:
    """One metric of one region: case id to value, NaN where the rules define none."""
    return {row.case_id: defined(getattr(row, metric)) for row in rows if row.region == region}


def defined(value: float | None) -> float:
    """A value of a table; NaN where there is none."""
    return math.nan if value is None else float(value)
