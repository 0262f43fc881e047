"""How good a label map probably is, told from its own probabilities and from cases whose reference is known.

If a network's probabilities meant what they say, and voxels were independent, the Dice of a mask M would be expected at
about ``2 * sum of p over M / (|M| + sum of p over all voxels)``, the ratio of the two expectations (the soft Dice of a
mask with its own probabilities). Networks are surer than they should be, so this score is mapped to the Dice that
validation cases of such a score reached, by isotonic regression: the least-squares fit that only rises (Barlow et al.
1972; for classifiers Zadrozny and Elkan, KDD 2002). How far it is off is measured on cases left out, one by one.

An empty mask has no such score. Its Dice is 1 where the reference is empty too, else 0, so the share of validation
cases with an empty mask where nothing was missed is what is expected.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from brats_pipeline.errors import PipelineError
from brats_pipeline.files import file_sha256, write_atomically

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating[Any]]

SCHEMA_VERSION = 1
FILE = "expected_dice.json"
"""Below ``configs/`` of a bundle or run."""
MIN_CASES = 10
"""Fewer validation cases with a mask of a region say nothing about it."""
REVIEW_BELOW = 0.7
"""A label map of which less is expected should be looked at."""


def soft_dice(probability: Floats, mask: Mask) -> float | None:
    """The Dice that a mask would have if its probabilities were right; None for an empty mask.

        p 0.9 0.6 0.2,  mask 1 1 0   =>   2 * 1.5 / (2 + 1.7) = 0.81

    Args:
        probability: of the region, any shape, from 0 to 1.
        mask: the region as it is written, same shape.

    Raises:
        ValueError: the shapes differ.
    """
    if probability.shape != mask.shape:
        raise ValueError(f"probabilities of shape {probability.shape} for a mask of shape {mask.shape}")
    voxels = int(np.count_nonzero(mask))
    if not voxels:
        return None
    inside = float(probability[mask].sum(dtype=np.float64))
    return 2 * inside / (voxels + float(probability.sum(dtype=np.float64)))


def dice_of(mask: Mask, reference: Mask) -> float:
    """Dice of two masks; 1 where both are empty."""
    total = int(np.count_nonzero(mask)) + int(np.count_nonzero(reference))
    return 2 * int(np.count_nonzero(mask & reference)) / total if total else 1.0


@dataclass(frozen=True)
class RegionFit:
    """From soft Dice to expected Dice, of one region.

    Args:
        n: validation cases with a mask.
        scores: soft Dice at the corners of the fitted line, rising.
        dice: expected Dice there; between the corners it runs straight, beyond them it stays.
        mean_absolute_error: of the Dice of cases left out one by one (with all cases of their patient).
        of_the_mean: the same error if the mean Dice of the other cases were expected of every case; what the score
            adds is the difference.
        n_empty: validation cases with an empty mask.
        empty_dice: their mean Dice; None without any.
    """

    n: int
    scores: tuple[float, ...]
    dice: tuple[float, ...]
    mean_absolute_error: float
    of_the_mean: float
    n_empty: int
    empty_dice: float | None

    def expect(self, score: float | None) -> float | None:
        """Expected Dice for a soft Dice, or for an empty mask (None); None where validation says nothing about it."""
        if score is None:
            return self.empty_dice
        return float(np.interp(score, self.scores, self.dice))


@dataclass(frozen=True)
class ExpectedDice:
    """What validation says about each region.

    Args:
        regions: region to its fit; those with fewer than :data:`MIN_CASES` masks are left out.
        made_by: what the probabilities came from, see :func:`makers`; empty where nobody said.
        review_below: a region of which less is expected makes its case one to look at.
    """

    regions: Mapping[str, RegionFit]
    made_by: Mapping[str, Any]
    review_below: float = REVIEW_BELOW

    def of(self, region: str, probability: Floats, mask: Mask) -> float | None:
        """Expected Dice of a region of a case; None where validation says nothing about it."""
        fit = self.regions.get(region)
        return None if fit is None else fit.expect(soft_dice(probability, mask))


def fit_expected_dice(
    probabilities: Iterable[Floats],
    references: Iterable[Mask],
    *,
    regions: Sequence[str],
    masks: Iterable[Mask] | None = None,
    threshold: float | Sequence[float] = 0.5,
    patients: Sequence[str] | None = None,
    made_by: Mapping[str, Any] | None = None,
    review_below: float = REVIEW_BELOW,
) -> ExpectedDice:
    """Fit on validation cases, which the network was not trained on; one case is in memory at a time.

    Args:
        probabilities: of each case ``(R, x, y, z)``, as they will be saved.
        references: of each case ``(R, x, y, z)``.
        regions: the region of each channel.
        masks: of each case ``(R, x, y, z)``, as its label map has them; by default where a probability reaches the
            threshold.
        threshold: one for all regions, or one for each.
        patients: of each case, where patients have several; they are left out together.
        made_by: from :func:`makers`; a calibration is not used for what other weights say.
        review_below: see :class:`ExpectedDice`.

    Raises:
        ValueError: there are more cases of one kind than of another, or their shapes differ.
    """
    limits = np.broadcast_to(np.asarray(threshold, dtype=np.float64), (len(regions),))
    rows: dict[str, list[tuple[float | None, float]]] = {name: [] for name in regions}
    third: Iterable[Mask | None] = masks if masks is not None else ()
    for probability, reference, mask in zip_longest(probabilities, references, third):
        if probability is None or reference is None or (mask is None) != (masks is None):
            raise ValueError("there are more cases of probabilities, references or masks than of the others")
        if probability.shape != reference.shape or len(probability) != len(regions):
            raise ValueError(
                f"probabilities {probability.shape}, reference {reference.shape}, {len(regions)} regions; needed: "
                "one shape, one channel per region"
            )
        for number, name in enumerate(regions):
            own = probability[number] >= limits[number] if mask is None else mask[number].astype(bool)
            rows[name].append((soft_dice(probability[number], own), dice_of(own, reference[number].astype(bool))))
    fits = {name: fit_region(found, patients=patients) for name, found in rows.items()}
    known = {name: fit for name, fit in fits.items() if fit is not None}
    return ExpectedDice(known, dict(made_by or {}), review_below)


def fit_region(
    cases: Sequence[tuple[float | None, float]], *, patients: Sequence[str] | None = None
) -> RegionFit | None:
    """Fit one region.

    Args:
        cases: soft Dice (None for an empty mask) and Dice of each case.
        patients: of each case; by default each case is another patient.

    Returns:
        None where fewer than :data:`MIN_CASES` cases have a mask, or all of them are of one patient.

    Raises:
        ValueError: there is not one patient per case.
    """
    names = list(map(str, range(len(cases)))) if patients is None else list(patients)
    if len(names) != len(cases):
        raise ValueError(f"{len(names)} patients for {len(cases)} cases; needed: one for each")
    filled = [(score, dice, name) for (score, dice), name in zip(cases, names, strict=True) if score is not None]
    empty = [dice for score, dice in cases if score is None]
    if len(filled) < MIN_CASES or len({name for *_, name in filled}) < 2:
        return None
    x = np.array([score for score, *_ in filled])
    y = np.array([dice for _, dice, _ in filled])
    owner = np.array([name for *_, name in filled])
    misses, of_mean = np.empty_like(y), np.empty_like(y)
    for name in dict.fromkeys(owner.tolist()):
        out = owner == name
        scores, dice = _rising(x[~out], y[~out])
        misses[out] = np.abs(np.interp(x[out], scores, dice) - y[out])
        of_mean[out] = np.abs(y[~out].mean() - y[out])
    scores, dice = _rising(x, y)
    return RegionFit(
        n=len(filled),
        scores=tuple(scores.tolist()),
        dice=tuple(dice.tolist()),
        mean_absolute_error=float(misses.mean()),
        of_the_mean=float(of_mean.mean()),
        n_empty=len(empty),
        empty_dice=float(np.mean(empty)) if empty else None,
    )


def _rising(
    x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Corners of the isotonic regression."""
    from sklearn.isotonic import IsotonicRegression  # type: ignore[import-untyped, unused-ignore]

    model = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(x, y)
    return np.asarray(model.X_thresholds_, dtype=np.float64), np.asarray(model.y_thresholds_, dtype=np.float64)


