from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from mvcseg.models.backbones.folded import normed_convolution
from mvcseg.models.backbones.resnet import FrozenBatchNorm


def pair(inner: int, outer: int, *, size: int, stride: int) -> tuple[nn.Conv2d, FrozenBatchNorm]:
    gen = torch.Generator().manual_seed(1)
    convolution = nn.Conv2d(inner, outer, size, stride=stride, padding=size // 2, bias=False).double()
    norm = FrozenBatchNorm(outer).double()
    for buffer in norm.buffers():
        buffer.copy_(0.5 + torch.rand(outer, generator=gen, dtype=torch.float64))
    return convolution, norm


@pytest.mark.parametrize(("size", "stride"), [(1, 1), (1, 2), (3, 1), (3, 2), (7, 2)])
def test_folded_is_the_norm_of_the_convolution(size: int, stride: int) -> None:
    convolution, norm = pair(5, 6, size=size, stride=stride)
    x = torch.randn(2, 5, 21, 34, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(
            normed_convolution(x, convolution, norm), norm(convolution(x)), rtol=1e-12, atol=1e-12
        )


@pytest.mark.parametrize(("side", "is_folded"), [(40, True), (2, False)])
def test_only_kernels_smaller_than_their_map_are_folded(side: int, is_folded: bool) -> None:
    convolution, norm = pair(5, 6, size=3, stride=1)
    asked: list[bool] = []
    with torch.no_grad():
        normed_convolution(torch.randn(1, 5, side, side).double(), convolution, Watched(norm, asked))
    assert bool(asked) is not is_folded


def test_gradients_go_through_the_norm_as_written() -> None:
    convolution, norm = pair(3, 4, size=3, stride=1)
    asked: list[bool] = []
    x = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    normed_convolution(x, convolution, Watched(norm, asked)).sum().backward()
    assert asked
    assert convolution.weight.grad is not None


class Watched:
    """A norm that notes that it was asked."""

    def __init__(self, norm: FrozenBatchNorm, asked: list[bool]) -> None:
        self.weight, self.bias = norm.weight, norm.bias
        self.running_mean, self.running_var = norm.running_mean, norm.running_var
        self._norm, self._asked = norm, asked

    def __call__(self, x: Tensor, /) -> Tensor:
        self._asked.append(True)
        return self._norm(x)  # type: ignore[no-any-return]
