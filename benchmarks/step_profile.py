"""Where the time of one training step goes, part by part and operator by operator, plain and with MVC.

A part's seconds are its own, without those of parts that it calls; what is computed a second time in the backward pass
counts as "again". Steps are taken in turn and a part's seconds are the median of its steps. Parts are timed by wrapping
functions and modules from outside; on CUDA the device is waited for at each border, which costs some time itself.

    python benchmarks/step_profile.py --out benchmarks/results/step_profile.json
    python benchmarks/step_profile.py --stage tracker --out benchmarks/results/step_profile.json   # one stage anew
"""

from __future__ import annotations

import argparse
import collections
import functools
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from environment import environment, load_average
from torch import nn
from training_steps import STAGES, Steps, build_steps
from turns import significant, wait_for

import mvcseg.mvc
from mvcseg.losses import (
    class_memory,
    contrastive,
    mask_set,
    objective,
    queries,
    reid,
    set_losses,
    set_matching,
    targets,
)

MODULES = {
    "model.backbone": "backbone",
    "model.sem_seg_head.pixel_decoder": "pixel decoder",
    "model.sem_seg_head.predictor": "query decoder",
    "model.tracker": "tracker",
    "model.refiner": "refiner",
    "segmenter.backbone": "backbone",
}
METHODS = ("forward", "layer_predictions", "forward_layers", "_layer", "_layers")
FUNCTIONS: tuple[tuple[Any, str, str], ...] = (
    (set_losses, "match_clip", "matching: rest"),
    (set_matching, "assign_pairs", "matching: assignment"),
    (set_matching, "mask_costs", "matching: costs"),
    (queries.FactoredMasks, "at", "matching: masks at points"),
    (queries.FactoredMasks, "chosen", "masks of targets"),
    (queries.FactoredMasks, "chosen_of_frames", "masks of targets"),
    (set_losses, "uncertain_points", "choice of points"),
    (targets.Targets, "at", "labels at points"),
    (set_losses, "mask_losses_at", "losses of masks"),
    (set_losses, "class_loss", "losses of classes"),
    (mask_set, "set_loss_terms", "losses: rest"),
    (objective, "pixel_cross_entropy", "losses of pixels"),
    (mvcseg.mvc, "apply_mask", "mask"),
    (reid.ReidContrast, "__call__", "contrast"),
    (contrastive.TrackerContrast, "__call__", "contrast"),
    (contrastive.RefinerContrast, "__call__", "contrast"),
    (class_memory.ClassMemory, "commit", "contrast"),
    (torch.Tensor, "backward", "backward"),
    (torch.optim.AdamW, "step", "optimizer"),
)
OPERATORS = 10
"""How many are listed."""


