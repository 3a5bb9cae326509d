"""Peak memory of a training step with masked video consistency, against a plain one, in each stage of DVIS++.

A step is forward, backward and AdamW, as ``mvcseg train`` takes it: the clean loss is back-propagated before the masked
pass begins. The peak is read off the profiler's record of every allocation and release on the CPU (exact to the byte,
the same on a busy machine), and off ``max_memory_allocated`` on CUDA. Weights, gradients from the step before (none:
they are set to None), optimizer state and the batch count on both sides; a second ratio leaves them out.

    python benchmarks/mvc_stages_bench.py --out benchmarks/results/mvc_stages.json
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mvc_bench import MOST_MEMORY, peak_of, seconds_of, size_of
from torch import Tensor

from mvcseg import MVCWrapper, PatchMask
from mvcseg.losses.class_memory import ClassMemory
from mvcseg.models.dvis import PRESETS, build_dvis
from mvcseg.models.dvis.noise import QueryNoise
from mvcseg.training.groups import published_groups
from mvcseg.training.stage_objective import stage_objective
from mvcseg.training.stages import RefinerStage, TrackerStage, build_stage

STAGES = {
    "segmenter": {"preset": "vspw_ctvis_r50", "B": 1, "T": 4, "H": 320, "W": 576},
    "tracker": {"preset": "vspw_online_r50", "B": 1, "T": 5, "H": 480, "W": 864},
    "refiner": {"preset": "vspw_offline_r50", "B": 1, "T": 21, "H": 240, "W": 432},
}
"""Published models and clip lengths; of the 8 or 16 clips one, as a process of the published runs has; smaller frames.

The larger the frames, the less the gradients count that only an MVC step holds during its forward pass.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the sides of the frames")
    parser.add_argument("--num-points", type=int, default=12544)
    parser.add_argument("--stages", nargs="+", default=list(STAGES), choices=list(STAGES))
    parser.add_argument("--guided", action="store_true", help="the first half of a run, in which a guide assigns")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    device = torch.device(options.device)
    rows = {}
    for name in options.stages:
        rows[name] = measured(name, options, device)
        print(name, json.dumps(rows[name], indent=1), flush=True)
    result = {
        "what": "training step of DVIS++ stages, fp32, AdamW; mask patch_size 32, ratio 0.5, 124 classes",
        "asked": {"peak_memory_ratio": MOST_MEMORY},
        "num_points": options.num_points,
        "guided": options.guided,
        "stages": rows,
        "machine": {
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=1) + "\n")


def measured(name: str, options: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """One stage: bytes of a plain and of an MVC step."""
    steps, fixed = build_steps(name, options, device)
    for step in steps.values():
        step()  # the optimizer makes its state
    peaks = {kind: peak_of(step, device) for kind, step in steps.items()}
    seconds = {kind: round(seconds_of(step, device)[1], 2) for kind, step in steps.items()}
    whole = {kind: fixed + peak for kind, peak in peaks.items()}
    return {
        **STAGES[name],
        "scale": options.scale,
        "peak_memory_bytes": whole,
        "peak_memory_ratio": round(whole["mvc"] / whole["plain"], 4),
        "bytes_above_weights_and_batch": peaks,
        "ratio_above_weights_and_batch": round(peaks["mvc"] / peaks["plain"], 4),
        "core_seconds_of_one_step": seconds,
    }


def build_steps(
    name: str, options: argparse.Namespace, device: torch.device
) -> tuple[dict[str, Callable[[], None]], int]:
    """A plain and an MVC step on one batch, and the bytes that are there before either begins."""
    torch.manual_seed(0)
    numbers: Any = STAGES[name]
    config = PRESETS[numbers["preset"]]
    stage = build_stage(build_dvis(config).to(device), noise=QueryNoise("wa") if name == "tracker" else None)
    assert name == "segmenter" or isinstance(stage, (TrackerStage, RefinerStage))
    memory = ClassMemory(config.num_classes, width=config.query_width) if name == "refiner" else None
    objective = stage_objective(stage, num_points=options.num_points, memory=memory)
    shape = (numbers["B"], numbers["T"], *(round(numbers[side] * options.scale) for side in "HW"))
    frames = torch.rand(*shape[:2], 3, *shape[2:]).to(device)
    labels = blocks(shape, config.num_classes).to(device)
    progress = 0.0 if options.guided else 0.9
    objective = objective.for_step(size=objective.size(labels), progress=progress)
    mvc = MVCWrapper(stage, mask=PatchMask(patch_size=32, ratio=0.5), objective=objective)  # type: ignore[arg-type]
    optimizer = torch.optim.AdamW(published_groups(stage, learning_rate=1e-4, weight_decay=0.05))

    def generators() -> list[torch.Generator]:
        return [torch.Generator(device).manual_seed(number) for number in range(numbers["B"])]

    def plain() -> None:
        objective.with_generators(generators())(stage, frames, labels).backward()  # type: ignore[arg-type]

    def in_turn() -> None:
        for term in mvc.loss_terms(frames, labels, generator=generators()):
            term.backward()

    def step(back: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            back()
            optimizer.step()
            optimizer.zero_grad()
            if memory is not None:
                memory.commit()

        return run

    trained = [parameter for parameter in stage.parameters() if parameter.requires_grad]
    held: list[Tensor] = [*stage.parameters(), *stage.buffers(), *trained, *trained, frames, labels]
    return {"plain": step(plain), "mvc": step(in_turn)}, sum(size_of(tensor) for tensor in held)


def blocks(shape: tuple[int, ...], num_classes: int) -> Tensor:
    """Label maps of a dozen classes, as a frame of VSPW has."""
    coarse = torch.randint(0, num_classes, (12,))[torch.randint(0, 12, (*shape[:2], 4, 6))]
    rows = torch.arange(shape[2]) * 4 // shape[2]
    columns = torch.arange(shape[3]) * 6 // shape[3]
    return coarse[:, :, rows][..., columns]


if __name__ == "__main__":
    main()
