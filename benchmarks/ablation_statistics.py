"""Means over seeds, differences between runs of the same seed, and how far to trust them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Spread:
    """A mean over n seeds and its standard error, NaN for one seed."""

    mean: float
    error: float
    n: int


@dataclass(frozen=True)
class Difference:
    """Paired differences, run minus run of the same seed.

    Attributes:
        mean: of the differences.
        error: its standard error, NaN for one pair.
        p: two-sided p value of Student's paired t test of no difference, NaN for one pair; 0 where all differences
            are equal and not zero, 1 where all are zero.
        above: pairs whose difference is above zero.
        n: pairs.
    """

    mean: float
    error: float
    p: float
    above: int
    n: int


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard error (sample deviation over root n).

    Example:
        >>> spread([1.0, 3.0])
        Spread(mean=2.0, error=1.0, n=2)
    """
    numbers = np.asarray(values, dtype=float)
    error = float(numbers.std(ddof=1) / math.sqrt(len(numbers))) if len(numbers) > 1 else math.nan
    return Spread(float(numbers.mean()), error, len(numbers))


def difference(values: Mapping[int, float], baseline: Mapping[int, float]) -> Difference:
    """How values by seed differ from a baseline's, over the seeds that both have.

    Raises:
        ValueError: they share no seed.
    """
    seeds = sorted(set(values) & set(baseline))
    if not seeds:
        raise ValueError("values, baseline: expected a seed in common, got none")
    gaps = [values[seed] - baseline[seed] for seed in seeds]
    found = spread(gaps)
    return Difference(found.mean, found.error, _p(found), above=sum(gap > 0 for gap in gaps), n=len(gaps))


def _p(found: Spread) -> float:
    if found.n < 2:
        return math.nan
    if found.error == 0:
        return 1.0 if found.mean == 0 else 0.0
    return float(2 * stats.t.sf(abs(found.mean / found.error), df=found.n - 1))
