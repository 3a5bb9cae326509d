"""Farneback's optical flow as tensor operations: many pairs at once, on the device where the frames are.

The numbers are OpenCV's ``calcOpticalFlowFarneback`` on 8-bit grey, to some 1e-4 pixels on average. On a CPU OpenCV is
faster (`mvcseg.flow.FarnebackFlow`); this is for GPUs, where a call is a few hundred launches whatever the batch.
Source: G. Farneback, Two-Frame Motion Estimation Based on Polynomial Expansion, SCIA 2003.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mvcseg.shapes import check_float, check_shapes

SMALLEST_LEVEL = 32
"""Pixels: no pyramid level has a side below this (OpenCV's number)."""
BORDER_WEIGHTS = (0.14, 0.14, 0.4472, 0.4472, 0.4472)
"""Trust in the pixels nearest to each edge, from the edge inwards (OpenCV's numbers)."""
DAMPING = 1e-3
"""Added to the determinant of each pixel's 2 x 2 system (OpenCV's number)."""

Kernel: TypeAlias = Sequence[float]


def farneback(
    source: Tensor,
    target: Tensor,
    *,
    pyramid_scale: float = 0.5,
    levels: int = 3,
    window: int = 15,
    iterations: int = 3,
    poly_n: int = 5,
    poly_sigma: float = 1.2,
    gaussian_window: bool = False,
) -> Tensor:
    """Where each pixel of ``source`` went: ``target(x + flow(x)) ~ source(x)``.

    Args:
        source: ``(N, H, W)`` floating-point grey, 0 to 255.
        target: the same shape.
        pyramid_scale: size of each pyramid level relative to the one below, in (0, 1).
        levels: pyramid levels beside the full size.
        window: side of the averaging window in pixels.
        iterations: refinements at each level.
        poly_n: radius of the neighbourhood of each polynomial expansion, in pixels.
        poly_sigma: Gaussian width of that neighbourhood, in pixels.
        gaussian_window: weigh the window by a Gaussian instead of evenly.

    Returns:
        ``(N, 2, H, W)`` float32 pixels ``(dx, dy)`` on the device of ``source``. A pair's flow does not depend on
        the others of the batch.

    Raises:
        ShapeError: the frames are not ``(N, H, W)`` or differ in shape.
        DTypeError: they are not floating-point.

    Example:
        >>> frames = torch.rand(3, 40, 48) * 255
        >>> farneback(frames[1:], frames[:-1]).shape
        torch.Size([2, 2, 40, 48])
    """
    sizes = check_shapes(source=(source, "n h w"), target=(target, "n h w"))
    check_float(source=source, target=target)
    count, height, width = sizes["n"], sizes["h"], sizes["w"]
    frames = torch.stack((source, target)).to(torch.float32).reshape(2 * count, 1, height, width)
    flow = frames.new_zeros(count, 2, 0, 0)
    for scale in reversed(_scales(height, width, pyramid_scale=pyramid_scale, levels=levels)):
        size = (_rounded(height * scale), _rounded(width * scale))
        small = functional.interpolate(_smoothed(frames, scale), size, mode="bilinear", align_corners=False)
        one, other = _expansion(small, radius=poly_n, sigma=poly_sigma).chunk(2)
        flow = _enlarged(flow, size, factor=1 / pyramid_scale)
        level = _level(size, frames.device)
        for _ in range(iterations):
            flow = _solved(_averaged(_systems(one, other, flow, level), window=window, is_gaussian=gaussian_window))
    return flow


def _scales(height: int, width: int, *, pyramid_scale: float, levels: int) -> list[float]:
    scales = [1.0]
    for _ in range(levels):
        smaller = scales[-1] * pyramid_scale
        if min(height, width) * smaller < SMALLEST_LEVEL:
            break
        scales.append(smaller)
    return scales


def _rounded(value: float) -> int:
    return max(1, round(value))


def _smoothed(frames: Tensor, scale: float) -> Tensor:
    """Frames blurred as far as the level's scale asks; a little at full size too."""
    sigma = (1 / scale - 1) * 0.5
    radius = max(_rounded(sigma * 5) | 1, 3) // 2
    side = [0.25, 0.5, 0.25] if sigma == 0 else _gaussian(radius, sigma)
    height, width = frames.shape[-2:]
    rows, columns = (_mirrored(size, radius, frames.device) for size in (height, width))
    frames = _weighted(frames.index_select(-1, columns), side, dim=-1)
    return _weighted(frames.index_select(-2, rows), side, dim=-2)


def _mirrored(size: int, radius: int, device: torch.device) -> Tensor:
    """Places of a row with its mirror image (the edge itself once) on either side, however short the row is."""
    period = max(2 * (size - 1), 1)
    places = (torch.arange(-radius, size + radius, device=device) % period).abs()
    return torch.where(places < size, places, period - places)


def _gaussian(radius: int, sigma: float) -> list[float]:
    weights = [math.exp(-(k**2) / (2 * sigma**2)) for k in range(-radius, radius + 1)]
    return [weight / sum(weights) for weight in weights]


def _weighted(padded: Tensor, kernel: Kernel, *, dim: int) -> Tensor:
    """Correlation along one dimension; sums of shifts, since convolutions may round to TF32."""
    length = padded.shape[dim] - len(kernel) + 1
    total = padded.narrow(dim, 0, length) * kernel[0]
    for k, weight in enumerate(kernel[1:], start=1):
        total.add_(padded.narrow(dim, k, length), alpha=weight)
    return total


def _expansion(frames: Tensor, *, radius: int, sigma: float) -> Tensor:
    """Best quadratic around each pixel, ``(M, 1, H, W)`` -> ``(M, 5, H, W)``: factors of y, x, yy, xx, xy."""
    flat = _gaussian(radius, sigma)
    offsets = range(-radius, radius + 1)
    slope = [k * weight for k, weight in zip(offsets, flat, strict=True)]
    bend = [k * k * weight for k, weight in zip(offsets, flat, strict=True)]
    inverse = _inverse_moments(flat, offsets)
    tall = functional.pad(frames, (0, 0, radius, radius), mode="replicate")
    by_row = [_weighted(tall, kernel, dim=-2) for kernel in (flat, slope, bend)]
    wide = [functional.pad(rows, (radius, radius, 0, 0), mode="replicate") for rows in by_row]
    level = _weighted(wide[0], flat, dim=-1) * float(inverse[0, 3])
    return torch.cat(
        (
            _weighted(wide[1], flat, dim=-1) * float(inverse[1, 1]),
            _weighted(wide[0], slope, dim=-1) * float(inverse[1, 1]),
            level + _weighted(wide[2], flat, dim=-1) * float(inverse[3, 3]),
            level + _weighted(wide[0], bend, dim=-1) * float(inverse[3, 3]),
            _weighted(wide[1], slope, dim=-1) * float(inverse[5, 5]),
        ),
        dim=1,
    )


def _inverse_moments(weights: Kernel, offsets: Sequence[int]) -> NDArray[Any]:
    """Inverse of the weighted moments of (1, x, y, xx, yy, xy)."""
    weight = np.outer(weights, weights).ravel()
    y, x = (axis.ravel().astype(np.float64) for axis in np.meshgrid(offsets, offsets, indexing="ij"))
    basis = np.stack((np.ones_like(x), x, y, x * x, y * y, x * y))
    inverse: NDArray[Any] = np.linalg.inv((basis * weight) @ basis.T)
    return inverse


def _enlarged(flow: Tensor, size: tuple[int, int], *, factor: float) -> Tensor:
    if flow.shape[-1] == 0:
        return flow.new_zeros(*flow.shape[:2], *size)
    return functional.interpolate(flow, size, mode="bilinear", align_corners=False) * factor


@dataclass(frozen=True)
class _Level:
    """What every pair and iteration at one size shares.

    Attributes:
        places: ``(2, H, W)``, x and y of each pixel.
        limits: ``(2, 1, 1)``, the first x and y with no pixel after them.
        factors: ``(5, H, W)``, trust in each pixel times a half, for xy a quarter.
        signs: ``(5, 1, 1)``: slopes are subtracted, curvatures added up.
    """

    places: Tensor
    limits: Tensor
    factors: Tensor
    signs: Tensor


@lru_cache(maxsize=32)
def _level(size: tuple[int, int], device: torch.device) -> _Level:
    height, width = size
    rows, columns = torch.arange(height, dtype=torch.float32), torch.arange(width, dtype=torch.float32)
    places = torch.stack((columns.expand(size), rows[:, None].expand(size)))
    is_edge = _is_edge(height)[:, None] | _is_edge(width)
    trust = torch.where(is_edge, _edge_trust(height)[:, None] * _edge_trust(width), 1.0)
    shares = torch.tensor([0.5, 0.5, 0.5, 0.5, 0.25])[:, None, None]
    return _Level(
        places=places.to(device),
        limits=torch.tensor([width - 1.0, height - 1.0])[:, None, None].to(device),
        factors=(trust * shares).to(device),
        signs=torch.tensor([-1.0, -1.0, 1.0, 1.0, 1.0])[:, None, None].to(device),
    )


def _systems(one: Tensor, other: Tensor, flow: Tensor, level: _Level) -> Tensor:
    """The 2 x 2 system of each pixel, ``(N, 5, H, W)``: matrix yy, xy, xx and right side y, x."""
    source = level.places + flow
    corner = source.floor()
    is_inside = ((corner >= 0) & (corner < level.limits)).all(dim=1, keepdim=True)
    grid = (source * (2 / level.limits.clamp(min=1)) - 1).movedim(1, 3)
    moved = functional.grid_sample(other, grid, mode="bilinear", padding_mode="border", align_corners=True)
    still = functional.pad(one[:, 2:], (0, 0, 0, 0, 2, 0))  # outside: no slopes, and the pixel's own curvature
    combined = torch.addcmul(one, torch.where(is_inside, moved, still), level.signs) * level.factors
    slope_y, slope_x, yy, xx, xy = combined.unbind(dim=1)
    dx, dy = flow.unbind(dim=1)
    y = slope_y.addcmul(yy, dy).addcmul_(xy, dx)
    x = slope_x.addcmul(xy, dy).addcmul_(xx, dx)
    square = xy * xy
    matrix = square.addcmul(yy, yy), (yy + xx).mul_(xy), square.addcmul(xx, xx)
    return torch.stack((*matrix, (yy * y).addcmul_(xy, x), (xy * y).addcmul_(xx, x)), dim=1)


def _edge_trust(length: int) -> Tensor:
    weights = torch.ones(length)
    for distance, weight in enumerate(BORDER_WEIGHTS[:length]):
        weights[distance] *= weight
        weights[length - 1 - distance] *= weight
    return weights


def _is_edge(length: int) -> Tensor:
    """Pixels that OpenCV takes for edge ones: of sides of 6 to 9 pixels only those near to both ends."""
    reach, places = len(BORDER_WEIGHTS), torch.arange(length)
    is_first, is_last = places < reach, places >= length - reach
    return is_first | is_last if length >= 2 * reach else is_first & is_last


def _averaged(systems: Tensor, *, window: int, is_gaussian: bool) -> Tensor:
    radius = window // 2
    padded = functional.pad(systems, (radius,) * 4, mode="replicate")
    if is_gaussian:
        kernel = _gaussian(radius, radius * 0.3)
        return _weighted(_weighted(padded, kernel, dim=-2), kernel, dim=-1)
    taps = 2 * radius + 1
    even = functional.avg_pool2d(functional.avg_pool2d(padded, (taps, 1), stride=1), (1, taps), stride=1)
    return even * (taps / window) ** 2


def _solved(systems: Tensor) -> Tensor:
    yy, xy, xx, y, x = systems.unbind(dim=1)
    inverse = (yy * xx + DAMPING).addcmul_(xy, xy, value=-1).reciprocal_()
    return torch.stack((yy * x - xy * y, xx * y - xy * x), dim=1).mul_(inverse[:, None])
