"""The deformable attention module: offsets and weights predicted from the query, values sampled around a point.

Source: "Deformable DETR" (arXiv 2010.04159); parameter names of the published Mask2Former checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from mvcseg.errors import ConfigError, ShapeError
from mvcseg.ops.deform_attn import deformable_attention, gather, lay_out, may_gather, pieces
from mvcseg.ops.linear import linear
from mvcseg.shapes import check_positive, check_shapes

Shapes = Sequence[tuple[int, int]]


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

    def forward(self, query: Tensor, value: Tensor, *, reference_points: Tensor, spatial_shapes: Shapes) -> Tensor:
        """Values gathered around every query's reference point.

        Args:
            query: ``(N, Lq, C)``.
            value: the maps' pixels one after another, ``(N, S, C)``.
            reference_points: ``(1 or N, Lq, 2)`` as ``(x, y)`` in 0..1, or one for each map, ``(1 or N, Lq, L, 2)``.
            spatial_shapes: ``(height, width)`` of each map.

        Returns:
            ``(N, Lq, C)``.

        Raises:
            ShapeError: the arguments' sizes do not agree.
        """
        self._check(query, value, reference_points, spatial_shapes)
        if reference_points.ndim == 3:
            reference_points = reference_points.unsqueeze(2)
        if self.may_sample(query, value, reference_points, spatial_shapes=spatial_shapes):
            return self._by_sampler(query, value, reference_points, spatial_shapes)
        n, queries = query.shape[:2]
        offsets = self.sampling_offsets(query).view(n, queries, self.heads, self.levels, self.points, 2)
        weights = self.attention_weights(query).view(n, queries, self.heads, self.levels * self.points)
        weights = weights.softmax(dim=-1).view(n, queries, self.heads, self.levels, self.points)
        extent = _extents(spatial_shapes, like=reference_points)
        locations = reference_points[:, :, None, :, None] + offsets / extent[:, None]
        rows = self.value_proj(value).view(n, -1, self.heads, value.shape[-1] // self.heads)
        gathered = deformable_attention(rows, locations, weights, spatial_shapes=spatial_shapes)
        return self.output_proj(gathered)  # type: ignore[no-any-return]

    def may_sample(self, *tensors: Tensor, spatial_shapes: Shapes) -> bool:
        """Whether ``sampler`` may serve these tensors: plain inference on the CPU."""
        return may_gather(*tensors, *self.parameters(), heads=self.heads, spatial_shapes=spatial_shapes)

    def sampler(self, value: Tensor, *, spatial_shapes: Shapes) -> Callable[[Tensor, Tensor], Tensor]:
        """The attention to one frame's maps as a function of queries, in inference on the CPU.

        Args:
            value: the maps' pixels one after another, ``(S, C)``.
            spatial_shapes: ``(height, width)`` of each map.

        Returns:
            A function of queries ``(Lq, C)`` and their ``pixel_anchors``, ``(Lq, 2 * L)``, that gives ``(Lq, C)``.
        """
        rows = linear(value, self.value_proj.weight, self.value_proj.bias)
        maps = lay_out(rows.view(len(rows), self.heads, -1), spatial_shapes=spatial_shapes, points=self.points)
        columns = self.heads * self.levels * self.points
        offsets = self.sampling_offsets
        # all x first, then all y, then the weights' logits
        weight = torch.cat([offsets.weight[0::2], offsets.weight[1::2], self.attention_weights.weight])
        bias = torch.cat([offsets.bias[0::2], offsets.bias[1::2], self.attention_weights.bias])
        axis_and_level = torch.eye(2 * self.levels, dtype=value.dtype, device=value.device).view(-1, 2, self.levels)
        spread = axis_and_level.repeat_interleave(self.points, dim=2).repeat(1, 1, self.heads).flatten(1)

        def attend(query: Tensor, anchors: Tensor) -> Tensor:
            planes = linear(query, weight, bias)
            # each column's anchor, by a product with zeros and ones: faster than to broadcast along short runs
            points = torch.addmm(planes[:, : 2 * columns], anchors, spread).view(-1, 2, columns)
            shares = _softmax(planes[:, 2 * columns :].view(len(query), self.heads, -1)).flatten(1)
            return linear(gather(maps, points, shares), self.output_proj.weight, self.output_proj.bias)

        return attend

    def _by_sampler(self, query: Tensor, value: Tensor, reference_points: Tensor, spatial_shapes: Shapes) -> Tensor:
        anchors = pixel_anchors(reference_points, spatial_shapes=spatial_shapes)
        anchors = anchors.expand(query.shape[0], -1, -1)
        out = torch.empty_like(query)
        for i in range(query.shape[0]):  # a table of samples is one frame's
            attend = self.sampler(value[i], spatial_shapes=spatial_shapes)
            for part in pieces(query.shape[1]):
                out[i, part] = attend(query[i, part], anchors[i, part])
        return out

    def _check(self, query: Tensor, value: Tensor, reference_points: Tensor, spatial_shapes: Shapes) -> None:
        sizes = check_shapes(query=(query, "n lq c"), value=(value, "n s c"))
        rows = sum(height * width for height, width in spatial_shapes)
        if len(spatial_shapes) != self.levels:
            raise ShapeError(f"spatial_shapes: expected {self.levels} maps, got {len(spatial_shapes)}")
        if sizes["s"] != rows:
            raise ShapeError(f"value: expected s={rows} from spatial_shapes {list(spatial_shapes)}, got {sizes['s']}")
        n, queries, got = sizes["n"], sizes["lq"], tuple(reference_points.shape)
        if got not in {(frames, queries, *levels, 2) for frames in (1, n) for levels in ((), (1,), (self.levels,))}:
            raise ShapeError(
                f"reference_points: expected (1 or {n}, {queries}, 2) or (1 or {n}, {queries}, {self.levels}, 2), "
                f"got {got}"
            )

    def _reset_parameters(self) -> None:
        """Heads start looking along evenly spaced directions, point p at p pixels, with equal weights."""
        nn.init.zeros_(self.sampling_offsets.weight)
        angles = torch.arange(self.heads, device="cpu") * (2 * math.pi / self.heads)
        directions = torch.stack([angles.cos(), angles.sin()], dim=-1)
        directions = directions / directions.abs().amax(dim=-1, keepdim=True)
        steps = torch.arange(1, self.points + 1, device="cpu")[:, None]
        offsets = (directions[:, None, None] * steps).expand(-1, self.levels, -1, -1)
        with torch.no_grad():
            self.sampling_offsets.bias.copy_(offsets.reshape(-1))
        nn.init.zeros_(self.attention_weights.weight)
        nn.init.zeros_(self.attention_weights.bias)
        for layer in (self.value_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)


def pixel_anchors(reference_points: Tensor, *, spatial_shapes: Shapes) -> Tensor:
    """Reference points in the pixels of every map, 0 at the centre of the first.

    Args:
        reference_points: ``(N, Lq, 1 or L, 2)`` as ``(x, y)`` in 0..1.
        spatial_shapes: ``(height, width)`` of each map.

    Returns:
        ``(N, Lq, 2 * L)``: x in every map, then y in every map.
    """
    extent = _extents(spatial_shapes, like=reference_points)
    return (reference_points * extent - 0.5).transpose(-2, -1).flatten(-2)


def _extents(spatial_shapes: Shapes, *, like: Tensor) -> Tensor:
    """``(width, height)`` of every map, ``(L, 2)``. On a GPU filled there: it would wait for numbers from the host."""
    extents = [[width, height] for height, width in spatial_shapes]
    if like.device.type == "cpu":
        return like.new_tensor(extents)
    return torch.stack([like.new_full((), side) for extent in extents for side in extent]).view(-1, 2)


def _softmax(logits: Tensor) -> Tensor:
    """Soft-max over the last axis, faster than PyTorch's where that axis is short."""
    shares = (logits - logits.amax(dim=-1, keepdim=True)).exp_()
    return shares.div_(shares.sum(dim=-1, keepdim=True))
