"""Which label convention a cohort uses, read from the values in its label maps.

A name does not tell it: files named as in 2023 are about in the labels of 2017, and the paediatric challenge has used
two sets of labels under one name. So each kind of cohort has a short list of readings; the values decide among them,
and where two readings fit and mean different regions, the cohort is refused with both printed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from brats_pipeline.errors import CaseError, PipelineError
from transforms.labels import CONVENTIONS
from transforms.whole_numbers import whole_numbers


@dataclass(frozen=True)
class LabelCount:
    """How many voxels of a label map hold each value, background left out.

    Args:
        voxels: label value to number of voxels.
        voxel_ml: volume of one voxel; None for slices, which carry no voxel size.
    """

    voxels: Mapping[int, int]
    voxel_ml: float | None

    def number(self, values: Iterable[int]) -> int:
        """Number of voxels that hold one of the values."""
        return sum(self.voxels.get(value, 0) for value in values)

    def size(self, values: Iterable[int]) -> float:
        """Volume in ml of the voxels that hold one of the values, or their number where voxels have no size."""
        return self.number(values) * (1 if self.voxel_ml is None else self.voxel_ml)


def volume_of_voxel_ml(affine: npt.NDArray[Any] | None) -> float | None:
    """Volume of one voxel of a ``(4, 4)`` affine; None without one."""
    if affine is None:
        return None
    return float(abs(np.linalg.det(np.asarray(affine, dtype=np.float64)[:3, :3]))) / 1000


def count_values(labels: npt.NDArray[Any]) -> dict[int, int]:
    """Count the voxels of each label value except 0.

    Raises:
        PipelineError: a value is no whole number.
    """
    painted = whole_numbers(labels[labels != 0], "the label map")
    values, counts = np.unique(painted[painted != 0], return_counts=True)
    return {int(value): int(count) for value, count in zip(values, counts, strict=True)}


@dataclass(frozen=True)
class Readings:
    """The conventions that a kind of cohort is found in.

    Args:
        usual: tried first, the commonest in front: it is taken where the labels fit several that agree.
        rare: tried where no usual one fits.
        has_default: whether the first is taken where no label map says anything.
    """

    usual: tuple[str, ...]
    rare: tuple[str, ...] = ()
    has_default: bool = True


_BEFORE_2023 = Readings(("brats2017", "brats2023"))
_SINCE_2023 = Readings(("brats2023", "brats2017"))
_UNKNOWN = Readings(("brats2023", "brats2017"), rare=("brats2024-gli", "brats2024-met", "brats2024-ped"))

READINGS: Mapping[str, Readings] = {
    "brats2017": _BEFORE_2023,
    "brats2020": _BEFORE_2023,
    "brats2021": _BEFORE_2023,
    "GLI": Readings(("brats2023", "brats2017"), rare=("brats2024-gli",)),
    # Scans after treatment: a 4 without any 3 may be a resection cavity as well as the enhancing tumour of 2017.
    "GLI after treatment": Readings(("brats2023", "brats2017", "brats2024-gli")),
    "SSA": _SINCE_2023,
    "MEN": _SINCE_2023,
    "MET": Readings(("brats2023", "brats2017", "brats2024-met")),
    "PED": Readings(("brats2023", "brats2024-ped", "brats2017"), has_default=False),
    "MEN-RT": Readings(("men-rt",)),
    "msd": Readings(("msd",)),
    "lgg": Readings(("lgg",)),
}
"""Kind of cohort (:func:`kind_of`) to its readings; every other kind (plain folders too) has those of a glioma, and
more where these do not fit."""

_HYPHENS = re.compile(r"brats-([a-z]+(?:-rt)?)-\d+(?:-(\d+))?", re.IGNORECASE)


def kind_of(case_id: str, layout: str) -> str:
    """The kind of cohort that a case belongs to: its challenge where the name says it, its layout otherwise."""
    match = _HYPHENS.fullmatch(case_id)
    if layout != "brats2023" or match is None:
        return layout
    challenge = match[1].upper()
    # The challenge of 2024 counts the examinations after treatment from 100.
    return "GLI after treatment" if challenge == "GLI" and int(match[2] or 0) >= 100 else challenge


def _agree(names: Sequence[str], values: frozenset[int]) -> bool:
    """Whether all these conventions put the values into the same regions."""
    meanings = {
        tuple(sorted((region, tuple(sorted(labels & values))) for region, labels in CONVENTIONS[name].regions.items()))
        for name in names
    }
    return len(meanings) == 1


def _listed(values: Iterable[int]) -> str:
    return " ".join(map(str, sorted(values)))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _refusal(
    kind: str, case_ids: Sequence[str], values: frozenset[int], names: Sequence[str], why: str
) -> PipelineError:
    """Print what each convention would make of the values."""
    lines = [f"the label convention of the {kind} cases ({_some(case_ids)}) is not certain: {why}. Readings:"]
    for name in names:
        tissues = CONVENTIONS[name].tissues
        lines.append(f"  {name}: " + ", ".join(f"{v} {tissues.get(v, '?')}" for v in sorted(values or tissues)))
    return PipelineError("\n".join([*lines, "say which one with --convention NAME"]))


def misfit(case_id: str, values: frozenset[int], kind: str) -> CaseError | None:
    """The error of a label map that holds a value unknown to every reading of its kind, else None."""
    readings = READINGS.get(kind, _UNKNOWN)
    names = readings.usual + readings.rare
    odd = values.difference(*(CONVENTIONS[name].values for name in names))
    if not odd:
        return None
    known = "; ".join(f"{name}: {_listed(CONVENTIONS[name].values)}" for name in names)
    return CaseError(
        case_id,
        f"the label map holds {_listed(values)}, and {_listed(odd)} is in no label convention of its kind ({known}); "
        "correct the label map, or name its convention with --convention",
    )


def decide(kind: str, values: Mapping[str, frozenset[int]], case_ids: Sequence[str]) -> str:
    """Choose the convention of a cohort of one kind.

    Args:
        kind: from :func:`kind_of`.
        values: case id to the values its label map holds, 0 left out; cases without a readable label map are absent.
        case_ids: all cases of the cohort, for the message.

    Returns:
        Name of the convention.

    Raises:
        PipelineError: several readings fit and differ, or none fits; the message prints them.
    """
    readings = READINGS.get(kind, _UNKNOWN)
    every = readings.usual + readings.rare
    seen = frozenset[int]().union(*values.values())
    if not seen:
        if readings.has_default:
            return readings.usual[0]
        raise _refusal(kind, case_ids, seen, every, "there is no label map to tell it by")
    # ET is 3 in one convention and 4 in another: a cohort put together from both holds both, but never in one case.
    threes, fours = ([case for case, held in values.items() if value in held] for value in (3, 4))
    if threes and fours and not set(threes) & set(fours):
        why = f"3 occurs in {_some(threes)}, 4 in {_some(fours)}, never both: two conventions seem to be mixed"
        raise _refusal(kind, case_ids, seen, every, why)
    for names in (readings.usual, readings.rare):
        fitting = [name for name in names if seen <= CONVENTIONS[name].values]
        if fitting and _agree(fitting, seen):
            return fitting[0]
        if fitting:
            raise _refusal(kind, case_ids, seen, fitting, f"labels {_listed(seen)} fit {len(fitting)} conventions")
    fitting = [name for name in CONVENTIONS if seen <= CONVENTIONS[name].values]
    why = f"labels {_listed(seen)} fit none that is usual for them ({', '.join(every)})"
    raise _refusal(kind, case_ids, seen, fitting or every, why)
