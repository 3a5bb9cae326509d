"""Class ids from scores that are computed window by window, so that no full-size scores of a frame exist.

A window function gives the scores of any rectangle of a frame; windows compose: probabilities of logits, a resized view
of probabilities. A rectangle of some thousand pixels, its classes side by side, stays in the caches from the net's
logits to class ids. Each pixel is computed by itself: how a frame is cut changes nothing but rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import isqrt

import torch
from torch import Tensor

from mvcseg.ops.lerp import Lerp
from mvcseg.ops.workspace import Workspace
from mvcseg.shapes import check_positive

Span = tuple[int, int]
"""First and last + 1 of a range of rows or columns."""
Window = Callable[[Span, Span], Tensor]
"""Scores ``(height, width, K)`` of a frame's pixels in a range of rows and one of columns.

They may lie in a `Workspace`: use them before the next window is asked for.
"""
_CPU_VALUES = 1 << 20
"""Scores in a rectangle on the CPU: four megabytes, which its caches hold."""
_FEWEST = 6
"""Rectangles of a frame on the CPU, at least about so many."""
_GPU_VALUES = 1 << 26
"""Scores in a rectangle elsewhere: few launches, and a quarter of a gigabyte in float32."""
_VECTOR = 16
"""Classes from which PyTorch's softmax of classes side by side is vectorised: with fewer it takes ten times as long."""


def planes(scores: Tensor) -> Window:
    """Windows of scores ``(K, H, W)``."""
    return lambda rows, columns: scores[:, slice(*rows), slice(*columns)].permute(1, 2, 0)


def probabilities(logits: Window, memory: Workspace) -> Window:
    """Windows of class probabilities."""

    def window(rows: Span, columns: Span) -> Tensor:
        part = logits(rows, columns)
        if part.shape[-1] >= _VECTOR:
            return torch.softmax(memory.hold(part), dim=-1, out=memory.next(part.shape))
        part = memory.hold(part.permute(2, 0, 1))
        return torch.softmax(part, dim=0, out=memory.next(part.shape)).permute(1, 2, 0)

    return window


def mirrored(scores: Window, memory: Workspace, *, width: int) -> Window:
    """Windows of a frame of ``width`` columns with left and right swapped."""

    def window(rows: Span, columns: Span) -> Tensor:
        part = scores(rows, (width - columns[1], width - columns[0]))
        backwards = torch.arange(part.shape[1] - 1, -1, -1, device=part.device)
        return torch.index_select(part, 1, backwards, out=memory.next(part.shape))

    return window


def resizing(size: tuple[int, int], output_size: tuple[int, int], memory: Workspace) -> Callable[[Window], Window]:
    """What brings windows of a frame of ``size`` to ``output_size``: bilinear, ``align_corners=False``.

    The values are those of `torch.nn.functional.interpolate` but for rounding.

    Args:
        size: ``(height, width)`` in pixels.
        output_size: ``(height, width)`` in pixels.
        memory: where windows are computed, and in which dtype.
    """
    if size == output_size:
        return lambda scores: scores
    vertical, horizontal = (Lerp(old, new, memory.like) for old, new in zip(size, output_size, strict=True))

    def resized(scores: Window) -> Window:
        def window(rows: Span, columns: Span) -> Tensor:
            (top, bottom), (left, right) = vertical.source(*rows), horizontal.source(*columns)
            part = memory.hold(scores((top, bottom), (left, right)))
            return _resized(_resized(part, vertical, 0, rows, top, memory), horizontal, 1, columns, left, memory)

        return window

    return resized


def _resized(x: Tensor, lerp: Lerp, dim: int, span: Span, offset: int, memory: Workspace) -> Tensor:
    """``lerp.apply`` in a workspace, as a sum of two products: what is infinite stays so, as in `interpolate`."""
    window = slice(*span)
    shape, sides = list(x.shape), [1] * x.ndim
    shape[dim], sides[dim] = span[1] - span[0], -1
    low = torch.index_select(x, dim, lerp.low[window] - offset, out=memory.next(shape))
    high = torch.index_select(x, dim, lerp.high[window] - offset, out=memory.spare(shape))
    share = lerp.share[window].view(sides)
    return low.mul_(1 - share).addcmul_(high, share)


def rectangles(
    output_size: tuple[int, int], *, size: tuple[int, int], num_classes: int, device: torch.device
) -> Iterator[tuple[Span, Span]]:
    """Rows and columns of rectangles that cover an output, each with about as many scores as the caches hold.

    On the CPU there are several even of a small frame, so that all but the first find their memory in place. A frame of
    a larger ``size`` that is resized to the output is what counts.
    """
    height, width = output_size
    values_per_pixel = num_classes * max(1, size[0] * size[1] // (height * width))
    all_values = height * width * values_per_pixel
    values = min(_CPU_VALUES, all_values // _FEWEST) if device.type == "cpu" else _GPU_VALUES
    pixels = max(1, values // values_per_pixel)
    rows = _even(height, at_most=isqrt(pixels))
    columns = _even(width, at_most=pixels // rows)
    for top in range(0, height, rows):
        for left in range(0, width, columns):
            yield (top, min(top + rows, height)), (left, min(left + columns, width))


def _even(length: int, *, at_most: int) -> int:
    """Length of the pieces of an axis, as few as may be and as equal as may be."""
    pieces = -(-length // at_most)
    return -(-length // pieces)


@torch.no_grad()
def best_classes(
    frames: Sequence[Window],
    *,
    size: tuple[int, int],
    output_size: tuple[int, int],
    num_classes: int,
    memory: Workspace,
) -> tuple[Tensor, Tensor]:
    """The class of the largest logit of every pixel; at another size, that of the largest probability resized to it.

    Args:
        frames: windows of the logits of each frame.
        size: ``(height, width)`` of the frames in pixels.
        output_size: ``(height, width)`` of the result in pixels.
        num_classes: K, at most 255.
        memory: where windows are computed.

    Returns:
        Classes ``(N, height, width)`` uint8, of equal scores the lowest; and whether all best scores are numbers, a
        bool tensor without axes.

    Raises:
        ConfigError: a side of ``output_size`` is below 1.

    Example:
        >>> logits = torch.tensor([[0.0, 0.0, 4.0], [1.0, 1.0, 1.0]]).view(2, 1, 3)
        >>> memory = Workspace(logits)
        >>> best_classes([planes(logits)], size=(1, 3), output_size=(1, 6), num_classes=2, memory=memory)[0]
        tensor([[[1, 1, 1, 1, 0, 0]]], dtype=torch.uint8)
    """
    check_positive(height=output_size[0], width=output_size[1])
    if size != output_size:
        resize = resizing(size, output_size, memory)
        frames = [resize(probabilities(logits, memory)) for logits in frames]
    device = memory.like.device
    labels = torch.empty(len(frames), *output_size, dtype=torch.uint8, device=device)
    is_number = torch.ones((), dtype=torch.bool, device=device)
    for scores, target in zip(frames, labels, strict=True):
        for rows, columns in rectangles(output_size, size=size, num_classes=num_classes, device=device):
            best, classes = scores(rows, columns).max(dim=-1)
            target[slice(*rows), slice(*columns)] = classes
            is_number &= ~best.isnan().any()
    return labels, is_number
