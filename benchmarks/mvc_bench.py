"""Time and peak memory of a training step with masked video consistency, as multiples of a plain step.

The report says that MVC needs no more training memory. That holds when the masked graph is built after the clean one
has been back-propagated, as ``MVCWrapper.loss_terms`` is made for. Steps are taken in turn in one process. Weights,
gradients, the optimizer's state and the batch count on both sides.

    python benchmarks/mvc_bench.py --out benchmarks/results/mvc.json
    python benchmarks/mvc_bench.py --stages refiner --turns 3 --out benchmarks/results/mvc.json   # one row anew
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path
from typing import Any

import torch
from environment import environment, load_average
from training_steps import STAGES, build_steps, peak_of
from turns import five_numbers, significant, take_turns

MOST_MEMORY, MOST_TIME = 1.02, 2.05
"""What this project asks of MVC steps, as multiples of a plain step."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=list(STAGES))
    parser.add_argument("--scale", type=float, default=0.5, help="factor on the sides of the frames (0.5)")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=60.0, help="of turns for each stage, but three turns at least")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--no-memory", action="store_true", help="keep the stored bytes, which need a minute a stage")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result: dict[str, Any] = {
        "what": "training step, fp32, AdamW; MVC with patch_size 32, ratio 0.5; 124 classes, compact_toy 12",
        "asked": {"peak_memory_ratio": MOST_MEMORY, "seconds_ratio": MOST_TIME},
        "stages": json.loads(options.out.read_text())["stages"] if options.out and options.out.exists() else {},
    }
    for name in options.stages:
        stored = result["stages"].get(name, {})
        result["stages"][name] = measured(name, options, stored)
        print(line_of(name, result["stages"][name]), flush=True)
        if options.out:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(result, indent=1) + "\n")


def measured(name: str, options: argparse.Namespace, stored: dict[str, Any]) -> dict[str, Any]:
    """One row: seconds in turn, then bytes once, as they repeat themselves."""
    steps = build_steps(name, scale=options.scale, device=options.device)
    begin = environment(device=options.device)
    turns = take_turns(steps.plain, steps.mvc, turns=options.turns, device=options.device, at_most=options.seconds)
    begin["load_average_after"] = load_average()
    ratios = [mvc / plain for plain, mvc in zip(turns.ours, turns.peer, strict=True)]
    row: dict[str, Any] = {
        "clip": steps.clip,
        "turns": len(ratios),
        "seconds_median": {
            "plain": significant(statistics.median(turns.ours)),
            "mvc": significant(statistics.median(turns.peer)),
        },
        "seconds_ratio": significant(statistics.median(turns.peer) / statistics.median(turns.ours)),
        "seconds_ratio_of_a_turn": [significant(value) for value in five_numbers(ratios)],
        "seconds": {
            "plain": [significant(one, 5) for one in turns.ours],
            "mvc": [significant(one, 5) for one in turns.peer],
        },
    }
    if options.no_memory and stored.get("clip") == steps.clip:
        kept = {key: value for key, value in stored.items() if "memory" in key}
    elif options.no_memory:
        kept = {}
    else:
        peaks = {
            "plain": steps.fixed_bytes + peak_of(steps.plain, options.device),
            "mvc": steps.fixed_bytes + peak_of(steps.mvc, options.device),
        }
        kept = {
            "peak_memory_bytes": peaks,
            "peak_memory_ratio": round(peaks["mvc"] / peaks["plain"], 4),
            "memory_measured_at": begin["commit"],
        }
    return row | kept | {"environment": begin}


def line_of(name: str, row: dict[str, Any]) -> str:
    """One line of the printed table, below 80 columns."""
    size = "{B} x {T} x {H} x {W}".format(**row["clip"])
    plain, mvc = row["seconds_median"]["plain"], row["seconds_median"]["mvc"]
    memory = row.get("peak_memory_ratio")
    told = "-" if memory is None else f"{memory:.3f} of {row['peak_memory_bytes']['plain'] / 1e6:.0f} MB"
    return f"{name:<10}{size:<18}{plain:>7.3f} s {mvc:>7.3f} s  x{row['seconds_ratio']:.3f}  {told}"


if __name__ == "__main__":
    if hasattr(torch.backends.cuda, "matmul"):
        torch.backends.cuda.matmul.allow_tf32 = False
    main()
