"""The formula of SSIM: from samples, on binary maps, and where two windows agree."""

from __future__ import annotations

import numpy as np
import pytest

from mvcseg.ops.similarity import binary_similarity, similarity


def of_samples(a: np.ndarray, b: np.ndarray, *, data_range: float) -> float:
    """Luminance times contrast and structure, from samples of a window."""
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    covariance = np.cov(a, b, ddof=1)
    luminance = (2 * a.mean() * b.mean() + c1) / (a.mean() ** 2 + b.mean() ** 2 + c1)
    return luminance * (2 * covariance[0, 1] + c2) / (covariance[0, 0] + covariance[1, 1] + c2)


@pytest.mark.parametrize("data_range", [1.0, 255.0])
def test_similarity_is_that_of_the_samples(data_range: float) -> None:
    a, b = np.random.default_rng(0).random((2, 49)) * data_range
    covariance = np.cov(a, b, ddof=1)
    statistics = a.mean(keepdims=True), b.mean(keepdims=True), *covariance[[0, 1, 0], [0, 1, 1], None]
    got = similarity(*statistics, data_range=data_range)
    np.testing.assert_allclose(got, of_samples(a, b, data_range=data_range), rtol=1e-12)


@pytest.mark.parametrize("counts", [(0, 3, 0), (5, 3, 2), (9, 8, 8), (9, 0, 0)])
def test_binary_similarity_is_that_of_the_ones(counts: tuple[int, int, int]) -> None:
    n_a, n_b, n_both = counts
    a = np.arange(9) < n_a
    b = (np.arange(9) < n_both) | ((np.arange(9) >= n_a) & (np.arange(9) < n_a + n_b - n_both))
    assert (a.sum(), b.sum(), (a & b).sum()) == counts
    got = binary_similarity(*(np.array([float(n)]) for n in counts), area=9)
    np.testing.assert_allclose(got, of_samples(a.astype(float), b.astype(float), data_range=1.0), rtol=1e-12)


@pytest.mark.parametrize("window", [3, 7, 11])
def test_equal_binary_windows_score_exactly_one(window: int) -> None:
    ones = np.arange(window**2 + 1, dtype=np.float64)
    assert (binary_similarity(ones, ones, ones, area=window**2) == 1).all()
