"""Self-attention of the pixel decoder: all pixels of three scales sample each other sparsely.

Source: "Deformable DETR" (arXiv 2010.04159), as Mask2Former uses it; parameter names of the published checkpoints.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from mvcseg.models.layers.deformable import DeformableAttention, Shapes, pixel_anchors
from mvcseg.models.layers.recomputed import recomputed
from mvcseg.models.mask2former.position import sine_position
from mvcseg.ops.deform_attn import pieces
from mvcseg.ops.linear import linear

LONGEST_PIECE = 8000
"""Most pixels a layer works on at a time: its hidden channels then stay below the 32 MiB that are reused at once."""


class DeformableEncoder(nn.Module):
    """Post-norm layers of deformable attention and feed-forward over several maps at once.

    Args:
        width: C, channels.
        levels: L, number of maps.
        heads: attention heads.
        points: samples of a head in a map.
        hidden: channels inside the feed-forward.
        layers: number of layers.
    """

    def __init__(self, width: int, *, levels: int, heads: int, points: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.level_embed = nn.Parameter(torch.empty(levels, width).normal_())
        stack = [
            DeformableEncoderLayer(width, levels=levels, heads=heads, points=points, hidden=hidden)
            for _ in range(layers)
        ]
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(stack)})  # named encoder.layers.0, ...

    def forward(self, tokens: Tensor, *, spatial_shapes: Shapes, recomputes: int = 0) -> Tensor:
        """Maps that have looked at each other.

        Args:
            tokens: the maps' pixels one after another, ``(N, S, C)``.
            spatial_shapes: ``(height, width)`` of each map.
            recomputes: of how many layers, the first ones, the feed-forward step is computed again in the backward
                pass, so that its hidden channels are not kept.

        Returns:
            ``(N, S, C)``.
        """
        width, device, dtype = tokens.shape[-1], tokens.device, tokens.dtype
        position = torch.cat(
            [
                sine_position(*shape, channels=width, device=device, dtype=dtype).flatten(0, 1)
                + self.level_embed[level]
                for level, shape in enumerate(spatial_shapes)
            ]
        )
        exact = torch.promote_types(dtype, torch.float32)  # half precision would misplace points by whole pixels
        points = torch.cat([pixel_centres(*shape, device=device, dtype=exact) for shape in spatial_shapes])[None]
        for i, layer in enumerate(self.encoder["layers"].children()):
            tokens = layer(
                tokens,
                position=position,
                reference_points=points,
                spatial_shapes=spatial_shapes,
                recomputes=i < recomputes,
            )
        return tokens


class DeformableEncoderLayer(nn.Module):
    """``x = LN(x + Attn(x + position, x))``, then ``LN(x + FFN(x))``."""

    def __init__(self, width: int, *, levels: int, heads: int, points: int, hidden: int) -> None:
        super().__init__()
        self.self_attn = DeformableAttention(width, levels=levels, heads=heads, points=points)
        self.norm1 = nn.LayerNorm(width)
        self.linear1 = nn.Linear(width, hidden)
        self.linear2 = nn.Linear(hidden, width)
        self.norm2 = nn.LayerNorm(width)
        nn.init.xavier_uniform_(self.linear1.weight)
        nn.init.xavier_uniform_(self.linear2.weight)

    def forward(
        self, x: Tensor, *, position: Tensor, reference_points: Tensor, spatial_shapes: Shapes, recomputes: bool = False
    ) -> Tensor:
        """``(N, S, C)`` of ``(N, S, C)``; ``position`` is ``(S, C)``, ``reference_points`` ``(1, S, 2)``."""
        if self.self_attn.may_sample(x, position, reference_points, *self.parameters(), spatial_shapes=spatial_shapes):
            anchors = pixel_anchors(reference_points.unsqueeze(2), spatial_shapes=spatial_shapes)[0]
            return torch.stack([self._in_pieces(frame, position, anchors, spatial_shapes) for frame in x])
        attended = self.self_attn(x + position, x, reference_points=reference_points, spatial_shapes=spatial_shapes)
        return recomputed(self._feed_forward, recomputes)(self.norm1(x + attended))

    def _in_pieces(self, x: Tensor, position: Tensor, anchors: Tensor, spatial_shapes: Shapes) -> Tensor:
        """The layer for one frame ``(S, C)``, some pixels at a time, so that what lies between stays in the cache."""
        attend = self.self_attn.sampler(x, spatial_shapes=spatial_shapes)
        out = torch.empty_like(x)
        for part in pieces(len(x), longest=LONGEST_PIECE):
            here = x[part]
            out[part] = self._feed_forward(self.norm1(attend(here + position[part], anchors[part]).add_(here)))
        return out

    def _feed_forward(self, x: Tensor) -> Tensor:
        inner = functional.relu(linear(x, self.linear1.weight, self.linear1.bias), inplace=not torch.is_grad_enabled())
        return self.norm2(x + linear(inner, self.linear2.weight, self.linear2.bias))  # type: ignore[no-any-return]


def pixel_centres(height: int, width: int, *, device: torch.device | None = None, dtype: torch.dtype) -> Tensor:
    """Centre of every pixel, row by row, as ``(x, y)`` in 0..1: ``(height * width, 2)``.

    Example:
        >>> pixel_centres(1, 2, dtype=torch.float32)
        tensor([[0.2500, 0.5000],
                [0.7500, 0.5000]])
    """
    y = (torch.arange(height, device=device, dtype=dtype) + 0.5) / height
    x = (torch.arange(width, device=device, dtype=dtype) + 0.5) / width
    return torch.stack([x.repeat(height), y.repeat_interleave(width)], dim=-1)
