"""Scores and per-class IoU as rows that a page's template can print."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence

from mvcseg.errors import ConfigError

FLICKER = "flicker"
"""Score of a video without ground truth: share of pixels that change class although nothing moved there."""
STEADINESS = "changed pixels"
"""Score of a video without ground truth: share of pixels whose class differs from the frame before."""


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
        values = [round(100 * row[column], 2) for row in rows if _is_share(row[column])]  # type: ignore[operator]
        if len(set(values)) > 1:  # figures that look the same are no best
            best = min(values) if column in lower_is_better else max(values)
            for row, line in zip(rows, cells, strict=True):
                line[index]["best"] = _is_share(row[column]) and round(100 * row[column], 2) == best  # type: ignore[operator]
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


def class_table(
    shares: Mapping[str, Sequence[float]], *, argument: str, class_names: Sequence[str], colours: Sequence[str]
) -> dict[str, object]:
    """Rows of a table by class: classes that at least one prediction has a share for.

    Args:
        shares: K fractions by prediction, NaN where a class has none.
        argument: what the message calls them.
        class_names: name of each class.
        colours: ``#rrggbb`` of each class.

    Raises:
        ConfigError: a prediction has another number of values than there are classes.
    """
    for name, values in shares.items():
        if len(values) != len(class_names):
            raise ConfigError(f"{argument}[{name!r}]: expected {len(class_names)} values, got {len(values)}")
    rows = []
    for index, (name, colour) in enumerate(zip(class_names, colours, strict=True)):
        own = [float(values[index]) for values in shares.values()]
        known = [round(100 * share, 1) for share in own if math.isfinite(share)]
        if not known:
            continue
        cells = [
            {
                "text": f"{100 * share:.1f}" if math.isfinite(share) else "–",
                "value": f"{share:.6f}" if math.isfinite(share) else "",
                "share": f"{share:.4f}" if math.isfinite(share) else "0",
                "best": math.isfinite(share) and round(100 * share, 1) == max(known) > min(known),
            }
            for share in own
        ]
        rows.append({"name": name, "colour": colour, "cells": cells})
    return {"names": list(shares), "rows": rows}


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
    if column == FLICKER:
        return (
            "changed pixels that no motion in the picture explains, by optical flow and to a pixel: unsteadiness alone."
        )
    if match := re.fullmatch(r"VC(\d+)", column):
        return f"of the pixels whose true class stays for {match[1]} frames, the share whose prediction stays too."
    return ""
