"""What several members say about one case, pooled: their mean, and how far they are apart.

Members are networks, mirror images of the scan, or both. Each region is a yes-or-no question, so with p(k) for the
probability of member k, weights that sum to 1, H(p) = -p ln p - (1 - p) ln(1 - p) in nats and P for the mean of p(k):

    entropy              H(P)                    how unsure the answer is, for whatever reason; at most ln 2
    expected entropy     mean of H(p(k))         how unsure each member is by itself: what the image leaves open
    mutual information   H(P) - mean of H(p(k))  how much the members disagree, and 0 where all say the same

The last is what Houlsby et al. (BALD, arXiv:1112.5745) ask labels for and Gal and Ghahramani's draws of a network give
(Gal, Islam and Ghahramani, ICML 2017, arXiv:1703.02910); members take the place of draws, as in deep ensembles
(Lakshminarayanan et al., NeurIPS 2017).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import Compose
from torch import Tensor

from transforms.restore import RestoreRegionsd, thresholds_for

FARTHEST = 1e4
"""The logit of certainty, in float16 too."""
SPREAD = ("expected_entropy", "lowest", "highest")
"""What :class:`MemberPool` tells of each region beside the mean, in this order."""


def binary_entropy(probability: Tensor) -> Tensor:
    """Entropy of a yes-or-no question in nats, from 0 (sure) to ln 2 (even); any shape."""
    entropy: Tensor = torch.special.entr(probability) + torch.special.entr(1 - probability)
    return entropy


def mutual_information(mean: Tensor, expected_entropy: Tensor) -> Tensor:
    """What the members' disagreement adds to their own doubt, in nats; never below 0, whatever was rounded."""
    return (binary_entropy(mean) - expected_entropy).clamp_min(0)


class MemberPool:
    """Adds up what members say, so that memory holds the sums and one member.

    Args:
        spread: also keep what :data:`SPREAD` names, each as large as the mean.
    """

    def __init__(self, *, spread: bool = False) -> None:
        self.spread = spread
        self._mean: Tensor | None = None
        self._more: list[Tensor] = []
        self._weights: Tensor = torch.zeros(1)

    def add(self, probabilities: Tensor, weights: float | Sequence[float] = 1.0) -> None:
        """Add a member.

        Args:
            probabilities: ``(N, R, *spatial)``, float32.
            weights: of the member, one for all regions or one for each. Where it is 0, the member has no say.

        Raises:
            ValueError: weights below 0 or infinite, or another number of them than of regions.
        """
        regions = probabilities.shape[1]
        given = [float(weights)] * regions if isinstance(weights, int | float) else list(map(float, weights))
        if len(given) != regions or not all(math.isfinite(one) and one >= 0 for one in given):
            raise ValueError(
                f"weights are {given} for {probabilities.shape[1]} regions; give one of at least 0 for each"
            )
        weight = torch.tensor(given, dtype=torch.float32, device=probabilities.device)
        column = weight.view(-1, *[1] * (probabilities.dim() - 2))
        if self._mean is None:
            self._mean, self._weights = probabilities * column, weight
        else:
            self._mean.addcmul_(probabilities, column)
            self._weights = self._weights + weight
        if not self.spread:
            return
        counts = column > 0
        low, high = torch.where(counts, probabilities, 1), torch.where(counts, probabilities, 0)
        if not self._more:
            self._more = [binary_entropy(probabilities) * column, low, high]
        else:
            entropy, lowest, highest = self._more
            entropy.addcmul_(binary_entropy(probabilities), column)
            torch.minimum(lowest, low, out=lowest)
            torch.maximum(highest, high, out=highest)

    def mean(self) -> Tensor:
        """The weighted mean of the probabilities, ``(N, R, *spatial)``.

        Raises:
            ValueError: there is no member, or a region in which none has a weight.
        """
        if self._mean is None or not bool((self._weights > 0).all()):
            raise ValueError(
                f"the weights of all members sum to {self._weights.tolist()}; each region needs one above 0"
            )
        return self._mean / self._weights.view(-1, *[1] * (self._mean.dim() - 2))

    def logits(self) -> Tensor:
        """The logit of the mean, so that thresholds and sigmoids behind it find what they expect.

        Without spread ``(N, R, *spatial)``; with it ``(N, 4 * R, *spatial)``: logits, then the expected entropy, the
        lowest and the highest probability that a member gives. Certainty is plus or minus :data:`FARTHEST`.
        """
        mean = self.mean()
        logits = mean.logit_().clamp_(-FARTHEST, FARTHEST)
        if not self.spread:
            return logits
        entropy, lowest, highest = self._more
        entropy = entropy / self._weights.view(-1, *[1] * (entropy.dim() - 2))
        return torch.cat([logits, entropy, lowest, highest], dim=1)


class RestoreSpreadd(RestoreRegionsd):
    """Take what :class:`MemberPool` tells beside the mean out of the logits, and bring it to the grid of the scan.

        pred  logits | expected entropy | lowest | highest   =>   pred  logits, still on the grid of the network

    and five more entries ``(R, *scan grid)``: ``mean``, ``entropy`` and ``mutual_information``, float16; ``lowest`` and
    ``highest``, bytes: 1 where every member, or at least one, reaches the threshold.

    Entropies are those of the network's own grid. Where the preprocessing interpolated, they are interpolated back:
    made of interpolated probabilities they would show doubt between any two voxels that differ. What interpolation
    makes of the lowest probabilities is nowhere above what it makes of any member's, so the regions stay bounds.

    Args:
        keys: ``(4 * R, *network grid)``, becomes ``(R, *network grid)``.
        regions: name of each region.
        transform: the preprocessing, whose inverse is the way back; None where both grids are one.
        orig_keys: the preprocessed image, which knows what was done to it.
        threshold: of the probability, one for all regions or one for each.

    Raises:
        ValueError: another number of channels, or a threshold outside 0 to 1.
    """

    def __init__(
        self,
        keys: KeysCollection,
        *,
        regions: Sequence[str],
        transform: Compose | None,
        orig_keys: str = "image",
        threshold: float | Sequence[float] = 0.5,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(
            keys,
            transform=transform,
            orig_keys=orig_keys,
            threshold=threshold,
            allow_missing_keys=allow_missing_keys,
        )
        self.count = len(regions)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            everything, parts = item[key], 1 + len(SPREAD)
            if len(everything) != parts * self.count:
                raise ValueError(
                    f"{len(everything)} channels for {self.count} regions; needed: {parts} for each, as an inferer "
                    "with spread: true gives"
                )
            plain = everything.as_tensor() if isinstance(everything, MetaTensor) else everything
            logits, expected, lowest, highest = plain.float().split(self.count)
            mean = logits.sigmoid()
            limits = thresholds_for(self.threshold, self.count)
            item["mean"] = self._each(mean, item).half()
            item["entropy"] = self._each(binary_entropy(mean), item).half()
            item["mutual_information"] = self._each(mutual_information(mean, expected), item).half()
            for name, bound in (("lowest", lowest), ("highest", highest)):
                level = torch.tensor(limits, device=bound.device).view(-1, 1, 1, 1)
                item[name] = (self._each(bound, item) >= level).byte()
            item[key] = everything[: self.count]
        return item

    def _each(self, values: Tensor, item: Mapping[Hashable, Any]) -> Tensor:
        """Values of every region on the grid of the scan."""
        if self.transform is None:
            return values
        whole = self._back(MetaTensor(values), item, nearest=False)
        return whole.as_tensor() if isinstance(whole, MetaTensor) else whole
