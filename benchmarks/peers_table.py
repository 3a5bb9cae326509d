"""The comparison as a Markdown table, and the page that holds it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

Report = Mapping[str, Any]
Measured = Mapping[str, Any]

HEAD = ("work", "peer", "peer, ms", "ours, ms", "ratio", "quartiles", "lowest, highest", "asked", "outputs")


def table(reports: Sequence[Report]) -> str:
    """Every row of the files, slower ones too, and a line about each run below.

    ``ratio`` is the peer's median over ours, the median over the processes; quartiles and extremes are those of the
    ratios of single turns of all processes; ``outputs`` is how far the two lay apart in the worst of them.
    """
    lines = [f"| {' | '.join(HEAD)} |", "|---|---|" + "---:|" * 7]
    lines += [f"| {' | '.join(cells(row))} |" for report in reports for row in report["rows"]]
    return "\n".join([*lines, "", *(about(stamp) for report in reports for stamp in report["runs"])])


def cells(row: Measured) -> list[str]:
    low, lower, _, upper, high = row["ratio_of_a_turn"]
    target = row.get("target")
    return [
        row["work"],
        row["peer"],
        milliseconds(row["peer_ms"]),
        milliseconds(row["ours_ms"]),
        f"**{short(row['ratio'])}**" if row["ratio"] >= 1 else f"{short(row['ratio'])} (slower)",
        f"{short(lower)}, {short(upper)}",
        f"{short(low)}, {short(high)}",
        "" if target is None else f"{short(target)} {'reached' if row['ratio'] >= target else 'missed'}",
        agreement(row),
    ]


def agreement(row: Measured) -> str:
    if not row["equal"]:
        return f"DIFFER: {row['difference']} of at most {row['tolerance']}"
    return "equal" if row["difference"] == 0 else f"within {float(row['difference']):.0e}"


def about(stamp: Measured) -> str:
    """What a run was made with, in one line."""
    versions = ", ".join(f"{name} {version}" for name, version in stamp["versions"].items() if version)
    loads = " and ".join(f"{(stamp[f'load_average_{when}'] or ['unknown'])[0]}" for when in ("before", "after"))
    gpu = f", {stamp['gpu']}" if "gpu" in stamp else ""
    settings = "".join(f", {name}={value}" for name, value in stamp.get("allocator", {}).items())
    count = "one process" if stamp["processes"] == 1 else f"{stamp['processes']} processes"
    return (
        f"{', '.join(stamp['groups'])}: {stamp['date']}, {count}, commit {stamp['commit']}, {stamp['cpu']}"
        f" ({stamp['cpu_capability']}){gpu}, {stamp['cores']} cores, {stamp['torch_threads']} threads of PyTorch and"
        f" {stamp['opencv_threads']} of OpenCV on both sides, load average {loads} before and after, Python"
        f" {stamp['python']}, {versions}{settings}.\n"
    )


def page_with(page: str, reports: Sequence[Report]) -> str:
    """The page with the table made anew."""
    return between(page, "peers", table(reports))


def between(page: str, name: str, text: str) -> str:
    """The page with a text between ``<!-- name:begin -->`` and ``<!-- name:end -->``.

    Raises:
        ValueError: the page does not hold the markers exactly once.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(begin) > page.index(end):
        raise ValueError(f"page: expected {begin} and then {end}, once each")
    pattern = f"{re.escape(begin)}.*{re.escape(end)}"
    return re.sub(pattern, lambda _: f"{begin}\n{text.rstrip()}\n{end}", page, flags=re.DOTALL)


def milliseconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def short(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
