"""Losses over overlapping regions; each region is a yes-or-no question of its own.

All take logits and targets ``(N, R, *spatial)`` in two or three dimensions; targets are 0 or 1 in any dtype. They are
made of sums and elementwise functions, so that they run under ``torch.use_deterministic_algorithms`` on every device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from monai.losses import BoundaryLoss, DiceCELoss, DiceLoss, FocalLoss, TverskyLoss
from torch import Tensor, nn
from torch.nn import functional as F

from brats_pipeline.errors import PipelineError

BOUNDARY_WEIGHT = 0.01
"""Of the boundary term beside Dice (Kervadec et al. 2019, arXiv:1812.07032, start with it): it counts in voxels."""


class DiceBCELoss(nn.Module):
    """Sum of Dice loss and binary cross-entropy over the regions.

    The region-based loss of nnU-Net's BraTS entry (Isensee et al. 2020, arXiv:2011.00848): Dice pooled over the batch,
    so that a patch without a region does not produce a noisy gradient.

    Args:
        dice_weight: factor of the Dice term.
        bce_weight: factor of the cross-entropy term.

    Shape:
        logits and target ``(N, R, *spatial)``; the target float, 0 or 1.
    """

    def __init__(self, dice_weight: float = 1.0, bce_weight: float = 1.0) -> None:
        super().__init__()
        self.dice = DiceLoss(sigmoid=True, batch=True)
        self.bce = nn.BCEWithLogitsLoss()
        self.dice_weight = dice_weight
        self.bce_weight = bce_weight

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        target = target.float()
        loss: Tensor = self.dice_weight * self.dice(logits, target) + self.bce_weight * self.bce(logits, target)
        return loss


class WeightedBCELoss(nn.Module):
    """Binary cross-entropy in which tumour and background weigh the same, however small the tumour.

    A region that fills the share s of the training masks weighs 1 / 2s per voxel inside and 1 / 2(1 - s) outside: both
    sides come to one half over the training masks, and the mean weight is 1.

    Args:
        shares: s of each region, from 0 to 1 (exclusive).

    Raises:
        PipelineError: a region is in no voxel of the training masks, or in all.
    """

    def __init__(self, shares: Sequence[float]) -> None:
        super().__init__()
        if not shares or not all(0 < share < 1 for share in shares):
            listed = ", ".join(f"{share:g}" for share in shares) or "not given"
            raise PipelineError(
                f"the share of each region in the training masks is {listed}; weights need shares above 0 and below 1: "
                "train on cases that hold every region, or with another loss_name"
            )
        self.shares = tuple(float(share) for share in shares)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        share = logits.new_tensor(self.shares).reshape([-1] + [1] * (logits.ndim - 2))
        inside, outside = 1 / (2 * share), 1 / (2 * (1 - share))
        target = target.float()
        return F.binary_cross_entropy_with_logits(logits, target, weight=outside + (inside - outside) * target)


class LossSum(nn.Module):
    """A weighted sum of losses, targets cast to float (several of MONAI's refuse or misread others).

    Args:
        losses: to add up.
        weights: one per loss; by default 1.
    """

    def __init__(self, *losses: nn.Module, weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.losses = nn.ModuleList(losses)
        self.weights = tuple(weights or [1.0] * len(losses))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        target = target.float()
        terms = [weight * loss(logits, target) for weight, loss in zip(self.weights, self.losses, strict=True)]
        return torch.stack(terms).sum()


def _dice() -> DiceLoss:
    return DiceLoss(sigmoid=True, batch=True)


def _focal() -> nn.Module:
    return LossSum(FocalLoss(gamma=2.0))  # Lin et al. 2017, arXiv:1708.02002


def _tversky() -> nn.Module:
    # Salehi et al. 2017, arXiv:1706.05721: a missed voxel (beta) costs more than a false one (alpha).
    return LossSum(TverskyLoss(sigmoid=True, alpha=0.3, beta=0.7, batch=True))


def _dice_boundary() -> nn.Module:
    return LossSum(_dice(), BoundaryLoss(sigmoid=True), weights=(1.0, BOUNDARY_WEIGHT))


def _only_dice() -> nn.Module:
    return LossSum(_dice())


def _dice_ce() -> nn.Module:
    return LossSum(DiceCELoss(sigmoid=True))


LOSSES: dict[str, Callable[[], nn.Module]] = {
    "dice": _only_dice,
    "dice_bce": DiceBCELoss,
    "dice_ce": _dice_ce,
    "focal": _focal,
    "tversky": _tversky,
    "dice_boundary": _dice_boundary,
}
"""Those that need nothing but their name; ``weighted_bce`` needs the shares too."""


def make_loss(name: str, *, regions: Sequence[str], shares: Sequence[float] | None = None) -> nn.Module:
    """The loss of this name; made to be named in a bundle's YAML.

    ==================  ==============================================================================================
    ``dice``            Dice pooled over the batch
    ``dice_bce``        that and binary cross-entropy
    ``dice_ce``         Dice of each image and cross-entropy, for one region: regions overlap, classes do not
    ``weighted_bce``    :class:`WeightedBCELoss`
    ``focal``           focal loss, gamma 2
    ``tversky``         Tversky loss pooled over the batch, 0.3 for false voxels and 0.7 for missed ones
    ``dice_boundary``   Dice and 0.01 times the boundary loss
    ==================  ==============================================================================================

    Args:
        name: of the table.
        regions: names of the channels.
        shares: for ``weighted_bce``, see :func:`brats_pipeline.training.tumour_share.tumour_shares`.

    Raises:
        ValueError: unknown name, or a loss that does not fit the regions.
    """
    if name == "weighted_bce":
        return WeightedBCELoss(shares or ())
    if name not in LOSSES:
        raise ValueError(f"loss_name is {name!r}; known: {', '.join(sorted([*LOSSES, 'weighted_bce']))}")
    if name == "dice_ce" and len(regions) > 1:
        raise ValueError(
            f"loss_name dice_ce asks which one class a voxel has, but {', '.join(regions)} overlap; dice_bce asks for "
            "each region"
        )
    return LOSSES[name]()
