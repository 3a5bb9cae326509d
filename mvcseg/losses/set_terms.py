"""Costs and losses between query masks and target masks at points, and between class logits and classes.

All of them are computed in float32 at least, under autocast too.

Source: Mask2Former, arXiv 2112.01527, section 3.3; MaskFormer, arXiv 2107.06278.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def mask_costs(logits: Tensor, targets: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy and dice cost of all pairs of a query and a target, at shared points.

    Args:
        logits: of queries, ``(Q, P)``.
        targets: ``(M, P)`` in ``[0, 1]``.
        weight: of points, ``(P,)``, or None for one.

    Returns:
        Both ``(Q, M)``: the mean over points of the weighted cross-entropy, and dice.

    Example:
        >>> entropy, dice = mask_costs(torch.tensor([[30.0, -30.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        >>> entropy
        tensor([[ 0., 30.]])
        >>> dice
        tensor([[0.0000, 0.6667]])
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        targets = targets.to(logits)
        shares = logits.sigmoid()
        counted = targets if weight is None else targets * weight.to(logits)
        kept = shares if weight is None else shares * weight.to(logits)
        softplus = functional.softplus(logits) if weight is None else functional.softplus(logits) * weight.to(logits)
        entropy = (softplus.sum(dim=1, keepdim=True) - logits @ counted.T) / logits.shape[1]
        together = kept.sum(dim=1, keepdim=True) + counted.sum(dim=1)
        dice = 1.0 - (2.0 * (shares @ counted.T) + 1.0) / (together + 1.0)
        return entropy, dice


def class_cost(logits: Tensor, class_ids: Tensor) -> Tensor:
    """Minus the probability ``(Q, M)`` that each query, logits ``(Q, K + 1)``, gives to the classes ``(M,)``."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return -logits.softmax(dim=-1)[:, class_ids]


def mask_losses(logits: Tensor, targets: Tensor, weight: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Binary cross-entropy and dice of N masks with their targets, each at its own points, summed over masks.

    Args:
        logits: ``(N, P)``.
        targets: ``(N, P)`` in ``[0, 1]``.
        weight: of points, ``(N, P)``, or None for one.

    Returns:
        Two scalars: the sum over masks of the mean over points of the weighted cross-entropy, and of dice. Zero, with
        a graph, for N = 0.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        targets = targets.to(logits)
        weight = None if weight is None else weight.to(logits)
        entropy = functional.binary_cross_entropy_with_logits(logits, targets, weight=weight, reduction="none")
        shares = logits.sigmoid()
        if weight is not None:
            shares = shares * weight
        common = (shares * targets).sum(dim=1)
        counted = targets if weight is None else targets * weight
        dice = 1.0 - (2.0 * common + 1.0) / (shares.sum(dim=1) + counted.sum(dim=1) + 1.0)
        return entropy.sum() / max(logits.shape[1], 1), dice.sum()


def class_loss(logits: Tensor, classes: Tensor, *, no_object_weight: float) -> Tensor:
    """Cross-entropy of class logits, summed over queries, those without an object times ``no_object_weight``.

    Args:
        logits: ``(N, K + 1)``, the last class means no object.
        classes: ``(N,)``, K for queries without an object.
        no_object_weight: at least 0.

    Returns:
        A scalar.
    """
    with torch.autocast(logits.device.type, enabled=False):
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        losses = functional.cross_entropy(logits, classes, reduction="none")
        return torch.where(classes == logits.shape[-1] - 1, no_object_weight * losses, losses).sum()
