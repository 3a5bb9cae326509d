"""Losses of masks at points: the same as the steps one after another, in less memory."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mvcseg.losses.point_losses import mask_losses_at
from mvcseg.losses.set_terms import mask_losses
from mvcseg.ops.points import sample_points

N, H, W, P = 3, 5, 7, 64


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def weights(is_weighted: bool) -> Tensor | None:
    return drawn(N, P, seed=3) if is_weighted else None


@pytest.mark.parametrize("is_weighted", [False, True])
def test_losses_and_gradients_are_those_of_the_single_steps(is_weighted: bool) -> None:
    points, targets, weight = drawn(N, P, 2) * 1.2 - 0.1, drawn(N, P, seed=1), weights(is_weighted)
    found = []
    for at_once in (False, True):
        masks = (8 * drawn(N, H, W, seed=2) - 4).requires_grad_()
        if at_once:
            entropy, dice = mask_losses_at(masks, points, targets, weight)
        else:
            entropy, dice = mask_losses(sample_points(masks.unsqueeze(1), points)[:, 0], targets, weight)
        gradients = [torch.autograd.grad(term, masks, retain_graph=True)[0] for term in (entropy, dice)]
        gradients += torch.autograd.grad(2 * entropy + 5 * dice, masks)
        found.append((entropy.detach(), dice.detach(), gradients))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("is_weighted", [False, True])
def test_gradients_are_the_slopes(is_weighted: bool) -> None:
    masks = (4 * drawn(N, H, W) - 2).requires_grad_()
    rest = drawn(N, P, 2, seed=1), drawn(N, P, seed=2), weights(is_weighted)
    assert torch.autograd.gradcheck(lambda masks: mask_losses_at(masks, *rest), masks)


def test_nothing_of_the_size_of_the_points_is_kept() -> None:
    kept: list[Tensor] = []
    masks = drawn(N, H, W).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        losses = mask_losses_at(masks, drawn(N, 1000, 2), drawn(N, 1000))
    assert sum(losses).requires_grad  # type: ignore[union-attr]
    assert sum(each.numel() for each in kept) == 2 * N * H * W


def test_half_precision_masks_get_half_precision_gradients() -> None:
    masks = drawn(N, H, W).bfloat16().requires_grad_()
    entropy, dice = mask_losses_at(masks, drawn(N, P, 2).float(), drawn(N, P).float())
    assert entropy.dtype == dice.dtype == torch.float32
    (gradient,) = torch.autograd.grad(entropy + dice, masks)
    assert gradient.dtype == torch.bfloat16


def test_without_a_gradient_wanted_there_is_no_graph() -> None:
    with torch.no_grad():
        entropy, _ = mask_losses_at(drawn(N, H, W).requires_grad_(), drawn(N, P, 2), drawn(N, P))
    assert not entropy.requires_grad
    entropy, _ = mask_losses_at(drawn(N, H, W), drawn(N, P, 2), drawn(N, P))
    assert not entropy.requires_grad
