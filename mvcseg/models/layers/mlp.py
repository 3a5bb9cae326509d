"""The small perceptron that turns a query into an embedding."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from mvcseg.models.layers.linear import Linear


class MLP(nn.Module):
    """Linear layers with ReLU between them, named ``layers.0``, ``layers.1`` and so on.

    Args:
        widths: channels from input to output, one more than there are layers.
    """

    def __init__(self, *widths: int) -> None:
        super().__init__()
        pairs = pairwise(widths)
        self.layers = nn.ModuleList(Linear(inner, outer) for inner, outer in pairs)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., last width)`` of ``(..., first width)``."""
        for layer in self.layers[:-1]:
            x = functional.relu(layer(x), inplace=not torch.is_grad_enabled())
        return self.layers[-1](x)  # type: ignore[no-any-return]
