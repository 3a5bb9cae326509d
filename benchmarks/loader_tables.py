"""The tables of docs/data.md, from the figures that loader_bench.py measured."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

Results = Mapping[str, Any]


def renewed(page: str, results: Results) -> str:
    """The page with every table between its markers (``<!-- table: loader -->`` to ``<!-- end -->``) made anew."""

    def table(match: re.Match[str]) -> str:
        return f"<!-- table: {match['name']} -->\n{TABLES[match['name']](results)}\n<!-- end -->"

    return re.sub(r"<!-- table: (?P<name>[\w-]+) -->\n.*?<!-- end -->", table, page, flags=re.DOTALL)


def _alone(results: Results) -> str:
    """A row a setting: frames a second by the clock for each number of workers, then a second of a core."""
    rows = results["alone"]
    counts = sorted({row["workers"] for row in rows if row["packed"]})
    lines = []
    for setting in dict.fromkeys(row["setting"] for row in rows):
        mine = [row for row in rows if row["setting"] == setting]
        packed = {row["workers"]: row for row in mine if row["packed"]}
        floats = next(row for row in mine if not row["packed"])
        cells = [f"{packed[count]['frames_a_second']:.0f}" for count in counts]
        each = f"{packed[0]['frames_a_core_second']:.0f}"
        compared = packed[floats["workers"]]["frames_a_core_second"] / floats["frames_a_core_second"]
        lines.append([setting, *cells, each, f"{compared:.1f}"])
    head = ["clips of", *(f"{count} workers" if count != 1 else "1 worker" for count in counts)]
    return _table([*head, "a core second", "packed / floats"], lines)


def _training(results: Results) -> str:
    rows = results["training"]["rows"]
    lines = [
        [
            str(row["workers"]),
            f"{row['step_seconds_median']:.3f} s",
            f"{row['wait_seconds_median']:.3f} s",
            f"{100 * row['wait_share']:.1f} %",
            f"{row['frames_a_second']:.1f}",
        ]
        for row in rows
    ]
    return _table(["workers", "step", "of it waiting for the batch", "share of all time", "frames a second"], lines)


def _machine(results: Results) -> str:
    machine, device = results["machine"], results["training"]["device"]
    load = machine["load_average"]
    busy = "otherwise idle" if load < machine["cores"] / 2 else f"busy with other work (load average {load:.0f})"
    return (
        f"Measured on {machine['cores']} cores ({machine['processor']}), {busy}; the model trains on "
        f"{'the same cores' if device == 'cpu' else device}."
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


TABLES = {"loader": _alone, "loader-machine": _machine, "loader-training": _training}
