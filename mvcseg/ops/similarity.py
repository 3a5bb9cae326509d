"""The formula of SSIM from a window's means, variances and covariance, and its form on binary maps.

Source: Wang et al., "Image quality assessment", IEEE TIP 2004, with scikit-image's constants.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy.typing as npt
from torch import Tensor

_K1, _K2 = 0.01, 0.03
Values = TypeVar("Values", Tensor, npt.NDArray[Any])


def similarity(
    mean_a: Values, mean_b: Values, var_a: Values, var_b: Values, cov: Values, *, data_range: float
) -> Values:
    """SSIM of windows with these means, variances and covariance, in their dtype."""
    c1, c2 = (_K1 * data_range) ** 2, (_K2 * data_range) ** 2
    above: Values = (2 * mean_a * mean_b + c1) * (2 * cov + c2)
    below: Values = (mean_a * mean_a + mean_b * mean_b + c1) * (var_a + var_b + c2)
    score: Values = above / below
    return score


def binary_similarity(n_a: Values, n_b: Values, n_both: Values, *, area: int) -> Values:
    """SSIM of binary windows of so many pixels, with so many ones in each and in both; exactly 1 where they agree."""
    mean_a, mean_b = n_a / area, n_b / area
    var_a = (n_a - n_a * n_a / area) / (area - 1)
    var_b = (n_b - n_b * n_b / area) / (area - 1)
    cov = (n_both - n_a * n_b / area) / (area - 1)
    return similarity(mean_a, mean_b, var_a, var_b, cov, data_range=1.0)
