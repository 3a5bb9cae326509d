"""Multi-scale deformable attention in plain PyTorch: a few weighted bilinear samples for every query and head.

The quantity is Eq. 3 of "Deformable DETR" (arXiv 2010.04159) between its projections.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from mvcseg.errors import ShapeError
from mvcseg.shapes import check_shapes


def deformable_attention(
    value: Tensor, locations: Tensor, weights: Tensor, *, spatial_shapes: Sequence[tuple[int, int]]
) -> Tensor:
    """Weighted bilinear samples of multi-scale maps, for every query and head.

    Samples outside a map are zero; ``(0, 0)`` is the outer corner of the first pixel, ``(1, 1)`` that of the last
    (``align_corners=False``).

    Args:
        value: the maps' rows one after another, ``(N, S, M, D)`` with M heads and S the sum of the maps' sizes.
        locations: where to sample, ``(N, Lq, M, L, P, 2)`` as ``(x, y)``, 0..1 inside a map.
        weights: ``(N, Lq, M, L, P)``.
        spatial_shapes: ``(height, width)`` of each of the L maps.

    Returns:
        ``(N, Lq, M * D)``, the heads one after another.

    Raises:
        ShapeError: the arguments' sizes do not agree.

    Example:
        >>> value = torch.arange(6.0).view(1, 6, 1, 1)  # one map of 2 x 3, one head, one channel
        >>> centre = torch.tensor([0.5, 0.5]).view(1, 1, 1, 1, 1, 2)
        >>> deformable_attention(value, centre, torch.ones(1, 1, 1, 1, 1), spatial_shapes=[(2, 3)])
        tensor([[[2.5000]]])
    """
    _check(value, locations, weights, spatial_shapes)
    return _by_grid_sample(value, locations, weights, spatial_shapes)


def _check(value: Tensor, locations: Tensor, weights: Tensor, spatial_shapes: Sequence[tuple[int, int]]) -> None:
    sizes = check_shapes(
        value=(value, "n s m d"), locations=(locations, "n lq m l p 2"), weights=(weights, "n lq m l p")
    )
    rows = sum(height * width for height, width in spatial_shapes)
    if sizes["l"] != len(spatial_shapes):
        raise ShapeError(f"locations: expected {len(spatial_shapes)} levels from spatial_shapes, got {sizes['l']}")
    if sizes["s"] != rows:
        raise ShapeError(f"value: expected s={rows} from spatial_shapes {list(spatial_shapes)}, got {sizes['s']}")


def _by_grid_sample(
    value: Tensor, locations: Tensor, weights: Tensor, spatial_shapes: Sequence[tuple[int, int]]
) -> Tensor:
    """The formula written down: differentiable, traceable, for every device."""
    n, _, heads, depth = value.shape
    queries, points = locations.shape[1], locations.shape[4]
    grids = (2 * locations - 1).transpose(1, 2).flatten(0, 1)  # (n m, lq, l, p, 2)
    maps = value.split_with_sizes([height * width for height, width in spatial_shapes], dim=1)
    samples = []
    for level, (height, width) in enumerate(spatial_shapes):
        image = maps[level].permute(0, 2, 3, 1).reshape(n * heads, depth, height, width)
        samples.append(
            functional.grid_sample(
                image, grids[:, :, level], mode="bilinear", padding_mode="zeros", align_corners=False
            )
        )
    sampled = torch.stack(samples, dim=-2)  # (n m, d, lq, l, p)
    weight = weights.transpose(1, 2).reshape(n * heads, 1, queries, len(spatial_shapes), points)
    gathered = (sampled * weight).sum(dim=(-2, -1))  # (n m, d, lq)
    return gathered.view(n, heads * depth, queries).transpose(1, 2).contiguous()
