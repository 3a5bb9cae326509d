"""The regression gate: ratios of a new run of ``peers.py`` against stored ones.

    python benchmarks/gate.py --new new.json              # against benchmarks/results/peers.json
    python benchmarks/gate.py --only vote ssim            # runs these groups itself, twice where a loss shows

Statistic. A row's figure is the logarithm of the ratio of medians in each process that ran it; its *change* is the mean
of the new processes less that of the stored ones (printed as a factor: new over stored geometric mean). What the turns
of one process tell of noise is not used: ratios differ from process to process by several times that.

- Noise: the variance between processes of either run about its own mean, with ``nu`` degrees of freedom (4 for three
  processes each). So few say little, so it is moderated, ``s^2 = (4 s0^2 + nu s_row^2) / (4 + nu)``, by what is usual:
  ``s0^2`` is the median of the rows' variances, each divided by the median of chi-squared over ``nu``.
- Interval: one-sided ends of Student's t with ``4 + nu`` degrees of freedom at 0.05 divided by the number of rows
  compared (Bonferroni): however many rows there are, about one run in twenty at most names any of them wrongly, as far
  as processes of two runs differ no more than those of one. Of few rows the 4 are at most what the other rows hold.
- A row is lost when its whole interval lies below 1 less a margin: 0.05 between runs on one machine (same processor,
  threads, device, settings of the allocator and PyTorch), for what moves all processes of a run together, and 0.35
  otherwise, for a ratio is a property of the processor too (caches, vector width, its maker's kernels).

What it can see follows from the noise: the loss found in half of the runs is ``1 - 0.95 exp(-h)``, where ``h``, half
the interval, is 3.5 times ``s`` for 36 rows of three processes each and 2.4 times of five. Ratios that spread by 2%
from process to process show a loss of 11% then, by 8% one of 28% (of five processes: 9% and 21%). Where the machine
differs only large losses show: run both commits on one machine then, process by process in turn, as the nightly job
does. What it cannot see is a machine that treats all processes of one run alike and those of the next otherwise: rows
with two speeds, by how memory lies, did so by 20 to 45% on a busy virtual machine, where 3 of 12 comparisons of the
same code named one of 12 rows. So a loss stands only if a second run shows it too (none of these did): the gate makes
it itself, or is given it by ``--again``.

Exit status 1: a row lost, missing, or with outputs that differ; 2: no row of either run has two processes, so that
there is no measure of noise. New rows and gains are named and pass.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from peers_processes import joined, log_ratios
from scipy.stats import chi2
from scipy.stats import t as student

STORED = Path(__file__).resolve().parent / "results/peers.json"
FALSE_ALARMS = 0.05
"""Share of runs that may name any row wrongly."""
USUAL = 4
"""Degrees of freedom that the usual noise counts beside a row's own."""
SAME_MACHINE, OTHER_MACHINE = 0.05, 0.35
MACHINE = ("cpu", "cpu_capability", "torch_threads", "opencv_threads", "gpu", "device", "allocator")

Measured = Mapping[str, Any]
Report = Mapping[str, Any]
Logs = Sequence[float]


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
    kept = [row for row in stored["rows"] if row["key"] not in skipped and (groups is None or row["group"] in groups)]
    both = [(row, found[row["key"]]) for row in kept if row["key"] in found]
    changes = iter(changes_of([(log_ratios(row["seconds"]), log_ratios(other["seconds"])) for row, other in both]))
    result = []
    for row in kept:
        other = found.get(row["key"])
        if other is None:
            result.append(Verdict(row["key"], "MISSING", stored=ratio_of(row)))
            continue
        same = is_same_machine(stored["runs"][row["run"]], new["runs"][other["run"]])
        allowed = margin if margin is not None else SAME_MACHINE if same else OTHER_MACHINE
        result.append(judged(row, other, next(changes), margin=allowed))
    known = {row["key"] for row in stored["rows"]}
    for key, row in found.items():
        if key not in known:
            result.append(Verdict(key, "new" if row["equal"] else "DIFFERS", new=ratio_of(row)))
    return result


def judged(stored: Measured, new: Measured, change: tuple[float, float, float], *, margin: float) -> Verdict:
    """The verdict about a row both runs hold."""
    _, low, high = change
    if not new["equal"]:
        word = "DIFFERS"
    elif high < 1 - margin:
        word = "LOSS"
    elif low > 1 / (1 - margin):
        word = "gain"
    else:
        word = "kept"
    return Verdict(stored["key"], word, ratio_of(stored), ratio_of(new), change)


def ratio_of(row: Measured) -> float:
    """Geometric mean over the processes."""
    return float(np.exp(np.mean(log_ratios(row["seconds"]))))


