"""What a sample can say: an interval of the mean, a test of paired differences, and what many tests cost.

Efron, Better Bootstrap Confidence Intervals, JASA 1987 (BCa); Wilcoxon, Individual Comparisons by Ranking Methods,
Biometrics Bulletin 1945; Pratt, Remarks on Zeros and Ties in the Wilcoxon Signed Rank Procedures, JASA 1959; Holm, A
Simple Sequentially Rejective Multiple Test Procedure, Scandinavian Journal of Statistics 1979; resampling whole
patients: Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

# Not scipy.stats: importing it takes longer than everything else here, in each process that scores cases.
from scipy.special import ndtr, ndtri, stdtrit

Floats = npt.NDArray[np.float64]

RESAMPLES = 10_000
"""Resamples of every bootstrap, unless asked otherwise."""
TIE_DECIMALS = 9
"""Values that agree to so many decimals are equal, so that the rounding of binary numbers makes no order."""
EXACT_UP_TO = 200
"""Wilcoxon's test counts all signs for so many differences other than zero, and is normal beyond."""
_BLOCK = 1 << 18


def resampled(n: int, *, resamples: int, seed: int) -> Iterator[npt.NDArray[np.int64]]:
    """Draw ``n`` of ``n`` cases with replacement, many times: blocks of ``(resamples in the block, n)`` indices."""
    generator = np.random.default_rng(seed)
    rows = max(1, _BLOCK // n)
    for start in range(0, resamples, rows):
        yield generator.integers(0, n, (min(rows, resamples - start), n))


def _clusters(values: Floats, owners: Sequence[Hashable] | None) -> tuple[Floats, Floats]:
    """Sum and count of the values of each owner, in an order that depends on nothing else; NaN is left out."""
    defined = ~np.isnan(values)
    if owners is None:
        sums = np.sort(values[defined])
        return sums, np.ones(sums.size)
    if len(owners) != values.size:
        raise ValueError(f"got {len(owners)} patients for {values.size} values; every value needs its patient")
    members: dict[Hashable, list[float]] = {}
    for value, owner, kept in zip(values.tolist(), owners, defined.tolist(), strict=True):
        if kept:
            members.setdefault(owner, []).append(value)
    pairs = sorted((math.fsum(own), float(len(own))) for own in members.values())
    return np.array([total for total, _ in pairs]), np.array([count for _, count in pairs])


def bootstrap_interval(
    values: Sequence[float],
    *,
    patients: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float] | None:
    """Confidence interval of the mean by the bias-corrected and accelerated bootstrap.

    The order of the values does not matter. Below about 20 values every bootstrap interval is too narrow. Time points
    of one patient resemble each other; where the patients are given, whole patients are drawn, with all their values,
    and left out one by one for the acceleration. The mean stays that over the values.

    Args:
        values: one per case; NaN is left out.
        patients: whose value each is; None where each is somebody else's.
        confidence: share of samples whose interval holds the true mean.
        resamples: how many.
        seed: of the draws; equal seeds give equal intervals.

    Returns:
        Lower and upper end; both the mean where all are equal, None for fewer than two values or patients.

    Raises:
        ValueError: a value is infinite, the confidence does not lie between 0 and 1, there are no resamples, or
            more or fewer patients than values.
    """
    if not 0 < confidence < 1 or resamples < 1:
        raise ValueError(
            f"got confidence {confidence:g} and {resamples} resamples; "
            "the confidence must lie between 0 and 1, such as 0.95, and resamples be positive, such as 10,000"
        )
    given = np.asarray(values, dtype=np.float64)
    if np.isinf(given).any():
        raise ValueError("got an infinite value, which has no mean; replace it by the score that the rules give it")
    sums, counts = _clusters(given, patients)
    if sums.size < 2:
        return None
    own = sums / counts
    mean = sums.mean() / counts.mean()
    rounding = 1e-12 * np.abs(own).max()
    if np.abs(own - mean).max() <= rounding:
        return float(mean), float(mean)

    blocks = resampled(sums.size, resamples=resamples, seed=seed)
    means = np.concatenate([sums[indices].mean(axis=1) / counts[indices].mean(axis=1) for indices in blocks])
    # A resample that is the sample in another order has its mean, but for the rounding of the sum.
    means[np.abs(means - mean) <= rounding] = mean
    below = (np.count_nonzero(means < mean) + np.count_nonzero(means <= mean)) / (2 * resamples)
    bias = ndtri(np.clip(below, 0.5 / resamples, 1 - 0.5 / resamples))
    # The jackknife of a mean leaves the deviations themselves, up to a factor that cancels.
    deviations = sums - mean * counts
    if counts.min() < counts.max():
        without = (sums.sum() - sums) / (counts.sum() - counts)
        deviations = without.mean() - without
    deviations = deviations / np.abs(deviations).max()
    acceleration = (deviations**3).sum() / (6 * (deviations**2).sum() ** 1.5)
    tail = ndtri(np.array([(1 - confidence) / 2, (1 + confidence) / 2]))
    levels = ndtr(bias + (bias + tail) / (1 - acceleration * (bias + tail)))
    low, high = (float(end) for end in np.quantile(means, levels))
    return low, high


def t_half_width(differences: Sequence[float]) -> float | None:
    """Half of the 95 % interval of a mean by Student's t, ``t(0.975, n - 1) * SD / sqrt(n)``; None below two values."""
    sample = np.asarray(differences, dtype=np.float64)
    if sample.size < 2:
        return None
    return float(stdtrit(sample.size - 1, 0.975) * sample.std(ddof=1) / math.sqrt(sample.size))


def smallest_p(n: int) -> float:
    """The smallest two-sided p of Wilcoxon's signed-rank test of ``n`` cases, ``2 ** (1 - n)``: all differ one way."""
    return min(1.0, math.ldexp(1.0, 1 - n))


def _signed_ranks(differences: Floats) -> tuple[npt.NDArray[np.int64], int]:
    """Twice the ranks of the differences that are not zero, and twice the rank sum of those above zero.

    Zeros are ranked with the others and then dropped (Pratt); ties share their mean rank, so twice a rank is whole.
    """
    rounded = np.round(differences, TIE_DECIMALS)
    _, place, counts = np.unique(np.abs(rounded), return_inverse=True, return_counts=True)
    doubled = (2 * np.cumsum(counts) - counts + 1)[place].astype(np.int64)
    return doubled[rounded != 0], int(doubled[rounded > 0].sum())


def wilcoxon_p(differences: Sequence[float]) -> float:
    """Two-sided p of Wilcoxon's signed-rank test that differences lie around zero.

    Zero differences are ranked and then dropped (Pratt). Up to :data:`EXACT_UP_TO` other differences the p is exact,
    with ties and zeros as they are: the share of all ways to set the signs that are as uneven. Beyond, the rank sum is
    taken as normal, with the variance of the ranks as they are and no correction for continuity.

    Args:
        differences: one per case, none of them NaN.

    Returns:
        1 where all differences are zero.

    Raises:
        ValueError: there is no difference at all.
    """
    if len(differences) == 0:
        raise ValueError("got no differences; a test needs at least one case that both runs score")
    ranks, positive = _signed_ranks(np.asarray(differences, dtype=np.float64))
    total = int(ranks.sum())
    smaller = min(positive, total - positive)
    if ranks.size > EXACT_UP_TO:
        deviation = math.sqrt(float((ranks.astype(np.float64) ** 2).sum()) / 4)
        return min(1.0, 2 * float(ndtr((smaller - total / 2) / deviation)))
    # chances[s] is the probability that the ranks with a positive sign sum to s.
    chances = np.zeros(smaller + 1)
    chances[0] = 1
    for rank in ranks.tolist():
        chances *= 0.5
        if rank <= smaller:
            chances[rank:] += chances[:-rank].copy()
    return min(1.0, 2 * float(chances.sum()))


def rank_biserial(differences: Sequence[float]) -> float:
    """How one-sided the signed ranks are: -1 all below zero, 1 all above, 0 balanced or all zero (Kerby 2014)."""
    ranks, positive = _signed_ranks(np.asarray(differences, dtype=np.float64))
    total = int(ranks.sum())
    return (2 * positive - total) / total if total else 0.0


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Adjust the p-values of one family of tests, so that any false finding at all is as rare as the level says.

    Args:
        p_values: of the tests; None where a test could not be made, which does not count in the family.

    Returns:
        The adjusted p-values in the same order.

    Raises:
        ValueError: a value does not lie between 0 and 1.
    """
    known = [(p, place) for place, p in enumerate(p_values) if p is not None]
    if wrong := [p for p, _ in known if not 0 <= p <= 1]:
        raise ValueError(f"got the p-value {wrong[0]:g}; p-values lie between 0 and 1, and None stands for no test")
    adjusted: list[float | None] = [None] * len(p_values)
    reached = 0.0
    for rejected, (p, place) in enumerate(sorted(known)):
        reached = max(reached, min(1.0, p * (len(known) - rejected)))
        adjusted[place] = reached
    return adjusted
