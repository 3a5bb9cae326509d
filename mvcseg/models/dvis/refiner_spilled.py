"""The temporal refiner over a video of any length, its queries in a spill file.

Each half of a layer goes over all data once, in pieces: attention and convolutions over time query by query,
the rest frame by frame. No T x T matrix is held where attention runs through kernels that build their soft-max as
they go: any dtype on the CPU, all but float64 on CUDA. What still grows with the video is one query's row, T x D
values, and a small multiple of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from mvcseg.errors import ShapeError
from mvcseg.models.dvis.refiner import TemporalRefiner
from mvcseg.models.dvis.spill import SpillArray

_PIECE = 32 << 20
"""Bytes of queries read at once, and, in smaller pieces, about the bytes of all that is computed from them at once."""
_TIME_COPIES = 8
"""Tensors of the input's size that are alive at once in the half over time."""
_FRAME_COPIES = 12
"""Likewise over queries, where the feed-forward layer is four times as wide."""


@dataclass(frozen=True)
class RefinedVideo:
    """The refiner's answer for one video.

    Attributes:
        class_logits: ``(Q, K + 1)``, the last class is no object.
        mask_embeds: ``(Q, C)`` for every frame, read as ``mask_embeds.read(slice(t, t + 1))``.
    """

    class_logits: Tensor
    mask_embeds: SpillArray


@torch.no_grad()
def refine_spilled(refiner: TemporalRefiner, embeds: SpillArray, memory: SpillArray) -> RefinedVideo:
    """What ``refiner`` says of one video, in memory that does not grow with its length; for inference.

    The size of pieces follows from T, Q and D alone.

    Args:
        refiner: in ``eval()`` or not, it makes no difference.
        embeds: ``(T, Q, D)``, ``embeds`` of ``Tracked``; left as it is.
        memory: ``(T, S, D)``, ``refiner_memory`` of the tracker.

    Raises:
        ShapeError: the arrays do not agree, or hold no frame.
        DataError: the disk is full.

    Example:
        >>> refiner = TemporalRefiner(10, width=32, hidden=64, layers=2, mask_width=16)
        >>> from mvcseg.models.dvis.spill import SpillFile
        >>> with SpillFile() as spill:
        ...     embeds, memory = (spill.array((7, 32), torch.float32) for _ in range(2))
        ...     for frame in torch.randn(40, 1, 7, 32):
        ...         embeds.append(frame)
        ...         memory.append(frame)
        ...     refined = refine_spilled(refiner, embeds, memory)
        ...     refined.class_logits.shape, refined.mask_embeds.read(slice(3, 5)).shape
        (torch.Size([7, 11]), torch.Size([2, 7, 16]))
    """
    if not len(embeds) or (len(memory), memory.frame_shape[-1]) != (len(embeds), embeds.frame_shape[-1]):
        raise ShapeError(f"memory: expected (t, s, d) as embeds {embeds.shape} with t at least 1, got {memory.shape}")
    work = embeds.file.array(embeds.frame_shape, embeds.dtype, frames=len(embeds))
    masks = embeds.file.array((embeds.frame_shape[0], refiner.mask_width), embeds.dtype)
    pool = _ClassPool(refiner)
    last = len(refiner.conv_norms) - 1
    for layer in range(last + 1):
        _over_time(refiner, layer, work if layer else embeds, work)
        for start, x in _over_queries(refiner, layer, work, memory):
            if layer < last:
                work.write(start, x.to(work.dtype))
            else:
                normed = refiner.decoder_norm(x)
                pool.add(normed)
                masks.append(refiner.mask_embed(normed).to(masks.dtype))
    return RefinedVideo(pool.class_logits(), masks)


def _over_time(refiner: TemporalRefiner, layer: int, source: SpillArray, target: SpillArray) -> None:
    count, queries, _ = source.shape
    row = source.frame_bytes // queries * count
    # a query's values lie scattered over the file: many are read together, few are worked on together
    together = max(1, _PIECE // row)
    at_once = max(1, _PIECE // (row * _TIME_COPIES))
    for first in range(0, queries, together):
        rows = slice(first, first + together)
        x = source.read(slice(None), rows)
        for begin in range(0, x.shape[1], at_once):
            chosen = x[:, begin : begin + at_once]
            half = refiner.over_time(layer, _on_device(refiner, chosen).transpose(0, 1))
            chosen.copy_(half.transpose(0, 1))
        target.write(0, x, rows)


def _over_queries(
    refiner: TemporalRefiner, layer: int, work: SpillArray, memory: SpillArray
) -> Iterator[tuple[int, Tensor]]:
    """Pieces of frames ``(t, Q, D)``, each with the number of its first frame."""
    at_once = max(1, _PIECE // ((work.frame_bytes + memory.frame_bytes) * _FRAME_COPIES))
    for start in range(0, len(work), at_once):
        frames = slice(start, start + at_once)
        x, looked_up = _on_device(refiner, work.read(frames)), _on_device(refiner, memory.read(frames))
        yield start, refiner.over_queries(layer, x, looked_up)


def _on_device(refiner: TemporalRefiner, x: Tensor) -> Tensor:
    return x.to(refiner.activation_proj.weight.device)


class _ClassPool:
    """Soft-max weighted mean over time of normed queries, a few frames at a time.

    Sums are kept relative to the largest logit so far, so none overflows.
    """

    def __init__(self, refiner: TemporalRefiner) -> None:
        self._refiner = refiner
        self._sums: tuple[Tensor, Tensor, Tensor] | None = None

    def add(self, normed: Tensor) -> None:
        """Frames ``(t, Q, D)``."""
        logits = self._refiner.activation_proj(normed).to(torch.promote_types(normed.dtype, torch.float32))
        largest = logits.amax(dim=0)
        if self._sums is not None:
            largest = torch.maximum(largest, self._sums[0])
        share = (logits - largest).exp()
        total, weight = (share * normed).sum(dim=0), share.sum(dim=0)
        if self._sums is not None:
            fade = (self._sums[0] - largest).exp()
            total, weight = total + fade * self._sums[1], weight + fade * self._sums[2]
        self._sums = largest, total, weight

    def class_logits(self) -> Tensor:
        """``(Q, K + 1)``."""
        assert self._sums is not None, "a video has a frame"
        _, total, weight = self._sums
        return self._refiner.class_embed((total / weight).to(self._refiner.class_embed.weight.dtype))  # type: ignore[no-any-return]
