"""Two runs over the same cases: how they differ, and what may be said of it.

The words "better" and "worse" need three things at once: the 95 % interval of the mean paired difference excludes 0,
Wilcoxon's signed-rank test (corrected for the number of comparisons where there are several) has p below 0.05, and
both point the same way. With fewer than six cases the test cannot reach 0.05, so nothing is decided.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from brats_pipeline.metrics.statistics import (
    RESAMPLES,
    TIE_DECIMALS,
    bootstrap_interval,
    rank_biserial,
    smallest_p,
    t_half_width,
    wilcoxon_p,
)
from brats_pipeline.metrics.summary import patients_of

LEVEL = 0.05
"""A p below it counts as a finding."""
FEWEST_CASES = 6
"""The smallest n at which Wilcoxon's two-sided p can fall below :data:`LEVEL`: 0.031."""

_HIGHER_IS_BETTER = {"dice", "iou", "precision", "recall", "specificity", "nsd", "tp"}
_LOWER_IS_BETTER = {"hd95", "assd", "fp", "fn"}
_NAMES = {"dice": "Dice", "iou": "IoU", "hd95_mm": "HD95", "assd_mm": "ASSD", "lesionwise_dice": "lesion-wise Dice"}
_NAMES |= {"lesionwise_hd95_mm": "lesion-wise HD95"}


def lower_is_better(metric: str) -> bool:
    """Whether a smaller value of a column is the better one, as of distances and errors.

    Raises:
        ValueError: the column has no better side, as a volume has none.
    """
    words = set(metric.split("_"))
    if words & _LOWER_IS_BETTER:
        return True
    if words & _HIGHER_IS_BETTER:
        return False
    known = ", ".join(sorted(_HIGHER_IS_BETTER | _LOWER_IS_BETTER))
    raise ValueError(f"{metric!r} has no better side; compare a column of {known}")


@dataclass(frozen=True)
class Comparison:
    """One metric of two runs, case by case; every difference is the first run's value less the second's.

    Args:
        n: cases that both runs define; patients, where several cases are of one patient.
        cases: that both runs define.
        undefined: cases left out because the metric is not defined in one of the runs.
        mean_difference: None where ``n`` is 0.
        median_difference: None where ``n`` is 0.
        interval_95: of the mean difference, by the BCa bootstrap; None for fewer than two cases.
        p_value: two-sided, of Wilcoxon's signed-rank test, zeros by Pratt; None where ``n`` is 0.
        rank_biserial: -1 where the second run is higher in all cases, 1 where the first is.
        higher: cases in which the first run is higher.
        equal: cases in which both are the same.
        lower: cases in which the first run is lower.
        smallest_p: the smallest two-sided p that Wilcoxon's test can give where so many cases differ.
        smallest_difference: the smallest mean difference that ``n`` cases of this spread could show, half of the
            paired t interval: ``t(0.975, n - 1) * SD / sqrt(n)``; None for fewer than two cases.
    """

    n: int
    cases: int
    undefined: tuple[str, ...]
    mean_difference: float | None
    median_difference: float | None
    interval_95: tuple[float, float] | None
    p_value: float | None
    rank_biserial: float
    higher: int
    equal: int
    lower: int
    smallest_p: float
    smallest_difference: float | None

    def shown(self, *, adjusted_p: float | None = None) -> int:
        """The sign of a difference that is shown, 0 where none is.

        Args:
            adjusted_p: p corrected for the number of comparisons; by default the comparison's own.
        """
        p = self.p_value if adjusted_p is None else adjusted_p
        if self.n < FEWEST_CASES or p is None or p >= LEVEL or self.interval_95 is None:
            return 0
        low, high = self.interval_95
        if low > 0 and self.rank_biserial > 0:
            return 1
        return -1 if high < 0 and self.rank_biserial < 0 else 0


