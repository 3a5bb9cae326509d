from __future__ import annotations

import torch
from torch import Tensor

from mvcseg.models.layers.attention import FeedForwardLayer
from mvcseg.models.layers.recomputed import recomputed


def kept(layer: FeedForwardLayer, x: Tensor, *, is_wanted: bool) -> tuple[list[Tensor], int]:
    """Result and gradients, and how many tensors wait for the backward pass."""
    saved: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        saved.append(tensor)
        return tensor

    layer.zero_grad(set_to_none=True)
    x = x.clone().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        y = recomputed(layer, is_wanted)(x)
    count = len(saved)
    y.square().sum().backward()
    assert x.grad is not None
    return [y.detach(), x.grad, *(p.grad for p in layer.parameters() if p.grad is not None)], count


def test_a_recomputed_step_is_the_same_to_the_bit_and_keeps_less() -> None:
    torch.manual_seed(0)
    layer, x = FeedForwardLayer(16, hidden=64), torch.randn(2, 5, 16)
    plain, plain_count = kept(layer, x, is_wanted=False)
    again, count = kept(layer, x, is_wanted=True)
    assert len(plain) == len(again) == 2 + 6
    assert all(torch.equal(one, other) for one, other in zip(plain, again, strict=True))
    assert count < plain_count


def test_unwanted_it_is_the_step_itself() -> None:
    layer = FeedForwardLayer(16, hidden=64)
    assert recomputed(layer, False) is layer


def test_it_moves_no_random_state() -> None:
    torch.manual_seed(3)
    recomputed(torch.nn.Linear(2, 2))(torch.ones(1, 2)).sum().backward()
    after = torch.rand(1)
    torch.manual_seed(3)
    torch.nn.Linear(2, 2)
    assert torch.equal(after, torch.rand(1))
