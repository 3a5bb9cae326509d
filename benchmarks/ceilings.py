"""How close each kernel comes to the machine's two ceilings: bytes that must be moved, operations that must be done.

Counts are in ``ceilings_counts.py``, rates are measured in the same run (``ceilings_rates.py``), before and after the
kernels, the faster of the two; kernels are called by public names, in the median of turns. Kernels for a GPU get the
ceilings of an H100's data sheet and are marked as unmeasured. About a minute on two cores::

    python benchmarks/ceilings.py --out benchmarks/results/ceilings.json
    python benchmarks/ceilings.py --table benchmarks/results/ceilings.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import torch
from ceilings_kernels import Kernel, Scale, on_a_gpu, on_the_cpu
from ceilings_rates import H100, UNITS, WORKING_SETS, Bandwidths, bandwidth_at, bandwidths, better, operation_rates
from environment import cores, environment, load_average
from turns import seconds_of, significant

Record = dict[str, Any]
HEAD = ("kernel", "MB", "bytes, ms", "operations", "operations, ms", "measured, ms", "of the higher ceiling")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    parser.add_argument("--turns", type=int, default=15, help="calls of each kernel, fewer of a long one (default 15)")
    parser.add_argument("--threads", type=int, default=cores(), help="of PyTorch and OpenCV (default the cores)")
    parser.add_argument("--table", type=Path, help="print the table of a JSON file instead of running")
    options = parser.parse_args(arguments)
    if options.table is not None:
        print(table(json.loads(options.table.read_text())))
        return 0
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    report = run(Scale(), turns=options.turns, threads=options.threads)
    print(table(report))
    if options.out is not None:
        options.out.write_text(json.dumps(report, indent=1) + "\n")
    return 0


@torch.no_grad()
def run(scale: Scale, *, turns: int, threads: int, working_sets: Sequence[int] = WORKING_SETS) -> Record:
    """Rates, kernels and rates again; kernels for a GPU without a measurement."""
    stamp = environment()

    def rates() -> Record:
        return {
            "bandwidth": bandwidths(working_sets, tries=turns),
            "operations": operation_rates(threads=threads, tries=turns, size=scale.size),
        }

    before = rates()
    timed = [(kernel.record(), median_of(kernel, turns=turns)) for kernel in on_the_cpu(scale)]
    found = better(before, rates())
    by_size: Bandwidths = found["bandwidth"]
    by_kind = found["operations"] | {"loads": max(max(both.values()) for both in by_size.values())}
    stamp |= {"load_average_after": load_average(), "turns": turns}
    return {
        "environment": stamp,
        "bandwidth": [
            {"working_set": size, **{way: significant(rate) for way, rate in both.items()}}
            for size, both in by_size.items()
        ],
        "rates": {kind: significant(rate) for kind, rate in by_kind.items()},
        "kernels": [
            compared(record, ceilings(record, bandwidth_at(record["bytes"], by_size), by_kind), seconds)
            for record, seconds in timed
        ],
        "gpu": {
            "published": {"device": "NVIDIA H100 SXM, data sheet", **H100},
            "kernels": [
                compared(kernel.record(), ceilings(kernel.record(), H100["bandwidth"], H100["rates"]), None)
                for kernel in on_a_gpu(scale)
            ],
        },
    }


def median_of(kernel: Kernel, *, turns: int, at_most: float = 4.0) -> float:
    """Median seconds of so many calls after a warm-up; after three, none is begun beyond so many seconds."""
    assert kernel.call is not None
    kernel.call()
    seconds: list[float] = []
    begin = time.perf_counter()
    while len(seconds) < turns and (len(seconds) < 3 or time.perf_counter() - begin < at_most):
        seconds.append(seconds_of(kernel.call))
    return statistics.median(seconds)


def ceilings(record: Record, bandwidth: float, rates: Mapping[str, float]) -> Record:
    """Milliseconds that the bytes and the operations of a kernel take at these rates, and what set them.

    Of several kinds of operations the slowest counts; a kind without a rate is left out.
    """
    by_kind = {kind: number / rates[kind] for kind, number in record["operations"].items() if kind in rates}
    kind = max(by_kind, key=lambda kind: by_kind[kind])
    return {
        "bandwidth": significant(bandwidth),
        "bytes_ms": significant(1e3 * record["bytes"] / bandwidth),
        "kind": kind,
        "operations_ms": significant(1e3 * by_kind[kind]),
    }


def compared(record: Record, limits: Record, seconds: float | None) -> Record:
    """A kernel's row; ``share`` is the higher ceiling over the time taken, None where none was."""
    higher = max(limits["bytes_ms"], limits["operations_ms"])
    measured = None if seconds is None else significant(1e3 * seconds)
    return record | limits | {"measured_ms": measured, "share": measured and significant(higher / measured)}


def table(report: Record) -> str:
    """Every kernel, those of a GPU marked as unmeasured, and the rates below."""
    rows = [*report["kernels"], *(row | {"kernel": f"H100: {row['kernel']}"} for row in report["gpu"]["kernels"])]
    lines = [f"| {' | '.join(HEAD)} |", "|---" + "|---:" * (len(HEAD) - 1) + "|"]
    lines += [f"| {' | '.join(cells(row))} |" for row in rows]
    widths = [
        f"{row['working_set'] >> 10:,} KiB {row['copy'] / 1e9:.0f} and {row['read'] / 1e9:.0f}"
        for row in report["bandwidth"]
    ]
    rates = [f"{amount(rate)} {UNITS[kind]}" for kind, rate in report["rates"].items()]
    notes = [
        f"GB a second copied and read, by working set: {', '.join(widths)}.",
        f"A second, on all threads: {', '.join(rates)}.",
    ]
    return "\n".join([*lines, "", *notes])


def cells(row: Record) -> list[str]:
    return [
        row["kernel"],
        f"{row['bytes'] / 1e6:,.3g}",
        f"{row['bytes_ms']:.3g}",
        f"{amount(row['operations'][row['kind']])} {UNITS[row['kind']]}",
        f"{row['operations_ms']:.3g}",
        "unmeasured" if row["measured_ms"] is None else f"{row['measured_ms']:,.3g}",
        "" if row["share"] is None else f"{100 * row['share']:.2g}%",
    ]


def amount(number: float) -> str:
    """Three digits and a thousand's power."""
    for power, name in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= power:
            return f"{float(f'{number / power:.3g}'):g}{name}"
    return f"{number:.3g}"


if __name__ == "__main__":
    raise SystemExit(main())