def changes_of(pairs: Sequence[tuple[Logs, Logs]]) -> list[tuple[float, float, float]]:
    """The change of every row and the ends of its interval, as factors; the module's docstring states how.

    Args:
        pairs: logarithms of the ratios of the stored and of the new processes, one pair a row.

    Raises:
        ValueError: no row of either run has two processes.
    """
    if not pairs:
        return []
    freedom = np.array([len(old) + len(new) - 2 for old, new in pairs])
    if not freedom.any():
        raise ValueError("processes: expected two of some row in one of the runs at least, or there is no noise to see")
    variance = np.array([sum(float(np.var(one)) * len(one) for one in pair) for pair in pairs]) / np.maximum(freedom, 1)
    some = freedom > 0
    usual = np.median(variance[some] * freedom[some] / chi2.ppf(0.5, freedom[some]))
    weight = np.minimum(USUAL, freedom.sum() - freedom)  # a row alone has nothing but its own
    moderated = (weight * usual + freedom * variance) / (weight + freedom)
    shares = np.array([1 / len(old) + 1 / len(new) for old, new in pairs])
    half = student.ppf(1 - FALSE_ALARMS / len(pairs), weight + freedom) * np.sqrt(moderated * shares)
    change = [float(np.mean(new) - np.mean(old)) for old, new in pairs]
    return [(math.exp(c), math.exp(c - h), math.exp(c + h)) for c, h in zip(change, half, strict=True)]


def is_same_machine(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """As far as ratios go: processor, threads, device, settings of the allocator and PyTorch."""
    return all((one.get(entry) or None) == (other.get(entry) or None) for entry in MACHINE) and (
        one["versions"].get("torch") == other["versions"].get("torch")
    )


def with_second_opinion(first: Sequence[Verdict], second: Sequence[Verdict]) -> list[Verdict]:
    """A loss stands when a second run shows it too; the second run's figures are then the row's."""
    again = {verdict.key: verdict for verdict in second}
    return [again.get(verdict.key, verdict) if verdict.word == "LOSS" else verdict for verdict in first]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--stored", type=Path, nargs="+", default=[STORED], help="what is to be kept (default: results/peers.json)"
    )
    parser.add_argument("--new", type=Path, nargs="+", help="a run of peers.py; without it the gate runs it itself")
    parser.add_argument("--again", type=Path, nargs="+", help="with --new: a second run, for a loss must show in both")
    parser.add_argument("--only", nargs="+", help="groups compared (default all that are stored)")
    parser.add_argument("--processes", type=int, default=3, help="of the gate's own run (default 3)")
    parser.add_argument("--turns", type=int, default=15, help="in a process of the gate's own run (default 15)")
    parser.add_argument("--margin", type=float, help="in place of 0.05 (same machine) and 0.35 (another)")
    args = parser.parse_args(arguments)
    if args.again is not None and args.new is None:
        parser.error("--again needs --new")
    stored = read(args.stored)
    if args.new is None:
        size = {"turns": args.turns, "processes": args.processes}
        result = of_own_runs(stored, groups=args.only, margin=args.margin, **size)
    else:
        try:
            result = verdicts(stored, read(args.new), groups=args.only, margin=args.margin)
            if args.again is not None:
                second = verdicts(stored, read(args.again), groups=args.only, margin=args.margin)
                result = with_second_opinion(result, second)
        except ValueError as error:
            parser.error(str(error))
    print(HEAD)
    for verdict in result:
        print(verdict.line())
    failed = [verdict for verdict in result if verdict.fails]
    print(f"{len(result)} rows, {len(failed)} that fail" if failed else f"{len(result)} rows, none that fails")
    return 1 if failed else 0


def read(paths: Sequence[Path]) -> Report:
    """A run of ``peers.py``; of several files of the same rows their processes together."""
    return joined([json.loads(path.read_text()) for path in paths])


def of_own_runs(
    stored: Report, *, groups: Sequence[str] | None, turns: int, processes: int, margin: float | None
) -> list[Verdict]:
    """Run the stored groups, and those with a loss once more."""
    import cv2
    import peers
    import torch
    from environment import cores

    torch.set_num_threads(cores())
    cv2.setNumThreads(cores())
    wanted = [group for group in peers.GROUPS if group in (groups or {row["group"] for row in stored["rows"]})]
    new = peers.run(wanted, turns=turns, processes=processes)
    first = verdicts(stored, new, groups=wanted, margin=margin)
    lost = {verdict.key for verdict in first if verdict.word == "LOSS"}
    again = [group for group in wanted if any(row["key"] in lost for row in stored["rows"] if row["group"] == group)]
    if not again:
        return first
    peers.say(f"a loss shows: {', '.join(again)} once more")
    new = peers.run(again, turns=turns, processes=processes)
    return with_second_opinion(first, verdicts(stored, new, groups=again, margin=margin))


if __name__ == "__main__":
    raise SystemExit(main())
