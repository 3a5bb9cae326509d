"""From queries to per-pixel class scores: ``score(c) = sum over queries of p(c | query) * mask(query)``.

Masks are upsampled as logits to the padded input, cropped, made probabilities, and only then resized to the
output; class tables come from a softmax over K + 1 whose last entry, "no object", is dropped. This is the
semantic inference of Mask2Former (arXiv 2112.01527) and of DVIS++ (arXiv 2312.13305). Work goes strip by strip
of a few rows with the queries innermost, so that no full-size mask of every query ever exists.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional

STRIDE = 4
"""Pixels of the padded input per mask pixel."""
_CPU_STRIP = 1 << 20
"""Mask values in a strip on the CPU: a few megabytes, which its caches hold."""
_GPU_STRIP = 1 << 26
"""Mask values in a strip elsewhere: few launches, and a quarter of a gigabyte in float32."""


def class_table(class_logits: Tensor) -> Tensor:
    """Class probabilities ``(..., Q, K)`` of logits ``(..., Q, K + 1)``, "no object" dropped; float32 at least."""
    return full_precision(class_logits).softmax(dim=-1)[..., :-1]


def full_precision(x: Tensor) -> Tensor:
    """In float32 at least: sums over frames and pixels would stop growing in half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def in_dataset_order(table: Tensor, class_order: Tensor | None) -> Tensor:
    """Table ``(..., Q, K)`` with column k for data-set class k.

    Args:
        table: columns in the order of training.
        class_order: ``(K,)`` int64, the data-set class of each column; None where the orders agree.
    """
    if class_order is None:
        return table
    return table.index_select(-1, torch.argsort(class_order))


def logits_in_dataset_order(logits: Tensor, class_order: Tensor | None) -> Tensor:
    """Class logits ``(..., Q, K + 1)`` with column k for data-set class k, "no object" still last.

    Args:
        logits: columns in the order of training, "no object" last.
        class_order: as in ``in_dataset_order``.
    """
    if class_order is None:
        return logits
    return logits.index_select(-1, torch.argsort(torch.cat([class_order, class_order.new_tensor([len(class_order)])])))


def mask_logits(kernels: Tensor, features: Tensor, bias: Tensor | None = None) -> Tensor:
    """Mask logits ``(h, w, Q)``, queries innermost.

    Args:
        kernels: one vector per query, ``(Q, C)``.
        features: mask features ``(C, h, w)``, best as a channels-last view.
        bias: added to each query's mask, ``(Q,)``.
    """
    channels, height, width = features.shape
    pixels = features.permute(1, 2, 0).reshape(height * width, channels)
    kernels = kernels.to(pixels.dtype)
    logits = pixels @ kernels.t() if bias is None else torch.addmm(bias.to(pixels.dtype), pixels, kernels.t())
    return logits.view(height, width, -1)


def semantic_scores(masks: Tensor, table: Tensor, *, size: tuple[int, int], output_size: tuple[int, int]) -> Tensor:
    """Class scores of one frame, at any size.

    Args:
        masks: mask logits ``(h, w, Q)`` at a quarter of the padded input.
        table: class probabilities ``(Q, K)``.
        size: ``(height, width)`` of the frame without its padding, at most ``(4 h, 4 w)``.
        output_size: ``(height, width)`` of the result; mask probabilities are resized to it bilinearly with
            ``align_corners=False``.

    Returns:
        ``(K, height, width)``, not negative; differentiable.
    """
    strips = _score_strips(masks, table, size=size, output_size=output_size)
    if torch.is_grad_enabled():
        return torch.cat([scores.permute(2, 0, 1) for _, scores in strips], dim=1)
    result = full_precision(masks.new_empty(0)).new_empty(table.shape[-1], *output_size)
    for start, scores in strips:
        result[:, start : start + len(scores)] = scores.permute(2, 0, 1)
    return result


