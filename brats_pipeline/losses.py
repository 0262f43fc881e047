"""Losses over overlapping regions; each region is a yes-or-no question of its own."""

from __future__ import annotations

from monai.losses import DiceLoss
from torch import Tensor, nn


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
        loss: Tensor = self.dice_weight * self.dice(logits, target) + self.bce_weight * self.bce(logits, target)
        return loss
