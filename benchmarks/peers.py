r"""The standing comparison: every fast part of the library against its peers, in turn in the same process.

All groups of rows in three fresh processes, some 11 minutes on two cores; some groups, whose rows take the place of a
file's own; and, without a run, the table, the page and the figure of what was measured::

    python benchmarks/peers.py --out benchmarks/results/peers.json
    python benchmarks/peers.py --out benchmarks/results/peers.json --only vote ssim
    python benchmarks/peers.py --table benchmarks/results/peers.json --write-docs docs/performance.md \
        --figure docs/peers.svg

Both sides get the same threads of PyTorch and of OpenCV. A process runs every row once, then the next one does, so that
what the machine does meanwhile meets all rows alike. Outputs of both sides are compared in every process; the exit
status is 1 where any lie further apart than the row allows, after all rows ran and were written. ``gate.py`` compares
two files.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import cv2
import torch
from environment import cores, environment, load_average
from peers_processes import joined
from peers_row import Row, measured

GROUPS = {
    "vote": ("peers_vote", "rows"),
    "ssim": ("peers_ssim", "rows"),
    "scores": ("peers_scores", "rows"),
    "views": ("peers_views", "rows"),
    "flow": ("peers_flow", "flow_rows"),
    "select": ("peers_flow", "select_rows"),
    "deform": ("peers_attention", "rows"),
    "linear": ("peers_attention", "linear_rows"),
    "semantic": ("peers_segmenter", "semantic_rows"),
    "segmenter": ("peers_segmenter", "rows"),
}
"""Module and function of each group of rows; a module's packages are asked for only when its group runs."""

PACKAGES = ("kornia", "torchmetrics", "ttach", "transformers")

ALLOCATOR = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")
"""Settings that decide how memory is given back to the system, and with it much of the spread between processes."""


def main(arguments: Sequence[str] | None = None) -> int:
    args = parsed(arguments)
    if args.table is not None:
        return shown(args)
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    report = run(args.only or list(GROUPS), turns=args.turns, device=args.device, processes=args.processes)
    if args.out is not None:
        old = json.loads(args.out.read_text()) if args.out.exists() else None
        write_json(args.out, merged(old, report))
    return fails(report["rows"])


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file to write, or to bring up to date with --only")
    parser.add_argument("--only", nargs="+", choices=list(GROUPS), help="groups of rows (default all)")
    parser.add_argument("--processes", type=int, default=3, help="in which every row runs anew (default 3)")
    parser.add_argument("--turns", type=int, default=15, help="turns of a short row in a process (default 15)")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default cpu)")
    parser.add_argument("--threads", type=int, default=cores(), help="of PyTorch and OpenCV (default the cores)")
    parser.add_argument("--table", type=Path, nargs="+", help="print the table of JSON files instead of running")
    parser.add_argument("--figure", type=Path, help="with --table: SVG to draw")
    parser.add_argument("--write-docs", type=Path, help="with --table: page whose table is renewed")
    args = parser.parse_args(arguments)
    if args.table is None and (args.figure is not None or args.write_docs is not None):
        parser.error("--figure and --write-docs need --table")
    if args.processes < 1:
        parser.error("--processes: expected at least 1")
    return args


def run(groups: Sequence[str], *, turns: int, device: str = "cpu", processes: int = 1) -> dict[str, Any]:
    """Measure groups of rows: here, or in several fresh processes one after the other with the threads of this one."""
    if processes == 1:
        return run_here(groups, turns=turns, device=device)
    reports = []
    for index in range(processes):
        say(f"process {index + 1} of {processes}")
        reports.append(run_apart(groups, turns=turns, device=device))
    report = joined(reports)
    for row in report["rows"]:
        say(line_of(row))
    return report


