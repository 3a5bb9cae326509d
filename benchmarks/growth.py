"""Seconds a frame and peak memory against video length, frame size, classes, candidates and views.

Every point is a fresh process, so that its peak is its own; peak memory is resident memory and needs Linux or macOS::

    python benchmarks/growth.py --out benchmarks/results/growth.json
    python benchmarks/growth.py --table benchmarks/results/growth.json --figure docs/growth.png
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from environment import environment
from growth_works import WORKS, Amounts

SIZES = ((240, 427), (360, 640), (480, 853), (720, 1280), (1080, 1920))
LENGTHS = (50, 200, 800, 2000)
CLASSES = (19, 60, 124, 255)
COUNTS = (1, 2, 4, 8)
SMALL = Amounts(frames=50, height=64, width=96)
PLAN: dict[str, dict[str, tuple[Amounts, Sequence[Any]]]] = {
    "DVIS++ offline, R50": {
        "length": (SMALL, LENGTHS),
        "size": (Amounts(frames=3, height=480, width=853), SIZES),
        "classes": (Amounts(frames=3, height=480, width=853), CLASSES),
    },
    "predict, compact model": {
        "length": (Amounts(frames=50, height=240, width=427, classes=19), LENGTHS),
        "size": (Amounts(frames=12, height=480, width=853, classes=19), SIZES),
        "classes": (Amounts(frames=12, height=480, width=853), CLASSES),
    },
    "vote over views": {
        "length": (Amounts(frames=50, height=120, width=213, classes=19), LENGTHS),
        "size": (Amounts(frames=6, height=480, width=853, classes=19), SIZES),
        "classes": (Amounts(frames=6, height=480, width=853), CLASSES),
        "views": (Amounts(frames=6, height=480, width=853, classes=19), COUNTS),
    },
    "vote of label maps": {
        "size": (Amounts(frames=100, height=480, width=853), SIZES),
        "views": (Amounts(frames=100, height=480, width=853), (*COUNTS, 16, 32)),
    },
    "choice of a model": {
        "length": (Amounts(frames=50, height=120, width=213), LENGTHS),
        "size": (Amounts(frames=13, height=480, width=853), SIZES),
        "classes": (Amounts(frames=13, height=480, width=853), CLASSES),
        "candidates": (Amounts(frames=13, height=480, width=853), COUNTS),
    },
    "scores": {
        "length": (Amounts(frames=50, height=240, width=427), LENGTHS),
        "size": (Amounts(frames=40, height=480, width=853), SIZES),
        "classes": (Amounts(frames=70, height=480, width=853), CLASSES),
    },
}
"""By work and axis: what the others are held at, and the points."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file to write; points of an earlier one not asked for are kept")
    parser.add_argument("--works", nargs="+", default=list(PLAN), choices=list(PLAN), help="default: all")
    parser.add_argument("--axes", nargs="+", default=None, help="length, size, classes, candidates, views")
    parser.add_argument("--table", type=Path, help="print the table of such a file and measure nothing")
    parser.add_argument("--figure", type=Path, help="with --table: draw it too")
    parser.add_argument("--point", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.point:
        print(json.dumps(point(**json.loads(options.point))))
        return 0
    if options.table:
        report = json.loads(options.table.read_text())
        print(table(report))
        if options.figure:
            from growth_figure import draw

            draw(report, options.figure)
        return 0
    earlier = json.loads(options.out.read_text()) if options.out and options.out.exists() else {"points": []}
    asked = [
        (work, axis) for work in options.works for axis in PLAN[work] if options.axes is None or axis in options.axes
    ]
    points = [old for old in earlier["points"] if (old["work"], old["axis"]) not in asked]
    for work, axis in asked:
        for amounts in amounts_of(work, axis):
            found = {"work": work, "axis": axis, **measured(work, amounts)}
            points.append(found)
            print(json.dumps(found), file=sys.stderr, flush=True)
            if options.out:
                report = {"benchmark": "growth", "environment": environment(), "points": points}
                options.out.write_text(json.dumps(report, indent=1) + "\n")
    print(table({"points": points}))
    return 0


def amounts_of(work: str, axis: str) -> list[Amounts]:
    """The points of one curve."""
    base, values = PLAN[work][axis]
    if axis == "size":
        return [replace(base, height=height, width=width) for height, width in values]
    field = {"length": "frames"}.get(axis, axis)
    return [replace(base, **{field: value}) for value in values]


def measured(work: str, amounts: Amounts) -> dict[str, Any]:
    """One point, in a fresh process."""
    request = json.dumps({"work": work, "amounts": asdict(amounts)})
    command = [sys.executable, str(Path(__file__).resolve()), "--point", request]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{work}, {amounts}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def point(work: str, amounts: Mapping[str, int]) -> dict[str, Any]:
    """Seconds a frame and peak memory of one work in this process."""
    own = Amounts(**amounts)
    run = WORKS[work](own)
    before = peak_mib()
    start = time.perf_counter()
    run()
    seconds = time.perf_counter() - start
    return {
        **amounts,
        "seconds_per_frame": round(seconds / own.frames, 6),
        "peak_mib": round(peak_mib(), 1),
        "peak_before_mib": round(before, 1),
    }


def peak_mib() -> float:
    """Highest resident memory of this process so far, MiB."""
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest / 1024**2 if sys.platform == "darwin" else highest / 1024


def amount(found: Mapping[str, Any], axis: str) -> float:
    """The number a curve runs over: frames, megapixels, classes, candidates or views."""
    if axis == "size":
        return float(found["height"] * found["width"]) / 1e6
    return float(found["frames" if axis == "length" else axis])


def exponent(points: Sequence[Mapping[str, Any]], axis: str) -> float:
    """By what power of the amount the seconds of the whole work grow: least squares in logarithms, 1 is linear."""
    xs = [math.log(amount(found, axis)) for found in points]
    ys = [math.log(found["seconds_per_frame"] * found["frames"]) for found in points]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    return sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / sum((x - mean_x) ** 2 for x in xs)


def curves(report: Mapping[str, Any]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Points by work and axis, by rising amount."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for one in report["points"]:
        found.setdefault((one["work"], one["axis"]), []).append(one)
    return {key: sorted(points, key=lambda one: amount(one, key[1])) for key, points in found.items()}


def table(report: Mapping[str, Any]) -> str:
    """Markdown: a line a curve."""
    lines = ["| work | over | from, to | ms a frame | power | peak, MiB |", "|---|---|---|---|---|---|"]
    for (work, axis), points in curves(report).items():
        first, last = points[0], points[-1]
        ends = (
            f"{first['height']}p, {last['height']}p"
            if axis == "size"
            else f"{amount(first, axis):.0f}, {amount(last, axis):.0f}"
        )
        times = ", ".join(f"{1e3 * one['seconds_per_frame']:.3g}" for one in (first, last))
        peaks = ", ".join(f"{one['peak_mib']:.0f}" for one in (first, last))
        lines.append(f"| {work} | {axis} | {ends} | {times} | {exponent(points, axis):.2f} | {peaks} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
