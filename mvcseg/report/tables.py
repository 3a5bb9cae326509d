"""Scores, per-class IoU and training curves as rows and paths that a page's template can print."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence

from mvcseg.errors import ConfigError

STEADINESS = "changed pixels"
"""Score of a video without ground truth: share of pixels whose class differs from the frame before."""
CURVE_POINTS = 400
"""Most points drawn of a training curve; more are averaged in equal runs."""
FEW_POINTS = 20
"""Below so many points each is drawn as a dot; from there on a smooth curve lies over them."""
LOG_FROM = 20.0
"""Largest over smallest value from which a loss is drawn on a logarithmic axis."""
CURVE_BOX = (320.0, 5.0, 105.0)
"""Width, top and bottom of a curve's drawing area."""


def score_table(rows: Sequence[Mapping[str, object]], *, lower_is_better: Collection[str] = ()) -> dict[str, object]:
    """Cells of the score table: text, gain over the first row in points, and whether it is the column's best.

    Args:
        rows: as `write_page` takes them; the first key names the row, the others are columns.
        lower_is_better: columns whose smallest number is the best.

    Returns:
        ``head``, ``columns``, ``rows`` and what the caption says.

    Raises:
        ConfigError: rows without a name, or with other columns than the first.
    """
    if not rows:
        return {"rows": []}
    head, *columns = rows[0]
    for row in rows:
        if list(row) != [head, *columns]:
            raise ConfigError(f"scores: expected the columns {[head, *columns]} in every row, got {list(row)}")
    cells = [
        [_score_cell(row[c], rows[0][c], i, lower=c in lower_is_better) for c in columns] for i, row in enumerate(rows)
    ]
    for index, column in enumerate(columns):
        values = [row[column] for row in rows if _is_share(row[column])]
        if len(values) > 1:
            best = min(values) if column in lower_is_better else max(values)  # type: ignore[type-var]
            for row, line in zip(rows, cells, strict=True):
                line[index]["best"] = row[column] == best
    flat = [cell for line in cells for cell in line]
    return {
        "head": head[:1].upper() + head[1:],
        "columns": [{"name": name, "lower": name in lower_is_better} for name in columns],
        "rows": [{"name": row[head], "cells": line} for row, line in zip(rows, cells, strict=True)],
        "has_percent": any(_is_share(row[c]) for row in rows for c in columns),
        "has_gain": any(cell["gain"] for cell in flat),
        "has_best": any(cell["best"] for cell in flat),
        "meaning": [(name, text) for name in columns if (text := _meaning(name))],
    }


def iou_table(
    class_iou: Mapping[str, Sequence[float]], *, class_names: Sequence[str], colours: Sequence[str]
) -> dict[str, object]:
    """Rows of the per-class table: classes that at least one prediction has an IoU for.

    Raises:
        ConfigError: a prediction has another number of values than there are classes.
    """
    for name, values in class_iou.items():
        if len(values) != len(class_names):
            raise ConfigError(f"class_iou[{name!r}]: expected {len(class_names)} values, got {len(values)}")
    rows = []
    for index, (name, colour) in enumerate(zip(class_names, colours, strict=True)):
        shares = [float(values[index]) for values in class_iou.values()]
        known = [share for share in shares if math.isfinite(share)]
        if not known:
            continue
        cells = [
            {
                "text": f"{100 * share:.1f}" if math.isfinite(share) else "–",
                "value": f"{share:.6f}" if math.isfinite(share) else "",
                "share": f"{share:.4f}" if math.isfinite(share) else "0",
                "best": len(known) > 1 and share == max(known) > min(known),
            }
            for share in shares
        ]
        rows.append({"name": name, "colour": colour, "cells": cells})
    return {"names": list(class_iou), "rows": rows}


