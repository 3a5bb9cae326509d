"""SSIM of label maps where they disagree: the windows of binary maps, counted and looked up.

A window of two binary maps is three counts: ones in the first, in the second and in both. Its loss ``1 - SSIM`` is a
function of these and exactly 0 where the maps agree, so only tiles of windows that see a disagreement are worked on,
class by class, and the three counts travel as one number through one box sum. On accelerators, where looking for the
disagreement would wait for the device, all windows of all classes are worked on.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor
from torch.nn import functional

from mvcseg.ops.places import places
from mvcseg.ops.similarity import binary_similarity

_TILE = 12, 24
"""Rows and columns of windows worked on together."""
_PIXELS_AT_ONCE = 1 << 17
"""So many stay in a core's cache."""
_DEVICE_PIXELS_AT_ONCE = 1 << 23
"""One-hot pixels at once on an accelerator, some 25 bytes each."""
_LARGEST_TABLE = 7
"""Widest window whose losses are looked up, half a megabyte; beyond it they are computed."""
_FACTORS = 256, 2089
"""``n_a + 256 n_b + 2089 n_both`` modulo 65536 differs for all counts of at most 49 pixels (found by search)."""
_BITS = 21
"""Bits of each count in a number of 64."""
_Array = npt.NDArray[Any]