def run_apart(groups: Sequence[str], *, turns: int, device: str) -> dict[str, Any]:
    """`run_here` in a process of its own.

    Raises:
        RuntimeError: it ended without a result.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "out.json")
        command = [sys.executable, __file__, "--processes", "1", "--out", str(out), "--turns", str(turns)]
        command += ["--device", device, "--threads", str(torch.get_num_threads()), "--only", *groups]
        ended = subprocess.run(command, check=False)
        if not out.exists():
            raise RuntimeError(f"process: no result, exit status {ended.returncode}")
        report: dict[str, Any] = json.loads(out.read_text())
        return report


def run_here(groups: Sequence[str], *, turns: int, device: str) -> dict[str, Any]:
    """Measure groups of rows in this process, and say on standard error how each came out."""
    stamp = environment(PACKAGES, device=device)
    rows: list[dict[str, Any]] = []
    skipped: list[str] = []
    for group in groups:
        for row in rows_of(group, device):
            if torch.device(device).type not in row.devices:
                skipped.append(row.key)
                say(f"{row.key}: skipped, it makes no sense on {device}")
                continue
            start = time.perf_counter()
            result = {"group": group, "run": 0} | measured(row, turns=turns, device=device)
            say(f"{line_of(result)}  [{time.perf_counter() - start:.0f} s]")
            rows.append(result)
        gc.collect()
    stamp |= {"load_average_after": load_average(), "device": device, "turns": turns, "processes": 1}
    stamp["allocator"] = {name: os.environ[name] for name in ALLOCATOR if name in os.environ}
    return {"runs": [stamp | {"groups": list(groups), "skipped": skipped}], "rows": rows}


def rows_of(group: str, device: str) -> Iterator[Row]:
    """Rows of a group, each made when it is asked for; nothing keeps gradients."""
    module, name = GROUPS[group]
    make: Callable[..., Iterator[Row]] = getattr(import_module(module), name)
    with torch.no_grad():
        yield from make(device=device)


def merged(old: Mapping[str, Any] | None, new: Mapping[str, Any]) -> dict[str, Any]:
    """The old file with the groups of the new run in place of its own; runs no row stems from are dropped."""
    runs = [*(old["runs"] if old else []), *new["runs"]]
    first = len(runs) - len(new["runs"])
    groups = {group for stamp in new["runs"] for group in stamp["groups"]}
    kept = [row for row in (old["rows"] if old else []) if row["group"] not in groups]
    rows = kept + [row | {"run": row["run"] + first} for row in new["rows"]]
    order = list(GROUPS)
    rows.sort(key=lambda row: order.index(row["group"]) if row["group"] in order else len(order))
    used = sorted({row["run"] for row in rows})
    return {"runs": [runs[index] for index in used], "rows": [row | {"run": used.index(row["run"])} for row in rows]}


def write_json(path: Path, report: Mapping[str, Any]) -> None:
    """In one step: a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(json.dumps(report, indent=1) + "\n")
    beside.replace(path)


def line_of(row: Mapping[str, Any]) -> str:
    """A row in at most 80 columns, with a mark where outputs differ."""
    low, high = row["ratio_of_a_turn"][0], row["ratio_of_a_turn"][-1]
    verdict = "" if row["equal"] else f"  OUTPUTS DIFFER: {row['difference']}"
    return f"{row['key'][:44]:44} {row['ratio']:7.2f}x  ({low:.2f} to {high:.2f}){verdict}"


def fails(rows: Sequence[Mapping[str, Any]]) -> int:
    """1 where outputs of a row differ by more than it allows, each named; 0 otherwise."""
    wrong = [row for row in rows if not row["equal"]]
    for row in wrong:
        say(f"outputs differ: {row['key']}: {row['difference']}, allowed {row['tolerance']} ({row['measure']})")
    return 1 if wrong else 0


def shown(args: argparse.Namespace) -> int:
    """Table, page and figure of files measured before."""
    from peers_table import page_with, table

    reports = [json.loads(path.read_text()) for path in args.table]
    print(table(reports))
    if args.write_docs is not None:
        args.write_docs.write_text(page_with(args.write_docs.read_text(), reports))
    if args.figure is not None:
        from peers_figure import draw

        draw([row for report in reports for row in report["rows"]], args.figure)
    return 0


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
