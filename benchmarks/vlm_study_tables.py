"""The tables of docs/vlm.md that vlm_study.py measured."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
Results = Mapping[str, Any]
NETS = {"enet": "ENet", "espnet": "ESPNet", "cgnet": "CGNet", "ground truth": "ground truth"}
SHOWN = (0.6, 0.7, 0.8, 0.9, 0.98, 1.0)
ONE, THREE = "1 view", "3 views, all agree"
BREAK_EVEN = ("break-even, 1 view", "3 views")


def renewed(page: str, results: Results) -> str:
    """The page with every table between its markers (``<!-- table: curves -->`` to ``<!-- end -->``) made anew."""

    def table(match: re.Match[str]) -> str:
        name = match["name"]
        if name not in results:
            return match[0]
        return f"<!-- table: {name} -->\n{TABLES[name](results[name])}\n<!-- end -->"

    return re.sub(r"<!-- table: (?P<name>[\w-]+) -->\n.*?<!-- end -->", table, page, flags=re.DOTALL)


def _check(rows: Sequence[Row]) -> str:
    rules = list(dict.fromkeys(row["rule"] for row in rows))
    accuracies = sorted({row["accuracy"] for row in rows})
    lines = []
    for rule in rules:
        mine = {row["accuracy"]: row for row in rows if row["rule"] == rule}
        calls = [f"{mine[accuracy]['calls']}" for accuracy in accuracies]
        lines.append([rule, str(mine[accuracies[0]]["questions"]), *calls])
    return table(["rule", "questions", *(f"calls at {100 * accuracy:.0f} %" for accuracy in accuracies)], lines)


def _curves(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        gains = dict(zip(row["accuracies"], row["gain"], strict=True))
        steady = dict(zip(row["VC8_accuracies"], row["VC8_gain"], strict=True))
        shown = [signed(gains[accuracy]) for accuracy in SHOWN]
        lines.append(
            [NETS[row["net"]], row["rule"], *shown, even(row["break_even"]), signed(steady[0.9]), signed(steady[1.0])]
        )
    head = ["net", "rule", *(f"{100 * accuracy:.0f} %" for accuracy in SHOWN)]
    return table([*head, "break-even", "VC8, 90 %", "VC8, 100 %"], lines)


def _groups(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        groups = "; ".join("/".join(names) for names in row["groups"])
        name = f"{row['set']}: {groups}" if row["set"] == "proposed" else row["set"]
        lines.append([row["split"], NETS[row["net"]], name, *_asked(row), *_possible(row), *_evens(row)])
    return table(["split", "net", "groups", *ASKED, *POSSIBLE, *BREAK_EVEN], lines)


def _sizes(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        at = [signed(row["gain_at_90"][rule]) for rule in (ONE, THREE)]
        right = signed(row["ceiling"])
        lines.append([NETS[row["net"]], row["tubes"], *_asked(row), right, *at, *_evens(row)])
    head = ["net", "tubes", *ASKED, "all right", "90 % right, 1 view", "3 views", *BREAK_EVEN]
    return table(head, lines)


def _flow(rows: Sequence[Row]) -> str:
    names = {"farneback": "Farneback", "none": "none"}
    lines = [
        [
            NETS[row["net"]],
            names[row["flow"]],
            *_asked(row),
            f"{row['pictures'] / row['videos']:.1f}",
            f"{row['mean_frames']:.1f}",
            signed(row["ceiling"]),
            signed(row["VC8_ceiling"]),
            *_evens(row),
        ]
        for row in rows
    ]
    head = ["net", "flow", *ASKED, "calls at most", "frames a tube", "all right", "VC8, all right", *BREAK_EVEN]
    return table(head, lines)


def _areas(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        at = [signed(row["gain_at_90"][rule]) for rule in (ONE, THREE)]
        lines.append(
            [NETS[row["net"]], f"{row['min_area']:g}", *_asked(row), signed(row["ceiling"]), *at, *_evens(row)]
        )
    return table(
        ["net", "`min_area`", *ASKED, "all right", "90 % right, 1 view", "3 views", *BREAK_EVEN],
        lines,
    )


def _swaps(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        at = row["accuracies"].index(0.9)
        gains = [signed(row["curves"][rule]["gain"][at]) for rule in (ONE, THREE)]
        evens = [even(row["curves"][rule]["break_even"]) for rule in (ONE, THREE)]
        kind = {"whole": "all frames", "flicker": "half of its frames"}[row["kind"]]
        flow = {"farneback": "Farneback", "none": "none"}[row["flow"]]
        share = f"{100 * row['share']:.0f} ({100 * row['pixels']:.1f})"
        scores = [f"{row['mIoU']:.1f}", f"{signed(row['ceiling'])} ± {row['ceiling_deviation']:.1f}"]
        lines.append([NETS[row["source"]], kind, share, flow, *scores, *gains, *evens])
    head = ["labels", "swapped in", "% of tubes (pixels)", "flow", "mIoU", "all right"]
    return table([*head, "90 % right, 1 view", "3 views", *BREAK_EVEN], lines)


TABLES = {
    "check": _check,
    "curves": _curves,
    "groups": _groups,
    "sizes": _sizes,
    "flow": _flow,
    "areas": _areas,
    "swaps": _swaps,
}
ASKED = ("questions a video", "to change")


def _asked(row: Row) -> list[str]:
    return [f"{row['questions'] / row['videos']:.1f}", str(row["needing_change"])]


POSSIBLE = ("errors inside, %", "all pixels right", "all answers right")


def _possible(row: Row) -> list[str]:
    return [f"{100 * row['errors_inside']:.1f}", signed(row["ceiling_pixels"]), signed(row["ceiling"])]


def _evens(row: Row) -> list[str]:
    return [even(row["break_even"][rule]) for rule in (ONE, THREE)]


def even(found: Row) -> str:
    """The break-even accuracy of the mean in percent; in brackets mean and standard deviation over seeds."""
    if found["of_mean"] is None:
        return "never"
    text = f"{found['of_mean']:.1f}" if found["of_mean"] > 50 else "below 50"
    if found["mean"] is None or found["deviation"] is None:
        return text
    return f"{text} ({found['mean']:.1f} ± {found['deviation']:.1f})"


def signed(points: float) -> str:
    """A difference in points, without a sign where it rounds to nothing."""
    text = f"{points:+.2f}"
    return "0.00" if text in ("+0.00", "-0.00") else text


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table as Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