def losses_of_disagreement(a: _Array, b: _Array, keep: _Array, *, num_classes: int, window: int) -> _Array:
    """Sums of ``1 - SSIM`` by class over the kept windows of two label maps.

    Args:
        a: ``(H, W)`` uint8; labels of K and more are no class.
        b: the same shape.
        keep: ``(H - window + 1, W - window + 1)`` bool, windows that count, by their upper left pixel.
        num_classes: K, 1 to 255.
        window: side of the window in pixels, at most ``min(H, W)``.

    Returns:
        ``(K,)`` float64; the same whatever the number of threads.
    """
    rows, columns = (-(-windows // side) for windows, side in zip(keep.shape, _TILE, strict=True))
    marked = np.flatnonzero(_seen_tiles(a, b, (rows, columns), num_classes=num_classes, window=window))
    of_class, place = np.divmod(marked, rows * columns)
    row, column = np.divmod(place, columns)
    height, width = (side + window - 1 for side in _TILE)
    pairs = np.zeros((rows * _TILE[0] + window - 1, columns * _TILE[1] + window - 1, 2), dtype=np.uint8)
    pairs[: a.shape[0], : a.shape[1], 0] = a
    pairs[: a.shape[0], : a.shape[1], 1] = b
    kept = np.zeros((rows * _TILE[0], columns * _TILE[1]), dtype=bool)
    kept[: keep.shape[0], : keep.shape[1]] = keep
    pixels = sliding_window_view(pairs.view(np.uint16)[:, :, 0], (height, width))[:: _TILE[0], :: _TILE[1]]
    counted = sliding_window_view(kept, _TILE)[:: _TILE[0], :: _TILE[1]]
    sums = np.empty(len(marked))
    step = max(1, _PIXELS_AT_ONCE // (height * width))
    for start in range(0, len(marked), step):
        part = np.s_[start : start + step]
        tiles = pixels[row[part], column[part]]
        is_class = tiles.view(np.uint8).reshape(*tiles.shape, 2) == of_class[part].astype(np.uint8)[:, None, None, None]
        codes = _box_sums(_codes(is_class, window), window)[:, : _TILE[0], : _TILE[1]]
        losses = _losses(codes * counted[row[part], column[part]], window)
        sums[part] = losses.reshape(len(losses), -1).sum(axis=1)
    return np.bincount(of_class, weights=sums, minlength=num_classes)


def _seen_tiles(a: _Array, b: _Array, grid: tuple[int, int], *, num_classes: int, window: int) -> _Array:
    """By class and tile, flat: does a window of the tile see a disagreement about the class?"""
    rows, columns = grid
    differs = places((a != b).reshape(-1))
    y, x = np.divmod(differs, a.shape[1])
    top, left = np.maximum(y - (window - 1), 0) // _TILE[0], np.maximum(x - (window - 1), 0) // _TILE[1]
    bottom, right = np.minimum(y // _TILE[0], rows - 1), np.minimum(x // _TILE[1], columns - 1)
    down, across = (-(-(window - 1) // side) for side in _TILE)  # tiles from the first to the last that see a pixel
    reached = [
        np.minimum(top + row, bottom) * columns + np.minimum(left + column, right)
        for row in range(down + 1)
        for column in range(across + 1)
    ]
    seen = np.zeros((num_classes + 1) * rows * columns, dtype=bool)
    for labels in (a, b):
        of_class = np.minimum(labels.reshape(-1)[differs], num_classes).astype(np.intp) * (rows * columns)
        for tile in reached:
            seen[of_class + tile] = True
    return seen[: num_classes * rows * columns]


def _codes(is_class: _Array, window: int) -> _Array:
    """Each pixel's share of the counts, ``(M, h, w)``, from bools ``(M, h, w, 2)``."""
    if window <= _LARGEST_TABLE:
        codes: _Array = is_class.view(np.uint16)[..., 0]  # of two bytes: a + 256 b
        codes += (codes >> 8 & codes) * np.uint16(_FACTORS[1])
        return codes
    in_a, in_b = is_class[..., 0].astype(np.int64), is_class[..., 1].astype(np.int64)
    packed: _Array = in_a + (in_b << _BITS) + ((in_a & in_b) << 2 * _BITS)
    return packed


def _box_sums(values: _Array, window: int) -> _Array:
    """Sums of each square by its upper left pixel, same shape; those that leave the last two axes are of no use."""
    flat = values.reshape(-1)
    for stride in (values.shape[2], 1):
        flat = _runs(flat, window, stride)
    sums = np.empty(values.size, dtype=values.dtype)
    sums[: len(flat)] = flat
    return sums.reshape(values.shape)


def _runs(flat: _Array, length: int, stride: int) -> _Array:
    """Sums of ``length`` values that lie ``stride`` apart, in about ``2 log2(length)`` additions."""
    if length == 1:
        return flat
    half = length // 2
    halves = _runs(flat, half, stride)
    total: _Array = halves[: len(halves) - half * stride] + halves[half * stride :]
    if length % 2:
        total = total[: len(flat) - (length - 1) * stride]
        total += flat[(length - 1) * stride :]
    return total


def _losses(codes: _Array, window: int) -> _Array:
    if window <= _LARGEST_TABLE:
        return _loss_table(window).take(codes)
    n_a, n_b, n_both = ((codes >> shift & (1 << _BITS) - 1).astype(np.float64) for shift in (0, _BITS, 2 * _BITS))
    return 1 - binary_similarity(n_a, n_b, n_both, area=window**2)


@cache
def _loss_table(window: int) -> _Array:
    """``1 - SSIM`` by code; 0 where no counts have it."""
    area = window**2
    n_a, n_b, n_both = np.ogrid[: area + 1, : area + 1, : area + 1]
    possible = (n_both <= n_a) & (n_both <= n_b) & (n_a + n_b - n_both <= area)
    code = (n_a + _FACTORS[0] * n_b + _FACTORS[1] * n_both)[possible] % 65536
    table = np.zeros(65536)
    counts = (n.astype(np.float64) for n in (n_a, n_b, n_both))
    table[code] = (1 - binary_similarity(*counts, area=area))[possible]
    return table


def losses_everywhere(a: Tensor, b: Tensor, keep: Tensor, *, num_classes: int, window: int) -> Tensor:
    """The same sums without a look at any value, for accelerators.

    Args:
        a: ``(N, H, W)`` uint8; labels of K and more are no class.
        b: the same shape.
        keep: ``(N, H - window + 1, W - window + 1)`` bool, windows that count, by their upper left pixel.
        num_classes: K, 1 to 255.
        window: side of the window in pixels, at most ``min(H, W)``.

    Returns:
        ``(N, K)`` float64 on the device of ``a``.
    """
    step = max(1, _DEVICE_PIXELS_AT_ONCE // max(1, a.numel()))
    classes = torch.arange(num_classes, dtype=torch.uint8, device=a.device)[:, None, None]
    sums = []
    for first in range(0, num_classes, step):
        some = classes[first : first + step]
        in_a, in_b = a[:, None] == some, b[:, None] == some
        if window <= _LARGEST_TABLE:
            codes = in_a.float().add_(in_b, alpha=_FACTORS[0]).add_(in_a & in_b, alpha=_FACTORS[1])
            losses = _loss_table_on(a.device, window)[_pooled(codes, window).int() & 65535]
        else:
            n_a, n_b, n_both = (_pooled(x.float(), window).double() for x in (in_a, in_b, in_a & in_b))
            losses = 1 - binary_similarity(n_a, n_b, n_both, area=window**2)
        sums.append(losses.mul_(keep[:, None]).sum(dim=(2, 3)))
    return torch.cat(sums, dim=1)


def _pooled(values: Tensor, window: int) -> Tensor:
    """Sums over all windows of whole numbers, exact in float32 below 2 ** 24."""
    tall = functional.avg_pool2d(values, (window, 1), stride=1, divisor_override=1)
    return functional.avg_pool2d(tall, (1, window), stride=1, divisor_override=1)


@cache
def _loss_table_on(device: torch.device, window: int) -> Tensor:
    return torch.from_numpy(_loss_table(window)).to(device)
