"""From queries to per-pixel class scores: ``score(c) = sum over queries of p(c | query) * mask(query)``.

Masks are upsampled as logits to the padded input, cropped, made probabilities, and only then resized to the
output; class tables come from a softmax over K + 1 whose last entry, "no object", is dropped. This is the
semantic inference of Mask2Former (arXiv 2112.01527) and of DVIS++ (arXiv 2312.13305). Work goes strip by strip
of a few rows with the queries innermost, so that no full-size mask of every query ever exists.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mvcseg.errors import DataError
from mvcseg.ops.linear import linear
from mvcseg.ops.semantic_decoding import STRIDE as STRIDE
from mvcseg.ops.semantic_decoding import full_precision as full_precision
from mvcseg.ops.semantic_decoding import score_strips, strip_labels
from mvcseg.ops.semantic_decoding_tiles import tile_labels
from mvcseg.ops.semantic_decoding_triton import can_decode, kernel_labels


def class_table(class_logits: Tensor) -> Tensor:
    """Class probabilities ``(..., Q, K)`` of logits ``(..., Q, K + 1)``, "no object" dropped; float32 at least."""
    return full_precision(class_logits).softmax(dim=-1)[..., :-1]


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
    pixels = features.permute(1, 2, 0)
    return linear(pixels, kernels.to(pixels.dtype), None if bias is None else bias.to(pixels.dtype))


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
    strips = score_strips(masks, table, size=size, output_size=output_size)
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
    if masks.device.type == "cpu":
        return tile_labels(masks, table, size=size, output_size=output_size)
    decode = kernel_labels if can_decode(masks, output_size=output_size) else strip_labels
    return decode(masks, table, size=size, output_size=output_size)


def label_clip(frames: Sequence[tuple[Tensor, Tensor]], *, first: int) -> Tensor:
    """Label maps ``(t, height, width)`` of consecutive frames, each as ``semantic_labels`` gives it.

    Whether scores are numbers is asked once for all frames: an accelerator is waited for once a clip.

    Args:
        frames: of one clip, at least one.
        first: number of the first of them in the video.

    Raises:
        DataError: scores of a frame are no numbers; the message names the first such frame.
    """
    labels, are_numbers = (torch.stack(parts) for parts in zip(*frames, strict=True))
    if not are_numbers.all():
        index = first + int((~are_numbers).to(torch.uint8).argmax())
        raise DataError(f"segmenter: expected numbers, got NaN in the scores of frame {index}; check its weights")
    return labels
