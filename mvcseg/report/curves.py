"""Training curves as the points and words that a page draws and says."""

from __future__ import annotations

import math
from collections.abc import Sequence

CURVE_POINTS = 400
"""Most points drawn of a training curve; more are averaged in equal runs."""
FEW_POINTS = 20
"""Below so many points each is drawn as a dot; from there on a smooth curve lies over them."""
LOG_FROM = 20.0
"""Largest over smallest value from which a loss is drawn on a logarithmic axis."""
DIGITS = 6
"""Significant digits of a value drawn."""


def curve_figure(name: str, points: Sequence[tuple[float, float]]) -> dict[str, object]:
    """One training curve: what is drawn, and what a caption says of it.

    The axis of a loss is logarithmic where its values span more than a factor of ``LOG_FROM``. Single values far
    beyond the others lie outside the axis, so that they do not flatten the rest; the largest is named.

    Args:
        name: what is drawn.
        points: ``(step, value)`` in rising order of step; points that are not finite are left out.

    Returns:
        ``steps`` and ``values``, ``smooth`` (values; empty for few points), ``low`` and ``high`` end of the axis,
        ``is_log``; and the texts ``name``, ``last`` value, ``range`` and ``description``.

    Example:
        >>> curve = curve_figure("loss", [(0, 100.0), (5, 10.0), (10, 1.0)])
        >>> curve["steps"], curve["values"], curve["range"]
        ([0.0, 5.0, 10.0], [100.0, 10.0, 1.0], '1 to 100, log scale')
    """
    kept = [(float(x), float(y)) for x, y in points if y is not None and math.isfinite(x) and math.isfinite(y)]
    if not kept:
        empty: dict[str, object] = {"steps": [], "values": [], "smooth": [], "low": 0.0, "high": 1.0, "is_log": False}
        return empty | {"name": name, "last": "–", "range": "", "description": f"{name}: no finite value"}
    start, end, highest = kept[0][0], kept[-1][0], max(y for _, y in kept)
    is_log = "loss" in name and 0 < LOG_FROM * min(y for _, y in kept) < highest
    kept = _thin(kept)
    # a logarithmic axis shows ratios alike, so there the smooth curve is a geometric mean
    drawn = [math.log(y) if is_log else y for _, y in kept]
    smooth = _smooth(drawn)
    low, high = _range_of(drawn, smooth)
    if is_log:
        low, high, smooth = math.exp(low), math.exp(high), [math.exp(y) for y in smooth]
    is_cut = highest > high + 0.1 * (high - low)
    first, last = kept[0][1], kept[-1][1]
    return {
        "name": name,
        "steps": _rounded([x for x, _ in kept]),
        "values": _rounded([y for _, y in kept]),
        "smooth": _rounded(smooth) if len(kept) >= FEW_POINTS else [],
        "low": low,
        "high": high,
        "is_log": is_log,
        "last": f"{last:.4g}",
        "range": (f"{low:.3g} to {high:.3g}" if high > low else f"{high:.3g}")
        + ", log scale" * is_log
        + f", once {highest:.3g}" * is_cut,
        "description": f"{name}: {first:.4g} at step {start:g}, {last:.4g} at step {end:g}",
    }


def _thin(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Runs of points replaced by their means, so that at most `CURVE_POINTS` are left."""
    size = -(-len(points) // CURVE_POINTS)
    runs = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(x / len(run) for x, _ in run), sum(y / len(run) for _, y in run)) for run in runs]


def _smooth(values: list[float]) -> list[float]:
    """Mean over a tenth of the curve around each point."""
    reach = max(1, len(values) // 20)
    near = [values[max(0, i - reach) : i + reach + 1] for i in range(len(values))]
    return [sum(y / len(each) for y in each) for each in near]  # divided first: a sum may be too large


def _range_of(values: Sequence[float], smooth: Sequence[float]) -> tuple[float, float]:
    """What is drawn from bottom to top: all but the outermost hundredths, and the whole of the smooth curve."""
    order = sorted(values)
    cut = len(order) // 100
    return min(order[cut], *smooth), max(order[-1 - cut], *smooth)


def _rounded(values: Sequence[float]) -> list[float]:
    return [float(f"{value:.{DIGITS}g}") for value in values]
