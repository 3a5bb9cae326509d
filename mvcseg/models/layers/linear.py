"""A linear layer at the speed of the processor's convolution kernels."""

from __future__ import annotations

from torch import Tensor, nn

from mvcseg.ops.linear import linear


class Linear(nn.Linear):
    """``torch.nn.Linear`` through ``mvcseg.ops.linear``: the same up to rounding, about twice as fast on some CPUs."""

    def forward(self, input: Tensor) -> Tensor:
        """``(..., D)`` of ``(..., C)``."""
        return linear(input, self.weight, self.bias)
