"""Multi-scale deformable attention in plain PyTorch: a few weighted bilinear samples for every query and head.

The quantity is Eq. 3 of "Deformable DETR" (arXiv 2010.04159) between its projections. It is computed in three ways: the
formula as written, by ``grid_sample``; on GPUs by kernels that keep no samples (``mvcseg.ops.deform_attn_triton``);
and, for inference on the CPU, as sums of table rows: the maps are laid out in one table with zeros around them, a
sample's four corners lie at fixed distances from each other in it, and ``embedding_bag`` adds up weighted rows at
memory speed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from mvcseg.errors import ShapeError
from mvcseg.ops.deform_attn_formula import by_formula
from mvcseg.ops.deform_attn_triton import launch, may_launch
from mvcseg.ops.shortcut import may_shortcut
from mvcseg.shapes import check_shapes

Shapes = Sequence[tuple[int, int]]

LONGEST_PIECE = 1536
"""Most queries to take samples for at a time."""


def deformable_attention(value: Tensor, locations: Tensor, weights: Tensor, *, spatial_shapes: Shapes) -> Tensor:
    """Weighted bilinear samples of multi-scale maps, for every query and head.

    Samples outside a map are zero; ``(0, 0)`` is the outer corner of the first pixel, ``(1, 1)`` that of the last
    (``align_corners=False``). A NaN location gives NaN to its query and head; an infinite one is outside (where
    ``grid_sample`` serves, it gives NaN too).

    Args:
        value: the maps' pixels one after another, ``(N, S, M, D)`` with M heads and S the sum of the maps' sizes.
        locations: where to sample, ``(N, Lq, M, L, P, 2)`` as ``(x, y)``, 0..1 inside a map.
        weights: ``(N, Lq, M, L, P)``.
        spatial_shapes: ``(height, width)`` of each of the L maps.

    Returns:
        ``(N, Lq, M * D)``, the heads one after another, in the type of ``value``; samples are taken in the widest type
        of the three, by the kernels in float32 at least.

    Raises:
        ShapeError: the arguments' sizes do not agree.

    Example:
        >>> value = torch.arange(6.0).view(1, 6, 1, 1)  # one map of 2 x 3, one head, one channel
        >>> centre = torch.tensor([0.5, 0.5]).view(1, 1, 1, 1, 1, 2)
        >>> deformable_attention(value, centre, torch.ones(1, 1, 1, 1, 1), spatial_shapes=[(2, 3)])
        tensor([[[2.5000]]])
    """
    _check(value, locations, weights, spatial_shapes)
    if may_gather(value, locations, weights, heads=value.shape[2], spatial_shapes=spatial_shapes):
        return _by_tables(value, locations, weights, spatial_shapes)
    if may_launch(value, locations, weights, levels=len(spatial_shapes)):
        return launch(value, locations, weights, spatial_shapes=spatial_shapes)
    return by_formula(value, locations, weights, spatial_shapes)


def _check(value: Tensor, locations: Tensor, weights: Tensor, spatial_shapes: Shapes) -> None:
    sizes = check_shapes(
        value=(value, "n s m d"), locations=(locations, "n lq m l p 2"), weights=(weights, "n lq m l p")
    )
    rows = sum(height * width for height, width in spatial_shapes)
    if sizes["l"] != len(spatial_shapes):
        raise ShapeError(f"locations: expected {len(spatial_shapes)} levels from spatial_shapes, got {sizes['l']}")
    if sizes["s"] != rows:
        raise ShapeError(f"value: expected s={rows} from spatial_shapes {list(spatial_shapes)}, got {sizes['s']}")


def _by_tables(value: Tensor, locations: Tensor, weights: Tensor, spatial_shapes: Shapes) -> Tensor:
    n, queries = locations.shape[:2]
    out = value.new_empty(n, queries, value.shape[2] * value.shape[3])
    for i in range(n):  # a table is one frame's
        maps = lay_out(value[i], spatial_shapes=spatial_shapes, points=locations.shape[4])
        for part in pieces(queries):
            planes = locations[i, part].permute(0, 4, 1, 2, 3).flatten(2) * maps.extents  # x of all columns, then y
            out[i, part] = gather(maps, planes.sub_(0.5), weights[i, part].flatten(1))
    return out


@dataclass(frozen=True)
class MapTable:
    """Maps of one frame, zero-padded, pixel after pixel.

    A column belongs to one sample of one head: head by head, in it map by map.

    Attributes:
        rows: ``(R, D)``, one row for each padded pixel and head.
        extents: width and height of every column's map, ``(2, M * L * P)``.
        origins: row of the map's first pixel for every column, ``(M * L * P,)``.
        beside: rows from a pixel to its right neighbour.
        below: rows from a pixel to its lower neighbour.
    """

    rows: Tensor
    extents: Tensor
    origins: Tensor
    beside: int
    below: int


def may_gather(*tensors: Tensor, heads: int, spatial_shapes: Shapes) -> bool:
    """Whether ``gather`` may serve these tensors: plain CPU inference, and row numbers exact in their type."""
    exact = {torch.float32: 2**24, torch.float64: 2**31}
    dtype = tensors[0].dtype
    return (
        dtype in exact
        and all(tensor.dtype == dtype and tensor.numel() > 0 for tensor in tensors)
        and heads * _padded_pixels(spatial_shapes) < exact[dtype]
        and may_shortcut(*tensors)
    )


def lay_out(value: Tensor, *, spatial_shapes: Shapes, points: int) -> MapTable:
    """A frame's maps ``(S, M, D)`` as a table to take ``points`` samples a head and map from.

    All maps share one row length, so that a pixel's right and lower neighbours lie at the same distances everywhere.
    One column of zeros follows every map row and serves as the left border of the next, one row of zeros lies between
    maps.
    """
    heads, depth = value.shape[1:]
    stride = _stride(spatial_shapes)
    padded = value.new_zeros(_padded_pixels(spatial_shapes) // stride, stride, heads, depth)
    extents, origins = [], []
    start, top = 0, 1
    for height, width in spatial_shapes:
        rows = value[start : start + height * width].view(height, width, heads, depth)
        padded[top : top + height, 1 : 1 + width] = rows
        extents.append([width, height])
        origins.append((top * stride + 1) * heads)
        start, top = start + height * width, top + height + 1
    head = torch.arange(heads, dtype=value.dtype)[:, None]
    return MapTable(
        rows=padded.view(-1, depth),
        extents=value.new_tensor(extents).t().repeat_interleave(points, dim=1).repeat(1, heads),
        origins=(head + value.new_tensor(origins).repeat_interleave(points)).flatten(),
        beside=heads,
        below=stride * heads,
    )


def pieces(queries: int, *, longest: int | None = None) -> list[slice]:
    """Consecutive slices of about equal length to work on one by one: less memory, more of it in the cache."""
    length = math.ceil(queries / math.ceil(queries / (longest or LONGEST_PIECE)))
    return [slice(start, start + length) for start in range(0, queries, length)]


def gather(maps: MapTable, points: Tensor, weights: Tensor) -> Tensor:
    """Weighted bilinear samples from a table.

    Args:
        maps: of one frame.
        points: ``(Lq, 2, M * L * P)``, x and y in pixels, 0 at the centre of a map's first pixel.
        weights: ``(Lq, M * L * P)``.

    Returns:
        ``(Lq, M * D)``.
    """
    points = torch.clamp(points, points.new_full((), -1), maps.extents)  # one pixel beyond a map all is zero
    corner = points.floor()
    x_share, y_share = (points - corner).unbind(1)
    column, row = corner.unbind(1)
    first = torch.add(maps.origins, row, alpha=maps.below).add_(column, alpha=maps.beside)
    last = maps.rows.shape[0] - maps.below - maps.beside - 1
    indices = first.to(torch.int32).clamp_(0, last).view(-1)  # a NaN coordinate has become any number
    right = weights * x_share
    left = weights - right
    lower_right, lower_left = right * y_share, left * y_share
    samples = weights.shape[1] // maps.beside
    offsets = torch.arange(0, indices.numel() + 1, samples, dtype=torch.int32)
    total: Tensor | None = None
    for distance, weight in (
        (0, left.sub_(lower_left)),
        (maps.beside, right.sub_(lower_right)),
        (maps.below, lower_left),
        (maps.below + maps.beside, lower_right),
    ):
        part = functional.embedding_bag(
            indices,
            maps.rows[distance:],
            offsets,
            mode="sum",
            per_sample_weights=weight.view(-1),
            include_last_offset=True,
        )
        total = part if total is None else total.add_(part)
    assert total is not None
    return total.view(weights.shape[0], -1)


def _stride(spatial_shapes: Shapes) -> int:
    return max(width for _, width in spatial_shapes) + 1


def _padded_pixels(spatial_shapes: Shapes) -> int:
    """Pixels of the table: a row of zeros above every map, and two below the last that a corner may reach."""
    return (sum(height + 1 for height, _ in spatial_shapes) + 2) * _stride(spatial_shapes)
