"""Memory that small steps use again and again, instead of pages fresh from the system for each."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor


class Workspace:
    """Three blocks of memory in turn: a step reads one, writes the next, and may spoil the one after that.

    What the system hands out it has cleared first, page by page, which takes as long as what is then computed there.
    A tensor from here is overwritten two steps later.

    Args:
        like: a tensor on the same device; values are kept in its dtype, float32 at least.
    """

    def __init__(self, like: Tensor) -> None:
        self.like = like.new_empty(0, dtype=torch.promote_types(like.dtype, torch.float32))
        self._blocks = [self.like] * 3
        self._last = 0

    def next(self, shape: Sequence[int]) -> Tensor:
        """A tensor for the result of a step, its values whatever they are."""
        self._last = (self._last + 1) % 3
        return self._in_block(self._last, shape)

    def spare(self, shape: Sequence[int]) -> Tensor:
        """A second one, for what does not outlive the step."""
        return self._in_block((self._last + 1) % 3, shape)

    def hold(self, x: Tensor) -> Tensor:
        """Values contiguous and in the workspace's dtype: the tensor itself where it is so, else a step that copies."""
        return x if x.is_contiguous() and x.dtype == self.like.dtype else self.next(x.shape).copy_(x)

    def _in_block(self, index: int, shape: Sequence[int]) -> Tensor:
        values = prod(shape)
        if self._blocks[index].numel() < values:
            self._blocks[index] = self.like.new_empty(values)
        return self._blocks[index][:values].view(shape)
