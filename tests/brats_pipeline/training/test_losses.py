"""The loss over regions, against its formulas written out."""

from __future__ import annotations

import pytest
import torch

from brats_pipeline.training.losses import DiceBCELoss


def drawn(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    target = (torch.rand(2, 3, 5, 6, 7, generator=random) > 0.7).float()
    return torch.randn(2, 3, 5, 6, 7, generator=random), target


def by_hand(logits: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    p = 1 / (1 + torch.exp(-logits))
    axes = (0, 2, 3, 4)  # pooled over the batch
    dice = (2 * (p * target).sum(axes) + 1e-5) / (p.sum(axes) + target.sum(axes) + 1e-5)
    bce = -(target * p.log() + (1 - target) * (1 - p).log())
    return (1 - dice).mean(), bce.mean()


def test_it_is_the_sum_of_dice_and_cross_entropy() -> None:
    logits, target = drawn()
    dice, bce = by_hand(logits, target)
    assert DiceBCELoss()(logits, target) == pytest.approx(float(dice + bce), rel=1e-5)
    assert DiceBCELoss(2.0, 0.5)(logits, target) == pytest.approx(float(2 * dice + 0.5 * bce), rel=1e-5)


def test_a_perfect_answer_costs_nothing_and_its_opposite_much() -> None:
    _, target = drawn()
    perfect = (target * 2 - 1) * 30
    assert DiceBCELoss()(perfect, target) < 1e-3
    assert DiceBCELoss()(-perfect, target) > 10


def test_a_patch_without_a_region_leaves_the_dice_term_to_the_rest_of_the_batch() -> None:
    logits, target = drawn()
    target[0, 2] = 0
    dice, _ = by_hand(logits, target)
    assert DiceBCELoss(bce_weight=0)(logits, target) == pytest.approx(float(dice), rel=1e-5)


def test_gradients_are_finite_even_where_the_network_is_certain_and_wrong() -> None:
    _, target = drawn()
    logits = ((1 - target) * 200 - 100).requires_grad_()
    DiceBCELoss()(logits, target).backward()
    assert logits.grad is not None
    assert bool(logits.grad.isfinite().all())
