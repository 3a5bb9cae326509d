"""Linear maps of many rows at the speed of the processor's convolution kernels."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from mvcseg.ops.shortcut import may_shortcut

SMALLEST_INPUT = 20480
"""PyTorch gives a convolution of one image to oneDNN only above this number of elements."""


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``torch.nn.functional.linear``, up to rounding.

    In inference on the CPU, float32 goes through a 1 x 1 convolution: PyTorch computes matrix products with MKL, which
    keeps half of an AMD core idle, and convolutions with oneDNN, which does not. Measured on a Zen 5 core: 2.1 times
    the speed; processors that MKL serves well lose nothing.

    Args:
        x: ``(..., C)``.
        weight: ``(D, C)``.
        bias: ``(D,)``.

    Returns:
        ``(..., D)``.

    Example:
        >>> linear(torch.ones(2, 3), torch.ones(4, 3))
        tensor([[3., 3., 3., 3.],
                [3., 3., 3., 3.]])
    """
    if not _may_convolve(x, weight, bias):
        return functional.linear(x, weight, bias)
    channels = x.shape[-1]
    image = x.reshape(1, -1, 1, channels).permute(0, 3, 1, 2)  # channels-last, one pixel a row
    # a dilation means nothing to a 1 x 1 kernel, but without one a single thread is given to MKL again
    out = functional.conv2d(image, weight[:, :, None, None], bias, dilation=2)
    return out.permute(0, 2, 3, 1).reshape(*x.shape[:-1], weight.shape[0])


def _may_convolve(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    tensors = (x, weight) if bias is None else (x, weight, bias)
    return (
        x.numel() > SMALLEST_INPUT
        and may_shortcut(*tensors)
        and all(tensor.dtype == torch.float32 for tensor in tensors)
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
    )
