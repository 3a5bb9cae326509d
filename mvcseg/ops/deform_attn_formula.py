"""Deformable attention as its formula stands, by ``grid_sample``: what the faster ways are held against."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional


def by_formula(value: Tensor, locations: Tensor, weights: Tensor, spatial_shapes: Sequence[tuple[int, int]]) -> Tensor:
    """Differentiable, traceable, for every device; holds every sample in memory.

    Args:
        value: ``(N, S, M, D)``.
        locations: ``(N, Lq, M, L, P, 2)``.
        weights: ``(N, Lq, M, L, P)``.
        spatial_shapes: ``(height, width)`` of each of the L maps.

    Returns:
        ``(N, Lq, M * D)``, in the type of ``value``.
    """
    n, _, heads, depth = value.shape
    queries, points = locations.shape[1], locations.shape[4]
    dtype = torch.promote_types(torch.promote_types(value.dtype, locations.dtype), weights.dtype)
    grids = (2 * locations.to(dtype) - 1).transpose(1, 2).flatten(0, 1)  # (n m, lq, l, p, 2)
    maps = value.to(dtype).split_with_sizes([height * width for height, width in spatial_shapes], dim=1)
    samples = []
    for level, (height, width) in enumerate(spatial_shapes):
        image = maps[level].permute(0, 2, 3, 1).reshape(n * heads, depth, height, width)
        grid = grids[:, :, level]
        samples.append(functional.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False))
    sampled = torch.stack(samples, dim=-2)  # (n m, d, lq, l, p)
    weight = weights.to(dtype).transpose(1, 2).reshape(n * heads, 1, queries, len(spatial_shapes), points)
    gathered = (sampled * weight).sum(dim=(-2, -1)).view(n, heads * depth, queries)
    return gathered.transpose(1, 2).contiguous().to(value.dtype)
