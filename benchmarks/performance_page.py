"""The tables of docs/performance.md, each made from a file of ``results/`` and put between its markers.

    python benchmarks/performance_page.py            # brings docs/performance.md up to date; measures nothing

The table of peers is among them; its figure and that of growth are drawn by ``peers.py`` and ``growth.py``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ceilings
import growth
import kernel_profiles
import peers_table
from peers_table import between

HERE = Path(__file__).resolve().parent
RESULTS, PAGE = HERE / "results", HERE.parent / "docs/performance.md"

Report = Mapping[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", type=Path, default=PAGE)
    page = parser.parse_args().page
    page.write_text(filled(page.read_text()))


def filled(page: str) -> str:
    """The page with every table made anew.

    Raises:
        ValueError: a section's markers are not there exactly once.
    """
    for name, table in SECTIONS.items():
        page = between(page, name, table())
    return page


def read(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text())


def markdown(head: str, rows: list[list[str]]) -> str:
    """A table; the first column is text, the others numbers."""
    names = head.split(" | ")
    return "\n".join([f"| {head} |", "|---|" + "---:|" * (len(names) - 1), *(f"| {' | '.join(row)} |" for row in rows)])


def made_with(stamp: Report) -> str:
    """What a file was measured with, in a line; PyTorch's version is the one that matters most."""
    load = stamp.get("load_average_before")
    return (
        f"\n\n{stamp['date']}, commit {stamp['commit']}, {stamp['cpu']} ({stamp['cpu_capability']}), {stamp['cores']}"
        f" cores, {stamp['torch_threads']} threads, load average {load[0] if load else 'unknown'} at the start, Python"
        f" {stamp['python']}, torch {stamp['versions']['torch']}."
    )


def summary() -> str:
    """What this project asked of itself, and what came out."""
    peers = {row["key"]: row for row in read("peers")["rows"]}
    upstream, share, training = read("peers_upstream"), read("predict_share"), read("mvc")
    speed, memory = upstream["speed"]["whole"]["ratio"], upstream["memory"]["peak_of_ours_to_upstreams"]
    rows = [
        [
            row["work"],
            f"{row['target']:.3g} x {row['peer']}",
            f"{row['ratio']:.2f} x",
            word(row["ratio"], row["target"]),
        ]
        for row in peers.values()
        if row.get("target") is not None
    ]
    rows.append(["offline DVIS++, R50", "2 x the reference implementation", f"{speed:.2f} x", word(speed, 2)])
    rows.append(["its peak memory", "a third of the reference's", f"{memory:.3f}", word(1 / memory, 3)])
    for name, row in share["models"].items():
        inside = row["share_in_the_model"]
        rows.append([f"`mvcseg predict`, {name}", "90% in the model", f"{inside:.1%}", word(inside, share["target"])])
    for name, row in training["stages"].items():
        most = training["asked"]["seconds_ratio"]
        ratio = row["seconds_ratio"]
        rows.append([f"training step with MVC, {name}", f"at most {most} x plain", f"{ratio:.3f} x", word(most, ratio)])
    return markdown("work | asked | measured | ", rows)


def word(value: float, target: float) -> str:
    return "reached" if value >= target else "missed"


def upstream() -> str:
    report = read("peers_upstream")
    speed, memory = report["speed"], report["memory"]
    ours, theirs = (speed[f"{side}_seconds_per_frame_by_stage"] for side in ("ours", "upstream"))
    rows = [
        [stage, f"{1e3 * theirs[stage]:.0f}", f"{1e3 * seconds:.0f}", f"{theirs[stage] / seconds:.2f}"]
        for stage, seconds in ours.items()
    ]
    whole = [1e3 * speed[f"{side}_seconds_per_frame"] for side in ("upstream", "ours")]
    rows.append(["**whole**", f"{whole[0]:.0f}", f"{whole[1]:.0f}", f"**{speed['whole']['ratio']:.2f}**"])
    peaks = [memory[side]["peak_gib"] for side in ("upstream", "ours")]
    rows.append(["peak memory, GiB", *(f"{peak:.3f}" for peak in peaks), f"{peaks[0] / peaks[1]:.2f}"])
    turns = speed["whole"]["ratio_of_a_turn"]
    told = (
        f"\n\nTurns lie between {turns[0]:.2f} and {turns[-1]:.2f}. Of {speed['pixels']:,} pixels of {speed['frames']}"
        f" frames {speed['pixels_that_differ']} get another label, in {speed['classes_seen']} classes."
    )
    return markdown("stage | reference, ms a frame | ours | ratio", rows) + told + made_with(speed["environment"])


def memory() -> str:
    report = read("peak_memory")
    rows = [
        [
            row["model"],
            *(f"{row[f'{when}_gib']:.2f}" for when in ("after_imports", "model_loaded", "peak_of_loading", "peak")),
            f"{1e3 * row['seconds_per_frame']:,.0f}",
        ]
        for row in report["memory"]
    ]
    head = "preset | after imports | loaded | peak of loading | peak | ms a frame"
    return markdown(head, rows) + made_with(report["environment"])


