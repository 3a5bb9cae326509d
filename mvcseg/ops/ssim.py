"""Eq. 7: structural similarity, of image planes and of label maps class by class.

Uniform window, sample covariance, constants ``(0.01 R)^2`` and ``(0.03 R)^2``, mean over the windows that lie
in the frame: scikit-image's ``structural_similarity`` with its defaults. Label maps are compared as one-hot
maps, one per class: on class ids the score would depend on the numbering.

Source: Wang et al., "Image quality assessment", IEEE TIP 2004.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mvcseg.errors import ConfigError, DTypeError, ShapeError
from mvcseg.ops.parallel import for_each_item
from mvcseg.shapes import check_float, check_integer, check_num_classes, check_shapes

_K1, _K2 = 0.01, 0.03
_LARGEST_TABLE = 7
"""Widest window whose losses are looked up, one megabyte; beyond it they are computed."""
_Array = npt.NDArray[Any]
_Values = TypeVar("_Values", Tensor, npt.NDArray[Any])


def ssim(a: Tensor, b: Tensor, *, data_range: float, window: int = 7) -> Tensor:
    """Structural similarity of each plane, averaged over all windows that lie in the plane.

    Float32 is worked on in float32 with the roundings of scikit-image, so the two agree on it as well; on smooth
    images that costs either about 1e-6 of the score, as a variance is a small difference of large numbers.
    Pass float64 where that matters. Differentiable.

    Args:
        a: ``(N, C, H, W)`` float.
        b: the same shape.
        data_range: largest minus smallest possible value, above 0 (1 for values in ``[0, 1]``).
        window: side of the uniform window in pixels, odd, 3 to ``min(H, W)``.

    Returns:
        ``(N, C)`` of the dtype of the inputs (float32 at least), in ``[-1, 1]``.

    Raises:
        ShapeError: the shapes differ, or the window is larger than the plane.
        DTypeError: an argument is not floating-point.
        ConfigError: ``window`` is even or below 3, or ``data_range`` not above 0.

    Example:
        >>> a = torch.linspace(0, 1, 80).view(1, 1, 8, 10)
        >>> ssim(a, a, data_range=1.0)
        tensor([[1.]])
    """
    check_shapes(a=(a, "n c h w"), b=(b, "n c h w"))
    check_float(a=a, b=b)
    _check_window(a, window)
    if not 0 < data_range < math.inf:
        raise ConfigError(f"data_range: expected a number above 0, got {data_range!r}")
    dtype = torch.promote_types(torch.promote_types(a.dtype, b.dtype), torch.float32)
    a, b = a.to(dtype), b.to(dtype)
    if a.device.type != "cpu" or (torch.is_grad_enabled() and (a.requires_grad or b.requires_grad)):
        return _plane_similarity(a, b, data_range, window).mean(dim=(-2, -1), dtype=torch.float64).to(dtype)
    scores = torch.empty(a.shape[:2], dtype=dtype)
    planes_a, planes_b, means = (x.detach().flatten(0, 1).numpy() for x in (a, b, scores))

    def run(plane: int) -> None:
        similarity = _plane_similarity(planes_a[plane], planes_b[plane], data_range, window)
        means[plane] = similarity.mean(dtype=np.float64)

    for_each_item(run, len(means))  # the same arithmetic in NumPy, planes in a pool of threads
    return scores


def _plane_similarity(a: _Values, b: _Values, data_range: float, window: int) -> _Values:
    """SSIM of every window of planes ``(..., H, W)``, in their dtype."""
    mean_a, mean_b = _window_mean(a, window), _window_mean(b, window)
    sample = window**2 / (window**2 - 1)
    var_a: _Values = sample * (_window_mean(a * a, window) - mean_a * mean_a)
    var_b: _Values = sample * (_window_mean(b * b, window) - mean_b * mean_b)
    cov: _Values = sample * (_window_mean(a * b, window) - mean_a * mean_b)
    return _similarity(mean_a, mean_b, var_a, var_b, cov, data_range=data_range)


def _window_mean(values: _Values, window: int) -> _Values:
    """Means over all windows: rows first, sums in float64, each axis rounded to the dtype of ``values``."""
    for axis in (-2, -1):
        values = _like(_axis_sum(_double(values), axis, window) / window, values)
    return values


def _double(values: _Values) -> _Values:
    return values.double() if isinstance(values, Tensor) else values.astype(np.float64, copy=False)


def _like(values: _Values, others: _Values) -> _Values:
    return values.to(others.dtype) if isinstance(values, Tensor) else values.astype(others.dtype, copy=False)


def label_ssim(a: Tensor, b: Tensor, *, num_classes: int, counted: Tensor | None = None, window: int = 7) -> Tensor:
    """Structural similarity of two label maps, class by class, on their one-hot maps (data range 1).

    A class absent from both maps scores exactly 1. A label outside ``0..K-1`` is zero in every class.

    Args:
        a: ``(N, H, W)`` integers.
        b: the same shape.
        num_classes: K, 1 to 255.
        counted: ``(N, H, W)`` bool, pixels whose windows count; None for all. Pixels nearer to the border
            than half a window never count.
        window: side of the uniform window in pixels, odd, 3 to ``min(H, W)``.

    Returns:
        ``(N, K)`` float64: each class's mean over the counted pixels, as 1 minus the mean of ``1 - SSIM``;
        NaN in every class of an item without any counted pixel.

    Raises:
        ShapeError: the shapes differ, or the window is larger than the maps.
        DTypeError: labels are no integers, or ``counted`` is not bool.
        ConfigError: ``num_classes`` is outside 1 to 255, or ``window`` even or below 3.

    Example:
        >>> a = torch.zeros(1, 8, 10, dtype=torch.uint8)
        >>> b = a.clone()
        >>> b[0, 4, 5] = 1
        >>> label_ssim(a, b, num_classes=3)[0, 2]  # no class 2 in either map
        tensor(1., dtype=torch.float64)
    """
    check_shapes(a=(a, "n h w"), b=(b, "n h w"))
    check_integer(a=a, b=b)
    check_num_classes(num_classes)
    _check_window(a, window)
    if counted is not None:
        check_shapes(a=(a, "n h w"), counted=(counted, "n h w"))
        if counted.dtype != torch.bool:
            raise DTypeError(f"counted: expected torch.bool, got {counted.dtype}")
    a, b = _as_bytes(a, num_classes), _as_bytes(b, num_classes)
    margin = window // 2
    if counted is None:
        counted = torch.ones((1, 1, 1), dtype=torch.bool, device=a.device).expand(a.shape)
    keep = counted[:, margin : a.shape[1] - margin, margin : a.shape[2] - margin]
    if a.device.type == "cpu":
        return torch.from_numpy(_scores_by_item(a.numpy(), b.numpy(), keep.numpy(), num_classes, window))
    return _scores_at_once(a, b, keep, num_classes, window)


def _as_bytes(labels: Tensor, num_classes: int) -> Tensor:
    """Labels as uint8, those outside ``0..K-1`` as values of at least K."""
    if labels.dtype == torch.uint8:
        return labels
    labels = labels.long()
    return torch.where((labels >= 0) & (labels < num_classes), labels, 255).byte()


def _scores_at_once(a: Tensor, b: Tensor, keep: Tensor, num_classes: int, window: int) -> Tensor:
    """The definition, for accelerators."""
    losses = []
    for index in range(num_classes):  # one class at a time: K one-hot maps at once would fill the memory
        one_a, one_b = a == index, b == index
        n_a, n_b, n_ab = (_window_sum(x.float(), window).double() for x in (one_a, one_b, one_a & one_b))
        loss = 1 - _binary_similarity(n_a, n_b, n_ab, area=window**2)
        losses.append((loss * keep).sum(dim=(1, 2)))
    return 1 - torch.stack(losses, dim=1) / keep.sum(dim=(1, 2), dtype=torch.float64)[:, None]


def _scores_by_item(a: _Array, b: _Array, keep: _Array, num_classes: int, window: int) -> _Array:
    """The same in NumPy, items in a pool of threads."""
    scores = np.full((len(a), num_classes), np.nan)

    def run(item: int) -> None:
        number = np.count_nonzero(keep[item])
        if number > 0:
            losses = _losses_of_disagreement(a[item], b[item], keep[item], num_classes, window)
            scores[item] = 1 - losses / number

    for_each_item(run, len(a))
    return scores


def _losses_of_disagreement(a: _Array, b: _Array, keep: _Array, num_classes: int, window: int) -> _Array:
    """Sums of ``1 - SSIM`` by class over the kept windows of one pair of byte maps.

    A window without a disagreement about a class scores exactly 1 there, so only the windows of the box around all
    disagreements are counted, and only those of disagreeing classes. Maps are walked as flat arrays: windows that
    would straddle two rows are cut off by ``keep``.
    """
    losses = np.zeros(num_classes)
    differs = a != b
    rows, columns = np.flatnonzero(differs.any(axis=1)), np.flatnonzero(differs.any(axis=0))
    if len(rows) == 0:
        return losses
    top, left = max(int(rows[0]) - window + 1, 0), max(int(columns[0]) - window + 1, 0)
    box = np.s_[top : int(rows[-1]) + window, left : int(columns[-1]) + window]
    a, b, differs = (np.ascontiguousarray(x[box]).reshape(-1) for x in (a, b, differs))
    kept = keep[box[0].start : box[0].stop - window + 1, box[1].start : box[1].stop - window + 1]
    width = kept.shape[1] + window - 1
    kept = np.pad(kept, ((0, 0), (0, window - 1))).reshape(-1)
    where = np.flatnonzero(differs)
    in_a, in_b = a[where], b[where]
    for index in np.flatnonzero(np.bincount(in_a, minlength=256) + np.bincount(in_b, minlength=256)):
        if index >= num_classes:
            break
        about = where[(in_a == index) | (in_b == index)] // width
        first, last = max(int(about[0]) - window + 1, 0) * width, (int(about[-1]) + window) * width
        one_a, one_b = (a[first:last] == index).view(np.uint8), (b[first:last] == index).view(np.uint8)
        n_a, n_b, n_differ = (_flat_window_sum(x, width, window) for x in (one_a, one_b, one_a ^ one_b))
        touched = np.flatnonzero((n_differ != 0) & kept[first:][: len(n_differ)])
        losses[index] = _losses(n_a[touched], n_b[touched], n_differ[touched], window).sum()
    return losses


def _losses(n_a: _Array, n_b: _Array, n_differ: _Array, window: int) -> _Array:
    """``1 - SSIM`` of binary windows with so many ones each, which differ in so many pixels."""
    if window <= _LARGEST_TABLE:
        side = window**2 + 1
        index = n_a.astype(np.intp)
        index *= side
        index += n_b
        index *= side
        index += n_differ
        return _loss_table(window)[index]
    n_a, n_b, n_differ = (n.astype(np.float64) for n in (n_a, n_b, n_differ))
    return 1 - _binary_similarity(n_a, n_b, (n_a + n_b - n_differ) / 2, area=window**2)


@cache
def _loss_table(window: int) -> _Array:
    counts = np.arange(window**2 + 1, dtype=np.float64)
    n_a, n_b, n_differ = counts[:, None, None], counts[:, None], counts
    table = 1 - _binary_similarity(n_a, n_b, (n_a + n_b - n_differ) / 2, area=window**2)
    return table.reshape(-1)


def _flat_window_sum(ones: _Array, width: int, window: int) -> _Array:
    """Ones in each square whose upper left pixel is at that place of a flat map; the last squares fall short."""
    if window**2 > 255:
        ones = ones.astype(np.uint32)
    for stride in (width, 1):

        def cut(values: _Array, first: int, last: int, stride: int = stride) -> _Array:
            return values[first * stride : len(values) - last * stride]

        ones = _run_sum(ones, window, cut)
    return ones


def _binary_similarity(n_a: _Values, n_b: _Values, n_ab: _Values, area: int) -> _Values:
    """SSIM of binary windows with so many ones in each and in both."""
    mean_a, mean_b = n_a / area, n_b / area
    var_a = (n_a - n_a * n_a / area) / (area - 1)
    var_b = (n_b - n_b * n_b / area) / (area - 1)
    cov = (n_ab - n_a * n_b / area) / (area - 1)
    return _similarity(mean_a, mean_b, var_a, var_b, cov, data_range=1.0)


def _similarity(
    mean_a: _Values, mean_b: _Values, var_a: _Values, var_b: _Values, cov: _Values, *, data_range: float
) -> _Values:
    c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
    above: _Values = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
    below: _Values = (mean_a * mean_a + mean_b * mean_b + c1) * (var_a + var_b + c2)
    score: _Values = above / below
    return score


def _window_sum(values: Tensor, window: int) -> Tensor:
    """Sums over all ``window x window`` squares that lie in the last two axes."""
    return _axis_sum(_axis_sum(values, -2, window), -1, window)


def _axis_sum(values: _Values, axis: int, window: int) -> _Values:
    def cut(values: _Values, first: int, last: int) -> _Values:
        kept = slice(first, values.shape[axis] - last)
        return values[..., kept, :] if axis == -2 else values[..., kept]

    return _run_sum(values, window, cut)


def _run_sum(values: _Values, window: int, cut: Callable[[_Values, int, int], _Values]) -> _Values:
    """Sums of ``window`` neighbours, in about ``2 log2(window)`` additions of the whole array.

    ``cut(values, first, last)`` drops so many neighbours at either end.
    """
    if window == 1:
        return values
    half = window // 2
    halves = _run_sum(values, half, cut)
    total: _Values = cut(halves, 0, half) + cut(halves, half, 0)
    if window % 2:
        total = cut(total, 0, 1) + cut(values, window - 1, 0)
    return total


def _check_window(a: Tensor, window: int) -> None:
    if isinstance(window, bool) or not isinstance(window, int) or window < 3 or window % 2 == 0:
        raise ConfigError(f"window: expected an odd integer of at least 3, got {window!r}")
    if window > min(a.shape[-2:]):
        raise ShapeError(f"a: expected sides of at least window={window} pixels, got {tuple(a.shape)}")
