"""Maps at twice their size, whole or a window at a time.

Rows 2 i + 1 and 2 i + 2 of a bilinear doubling read rows i and i + 1, columns likewise: a window needs few map pixels,
and holds the very values of the whole.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from mvcseg.ops.score_windows import Span, Window


def doubled(maps: Tensor) -> Tensor:
    """Maps ``(N, C, h, w)`` at twice their size, ``(N, C, 2 h, 2 w)``: bilinear, ``align_corners=False``."""
    return functional.interpolate(maps, scale_factor=2.0, mode="bilinear", align_corners=False)


def doubled_windows(one: Tensor, classify: Callable[[Tensor], Tensor]) -> Window:
    """Windows of ``doubled(classify(one))`` for the maps ``(1, C, h, w)`` of one frame.

    ``classify`` gives the logits ``(1, K, rows, columns)`` of part of the maps, each location by itself.
    """

    def window(rows: Span, columns: Span) -> Tensor:
        (top, bottom), (left, right) = _behind(*rows), _behind(*columns)
        logits = doubled(classify(one[:, :, top:bottom, left:right]))[0].permute(1, 2, 0)
        return logits[rows[0] - 2 * top : rows[1] - 2 * top, columns[0] - 2 * left : columns[1] - 2 * left]

    return window


def _behind(start: int, stop: int) -> Span:
    """Map pixels behind doubled pixels ``start`` to ``stop``; the last may lie beyond the map."""
    return max(0, (start - 1) // 2), stop // 2 + 1