def makers(checkpoints: str | Path | Sequence[str | Path], *, tta: str | Sequence[int] = ()) -> dict[str, Any]:
    """What probabilities come from, as far as it decides how sure they are: weights and mirror images."""
    paths = [checkpoints] if isinstance(checkpoints, str | Path) else list(checkpoints)
    return {
        "weights_sha256": sorted(file_sha256(path) for path in paths),
        "tta": tta if isinstance(tta, str) else sorted(tta),
    }


def write_expected_dice(path: str | Path, fitted: ExpectedDice) -> None:
    """Write a calibration as JSON, atomically; a folder's place for it is ``configs/`` and :data:`FILE`."""
    content = {"schema_version": SCHEMA_VERSION, **asdict(fitted)}
    write_atomically(path, json.dumps(content, indent=2) + "\n")


def read_expected_dice(path: str | Path) -> ExpectedDice | None:
    """Read what :func:`write_expected_dice` wrote; None where there is no such file.

    Raises:
        PipelineError: the file is damaged.
    """
    path = Path(path)
    if not path.is_file():
        return None
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        fits = {}
        for name, fit in told["regions"].items():
            corners = {key: tuple(map(float, fit[key])) for key in ("scores", "dice")}
            fits[name] = RegionFit(**{**fit, **corners})
            rising = all(a <= b for a, b in zip(corners["scores"], corners["scores"][1:], strict=False))
            if len(corners["scores"]) != len(corners["dice"]) or not corners["scores"] or not rising:
                raise ValueError(f"corners of {name}")
        review_below = float(told["review_below"])
        if math.isnan(review_below):
            raise ValueError("review_below")
        return ExpectedDice(fits, dict(told["made_by"]), review_below)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PipelineError(f"{path}: is no calibration ({error}); make it again with `brats-pipeline tune`") from error