def compare_paired(
    first: Mapping[str, float],
    second: Mapping[str, float],
    *,
    patients: Mapping[str, str] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Compare one metric of two runs case by case.

    Time points of one patient resemble each other, and every test here takes what it is given for independent: where
    the patients are known, the differences of each patient are averaged first, and patients are what is compared.

    Args:
        first: case id to value; NaN where it is not defined.
        second: the same cases in the other run.
        patients: case id to patient; None where every case is another patient.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ValueError: the runs have not the same cases; a value is infinite.
    """
    if first.keys() != second.keys():
        alone = sorted(first.keys() ^ second.keys())
        raise ValueError(f"only one of the runs has {', '.join(alone[:3])}; join the runs first, so that it is a miss")
    case_ids = sorted(first)
    undefined = tuple(case for case in case_ids if math.isnan(first[case]) or math.isnan(second[case]))
    defined = [case for case in case_ids if case not in set(undefined)]
    if infinite := [case for case in defined if math.isinf(first[case]) or math.isinf(second[case])]:
        raise ValueError(f"{infinite[0]} has an infinite value; replace it by the score that the rules give it")
    by_patient: dict[str, list[float]] = {}
    for case, owner in zip(defined, patients_of(defined, patients) or defined, strict=True):
        by_patient.setdefault(owner, []).append(first[case] - second[case])
    differences = [round(math.fsum(own) / len(own), TIE_DECIMALS) for own in by_patient.values()]
    n = len(differences)
    return Comparison(
        n=n,
        cases=len(defined),
        undefined=undefined,
        mean_difference=float(np.mean(differences)) if n else None,
        median_difference=float(np.median(differences)) if n else None,
        interval_95=bootstrap_interval(differences, resamples=resamples, seed=seed),
        p_value=wilcoxon_p(differences) if n else None,
        rank_biserial=rank_biserial(differences),
        higher=sum(difference > 0 for difference in differences),
        equal=sum(difference == 0 for difference in differences),
        lower=sum(difference < 0 for difference in differences),
        smallest_p=smallest_p(sum(difference != 0 for difference in differences)),
        smallest_difference=t_half_width(differences),
    )


def mean_over_patients(values: Mapping[str, float], patients: Mapping[str, str]) -> float | None:
    """The mean that :func:`compare_paired` forms: of the means of the patients; None where nothing is defined.

    Args:
        values: case id to value; NaN where it is not defined.
        patients: case id to patient.
    """
    own: dict[str, list[float]] = {}
    for case, value in values.items():
        if not math.isnan(value):
            own.setdefault(patients.get(case, case), []).append(value)
    return float(np.mean([np.mean(each) for each in own.values()])) if own else None


def _p(p: float) -> str:
    return "p < 0.0001" if p < 0.0001 else f"p = {p:.2g}"


def verdict(
    comparison: Comparison,
    *,
    metric: str,
    first: str,
    second: str,
    adjusted_p: float | None = None,
    tests: int = 1,
) -> str:
    """What may be said of two runs, in words.

    Args:
        comparison: of the two.
        metric: column that was compared.
        first: name of the first run.
        second: name of the second run.
        adjusted_p: p corrected for the number of comparisons, from :func:`holm`.
        tests: how many comparisons that is.

    Raises:
        ValueError: the metric has no better side.
    """
    better_when_lower = lower_is_better(metric)
    name, unit = _NAMES.get(metric, metric), " mm" if metric.endswith("_mm") else ""
    n = comparison.n
    if comparison.mean_difference is None or comparison.median_difference is None or comparison.p_value is None:
        return f"{first} and {second} share no case in which {name} is defined: nothing to compare."

    several = comparison.cases > n
    noun = "patient" if several else "case"
    cases = f"{n} {noun}{'' if n == 1 else 's'}"
    of_cases = f" ({comparison.cases} cases, averaged by patient)" if several else ""
    figures = (
        f"{name} of {first} less that of {second}: mean {comparison.mean_difference:+.3g}{unit}, "
        f"median {comparison.median_difference:+.3g}{unit}"
    )
    if n >= FEWEST_CASES and comparison.equal == n:
        return f"{first} and {second} have the same {name} in all {cases}."
    if n < FEWEST_CASES:
        least = "; one case has no spread, so what it could show is not known"
        if comparison.smallest_difference is not None:
            least = (
                f"; the smallest mean difference that {cases} of this spread could show is "
                f"{comparison.smallest_difference:.3g}{unit} (half of the paired t interval, t * SD / sqrt(n))"
            )
        return (
            f"With {cases}{of_cases} no test can decide between {first} and {second}: the smallest two-sided p of "
            f"Wilcoxon's test is {comparison.smallest_p:.3g}. {figures}{least}."
        )
    low, high = comparison.interval_95 or (math.nan, math.nan)
    corrected = "" if adjusted_p is None else f", corrected by Holm {_p(adjusted_p)}"
    figures += (
        f", 95 % interval {low:+.3g} to {high:+.3g}{unit}; Wilcoxon {_p(comparison.p_value)}{corrected}; "
        f"n = {cases if several else n}{of_cases}, {comparison.equal} equal"
    )
    sign = comparison.shown(adjusted_p=adjusted_p)
    if sign:
        side = "better" if (sign < 0) == better_when_lower else "worse"
        return f"{first} is {side} than {second}. {figures}."
    possible = min(1.0, tests * comparison.smallest_p)
    if possible >= LEVEL:
        among, corrected = (f" among {tests} comparisons", ", corrected by Holm,") if tests > 1 else ("", "")
        return (
            f"No test can decide between {first} and {second}{among}: where {n - comparison.equal} {noun}s differ, the "
            f"smallest two-sided p of Wilcoxon's test{corrected} is {possible:.2g}. {figures}."
        )
    return (
        f"No difference between {first} and {second} is shown. {figures}; the smallest mean difference that {cases} of "
        f"this spread could show{' before correction' if tests > 1 else ''} is "
        f"{comparison.smallest_difference:.3g}{unit}."
    )
