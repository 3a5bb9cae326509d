"""Eq. 7: structural similarity, of image planes and of label maps class by class.

Uniform window, sample covariance, constants ``(0.01 R)^2`` and ``(0.03 R)^2``, mean over the windows that lie
in the frame: scikit-image's ``structural_similarity`` with its defaults. Label maps are compared as one-hot
maps, one per class: on class ids the score would depend on the numbering.

Source: Wang et al., "Image quality assessment", IEEE TIP 2004.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mvcseg.errors import ConfigError, DTypeError, ShapeError
from mvcseg.shapes import check_float, check_integer, check_num_classes, check_shapes

_K1, _K2 = 0.01, 0.03


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
    mean_a, mean_b = _window_mean(a, window), _window_mean(b, window)
    sample = window**2 / (window**2 - 1)
    var_a = sample * (_window_mean(a * a, window) - mean_a * mean_a)
    var_b = sample * (_window_mean(b * b, window) - mean_b * mean_b)
    cov = sample * (_window_mean(a * b, window) - mean_a * mean_b)
    scores = _similarity(mean_a, mean_b, var_a, var_b, cov, data_range=data_range)
    return scores.mean(dim=(-2, -1), dtype=torch.float64).to(dtype)


def _window_mean(values: Tensor, window: int) -> Tensor:
    """Means over all windows: rows first, sums in float64, each axis rounded to the dtype of ``values``."""
    for axis in (-2, -1):
        values = (_run_sum(values.double(), axis, window) / window).to(values.dtype)
    return values


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
    margin = window // 2
    centres = (slice(None), slice(margin, a.shape[1] - margin), slice(margin, a.shape[2] - margin))
    keep = torch.ones_like(a[centres], dtype=torch.bool) if counted is None else counted[centres]
    number = keep.sum(dim=(1, 2)).double()
    losses = []
    for index in range(num_classes):
        one_a, one_b = (a == index).double()[:, None], (b == index).double()[:, None]
        area = window * window
        n_a, n_b, n_ab = (_window_sum(x, window)[:, 0] for x in (one_a, one_b, one_a * one_b))
        loss = 1 - _binary_similarity(n_a, n_b, n_ab, area)
        losses.append((loss * keep).sum(dim=(1, 2)))
    return 1 - torch.stack(losses, dim=1) / number[:, None]


def _binary_similarity(n_a: Tensor, n_b: Tensor, n_ab: Tensor, area: int) -> Tensor:
    mean_a, mean_b = n_a / area, n_b / area
    var_a = (n_a - n_a * n_a / area) / (area - 1)
    var_b = (n_b - n_b * n_b / area) / (area - 1)
    cov = (n_ab - n_a * n_b / area) / (area - 1)
    return _similarity(mean_a, mean_b, var_a, var_b, cov, data_range=1.0)


def _similarity(
    mean_a: Tensor, mean_b: Tensor, var_a: Tensor, var_b: Tensor, cov: Tensor, *, data_range: float
) -> Tensor:
    c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a * mean_a + mean_b * mean_b + c1)
    structure = (2 * cov + c2) / (var_a + var_b + c2)
    return luminance * structure


def _window_sum(values: Tensor, window: int) -> Tensor:
    """Sums over all ``window x window`` squares that lie in the last two axes."""
    return _run_sum(_run_sum(values, -1, window), -2, window)


def _run_sum(values: Tensor, axis: int, window: int) -> Tensor:
    """Sums of ``window`` neighbours along an axis, in about ``2 log2(window)`` additions of the whole array."""
    length = values.shape[axis] - window + 1
    total: Tensor | None = None
    block, size, taken = values, 1, 0
    while True:
        if window & size:
            piece = block.narrow(axis, taken, length)
            total = piece if total is None else total + piece
            taken += size
        if 2 * size > window:
            assert total is not None
            return total
        block = block.narrow(axis, 0, block.shape[axis] - size) + block.narrow(axis, size, block.shape[axis] - size)
        size *= 2


def _check_window(a: Tensor, window: int) -> None:
    if isinstance(window, bool) or not isinstance(window, int) or window < 3 or window % 2 == 0:
        raise ConfigError(f"window: expected an odd integer of at least 3, got {window!r}")
    if window > min(a.shape[-2:]):
        raise ShapeError(f"a: expected sides of at least window={window} pixels, got {tuple(a.shape)}")
