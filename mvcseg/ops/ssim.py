"""Eq. 7: structural similarity, of image planes and of label maps class by class.

Uniform window, sample covariance, constants ``(0.01 R)^2`` and ``(0.03 R)^2``, mean over the windows that lie
in the frame: scikit-image's ``structural_similarity`` with its defaults. Label maps are compared as one-hot
maps, one per class: on class ids the score would depend on the numbering.

Source: Wang et al., "Image quality assessment", IEEE TIP 2004.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from mvcseg.errors import ConfigError, DTypeError, ShapeError
from mvcseg.ops.label_windows import losses_everywhere, losses_of_disagreement
from mvcseg.ops.parallel import for_each_item
from mvcseg.ops.similarity import similarity
from mvcseg.shapes import check_float, check_integer, check_num_classes, check_shapes

_BAND = 48
"""Rows of windows worked on together: about what a core's cache holds, and long enough work for a thread."""
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
        similarities: Tensor = _plane_similarity(a, b, data_range, window)
        return similarities.mean(dim=(-2, -1), dtype=torch.float64).to(dtype)
    scores = torch.empty(a.shape[:2], dtype=dtype)
    planes_a, planes_b = (x.detach().flatten(0, 1).numpy() for x in (a, b))
    scores.view(-1).numpy()[:] = _plane_means(planes_a, planes_b, data_range, window)
    return scores


def _plane_means(a: _Array, b: _Array, data_range: float, window: int) -> _Array:
    """The same arithmetic in NumPy, mean of each plane ``(M, H, W)``, bands of rows in a pool of threads."""
    planes, rows, columns = a.shape[0], a.shape[1] - window + 1, a.shape[2] - window + 1
    starts = range(0, rows, _BAND)
    sums = np.empty((planes, len(starts)))

    def run(item: int) -> None:
        plane, band = divmod(item, len(starts))
        part = np.s_[plane, starts[band] : min(starts[band] + _BAND, rows) + window - 1]
        sums[plane, band] = _plane_similarity(a[part], b[part], data_range, window).sum(dtype=np.float64)

    for_each_item(run, sums.size)
    means: _Array = sums.sum(axis=1) / (rows * columns)
    return means


def _plane_similarity(a: _Values, b: _Values, data_range: float, window: int) -> _Values:
    """SSIM of every window of planes ``(..., H, W)``, in their dtype."""
    mean_a, mean_b, mean_aa, mean_bb, mean_ab = _window_mean(_stacked(a, b, a * a, b * b, a * b), window)
    sample = window**2 / (window**2 - 1)
    var_a: _Values = sample * (mean_aa - mean_a * mean_a)
    var_b: _Values = sample * (mean_bb - mean_b * mean_b)
    cov: _Values = sample * (mean_ab - mean_a * mean_b)
    score: _Values = similarity(mean_a, mean_b, var_a, var_b, cov, data_range=data_range)
    return score


def _stacked(*values: _Values) -> _Values:
    together: Any = torch.stack if isinstance(values[0], Tensor) else np.stack
    stack: _Values = together(values)
    return stack


def _window_mean(values: _Values, window: int) -> _Values:
    """Means over all windows: rows first, sums in float64, each axis rounded to the dtype of ``values``."""
    for axis in (-2, -1):
        sums = _axis_sum(_double(values), axis, window) / window
        values = _like(sums, values)
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
        return _scores_by_item(a, b, keep, num_classes, window)
    return _scores_at_once(a, b, keep, num_classes, window)


def _as_bytes(labels: Tensor, num_classes: int) -> Tensor:
    """Labels as uint8, those outside ``0..K-1`` as values of at least K."""
    if labels.dtype == torch.uint8:
        return labels
    labels = labels.long()
    return torch.where((labels >= 0) & (labels < num_classes), labels, 255).byte()


def _scores_by_item(a: Tensor, b: Tensor, keep: Tensor, num_classes: int, window: int) -> Tensor:
    """One item after the other in NumPy, whose short operations two threads would only hand each other."""
    scores = torch.full((len(a), num_classes), math.nan, dtype=torch.float64)
    for score, *maps in zip(scores.numpy(), a.numpy(), b.numpy(), keep.numpy(), strict=True):
        number = np.count_nonzero(maps[2])
        if number > 0:
            score[:] = 1 - losses_of_disagreement(*maps, num_classes=num_classes, window=window) / number
    return scores


def _scores_at_once(a: Tensor, b: Tensor, keep: Tensor, num_classes: int, window: int) -> Tensor:
    """All items in tensor operations, for accelerators."""
    number = keep.sum(dim=(1, 2), dtype=torch.float64)
    return 1 - losses_everywhere(a, b, keep, num_classes=num_classes, window=window) / number[:, None]


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
