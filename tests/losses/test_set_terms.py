"""Costs and losses at points, against loops written from their definitions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mvcseg.losses.set_terms import class_cost, class_loss, mask_costs, mask_losses

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = 4 * torch.randn(5, 30, generator=GENERATOR, dtype=torch.float64)
TARGETS = torch.rand(3, 30, generator=GENERATOR, dtype=torch.float64)
WEIGHT = torch.rand(30, generator=GENERATOR, dtype=torch.float64)


def loops(logits: Tensor, target: Tensor, weight: Tensor) -> tuple[float, float]:
    """Cross-entropy and dice of one mask and one target, point by point."""
    entropy = common = total = 0.0
    for x, t, w in zip(logits.tolist(), target.tolist(), weight.tolist(), strict=True):
        p = 1 / (1 + math.exp(-x))
        entropy -= w * (t * math.log(p) + (1 - t) * math.log(1 - p))
        common += w * p * t
        total += w * p + w * t
    return entropy / len(logits), 1 - (2 * common + 1) / (total + 1)


@pytest.mark.parametrize("is_weighted", [False, True])
def test_costs_are_those_of_the_definition_for_every_pair(is_weighted: bool) -> None:
    entropy, dice = mask_costs(LOGITS, TARGETS, WEIGHT if is_weighted else None)
    weight = WEIGHT if is_weighted else torch.ones(30)
    for q in range(5):
        for m in range(3):
            expected = loops(LOGITS[q], TARGETS[m], weight)
            assert (entropy[q, m].item(), dice[q, m].item()) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("is_weighted", [False, True])
def test_losses_are_sums_of_the_definition_over_masks(is_weighted: bool) -> None:
    weight = torch.rand(3, 30, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    entropy, dice = mask_losses(LOGITS[:3], TARGETS, weight if is_weighted else None)
    pairs = [loops(LOGITS[n], TARGETS[n], weight[n] if is_weighted else torch.ones(30)) for n in range(3)]
    assert entropy.item() == pytest.approx(sum(pair[0] for pair in pairs), rel=1e-9)
    assert dice.item() == pytest.approx(sum(pair[1] for pair in pairs), rel=1e-9)


def test_points_of_weight_zero_do_not_count_in_dice_nor_add_to_cross_entropy() -> None:
    weight = torch.ones(3, 30, dtype=torch.float64)
    weight[:, 20:] = 0
    entropy, dice = mask_losses(LOGITS[:3], TARGETS, weight)
    fewer_entropy, fewer_dice = mask_losses(LOGITS[:3, :20], TARGETS[:, :20])
    assert dice.item() == pytest.approx(fewer_dice.item())
    assert entropy.item() * 30 == pytest.approx(fewer_entropy.item() * 20)


def test_a_perfect_mask_costs_nothing_and_its_opposite_much() -> None:
    target = (TARGETS > 0.5).double()
    entropy, dice = mask_costs(60 * (2 * target - 1), target)
    assert torch.allclose(entropy.diagonal(), torch.zeros(3).double(), atol=1e-12)
    assert torch.allclose(dice.diagonal(), torch.zeros(3).double(), atol=1e-12)
    entropy, dice = mask_losses(-60 * (2 * target - 1), target)
    assert entropy.item() == pytest.approx(3 * 60)
    assert dice.item() > 3 * 0.9


def test_an_empty_target_met_by_an_empty_mask_costs_nothing() -> None:
    entropy, dice = mask_losses(torch.full((1, 8), -90.0), torch.zeros(1, 8))
    assert entropy.item() == 0
    assert dice.item() == 0


def test_gradients_are_those_of_finite_differences() -> None:
    weight = torch.rand(3, 30, dtype=torch.float64)
    for of in (None, weight):
        assert torch.autograd.gradcheck(
            lambda logits, of=of: mask_losses(logits, TARGETS, of), LOGITS[:3].clone().requires_grad_()
        )


def test_the_class_cost_is_minus_the_probability() -> None:
    logits = torch.log(torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]]))
    assert torch.allclose(
        class_cost(logits, torch.tensor([1, 0, 1])), -torch.tensor([[0.5, 0.2, 0.5], [0.1, 0.6, 0.1]])
    )


def test_the_class_loss_is_the_numerator_of_pytorchs_weighted_mean() -> None:
    logits, classes = torch.randn(12, 5), torch.randint(0, 5, (12,), generator=torch.Generator().manual_seed(2))
    weights = torch.tensor([1.0, 1, 1, 1, 0.1])
    mean = functional.cross_entropy(logits, classes, weight=weights)
    got = class_loss(logits, classes, no_object_weight=0.1)
    assert got.item() == pytest.approx(mean.item() * weights[classes].sum().item(), rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32_under_autocast_too(dtype: torch.dtype) -> None:
    logits, targets = LOGITS.to(dtype), TARGETS.float()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values = [*mask_costs(logits, targets), *mask_losses(logits[:3], targets)]
        values += [class_cost(logits, torch.tensor([1])), class_loss(logits, torch.arange(5), no_object_weight=0.1)]
    expected = [*mask_costs(logits.float(), targets), *mask_losses(logits[:3].float(), targets)]
    assert all(value.dtype == torch.float32 for value in values)
    assert all(torch.equal(value, of) for value, of in zip(values, expected, strict=False))


def test_large_logits_stay_finite_with_their_gradients() -> None:
    logits = torch.tensor([[3e4, -3e4, 0.0]], requires_grad=True)
    target = torch.tensor([[0.0, 1.0, 1.0]])
    total = sum(term.sum() for term in (*mask_costs(logits, target), *mask_losses(logits, target)))
    assert isinstance(total, Tensor)
    total.backward()
    assert logits.grad is not None
    assert total.isfinite()
    assert logits.grad.isfinite().all()


def test_no_masks_cost_nothing() -> None:
    entropy, dice = mask_losses(torch.empty(0, 6, requires_grad=True), torch.empty(0, 6))
    assert entropy.item() == dice.item() == 0
    assert mask_costs(LOGITS, torch.empty(0, 30))[0].shape == (5, 0)
