"""Bilinear resizing of one axis, for any range of the result: a window of a resized map without the whole of it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Lerp:
    """Bilinear resizing of one axis as two gathers and a blend, for any range of the result.

    Positions are computed in the dtype of the data, as ``torch.nn.functional.interpolate`` does.
    """

    def __init__(self, length: int, resized: int, like: Tensor) -> None:
        dtype = torch.promote_types(like.dtype, torch.float32)
        scale = torch.tensor(length, dtype=dtype) / resized
        position = (scale * (torch.arange(resized, dtype=dtype) + 0.5) - 0.5).clamp_(min=0)
        low = position.long().clamp_(max=length - 1)
        high = (low + 1).clamp_(max=length - 1)
        self._first_source: Sequence[int] = low.tolist()
        self._last_source: Sequence[int] = high.tolist()
        self.low, self.high = (entries.to(like.device, non_blocking=True) for entries in (low, high))
        self.share = (position - low).to(like, non_blocking=True)  # a copy that waits would wait for the whole queue

    def source(self, start: int, stop: int) -> tuple[int, int]:
        """Entries of the old axis behind entries ``start`` to ``stop`` of the new, first and last + 1."""
        return self._first_source[start], self._last_source[stop - 1] + 1

    def apply(self, x: Tensor, *, dim: int, start: int, stop: int, offset: int) -> Tensor:
        """Entries ``start`` to ``stop`` of the resized axis ``dim``; ``x`` begins at entry ``offset`` of the old."""
        window = slice(start, stop)
        low = x.index_select(dim, self.low[window] - offset)
        high = x.index_select(dim, self.high[window] - offset)
        shape = [1] * x.ndim
        shape[dim] = -1
        share = self.share[window].view(shape)
        return low.lerp(high, share) if x.requires_grad else low.lerp_(high, share)