def stages() -> str:
    report = read("model_profile")
    before, after = report["before"]["stages"], report["after"]["stages"]
    rows = [
        [
            name,
            *(f"{row['ms']:.1f}" for row in (before[name], now)),
            f"{now['gflop']:.1f}",
            f"{now['gflop_per_s']:.0f}",
            ", ".join(f"{call.removeprefix('aten::')} {ms:.3g}" for call, ms in list(now["top_calls_ms"].items())[:3]),
        ]
        for name, now in after.items()
    ]
    head = "stage | before, ms | now, ms | GFLOP | GFLOP/s now | largest operators now, ms"
    told = f"\n\nBefore: commit {report['before']['environment']['commit']}."
    return markdown(head, rows) + told + made_with(report["after"]["environment"])


def predict() -> str:
    report = read("predict_share")
    rows = [
        [
            name,
            f"{1e3 * row['seconds_a_frame']:.0f}",
            f"{row['share_in_the_model']:.1%}",
            f"{row['command_to_model_alone']['ratio']:.2f}",
        ]
        for name, row in report["models"].items()
    ]
    head = "model | ms a frame | share in the model | model alone over the command"
    return markdown(head, rows) + made_with(report["environment"])


def growing() -> str:
    report = read("growth")
    return growth.table(report) + made_with(report["environment"])


def training() -> str:
    stages = read("mvc")["stages"]
    rows = [
        [
            name,
            "{B} x {T} x {H} x {W}".format(**row["clip"]),
            *(f"{row['seconds_median'][kind]:.3g}" for kind in ("plain", "mvc")),
            f"{row['seconds_ratio']:.2f}",
            f"{row['seconds_ratio_of_a_turn'][0]:.2f}, {row['seconds_ratio_of_a_turn'][-1]:.2f}",
            *(f"{row['peak_memory_bytes'][kind] / 1e6:,.0f}" for kind in ("plain", "mvc")),
            f"{row['peak_memory_ratio']:.3f}",
        ]
        for name, row in stages.items()
    ]
    head = "stage | clip | plain, s | MVC, s | ratio | lowest, highest | plain, MB | MVC, MB | ratio"
    return markdown(head, rows) + made_with(next(reversed(stages.values()))["environment"])


def waiting() -> str:
    rows = [
        [
            row["run"],
            str(row["workers"]),
            f"{row['step_seconds_median']:.3g}",
            f"{1e3 * row['wait_seconds_median']:.2g}",
            f"{row['wait_share']:.1%}",
            str(row["steps"]),
        ]
        for row in read("training_wait")["rows"]
    ]
    return markdown("run | workers | a step, s | waiting, ms | share | steps", rows)


def steps() -> str:
    """By stage, parts that take 2% of a step of either kind or more."""
    stages = read("step_profile")["stages"]
    return "\n\n".join(steps_of(name, row) for name, row in stages.items()) + made_with(
        next(reversed(stages.values()))["environment"]
    )


def steps_of(name: str, row: Report) -> str:
    plain, mvc = row["parts"]["plain"], row["parts"]["mvc"]
    whole = row["seconds"]
    rows = [
        [
            part,
            *(f"{1e3 * side.get(part, 0):,.0f}" for side in (plain, mvc)),
            times(mvc.get(part, 0), plain.get(part, 0)),
        ]
        for part in dict.fromkeys([*plain, *mvc])
        if plain.get(part, 0) > 0.02 * whole["plain"] or mvc.get(part, 0) > 0.02 * whole["mvc"]
    ]
    rows.append(
        ["**a step**", *(f"{1e3 * whole[kind]:,.0f}" for kind in ("plain", "mvc")), times(whole["mvc"], whole["plain"])]
    )
    largest = ", ".join(
        f"{one['operator'].removeprefix('aten::')} {one['share']:.0%}" for one in row["operators"]["plain"][:4]
    )
    title = (
        f"*{name}*, clip {'{B} x {T} x {H} x {W}'.format(**row['clip'])}; largest operators of a plain step: {largest}."
    )
    return f"{title}\n\n" + markdown("part | plain, ms | MVC, ms | ratio", rows)


def times(one: float, other: float) -> str:
    return f"{one / other:.2f}" if other else ""


SECTIONS: dict[str, Callable[[], str]] = {
    "summary": summary,
    "peers": lambda: peers_table.table([read("peers")]),
    "upstream": upstream,
    "memory": memory,
    "stages": stages,
    "predict": predict,
    "growth": growing,
    "ceilings": lambda: ceilings.table(read("ceilings")),
    "kernels": lambda: kernel_profiles.tables(read("kernel_profiles")),
    "training": training,
    "waiting": waiting,
    "steps": steps,
}
"""What is between the markers of the page, by name."""


if __name__ == "__main__":
    main()
