"""Runs of the same rows in several processes as one run.

Within a process a ratio hardly moves; from process to process it does, for each lies elsewhere in memory and meets
another moment of the machine. So a row's ratio is taken from several, and ``gate.py`` measures noise between them.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from turns import figures_of, significant

Seconds = Mapping[str, Sequence[float]]
Report = Mapping[str, Any]


def log_ratios(seconds: Sequence[Seconds]) -> list[float]:
    """Logarithm of the peer's median over ours, one a process."""
    return [math.log(statistics.median(one["peer"]) / statistics.median(one["ours"])) for one in seconds]


def figures_of_processes(seconds: Sequence[Seconds]) -> dict[str, Any]:
    """Figures of a row that ran in several processes.

    Args:
        seconds: ``ours`` and ``peer`` of every turn, one mapping a process.

    Returns:
        As `turns.figures_of`, with ``ratio`` the median over the processes of their ratios of medians (of two: the
        geometric mean), ``ours_ms`` and ``peer_ms`` medians over the processes of their medians, ``turns`` and
        ``ratio_of_a_turn`` over the turns of all, and ``seconds`` by process.
    """
    parts = [figures_of(one["ours"], one["peer"]) for one in seconds]
    whole = figures_of(*([second for one in seconds for second in one[side]] for side in ("ours", "peer")))
    return whole | {
        "ours_ms": significant(statistics.median(part["ours_ms"] for part in parts)),
        "peer_ms": significant(statistics.median(part["peer_ms"] for part in parts)),
        "ratio": significant(math.exp(statistics.median(log_ratios(seconds)))),
        "seconds": [part["seconds"] for part in parts],
    }


def joined(reports: Sequence[Report]) -> dict[str, Any]:
    """Runs of the same rows as one: the processes of each row side by side, the environment of the first.

    A row's outputs are equal only if they are in every process; its difference is that of the worst.

    Raises:
        ValueError: the runs do not hold the same rows.
    """
    first, *others = reports
    keys = [row["key"] for row in first["rows"]]
    for other in others:
        if [row["key"] for row in other["rows"]] != keys or len(other["runs"]) != len(first["runs"]):
            raise ValueError(f"runs: expected the rows {keys}, got {[row['key'] for row in other['rows']]}")
    return {
        "runs": [joined_stamps(stamps) for stamps in zip(*(report["runs"] for report in reports), strict=True)],
        "rows": [joined_rows(rows) for rows in zip(*(report["rows"] for report in reports), strict=True)],
    }


def joined_rows(rows: Sequence[Report]) -> dict[str, Any]:
    worst = max(rows, key=lambda row: (not row["equal"], float(row["difference"])))
    figures = figures_of_processes([one for row in rows for one in row["seconds"]])
    return {**rows[0], **figures, "difference": worst["difference"], "equal": worst["equal"]}


def joined_stamps(stamps: Sequence[Report]) -> dict[str, Any]:
    commits = dict.fromkeys(str(stamp["commit"]) for stamp in stamps)
    return {
        **stamps[0],
        "commit": ", ".join(commits) if len(commits) > 1 else stamps[0]["commit"],
        "load_average_after": stamps[-1]["load_average_after"],
        "processes": sum(stamp["processes"] for stamp in stamps),
    }
