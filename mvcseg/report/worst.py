"""Where predictions fail most, as the list that a page shows: each row leads to its frames."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from mvcseg.errors import ConfigError
from mvcseg.report.text import frame_range, where

MOST = 60
"""Clips listed; of more only the number is said."""


def worst_list(videos: Sequence[tuple[str, Sequence[str]]], rows: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """Rows of the list of worst clips, in the order given.

    Args:
        videos: name and names of the predictions of each video.
        rows: as `write_page` takes them.

    Returns:
        ``rows``, whether they name ``has_videos`` and ``has_measures`` more than one, the one ``measure``, and
        how many are ``left_out``.

    Raises:
        ConfigError: a row names a video or prediction that the page does not show, or no range of frames.
    """
    measures = {str(row.get("measure", "")) for row in rows[:MOST]}
    return {
        "rows": [_row(row, videos) for row in rows[:MOST]],
        "has_videos": len(videos) > 1,
        "has_measures": len(measures) > 1,
        "measure": next(iter(measures), ""),
        "left_out": max(0, len(rows) - MOST),
    }


def _row(row: Mapping[str, object], videos: Sequence[tuple[str, Sequence[str]]]) -> dict[str, object]:
    names = [name for name, _ in videos]
    if row.get("video") not in names:
        raise ConfigError(f"worst: expected a video of the page, one of {names}, got {row.get('video')!r}")
    index = names.index(str(row["video"]))
    if row.get("prediction") not in videos[index][1]:
        raise ConfigError(
            f"worst: expected a prediction of the video {names[index]!r}, one of {list(videos[index][1])}, "
            f"got {row.get('prediction')!r}"
        )
    first, last = frame_range(row.get("frames"), "worst")
    score, frames = row.get("score"), where(first, last)
    is_share = isinstance(score, (int, float)) and math.isfinite(score)
    shown = f"{100 * score:.1f}" if is_share else "–"  # type: ignore[operator]
    measure, prediction = str(row.get("measure", "")), str(row["prediction"])
    return {
        "video": index,
        "video_name": names[index],
        "prediction": prediction,
        "first": first,
        "last": last,
        "where": frames,
        "text": f"{frames} of {prediction}: {measure} {shown}",
        "measure": measure,
        "score": shown,
        "value": repr(float(score)) if is_share else "",  # type: ignore[arg-type]
    }
