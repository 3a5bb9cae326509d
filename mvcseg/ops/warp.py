"""Eq. 6: images and label maps moved along an optical flow, by sampling where each pixel came from.

``flow(source, target)`` says for each pixel x of ``source`` where it went: ``target(x + flow(x)) ~ source(x)``.
Warping samples at ``x + flow(x)``, so labels of frame t are brought to frame t+1 by ``flow(frame[t+1], frame[t])``.

A pixel is *inside* when its source position lies in ``[0, W-1] x [0, H-1]``, widened by `INSIDE_TOLERANCE`
so that rounding in a flow of whole pixels throws no border pixel out. The three functions share this rule.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mvcseg.errors import DTypeError
from mvcseg.ops.parallel import for_each_item
from mvcseg.shapes import check_float, check_integer, check_shapes

INSIDE_TOLERANCE = 1e-3
"""Pixels by which a source position may leave the frame and still count as on its border."""
_OUTSIDE_LABEL = 255
_Places = TypeVar("_Places", Tensor, npt.NDArray[Any])


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """``image`` sampled at ``x + flow(x)``, bilinearly; 0 where that lies outside the image.

    A flow of whole pixels is an exact shift. Differentiable in both arguments.

    Args:
        image: ``(N, C, H, W)`` float, finite.
        flow: ``(N, 2, H, W)`` float, pixels, ``(dx, dy)``; NaN and infinities lie outside.

    Returns:
        ``(N, C, H, W)`` of the dtype of ``image``.

    Raises:
        ShapeError: the shapes do not fit each other.
        DTypeError: an argument is not floating-point.

    Example:
        >>> image, flow = torch.arange(4.0).view(1, 1, 1, 4), torch.zeros(1, 2, 1, 4)
        >>> flow[:, 0] = 0.5
        >>> warp(image, flow)
        tensor([[[[0.5000, 1.5000, 2.5000, 0.0000]]]])
    """
    sizes = check_shapes(image=(image, "n c h w"), flow=(flow, "n 2 h w"))
    check_float(image=image, flow=flow)
    height, width = sizes["h"], sizes["w"]
    x, y = _source(flow)
    inside = _is_inside(x, y)
    x = torch.where(inside, x, 0.0).clamp(0, width - 1)
    y = torch.where(inside, y, 0.0).clamp(0, height - 1)
    left, top = x.detach().floor(), y.detach().floor()
    right_share, below_share = (x - left)[:, None], (y - top)[:, None]
    row, column = top.long(), left.long()
    next_row, next_column = (row + 1).clamp(max=height - 1), (column + 1).clamp(max=width - 1)
    pixels = image.flatten(2)

    def sample(row: Tensor, column: Tensor) -> Tensor:
        index = (row * width + column).flatten(1)[:, None].expand(-1, sizes["c"], -1)
        return pixels.gather(2, index).view(image.shape).to(right_share.dtype)

    upper = sample(row, column) * (1 - right_share) + sample(row, next_column) * right_share
    lower = sample(next_row, column) * (1 - right_share) + sample(next_row, next_column) * right_share
    sampled = upper * (1 - below_share) + lower * below_share
    return torch.where(inside[:, None], sampled, 0.0).to(image.dtype)


def warp_labels(labels: Tensor, flow: Tensor) -> Tensor:
    """Label maps sampled at ``x + flow(x)``, nearest; 255 where that lies outside the map.

    A position half-way between two pixels takes the one of even index (rounding half to even).

    Args:
        labels: ``(N, H, W)`` integers of a dtype that holds 255, or ``(N, M, H, W)`` for M maps that share a flow.
        flow: ``(N, 2, H, W)`` float, pixels, ``(dx, dy)``; NaN and infinities lie outside.

    Returns:
        Labels of the same shape and dtype: 255 exactly where `inside_mask` is False, or where a label 255 came from.

    Raises:
        ShapeError: the shapes do not fit each other.
        DTypeError: ``labels`` are no integers or cannot hold 255 (int8), or ``flow`` is not floating-point.

    Example:
        >>> labels, flow = torch.tensor([[[3, 1, 2]]]), torch.zeros(1, 2, 1, 3)
        >>> flow[:, 0] = 1
        >>> warp_labels(labels, flow)
        tensor([[[  1,   2, 255]]])
    """
    axes = "n m h w" if isinstance(labels, Tensor) and labels.ndim == 4 else "n h w"
    check_shapes(labels=(labels, axes), flow=(flow, "n 2 h w"))
    check_integer(labels=labels)
    check_float(flow=flow)
    if labels.dtype == torch.int8:
        raise DTypeError("labels: expected a dtype that holds 255 (the label outside), got torch.int8; use uint8")
    maps = labels if axes == "n m h w" else labels[:, None]
    if flow.device.type == "cpu" and labels.device.type == "cpu":
        moved = _warp_by_item(maps, flow)
    else:
        moved = _warp_at_once(maps, flow.detach())
    return moved.view(labels.shape)


def _warp_at_once(maps: Tensor, flow: Tensor) -> Tensor:
    """Nearest samples of maps ``(N, M, H, W)``, for accelerators."""
    x, y = _source(flow)
    inside = _is_inside(x, y)
    column, row = (torch.where(inside, place, 0.0).round_().long() for place in (x, y))
    index = (row * maps.shape[-1] + column).flatten(1)[:, None].expand(-1, maps.shape[1], -1)
    # as bits of signed integers: PyTorch can do little with wide unsigned ones
    moved = maps.view(_SIGNED.get(maps.dtype, maps.dtype)).flatten(2).gather(2, index).view(maps.shape)
    return moved.masked_fill_(~inside[:, None], _OUTSIDE_LABEL).view(maps.dtype)


_SIGNED = {torch.uint16: torch.int16, torch.uint32: torch.int32, torch.uint64: torch.int64}


def _warp_by_item(maps: Tensor, flow: Tensor) -> Tensor:
    """The same in NumPy, items in a pool of threads."""
    width = maps.shape[-1]
    integers = np.int32 if width * maps.shape[-2] < 2**31 else np.int64
    moved = torch.empty_like(maps, memory_format=torch.contiguous_format)
    motion = _as_array(flow)
    sources, results = maps.flatten(2).numpy(), moved.flatten(2).numpy()

    def run(item: int) -> None:
        x, y = _source_of_item(motion[item])
        outside = ~_is_inside(x, y)
        for place in (x, y):
            np.copyto(place, 0, where=outside)
        index = np.rint(y, out=y).astype(integers)
        index *= width
        index += np.rint(x, out=x).astype(integers)
        places, outside = index.reshape(-1).astype(np.intp), outside.reshape(-1)
        for source, result in zip(sources[item], results[item], strict=True):
            result[:] = source.take(places)
            np.copyto(result, _OUTSIDE_LABEL, where=outside)

    for_each_item(run, len(maps))
    return moved


def inside_mask(flow: Tensor) -> Tensor:
    """Where ``x + flow(x)`` lies in the frame: in ``[0, W-1] x [0, H-1]``, give or take `INSIDE_TOLERANCE`.

    Args:
        flow: ``(N, 2, H, W)`` float, pixels, ``(dx, dy)``.

    Returns:
        ``(N, H, W)`` bool; False where the flow is NaN or infinite.

    Raises:
        ShapeError: ``flow`` is not ``(N, 2, H, W)``.
        DTypeError: ``flow`` is not floating-point.

    Example:
        >>> inside_mask(torch.full((1, 2, 1, 3), 0.0) + torch.tensor([-1.0, 0.0]).view(1, 2, 1, 1))
        tensor([[[False,  True,  True]]])
    """
    check_shapes(flow=(flow, "n 2 h w"))
    check_float(flow=flow)
    if flow.device.type != "cpu":
        return _is_inside(*_source(flow.detach()))
    inside = torch.empty((len(flow), *flow.shape[2:]), dtype=torch.bool)
    motion, result = _as_array(flow), inside.numpy()

    def run(item: int) -> None:
        result[item] = _is_inside(*_source_of_item(motion[item]))

    for_each_item(run, len(flow))
    return inside


def _source_of_item(motion: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    height, width = motion.shape[1:]
    x = np.arange(width, dtype=motion.dtype) + motion[0]
    y = np.arange(height, dtype=motion.dtype)[:, None] + motion[1]
    return x, y


def _as_array(flow: Tensor) -> npt.NDArray[Any]:
    return flow.detach().to(torch.promote_types(flow.dtype, torch.float32)).numpy()


def _source(flow: Tensor) -> tuple[Tensor, Tensor]:
    """Source positions ``(x, y)``, each ``(N, H, W)``, in float32 at least: halves lose whole pixels above 2048."""
    height, width = flow.shape[-2:]
    dtype = torch.promote_types(flow.dtype, torch.float32)
    x = torch.arange(width, dtype=dtype, device=flow.device) + flow[:, 0]
    y = torch.arange(height, dtype=dtype, device=flow.device)[:, None] + flow[:, 1]
    return x, y


def _is_inside(x: _Places, y: _Places) -> _Places:
    height, width = x.shape[-2:]
    low, right, bottom = -INSIDE_TOLERANCE, width - 1 + INSIDE_TOLERANCE, height - 1 + INSIDE_TOLERANCE
    inside: _Places = (x >= low) & (x <= right) & (y >= low) & (y <= bottom)
    return inside