class Parts:
    """A stopwatch that knows which part is at work."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.seconds: collections.Counter[str] = collections.Counter()
        self._stack: list[str] = []
        self._since = 0.0

    def timed(self, call: Callable[..., Any], name: str) -> Callable[..., Any]:
        """The call, its seconds noted under a name."""

        @functools.wraps(call)
        def noted(*arguments: Any, **choices: Any) -> Any:
            self._turn_over()
            is_again = "backward" in self._stack and name != "backward"
            self._stack.append(f"again: {name.split(':')[0]}" if is_again else name)
            try:
                return call(*arguments, **choices)
            finally:
                self._turn_over()
                self._stack.pop()

        return noted

    def _turn_over(self) -> None:
        wait_for(self.device)
        now = time.perf_counter()
        if self._stack:
            self.seconds[self._stack[-1]] += now - self._since
        self._since = now


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", nargs="+", default=list(STAGES), choices=list(STAGES))
    parser.add_argument("--scale", type=float, default=0.5, help="factor on the sides of the frames (0.5)")
    parser.add_argument("--steps", type=int, default=3, help="of each kind (3)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    stored = json.loads(options.out.read_text()) if options.out and options.out.exists() else {"stages": {}}
    for name in options.stage:
        row = profiled(name, scale=options.scale, count=options.steps, device=options.device)
        stored["stages"][name] = row
        print("\n".join(table_of(name, row)), flush=True)
        if options.out:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(stored, indent=1) + "\n")


def profiled(name: str, *, scale: float, count: int, device: str) -> dict[str, Any]:
    """One stage: seconds by part, and the operators that take most of them."""
    record = environment(device=device)
    steps = build_steps(name, scale=scale, device=device)
    calls = {"plain": steps.plain, "mvc": steps.mvc}
    for call in calls.values():
        call()  # the optimizer makes its state
    operators = {kind: operators_of(call, device=device) for kind, call in calls.items()}
    parts = Parts(device)
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in calls}
    with_timing = wrapped(steps, parts)
    try:
        for _ in range(count):
            for kind, call in calls.items():
                parts.seconds.clear()
                parts.timed(call, "rest")()
                found[kind].append(dict(parts.seconds))
    finally:
        for owner, attribute, original in with_timing:
            setattr(owner, attribute, original)
    record["load_average_after"] = load_average()
    return {
        "clip": steps.clip,
        "steps": count,
        "seconds": {
            kind: significant(statistics.median(sum(one.values()) for one in rows)) for kind, rows in found.items()
        },
        "parts": {
            kind: {part: significant(statistics.median(one.get(part, 0.0) for one in rows)) for part in names_in(rows)}
            for kind, rows in found.items()
        },
        "operators": operators,
        "bytes": {"weights_optimizer_batch": steps.fixed_bytes, "gradients": gradient_bytes(steps.model)},
        "environment": record,
    }


def wrapped(steps: Steps, parts: Parts) -> list[tuple[Any, str, Any]]:
    """Time every part there is from here on; what was there before comes back, to be set again."""
    modules = dict(steps.model.named_modules())
    owners = [(modules[path], method, name) for path, name in MODULES.items() if path in modules for method in METHODS]
    if "model" not in modules:
        owners.append((steps.model, "forward", "model"))
    before = []
    for owner, attribute, name in (*owners, *FUNCTIONS):
        if hasattr(owner, attribute):
            original = getattr(owner, attribute)
            before.append((owner, attribute, original))
            setattr(owner, attribute, parts.timed(original, name))
    return before


def operators_of(call: Callable[[], None], *, device: str) -> list[dict[str, Any]]:
    """The operators with most seconds of their own in one step."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    is_cuda = torch.device(device).type == "cuda"
    if is_cuda:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as record:
        call()
        wait_for(device)
    rows = [
        (event.self_device_time_total if is_cuda else event.self_cpu_time_total, event.count, event.key)
        for event in record.key_averages()
    ]
    whole = sum(microseconds for microseconds, _, _ in rows)
    return [
        {
            "operator": key,
            "calls": calls,
            "seconds": significant(1e-6 * microseconds),
            "share": round(microseconds / whole, 4),
        }
        for microseconds, calls, key in sorted(rows, reverse=True)[:OPERATORS]
    ]


def gradient_bytes(model: nn.Module) -> int:
    return sum(each.numel() * each.element_size() for each in model.parameters() if each.requires_grad)


def names_in(rows: list[dict[str, float]]) -> list[str]:
    """Parts by falling seconds."""
    names = {name for row in rows for name in row}
    return sorted(names, key=lambda name: -statistics.median(row.get(name, 0.0) for row in rows))


def table_of(name: str, row: dict[str, Any]) -> list[str]:
    """Lines of the printed table, below 80 columns."""
    size = "{B} x {T} x {H} x {W}".format(**row["clip"])
    whole = row["seconds"]
    lines = [f"{name}, {size}", f"  {'part':<28}{'plain':>9}{'':>8}{'MVC':>9}{'':>8}{'ratio':>7}"]
    plain, mvc = row["parts"]["plain"], row["parts"]["mvc"]
    for part in dict.fromkeys([*plain, *mvc]):
        one, two = plain.get(part, 0.0), mvc.get(part, 0.0)
        ratio = f"{two / one:7.2f}" if one else f"{'-':>7}"
        lines.append(
            f"  {part:<28}{one:>7.3f} s{100 * one / whole['plain']:>6.1f} %{two:>7.3f} s"
            f"{100 * two / whole['mvc']:>6.1f} %{ratio}"
        )
    ratio = f"{whole['mvc'] / whole['plain']:7.2f}"
    lines.append(f"  {'a step':<28}{whole['plain']:>7.3f} s{'':>8}{whole['mvc']:>7.3f} s{'':>8}{ratio}")
    lines += [
        f"  {100 * each['share']:>5.1f} %  {each['calls']:>5} calls  {each['operator'][:50]}"
        for each in row["operators"]["plain"]
    ]
    return lines


if __name__ == "__main__":
    main()
