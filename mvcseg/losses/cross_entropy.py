"""Cross-entropy of per-pixel class logits, with an ignore index and weights."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor
from torch.nn import functional

from mvcseg.errors import ConfigError, DataError
from mvcseg.segmenter import IGNORE_INDEX
from mvcseg.shapes import check_float, check_integer, check_shapes


def pixel_cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    weight: Tensor | None = None,
    class_weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    divisor: Tensor | None = None,
) -> Tensor:
    """Mean cross-entropy over the pixels that have a label.

    Args:
        logits: ``(B, T, K, H, W)``, floating-point; the loss is computed in float32 at least, under autocast too.
        labels: ``(B, T, H, W)`` classes 0..K-1, 255 ignored; any integer dtype.
        weight: ``(B, T, H, W)`` pixel weights in ``[0, 1]``; 0 ignores a pixel.
        class_weight: ``(K,)``, one factor a class.
        label_smoothing: share of the target spread evenly over all classes, in ``[0, 1]``.
        divisor: scalar that the weighted sum is divided by; None takes the sum of weights (``counted_weight``).

    Returns:
        A scalar: the weighted sum over labelled pixels divided by the sum of their weights (pixel weight times
        weight of the label's class). Zero, with a graph, where no pixel counts.

    Raises:
        ShapeError: the sizes do not agree.
        DTypeError: ``logits`` are not floating-point or ``labels`` not integer.
        ConfigError: ``label_smoothing`` is outside ``[0, 1]``.
        DataError: on the CPU, a label is outside 0..K-1 and not 255. On other devices the loss is NaN then,
            since looking would make the host wait.

    Example:
        >>> logits = torch.zeros(1, 1, 4, 2, 2)
        >>> labels = torch.tensor([[[[0, 1], [255, 3]]]])
        >>> pixel_cross_entropy(logits, labels)  # log 4
        tensor(1.3863)
    """
    sizes = check_shapes(logits=(logits, "b t k h w"), labels=(labels, "b t h w"))
    check_float(logits=logits)
    check_integer(labels=labels)
    if weight is not None:
        check_shapes(labels=(labels, "b t h w"), weight=(weight, "b t h w"))
    if class_weight is not None:
        check_shapes(logits=(logits, "b t k h w"), class_weight=(class_weight, "k"))
    if not 0 <= label_smoothing <= 1:
        raise ConfigError(f"label_smoothing: expected a share in [0, 1], got {label_smoothing!r}")
    num_classes = sizes["k"]
    images = rearrange(logits, "b t k h w -> (b t) k h w")
    if images.dtype in (torch.float16, torch.bfloat16):
        images = images.float()
    targets = rearrange(labels, "b t h w -> (b t) h w").long()
    ignored = targets == IGNORE_INDEX
    outside = ~ignored & ((targets < 0) | (targets >= num_classes))
    if targets.device.type == "cpu" and bool(outside.any()):
        value = int(targets[outside][0])
        raise DataError(f"labels: expected classes 0..{num_classes - 1} or {IGNORE_INDEX}, got {value}")
    losses = functional.cross_entropy(
        images,
        torch.where(outside, 0, targets),
        weight=None if class_weight is None else class_weight.to(images),
        ignore_index=IGNORE_INDEX,
        reduction="none",
        label_smoothing=label_smoothing,
    )
    losses = torch.where(outside, torch.nan, losses)
    if weight is not None:
        losses = losses * rearrange(weight, "b t h w -> (b t) h w").to(images)
    if divisor is None:
        divisor = counted_weight(labels, weight=weight, class_weight=class_weight).sum()
    divisor = divisor.to(images)
    return losses.sum() / torch.where(divisor > 0, divisor, torch.ones_like(divisor))


def counted_weight(labels: Tensor, *, weight: Tensor | None = None, class_weight: Tensor | None = None) -> Tensor:
    """What every pixel counts in the mean: zero where ignored, else its weight times that of its label's class.

    Args:
        labels: ``(B, T, H, W)`` classes 0..K-1, 255 ignored.
        weight: ``(B, T, H, W)``, or None for one.
        class_weight: ``(K,)``, or None for one.

    Returns:
        ``(B, T, H, W)``, in float32 at least.
    """
    is_counted = labels != IGNORE_INDEX
    counted = is_counted.float()
    if class_weight is not None:
        # classes that have no weight are refused with the logits at hand
        known = torch.where(is_counted, labels.long(), 0).clamp(0, len(class_weight) - 1)
        counted = counted * class_weight[known]
    return counted if weight is None else counted * weight
