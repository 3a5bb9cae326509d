"""Losses of masks at points, which keep no more for the backward pass than maps of the masks' own size.

A mask is compared at many more points than it has pixels, and every step of ``set_terms.mask_losses`` keeps a number
or two a point until its gradient is asked for. Here the gradient is taken while the points are at hand, and brought
back to the pixels at once.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mvcseg.losses.set_terms import mask_losses
from mvcseg.ops.points import sample_points


def mask_losses_at(
    masks: Tensor, points: Tensor, targets: Tensor, weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """``mask_losses`` of masks sampled at points; differentiable once, with respect to the masks.

    Args:
        masks: logits ``(N, h, w)``.
        points: ``(N, P, 2)``, ``(x, y)`` in ``[0, 1]`` of the mask.
        targets: ``(N, P)`` in ``[0, 1]``.
        weight: of points, ``(N, P)``, or None for one.

    Returns:
        Two scalars: cross-entropy and dice, as ``mask_losses`` gives them.

    Example:
        >>> masks = torch.zeros(1, 2, 2, requires_grad=True)
        >>> entropy, dice = mask_losses_at(masks, torch.full((1, 1, 2), 0.25), torch.ones(1, 1))
        >>> entropy.backward()
        >>> masks.grad
        tensor([[[-0.5000,  0.0000],
                 [ 0.0000,  0.0000]]])
    """
    found: tuple[Tensor, Tensor] = _MaskLossesAt.apply(masks, points, targets, weight)
    return found


class _MaskLossesAt(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, masks: Tensor, points: Tensor, targets: Tensor, weight: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        with torch.autocast(masks.device.type, enabled=False):
            logits = sample_points(masks.unsqueeze(1), points)[:, 0]
            losses = mask_losses(logits, targets, weight)
            if ctx.needs_input_grad[0]:
                slopes = _slopes(logits, targets.to(logits), None if weight is None else weight.to(logits))
                ctx.save_for_backward(_to_pixels(slopes, masks, points))
                ctx.dtype = masks.dtype
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_entropy: Tensor, of_dice: Tensor) -> tuple[Tensor | None, None, None, None]:
        (slopes,) = ctx.saved_tensors
        return (of_entropy * slopes[:, 0]).add_(of_dice * slopes[:, 1]).to(ctx.dtype), None, None, None


def _slopes(logits: Tensor, targets: Tensor, weight: Tensor | None) -> Tensor:
    """Derivatives ``(N, 2, P)`` of cross-entropy and dice with respect to each logit ``(N, P)``."""
    shares = logits.sigmoid()
    slopes = torch.stack([shares - targets, shares * (1.0 - shares)], dim=1)
    slopes[:, 0] /= max(logits.shape[1], 1)
    if weight is not None:
        slopes *= weight.unsqueeze(1)
        shares, counted = shares * weight, targets * weight
    else:
        counted = targets
    common = 2.0 * (shares * targets).sum(dim=1, keepdim=True) + 1.0
    both = shares.sum(dim=1, keepdim=True) + counted.sum(dim=1, keepdim=True) + 1.0
    slopes[:, 1] *= common / both.square() - targets * (2.0 / both)
    return slopes


def _to_pixels(slopes: Tensor, masks: Tensor, points: Tensor) -> Tensor:
    """Derivatives ``(N, 2, h, w)`` with respect to the pixels: the transpose of bilinear sampling."""
    maps = masks.to(slopes.dtype).unsqueeze(1).expand(-1, 2, -1, -1)
    grid = (2.0 * points.to(slopes.dtype) - 1.0).unsqueeze(1)
    pixels: Tensor = torch.ops.aten.grid_sampler_2d_backward(
        slopes.unsqueeze(2), maps, grid, 0, 0, False, [True, False]
    )[0]
    return pixels
