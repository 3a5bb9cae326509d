"""The comparison as a picture: a bar a row, its length the ratio, narrow enough for a phone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

FASTER, SLOWER, ASKED = "#0072B2", "#E69F00", "#000000"
"""Of Okabe and Ito's palette, told apart by every reader; slower bars are hatched too."""
WIDTH, EACH, LETTERS = 4.8, 0.5, 80
"""Inches of the figure and of a row; letters of a row's name at most."""


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write an SVG: bars of ratios on a log axis from 1, whiskers from the lowest to the highest of a turn."""
    height = EACH * len(rows) + 1.1
    style = {"svg.hashsalt": "peers", "font.size": 8, "hatch.linewidth": 0.6}
    with mpl.rc_context(style):
        figure, axes = plt.subplots(figsize=(WIDTH, height))
        for place, row in enumerate(rows):
            bar(axes, place, row)
        limits(axes, rows)
        axes.axvline(1, color="black", linewidth=1)
        axes.set_ylim(len(rows) - 0.4, -0.85)
        axes.set_yticks([])
        axes.set_xlabel("times as fast as the peer (median; line: lowest to highest turn)")
        for side in ("top", "left", "right"):
            axes.spines[side].set_visible(False)
        axes.legend(handles=legend(), loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
        axes.grid(axis="x", color="0.88", linewidth=0.6)
        axes.set_axisbelow(True)
        figure.tight_layout(pad=0.3)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format="svg", metadata={"Date": None})
        plt.close(figure)


def bar(axes: Any, place: int, row: Mapping[str, Any]) -> None:
    """The work, the peer, and below them the bar with its figure."""
    ratio, low, high = row["ratio"], row["ratio_of_a_turn"][0], row["ratio_of_a_turn"][-1]
    is_faster = ratio >= 1
    axes.barh(
        place,
        ratio - 1,
        left=1,
        height=0.28,
        color=FASTER if is_faster else SLOWER,
        hatch=None if is_faster else "////",
        edgecolor="none" if is_faster else "black",
        linewidth=0,
    )
    axes.plot([low, high], [place, place], color="black", linewidth=1, solid_capstyle="butt")
    if row.get("target") is not None:
        axes.plot([row["target"]] * 2, [place - 0.2, place + 0.2], color=ASKED, linewidth=2.2)
        axes.plot(row["target"], place - 0.2, marker="v", color=ASKED, markersize=4)
    for text, above, colour in ((row["work"], 0.49, "black"), (f"against {row['peer']}", 0.25, "0.35")):
        name = shorten(text, LETTERS, placeholder=" …")
        axes.text(0, place - above, name, fontsize=7, va="bottom", color=colour, transform=axes.get_yaxis_transform())
    axes.text(max(high, ratio, 1) * 1.06, place, f"{ratio:.3g}", va="center", fontweight="bold")


def limits(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    values = [value for row in rows for value in (*row["ratio_of_a_turn"], row["ratio"], row.get("target") or 1)]
    low, high = min([*values, 1]), max([*values, 2])
    axes.set_xscale("log", base=2)
    axes.set_xlim(low / 1.15, high * 1.5)
    powers = range(math.floor(math.log2(low)), math.ceil(math.log2(high)) + 1)
    step = 1 if len(powers) < 9 else 2
    ticks = [power for power in powers if power % step == 0]
    axes.set_xticks([2.0**power for power in ticks], [f"{2.0**power:g}" for power in ticks])
    axes.minorticks_off()


def legend() -> list[Any]:
    return [
        Patch(color=FASTER, label="faster"),
        Patch(facecolor=SLOWER, hatch="////", edgecolor="black", linewidth=0, label="slower"),
        Line2D([], [], color=ASKED, marker="v", linewidth=2.2, markersize=4, label="asked"),
    ]
