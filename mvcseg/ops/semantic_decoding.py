"""From mask logits and a class table to class scores: ``score(c) = sum over queries of p(c | query) * mask(query)``.

Masks are upsampled as logits to the padded input, cropped, made probabilities, and only then resized to the
output. Work goes strip by strip of a few rows with the queries innermost, so that no full-size mask of every query
ever exists. This is the way every other one is held to: tiles on the CPU, one kernel on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional

from mvcseg.ops.lerp import Lerp
from mvcseg.ops.linear import linear

STRIDE = 4
"""Pixels of the padded input per mask pixel."""
_CPU_STRIP = 1 << 20
"""Mask values in a strip on the CPU: a few megabytes, which its caches hold."""
_GPU_STRIP = 1 << 26
"""Mask values in a strip elsewhere: few launches, and a quarter of a gigabyte in float32."""


def full_precision(x: Tensor) -> Tensor:
    """In float32 at least: sums over frames and pixels would stop growing in half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def strip_labels(
    masks: Tensor, table: Tensor, *, size: tuple[int, int], output_size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """The best class of every pixel of one frame, strip by strip.

    Args:
        masks: mask logits ``(h, w, Q)`` at a quarter of the padded input.
        table: class probabilities ``(Q, K)``, K at most 255.
        size: ``(height, width)`` of the frame without its padding, at most ``(4 h, 4 w)``.
        output_size: ``(height, width)`` of the result.

    Returns:
        Classes ``(height, width)`` uint8, of equal scores the lowest; and whether all scores are numbers, a
        bool tensor without axes.
    """
    labels = torch.empty(output_size, dtype=torch.uint8, device=masks.device)
    is_number = torch.ones((), dtype=torch.bool, device=masks.device)
    for start, scores in score_strips(masks, table, size=size, output_size=output_size):
        best, classes = scores.max(dim=-1)
        labels[start : start + len(scores)] = classes
        is_number &= ~best.isnan().any()
    return labels, is_number


def score_strips(
    masks: Tensor, table: Tensor, *, size: tuple[int, int], output_size: tuple[int, int]
) -> Iterator[tuple[int, Tensor]]:
    """First row and scores ``(rows, width, K)`` of consecutive strips of the output; differentiable.

    Arguments as in ``strip_labels``.
    """
    masks, table = full_precision(masks), full_precision(table).to(masks.device)
    weight = table.to(masks.dtype).t().contiguous()
    height, width = output_size
    shares_of = MaskProbabilities(masks, size=size, output_size=output_size)
    values_per_row = max(size[1], width) * masks.shape[-1] * max(1.0, size[0] / height)
    budget = _CPU_STRIP if masks.device.type == "cpu" else _GPU_STRIP
    for start, stop in spans(height, step=int(budget / values_per_row)):
        yield start, class_scores(shares_of.window((start, stop), (0, width)), weight)


def class_scores(shares: Tensor, weight: Tensor) -> Tensor:
    """Scores ``(..., K)`` of mask probabilities ``(..., Q)`` and a table ``(K, Q)``, in their own precision."""
    with torch.autocast(shares.device.type, enabled=False):  # the best class is decided by small differences
        return linear(shares, weight)


def spans(length: int, *, step: int) -> list[tuple[int, int]]:
    """First and last + 1 of consecutive pieces of an axis, about ``step`` pixels each.

    Pieces meet between mask pixels 4 a + 1 and 4 a + 2, where the bilinear filter needs no mask pixel twice but one.
    """
    step = max(STRIDE, step // STRIDE * STRIDE)
    starts = [0, *range(step + STRIDE // 2, length, step)]
    return list(zip(starts, [*starts[1:], length], strict=True))


class MaskProbabilities:
    """Mask probabilities of any window of the output, computed from the mask pixels that it sees alone.

    Args:
        masks: mask logits ``(h, w, Q)``, float32 or float64.
        size: ``(height, width)`` of the frame without its padding.
        output_size: ``(height, width)`` of the output.
    """

    def __init__(self, masks: Tensor, *, size: tuple[int, int], output_size: tuple[int, int]) -> None:
        self.masks = masks
        self.output_size = output_size
        self.resizing = None
        if size != output_size:
            self.resizing = tuple(Lerp(old, new, masks) for old, new in zip(size, output_size, strict=True))

    def window(self, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
        """``(height, width, Q)`` of the pixels in half-open ranges of output rows and columns.

        A window holds the very values of the whole.
        """
        if self.resizing is None:
            return self._upsampled(rows, columns)
        sources = self._sources(rows, columns)
        shares = self._upsampled(*sources)
        for dim, (lerp, (start, stop), (first, _)) in enumerate(
            zip(self.resizing, (rows, columns), sources, strict=True)
        ):
            shares = lerp.apply(shares, dim=dim, start=start, stop=stop, offset=first)
        return shares

    def first_mask_pixels(self) -> tuple[Tensor, Tensor]:
        """Row, then column of the first mask pixel that each output row, then column, reads.

        An output pixel is a mean of mask values at this and the next pixel, where the frame is resized also at the
        one after that.
        """
        height, width, _ = self.masks.shape
        firsts = [
            ((source - STRIDE // 2).clamp(min=0) // STRIDE).clamp(max=length - 1)
            for source, length in zip(self._first_sources(), (height, width), strict=True)
        ]
        return firsts[0], firsts[1]

    def _first_sources(self) -> list[Tensor]:
        """Row and column of the padded input that each output row and column reads first."""
        if self.resizing is not None:
            return [lerp.low for lerp in self.resizing]
        return [torch.arange(length, device=self.masks.device) for length in self.output_size]

    def _sources(self, rows: tuple[int, int], columns: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """Rows and columns of the frame behind a window of the output."""
        if self.resizing is None:
            return rows, columns
        vertical, horizontal = self.resizing
        return vertical.source(*rows), horizontal.source(*columns)

    def _upsampled(self, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
        """Probabilities of a window of the padded input."""
        height, width, _ = self.masks.shape
        top, bottom = _mask_span(*rows, height)
        left, right = _mask_span(*columns, width)
        part = self.masks.unsqueeze(0)[:, top:bottom, left:right].permute(0, 3, 1, 2)  # channels-last
        enlarged = functional.interpolate(
            part, size=(STRIDE * (bottom - top), STRIDE * (right - left)), mode="bilinear", align_corners=False
        )
        inside = enlarged[0].permute(1, 2, 0)[
            rows[0] - STRIDE * top : rows[1] - STRIDE * top, columns[0] - STRIDE * left : columns[1] - STRIDE * left
        ]
        return inside.sigmoid()


def _mask_span(start: int, stop: int, length: int) -> tuple[int, int]:
    """Mask pixels that the bilinear filter reads for pixels ``start`` to ``stop`` of one axis."""
    return max(0, (start - STRIDE // 2) // STRIDE), min(length, (stop - 1 + STRIDE // 2) // STRIDE + 1)
