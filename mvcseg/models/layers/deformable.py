"""The deformable attention module: offsets and weights predicted from the query, values sampled around a point.

Source: "Deformable DETR" (arXiv 2010.04159), parameter names of the published Mask2Former checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mvcseg.errors import ConfigError, ShapeError
from mvcseg.ops.deform_attn import deformable_attention
from mvcseg.shapes import check_positive, check_shapes


class DeformableAttention(nn.Module):
    """Attention to ``points`` samples a head and map around each query's reference point.

    Args:
        width: C, channels of queries and values.
        levels: L, number of maps sampled from.
        heads: M, divides ``width``.
        points: P, samples of a head in a map.

    Raises:
        ConfigError: a number is below 1, or ``heads`` does not divide ``width``.
    """

    def __init__(self, width: int, *, levels: int, heads: int, points: int) -> None:
        super().__init__()
        check_positive(width=width, levels=levels, heads=heads, points=points)
        if width % heads:
            raise ConfigError(f"heads: expected a divisor of width={width}, got {heads}")
        self.levels, self.heads, self.points = levels, heads, points
        self.sampling_offsets = nn.Linear(width, heads * levels * points * 2)
        self.attention_weights = nn.Linear(width, heads * levels * points)
        self.value_proj = nn.Linear(width, width)
        self.output_proj = nn.Linear(width, width)
        self._reset_parameters()

    def forward(
        self, query: Tensor, value: Tensor, *, reference_points: Tensor, spatial_shapes: Sequence[tuple[int, int]]
    ) -> Tensor:
        """Values gathered around every query's reference point.

        Args:
            query: ``(N, Lq, C)``.
            value: the maps' rows one after another, ``(N, S, C)``.
            reference_points: ``(1 or N, Lq, 2)`` as ``(x, y)`` in 0..1, or one for each map, ``(1 or N, Lq, L, 2)``.
            spatial_shapes: ``(height, width)`` of each map.

        Returns:
            ``(N, Lq, C)``.

        Raises:
            ShapeError: the arguments' sizes do not agree.
        """
        sizes = check_shapes(query=(query, "n lq c"), value=(value, "n s c"))
        n, queries = sizes["n"], sizes["lq"]
        anchors = self._anchors(reference_points, queries=queries, n=n)
        offsets = self.sampling_offsets(query).view(n, queries, self.heads, self.levels, self.points, 2)
        weights = self.attention_weights(query).view(n, queries, self.heads, self.levels * self.points)
        weights = weights.softmax(dim=-1).view(n, queries, self.heads, self.levels, self.points)
        extent = query.new_tensor([[width, height] for height, width in spatial_shapes])
        locations = anchors + offsets / extent[:, None]
        rows = self.value_proj(value).view(n, -1, self.heads, value.shape[-1] // self.heads)
        gathered = deformable_attention(rows, locations, weights, spatial_shapes=spatial_shapes)
        return self.output_proj(gathered)  # type: ignore[no-any-return]

    def _anchors(self, reference_points: Tensor, *, queries: int, n: int) -> Tensor:
        """Reference points as ``(1 or N, Lq, 1, 1 or L, 1, 2)``."""
        points = reference_points if reference_points.ndim == 4 else reference_points.unsqueeze(-2)
        fits = (
            points.ndim == 4
            and points.shape[0] in (1, n)
            and points.shape[1] == queries
            and points.shape[2] in (1, self.levels)
            and points.shape[3] == 2
        )
        if not fits:
            raise ShapeError(
                f"reference_points: expected (1 or {n}, {queries}, 2) or (1 or {n}, {queries}, {self.levels}, 2), "
                f"got {tuple(reference_points.shape)}"
            )
        return points[:, :, None, :, None]

    def _reset_parameters(self) -> None:
        """Heads start looking along evenly spaced directions, point p at p pixels, with equal weights."""
        nn.init.zeros_(self.sampling_offsets.weight)
        angles = torch.arange(self.heads) * (2 * math.pi / self.heads)
        directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
        directions = directions / directions.abs().amax(dim=-1, keepdim=True)
        steps = torch.arange(1, self.points + 1)[:, None]
        offsets = (directions[:, None, None] * steps).expand(-1, self.levels, -1, -1)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.reshape(-1))
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
