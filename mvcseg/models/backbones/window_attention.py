"""Self-attention inside the square windows of a map, with a learnt bias for each relative position.

Source: Liu et al., Swin Transformer, arXiv 2103.14030, sections 3.2 (shifted windows, cyclic shift) and Eq. 4 (bias).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mvcseg.models.layers.linear import Linear


class WindowAttention(nn.Module):
    """Attention within windows of ``window`` x ``window`` tokens.

    A shifted map is rolled up and left, so windows of the last row and column hold tokens from opposite borders;
    -100 on the attention logits keeps these apart. Only those windows get a mask, one for the whole row, column and
    corner, so no mask grows with the map.

    Args:
        width: C, channels.
        heads: divides ``width``.
        window: side of a window, in tokens.
        shift: tokens by which the map is rolled, 0 up to ``window`` - 1.
    """

    relative_position_index: Tensor

    def __init__(self, width: int, *, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.relative_position_bias_table = nn.Parameter(torch.empty((2 * window - 1) ** 2, heads))
        self.register_buffer("relative_position_index", relative_position_index(window))
        self.qkv = Linear(width, 3 * width)
        self.proj = Linear(width, width)
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """``(N, H, W, C)`` of ``(N, H, W, C)``; zeros fill the last windows, to the right and bottom."""
        side, shift = self.window, self.shift
        n, height, width, channels = x.shape
        x = functional.pad(x, (0, 0, 0, -width % side, 0, -height % side))
        if shift:
            x = torch.roll(x, (-shift, -shift), dims=(1, 2))
        rows, columns = x.shape[1] // side, x.shape[2] // side
        windows = x.reshape(n, rows, side, columns, side, channels).transpose(2, 3).flatten(3, 4)
        windows = self.proj(self._attend(self.qkv(windows))).view(n, rows, columns, side, side, channels)
        x = windows.transpose(2, 3).reshape(n, rows * side, columns * side, channels)
        if shift:
            x = torch.roll(x, (shift, shift), dims=(1, 2))
        return x[:, :height, :width]

    def _attend(self, qkv: Tensor) -> Tensor:
        """``(N, rows, columns, L, C)`` of ``(N, rows, columns, L, 3 C)``."""
        bias = self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)  # (heads, l, l)
        if not self.shift:
            return self._gather(qkv, bias)
        from_far = torch.arange(self.window, device=qkv.device) >= self.window - self.shift
        down, right = from_far.repeat_interleave(self.window), from_far.repeat(self.window)  # by token of a window
        apart_down, apart_right = (far[:, None] != far for far in (down, right))
        upper = [self._gather(qkv[:, :-1, :-1], bias), self._gather(qkv[:, :-1, -1:], _barred(bias, apart_right))]
        lower = [
            self._gather(qkv[:, -1:, :-1], _barred(bias, apart_down)),
            self._gather(qkv[:, -1:, -1:], _barred(bias, apart_down | apart_right)),
        ]
        return torch.cat([torch.cat(upper, dim=2), torch.cat(lower, dim=2)], dim=1)

    def _gather(self, qkv: Tensor, bias: Tensor) -> Tensor:
        """Attention in windows that share one bias ``(heads, L, L)``."""
        n, rows, columns, length, triple = qkv.shape
        split = qkv.reshape(n * rows * columns, length, 3, self.heads, triple // 3 // self.heads)
        q, k, v = split.permute(2, 0, 3, 1, 4)
        gathered = functional.scaled_dot_product_attention(q, k, v, attn_mask=bias[None])
        return gathered.transpose(1, 2).reshape(n, rows, columns, length, triple // 3)


def relative_position_index(window: int) -> Tensor:
    """Row of the bias table for every pair of a window's tokens, ``(L, L)`` with L = ``window`` squared.

    Example:
        >>> relative_position_index(2)
        tensor([[4, 3, 1, 0],
                [5, 4, 2, 1],
                [7, 6, 4, 3],
                [8, 7, 5, 4]])
    """
    steps = torch.arange(window)
    row, column = steps.repeat_interleave(window), steps.repeat(window)
    down, right = (axis[:, None] - axis + window - 1 for axis in (row, column))
    return down * (2 * window - 1) + right


def _barred(bias: Tensor, apart: Tensor) -> Tensor:
    return bias - 100 * apart.to(bias.dtype)