def semantic_labels(
    masks: Tensor, table: Tensor, *, size: tuple[int, int], output_size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """The best class of every pixel of one frame; arguments as in ``semantic_scores``.

    Returns:
        Classes ``(height, width)`` uint8, of equal scores the lowest; and whether all scores are numbers, a
        bool tensor without axes.
    """
    labels = torch.empty(output_size, dtype=torch.uint8, device=masks.device)
    is_number = torch.ones((), dtype=torch.bool, device=masks.device)
    for start, scores in _score_strips(masks, table, size=size, output_size=output_size):
        best, classes = scores.max(dim=-1)
        labels[start : start + len(scores)] = classes
        is_number &= ~best.isnan().any()
    return labels, is_number


def _score_strips(
    masks: Tensor, table: Tensor, *, size: tuple[int, int], output_size: tuple[int, int]
) -> Iterator[tuple[int, Tensor]]:
    """First row and scores ``(rows, width, K)`` of consecutive strips of the output."""
    masks, table = full_precision(masks), full_precision(table).to(masks.device)
    for start, shares in _probability_strips(masks, size=size, output_size=output_size):
        rows, width, queries = shares.shape
        with torch.autocast(masks.device.type, enabled=False):  # the best class is decided by small differences
            scores = shares.reshape(rows * width, queries) @ table.to(shares.dtype)
        yield start, scores.view(rows, width, -1)


def _probability_strips(
    masks: Tensor, *, size: tuple[int, int], output_size: tuple[int, int]
) -> Iterator[tuple[int, Tensor]]:
    """First row and mask probabilities ``(rows, width, Q)`` of consecutive strips of the output."""
    height, width = output_size
    values_per_row = max(size[1], width) * masks.shape[-1] * max(1.0, size[0] / height)
    budget = _CPU_STRIP if masks.device.type == "cpu" else _GPU_STRIP
    step = max(STRIDE, int(budget / values_per_row) // STRIDE * STRIDE)
    resizing = None if size == output_size else (_Lerp(size[0], height, masks), _Lerp(size[1], width, masks))
    for start in range(0, height, step):
        stop = min(start + step, height)
        if resizing is None:
            yield start, _probabilities(masks, start, stop, width=width)
            continue
        rows, columns = resizing
        first, last = rows.first_source[start], rows.last_source[stop - 1] + 1
        shares = _probabilities(masks, first, last, width=size[1])
        yield start, columns.apply(rows.apply(shares, dim=0, start=start, stop=stop, offset=first), dim=1)


def _probabilities(masks: Tensor, start: int, stop: int, *, width: int) -> Tensor:
    """Mask probabilities ``(stop - start, width, Q)`` of rows of the padded input, cropped to ``width``.

    Only the mask rows these see are upsampled, with one row more on both sides, which is as far as the
    bilinear filter reaches; so a strip holds the very values of the whole.
    """
    first = max(0, start // STRIDE - 1)
    last = min(len(masks), (stop - 1) // STRIDE + 2)
    strip = masks.unsqueeze(0)[:, first:last].permute(0, 3, 1, 2)  # channels-last: queries stay innermost
    enlarged = functional.interpolate(
        strip,
        size=(STRIDE * strip.shape[-2], STRIDE * strip.shape[-1]),
        mode="bilinear",
        align_corners=False,
    )
    offset = first * STRIDE
    cropped = enlarged[0].permute(1, 2, 0)[start - offset : stop - offset, :width]
    return cropped.sigmoid()


class _Lerp:
    """Bilinear resizing of one axis as two gathers and a blend, for any range of the result.

    Positions are computed in the dtype of the data, as ``torch.nn.functional.interpolate`` does.
    """

    def __init__(self, length: int, resized: int, like: Tensor) -> None:
        dtype = torch.promote_types(like.dtype, torch.float32)
        scale = torch.tensor(length, dtype=dtype) / resized
        position = (scale * (torch.arange(resized, dtype=dtype) + 0.5) - 0.5).clamp_(min=0)
        low = position.long().clamp_(max=length - 1)
        high = (low + 1).clamp_(max=length - 1)
        self.first_source: Sequence[int] = low.tolist()
        self.last_source: Sequence[int] = high.tolist()
        self.low, self.high = low.to(like.device), high.to(like.device)
        self.share = (position - low).to(like)

    def apply(self, x: Tensor, *, dim: int, start: int = 0, stop: int | None = None, offset: int = 0) -> Tensor:
        """Entries ``start`` to ``stop`` of the resized axis ``dim``; ``x`` begins at entry ``offset`` of the old."""
        window = slice(start, stop)
        low = x.index_select(dim, self.low[window] - offset)
        high = x.index_select(dim, self.high[window] - offset)
        shape = [1] * x.ndim
        shape[dim] = -1
        return (
            low.lerp_(high, self.share[window].view(shape))
            if not x.requires_grad
            else low.lerp(high, self.share[window].view(shape))
        )
