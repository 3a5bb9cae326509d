"""The regression gate: ratios of a new run of ``peers.py`` against stored ones.

    python benchmarks/gate.py --new new.json              # against benchmarks/results/peers.json
    python benchmarks/gate.py --only vote ssim            # runs these groups itself, twice where a loss shows

Statistic: the *change* of a row is its new ratio over its stored one, each a ratio of medians over turns. Turns of both
runs are drawn anew with replacement 2,000 times; the middle 95% of the changes is the noise the runs measured
themselves. A row is lost when that whole interval lies below 1 **and** the change is below 1 minus a margin. The margin
stands for what one run cannot see of itself, how a process lies in memory and what the machine did meanwhile: 0.08
between runs on the same processor with the same threads and the same PyTorch, 0.35 otherwise, for a ratio is a property
of the processor too (caches, vector width, its maker's kernels). Where the machine differs only large losses show: run
both commits on one machine then, as the nightly job does.

Exit status 1: a row lost, missing, or with outputs that differ. New rows and gains are named and pass.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

STORED = Path(__file__).resolve().parent / "results/peers.json"
DRAWS, SEED = 2000, 0
SAME_MACHINE, OTHER_MACHINE = 0.08, 0.35
MACHINE = ("cpu", "cpu_capability", "torch_threads", "opencv_threads", "gpu", "device")

Measured = Mapping[str, Any]
Report = Mapping[str, Any]


@dataclass(frozen=True)
class Verdict:
    """What became of a row: ``word`` is kept, gain, LOSS, DIFFERS, MISSING or new."""

    key: str
    word: str
    stored: float | None = None
    new: float | None = None
    change: tuple[float, float, float] | None = None

    @property
    def fails(self) -> bool:
        """Whether the gate is shut for it."""
        return self.word in ("LOSS", "DIFFERS", "MISSING")

    def line(self) -> str:
        """At most 80 columns."""
        stored, new = (f"{value:7.2f}" if value is not None else " " * 7 for value in (self.stored, self.new))
        middle, low, high = self.change or (None, None, None)
        change = " " * 17 if middle is None else f"{middle:5.2f} {low:5.2f}-{high:<5.2f}"
        return f"{self.key[:34]:34} {stored} {new} {change} {self.word}"


HEAD = f"{'row':34} {'stored':>7} {'new':>7} {'change, noise':17} verdict"


def verdicts(
    stored: Report, new: Report, *, groups: Sequence[str] | None = None, margin: float | None = None
) -> list[Verdict]:
    """A verdict for every stored row of the groups, then for every new one.

    Args:
        stored: what is to be kept.
        new: what came out now.
        groups: those compared; None: all. A row the new run left out on its device is not missing.
        margin: in place of those of the module.
    """
    found = {row["key"]: row for row in new["rows"]}
    skipped = {key for run in new["runs"] for key in run.get("skipped", ())}
    result = []
    for row in stored["rows"]:
        if (groups is not None and row["group"] not in groups) or row["key"] in skipped:
            continue
        other = found.get(row["key"])
        if other is None:
            result.append(Verdict(row["key"], "MISSING", stored=row["ratio"]))
            continue
        same = is_same_machine(stored["runs"][row["run"]], new["runs"][other["run"]])
        allowed = margin if margin is not None else SAME_MACHINE if same else OTHER_MACHINE
        result.append(judged(row, other, margin=allowed))
    known = {row["key"] for row in stored["rows"]}
    for key, row in found.items():
        if key not in known:
            result.append(Verdict(key, "new" if row["equal"] else "DIFFERS", new=row["ratio"]))
    return result


def judged(stored: Measured, new: Measured, *, margin: float) -> Verdict:
    """The verdict about a row both runs hold."""
    middle, low, high = change_of(stored["seconds"], new["seconds"])
    if not new["equal"]:
        word = "DIFFERS"
    elif high < 1 and middle < 1 - margin:
        word = "LOSS"
    elif low > 1 and middle > 1 / (1 - margin):
        word = "gain"
    else:
        word = "kept"
    return Verdict(stored["key"], word, stored["ratio"], new["ratio"], (middle, low, high))


def change_of(stored: Mapping[str, Sequence[float]], new: Mapping[str, Sequence[float]]) -> tuple[float, float, float]:
    """New ratio over stored ratio: as measured, and the ends of the middle 95% over redrawn turns."""
    rng = np.random.default_rng(SEED)
    before, after = redrawn(stored, rng), redrawn(new, rng)
    low, high = np.quantile(after[1:] / before[1:], (0.025, 0.975))
    return float(after[0] / before[0]), float(low), float(high)


def redrawn(seconds: Mapping[str, Sequence[float]], rng: np.random.Generator) -> np.ndarray:
    """Ratio of medians of the turns as they are, then of each draw of as many turns, ``(1 + DRAWS,)``."""
    ours, peer = np.asarray(seconds["ours"]), np.asarray(seconds["peer"])
    turns = np.concatenate([np.arange(len(ours))[None], rng.integers(0, len(ours), (DRAWS, len(ours)))])
    return np.median(peer[turns], axis=1) / np.median(ours[turns], axis=1)  # type: ignore[no-any-return]


def is_same_machine(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """As far as ratios go: processor, threads, device and PyTorch."""
    return all(one.get(entry) == other.get(entry) for entry in MACHINE) and (
        one["versions"].get("torch") == other["versions"].get("torch")
    )


def with_second_opinion(first: Sequence[Verdict], second: Sequence[Verdict]) -> list[Verdict]:
    """A loss stands when a second run shows it too; the second run's figures are then the row's."""
    again = {verdict.key: verdict for verdict in second}
    return [again.get(verdict.key, verdict) if verdict.word == "LOSS" else verdict for verdict in first]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stored", type=Path, default=STORED, help="what is to be kept (default: results/peers.json)")
    parser.add_argument("--new", type=Path, help="a run of peers.py; without it the gate runs it itself")
    parser.add_argument("--only", nargs="+", help="groups compared (default all that are stored)")
    parser.add_argument("--turns", type=int, default=15, help="of the gate's own run (default 15)")
    parser.add_argument("--margin", type=float, help="in place of 0.08 (same machine) and 0.35 (another)")
    args = parser.parse_args(arguments)
    stored = json.loads(args.stored.read_text())
    if args.new is not None:
        result = verdicts(stored, json.loads(args.new.read_text()), groups=args.only, margin=args.margin)
    else:
        result = of_own_runs(stored, groups=args.only, turns=args.turns, margin=args.margin)
    print(HEAD)
    for verdict in result:
        print(verdict.line())
    failed = [verdict for verdict in result if verdict.fails]
    print(f"{len(result)} rows, {len(failed)} that fail" if failed else f"{len(result)} rows, none that fails")
    return 1 if failed else 0


def of_own_runs(stored: Report, *, groups: Sequence[str] | None, turns: int, margin: float | None) -> list[Verdict]:
    """Run the stored groups, and those with a loss once more."""
    import cv2
    import peers
    import torch
    from environment import cores

    torch.set_num_threads(cores())
    cv2.setNumThreads(cores())
    wanted = [group for group in peers.GROUPS if group in (groups or {row["group"] for row in stored["rows"]})]
    first = verdicts(stored, peers.run(wanted, turns=turns), groups=wanted, margin=margin)
    lost = {verdict.key for verdict in first if verdict.word == "LOSS"}
    again = [group for group in wanted if any(row["key"] in lost for row in stored["rows"] if row["group"] == group)]
    if not again:
        return first
    peers.say(f"a loss shows: {', '.join(again)} once more")
    return with_second_opinion(first, verdicts(stored, peers.run(again, turns=turns), groups=again, margin=margin))


if __name__ == "__main__":
    raise SystemExit(main())
