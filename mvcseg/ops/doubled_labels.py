"""Class ids of logits that are doubled in size, without the doubled logits of a whole frame.

Rows 2 i + 1 and 2 i + 2 of a bilinear doubling read rows i and i + 1. Strips cut between such pairs hold the very
values of the whole, share one row with the next, and stay in the cache from logits to class ids.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

_CPU_STRIP = 1 << 20
"""Doubled logits in a strip on the CPU: a few megabytes, which its caches hold."""
_GPU_STRIP = 1 << 26
"""Doubled logits in a strip elsewhere: few launches, and a quarter of a gigabyte in float32."""


def doubled(maps: Tensor) -> Tensor:
    """Maps ``(N, C, h, w)`` at twice their size, ``(N, C, 2 h, 2 w)``: bilinear, ``align_corners=False``."""
    return functional.interpolate(maps, scale_factor=2.0, mode="bilinear", align_corners=False)


@torch.no_grad()
def doubled_labels(
    maps: Tensor, classify: Callable[[Tensor], Tensor], *, num_classes: int, size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """The best class of every pixel of ``doubled(classify(maps))[..., :height, :width]``, strip by strip.

    Args:
        maps: what classes are told from, ``(N, C, h, w)``.
        classify: gives the logits ``(n, K, rows, w)`` of some rows of some maps, each location by itself. On the CPU
            it is asked for a strip at a time; elsewhere for all at once, since a library there may choose another
            kernel, with another rounding, for another size.
        num_classes: K, at most 255.
        size: ``(height, width)`` of the result, at most ``(2 h, 2 w)``.

    Returns:
        Classes ``(N, height, width)`` uint8, of equal logits the lowest; and whether all logits are numbers, a bool
        tensor without axes.

    Example:
        >>> logits = torch.tensor([[0.0, 0.0, 4.0], [1.0, 1.0, 1.0]]).view(1, 2, 1, 3)
        >>> doubled_labels(logits, nn.Identity(), num_classes=2, size=(1, 6))[0]
        tensor([[[1, 1, 1, 0, 0, 0]]], dtype=torch.uint8)
    """
    budget = _CPU_STRIP
    if maps.device.type != "cpu":
        maps, classify, budget = classify(maps), nn.Identity(), _GPU_STRIP
    height, width = size
    labels = torch.empty(len(maps), height, width, dtype=torch.uint8, device=maps.device)
    is_number = torch.ones((), dtype=torch.bool, device=maps.device)
    step = 2 * max(1, budget // (4 * maps.shape[-1] * num_classes))
    starts = [0, *range(step + 1, height, step)]
    for one, target in zip(torch.split(maps, 1), labels, strict=True):
        for start, stop in zip(starts, [*starts[1:], height], strict=True):
            first = start // 2
            strip = doubled(classify(one[:, :, first : stop // 2 + 1]))[0].permute(1, 2, 0)
            best, classes = strip[start - 2 * first : stop - 2 * first, :width].max(dim=-1)
            target[start:stop] = classes
            is_number &= ~best.isnan().any()
    return labels, is_number