def curve_figure(name: str, points: Sequence[tuple[float, float]]) -> dict[str, object]:
    """One training curve as SVG paths in a box of 320 x 110, with its labels.

    The axis of a loss is logarithmic where its values span more than a factor of ``LOG_FROM``. Single values far
    beyond the others lie at the box's edge, so that they do not flatten the rest; the largest is
    named.

    Args:
        name: what is drawn.
        points: ``(step, value)`` in rising order of step; values that are not finite are left out.
    """
    kept = [(float(x), float(y)) for x, y in points if math.isfinite(y)]
    figure: dict[str, object] = dict.fromkeys(("path", "smooth", "dots", "start", "end", "range"), "")
    if not kept:
        return figure | {"name": name, "last": "–", "description": f"{name}: no finite value"}
    start, end = kept[0][0], kept[-1][0]
    highest = max(y for _, y in kept)
    is_log = "loss" in name and 0 < LOG_FROM * min(y for _, y in kept) < highest
    kept = _thin(kept)
    first, last = kept[0][1], kept[-1][1]
    drawn = [(x, math.log(y)) for x, y in kept] if is_log else kept
    smooth = _smooth(drawn)
    low, high = _range_of([y for _, y in drawn], [y for _, y in smooth])
    bottom, top = (math.exp(low), math.exp(high)) if is_log else (low, high)
    is_cut = highest > top + 0.1 * (top - bottom)
    return figure | {
        "name": name,
        "last": f"{last:.4g}",
        "path": _path(drawn, low, high),
        "smooth": _path(smooth, low, high) if len(kept) >= FEW_POINTS else "",
        "dots": _dots(drawn, low, high) if len(kept) < FEW_POINTS else "",
        "start": f"step {start:g}",
        "end": f"{end:g}" if end > start else "",
        "range": (f"{bottom:.3g} to {top:.3g}" if top > bottom else f"{top:.3g}")
        + ", log scale" * is_log
        + f", once {highest:.3g}" * is_cut,
        "description": f"{name}: {first:.4g} at step {start:g}, {last:.4g} at step {end:g}",
    }


def _score_cell(value: object, first: object, row: int, *, lower: bool) -> dict[str, object]:
    cell: dict[str, object] = {"text": "–", "value": "", "gain": "", "direction": "", "best": False}
    if _is_share(value):
        cell.update(text=f"{100 * value:.2f}", value=repr(value))  # type: ignore[operator]
        if row and _is_share(first):
            points = round(100 * (value - first), 2)  # type: ignore[operator]
            cell["gain"] = f"{points:+.2f}".replace("-", "−") if points else "±0.00"
            cell["direction"] = "same" if not points else "worse" if (points > 0) == lower else "better"
    elif isinstance(value, (str, int)):
        cell.update(text=f"{value:,}" if isinstance(value, int) else value, value=str(value))
    return cell


def _is_share(value: object) -> bool:
    return isinstance(value, float) and math.isfinite(value)


def _meaning(column: str) -> str:
    """One sentence on a score this library knows."""
    if column == "mIoU":
        return "intersection over union of the true and the predicted pixels of a class, averaged over classes."
    if column == STEADINESS:
        return "whose predicted class differs from the frame before: how steady a prediction is, not how right."
    if match := re.fullmatch(r"VC(\d+)", column):
        return f"of the pixels whose true class stays for {match[1]} frames, the share whose prediction stays too."
    return ""


def _thin(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Runs of points replaced by their means, so that at most `CURVE_POINTS` are left."""
    size = -(-len(points) // CURVE_POINTS)
    runs = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(x for x, _ in run) / len(run), sum(y for _, y in run) / len(run)) for run in runs]


def _smooth(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Mean over a tenth of the curve around each point."""
    reach = max(1, len(points) // 20)
    out = []
    for index, (x, _) in enumerate(points):
        near = [y for _, y in points[max(0, index - reach) : index + reach + 1]]
        out.append((x, sum(near) / len(near)))
    return out


def _range_of(values: Sequence[float], smooth: Sequence[float]) -> tuple[float, float]:
    """What is drawn from bottom to top: all but the outermost hundredths, and the whole of the smooth curve."""
    order = sorted(values)
    cut = len(order) // 100
    return min(order[cut], *smooth), max(order[-1 - cut], *smooth)


def _path(points: list[tuple[float, float]], low: float, high: float) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in _spots(points, low, high))


def _dots(points: list[tuple[float, float]], low: float, high: float) -> str:
    """A line of no length at every point, whose round ends make a dot however the picture is stretched."""
    return "".join(f"M{x:.1f} {y:.1f}h0" for x, y in _spots(points, low, high))


def _spots(points: list[tuple[float, float]], low: float, high: float) -> list[tuple[float, float]]:
    """Places in the box, those of values outside the range at its edge."""
    width, top, bottom = CURVE_BOX
    start, end = points[0][0], points[-1][0]
    return [
        (
            width * (x - start) / ((end - start) or 1),
            bottom - (bottom - top) * (min(max(y, low), high) - low) / ((high - low) or 1),
        )
        for x, y in points
    ]
