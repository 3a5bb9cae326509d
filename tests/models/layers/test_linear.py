from __future__ import annotations

import torch
from torch import nn

from mvcseg.models.layers.linear import Linear


def test_it_is_torch_linear_with_and_without_bias(generator: torch.Generator) -> None:
    x = torch.randn(2, 300, 64, generator=generator)  # enough for the convolution kernels
    for has_bias in (True, False):
        ours, reference = Linear(64, 48, bias=has_bias), nn.Linear(64, 48, bias=has_bias)
        reference.load_state_dict(ours.state_dict())
        torch.testing.assert_close(ours(x), reference(x))
        with torch.no_grad():
            torch.testing.assert_close(ours(x), reference(x), rtol=1e-5, atol=1e-5)
