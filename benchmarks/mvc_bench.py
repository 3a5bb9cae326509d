"""Peak memory and time of a training step with masked video consistency, against a plain one.

The report says that MVC needs no more training memory. That holds when the masked graph is built after the clean one
has been back-propagated, as ``MVCWrapper.loss_terms`` is made for; the sum of both terms is measured beside it. Steps
are taken in turn (plain, MVC, summed, plain, ...) in one process; a step is forward, backward and AdamW.

On the CPU the peak is read off the profiler's record of every allocation and release, exact to the byte; on CUDA it is
``max_memory_allocated``. Weights, optimizer state and the batch count on both sides.

    python benchmarks/mvc_bench.py --out benchmarks/results/mvc.json
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mvcseg import MVCWrapper, PatchMask
from mvcseg.losses import PixelObjective
from mvcseg.models.compact import CompactSegmenter

MOST_MEMORY, MOST_TIME = 1.02, 2.05
"""What this project asks of MVC steps, as multiples of a plain step."""
SETTINGS = (
    {"B": 2, "T": 4, "H": 160, "W": 240, "K": 124},  # VSPW's classes
    {"B": 4, "T": 4, "H": 96, "W": 96, "K": 12},  # the shipped checkpoints' runs
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    result = {
        "what": "training step of CompactSegmenter, fp32, AdamW; mask patch_size 32, ratio 0.5",
        "asked": {"peak_memory_ratio": MOST_MEMORY, "seconds_ratio": MOST_TIME},
        "settings": [measured(setting, options.rounds, device) for setting in SETTINGS],
        "machine": {
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }
    print(json.dumps(result, indent=1))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n")


def measured(setting: dict[str, int], rounds: int, device: torch.device) -> dict[str, Any]:
    """One row: bytes once, as they repeat themselves; seconds as often as asked."""
    steps, fixed = build_steps(setting, device)
    for step in steps.values():
        step()
    memory = {name: fixed + peak_of(step, device) for name, step in steps.items()}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, step in steps.items():
            taken[name].append(seconds_of(step, device))
    row: dict[str, Any] = {
        "clip": setting,
        "peak_memory_bytes": memory,
        "peak_memory_ratio": {name: round(memory[name] / memory["plain"], 4) for name in ("mvc", "summed")},
        "rounds": rounds,
    }
    for clock, kind in enumerate(("seconds", "core_seconds")):
        values = {name: [pair[clock] for pair in pairs] for name, pairs in taken.items()}
        median = {name: statistics.median(value) for name, value in values.items()}
        ratios = [mvc / plain for mvc, plain in zip(values["mvc"], values["plain"], strict=True)]
        row[f"{kind}_median"] = {name: round(value, 4) for name, value in median.items()}
        row[f"{kind}_ratio"] = {
            "mvc, of the medians": round(median["mvc"] / median["plain"], 3),
            "mvc, median of the rounds": round(statistics.median(ratios), 3),
            "mvc, quartiles of the rounds": [round(value, 3) for value in statistics.quantiles(ratios, n=4)[::2]],
        }
    return row


def build_steps(setting: dict[str, int], device: torch.device) -> tuple[dict[str, Callable[[], None]], int]:
    """The three kinds of step on one batch, and the bytes that are there before any of them begins."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    batch, length, height, width, classes = (setting[letter] for letter in "BTHWK")
    model = CompactSegmenter(classes).to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    frames = torch.rand(batch, length, 3, height, width, generator=generator).to(device)
    labels = torch.randint(classes, (batch, length, height, width), generator=generator).to(device)
    objective, mvc = PixelObjective(), MVCWrapper(model, mask=PatchMask(patch_size=32, ratio=0.5))

    def step(back: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            back()
            optimizer.step()
            optimizer.zero_grad()

        return run

    def in_turn() -> None:
        for term in mvc.loss_terms(frames, labels):
            term.backward()

    steps = {
        "plain": step(lambda: objective(model, frames, labels).backward()),
        "mvc": step(in_turn),
        "summed": step(lambda: sum(mvc.loss_terms(frames, labels), torch.zeros((), device=device)).backward()),
    }
    weights = list(model.parameters())
    return steps, sum(size_of(tensor) for tensor in (*weights, *weights, *weights, frames, labels))


def size_of(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def peak_of(step: Callable[[], None], device: torch.device) -> int:
    """Most bytes alive at once during a step, above those alive when it begins."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as record:
        step()
    alive = peak = 0
    events = [event for event in record.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        alive += event.nbytes()
        peak = max(peak, alive)
    return peak


def seconds_of(step: Callable[[], None], device: torch.device) -> tuple[float, float]:
    """Seconds by the clock, and seconds of a core's work (on a busy machine the steadier of the two)."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start, worked = time.perf_counter(), time.process_time()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start, time.process_time() - worked


if __name__ == "__main__":
    main()
