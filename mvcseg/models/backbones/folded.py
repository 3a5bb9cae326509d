"""A convolution and the frozen norm behind it as one convolution, for inference on the CPU.

A norm with fixed statistics is an affine map of each channel, so it can be written into the kernel and a bias. That
saves a pass over the map and costs one over the kernel, so it is done where the kernel has fewer numbers than the
map: in the fine stages of a network, not in the coarse ones. Kernels are folded anew at each call: nothing is kept.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn
from torch.nn import functional

from mvcseg.ops.shortcut import may_shortcut

EPSILON = 1e-5
"""Added to variances before their root."""


class Norm(Protocol):
    """Fixed statistics and an affine map, each ``(C,)``, with ``EPSILON``."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __call__(self, x: Tensor, /) -> Tensor:
        """``(N, C, H, W)`` normed."""
        ...


def normed_convolution(x: Tensor, convolution: nn.Conv2d, norm: Norm) -> Tensor:
    """``norm(convolution(x))``, up to rounding in CPU inference.

    Args:
        x: ``(N, C, H, W)``.
        convolution: without a bias, of one group.
        norm: of its channels.

    Returns:
        ``(N, D, H', W')``, memory of its own.
    """
    kernel, (stride_y, stride_x) = convolution.weight, convolution.stride
    values = x.shape[0] * x.shape[2] * x.shape[3] * convolution.out_channels // (stride_y * stride_x)
    if not may_shortcut(x, kernel, norm.weight) or values <= kernel.numel():
        return norm(convolution(x))
    scale = norm.weight * (norm.running_var + EPSILON).rsqrt()
    shift = norm.bias - norm.running_mean * scale
    return functional.conv2d(x, kernel * scale[:, None, None, None], shift, convolution.stride, convolution.padding)
