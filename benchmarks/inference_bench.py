"""Seconds a frame of DVIS++ offline with ResNet-50, stage by stage and whole; weights drawn at random.

Float32 on the CPU, frames of 480 x 853. ``peers.py`` compares parts with others, ``peers_upstream.py`` the whole with
the reference, ``peak_memory.py`` measures memory. Other work on the machine stretches seconds, so the fastest turn
stands beside the median::

    python benchmarks/inference_bench.py speed --out benchmarks/results/inference.json
    python benchmarks/inference_bench.py autocast --out benchmarks/results/inference_autocast.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from mvcseg.models.dvis import build_dvis
from mvcseg.models.dvis.model import DVIS
from mvcseg.models.dvis.semantic import class_table, mask_logits, semantic_labels

SIZE = (480, 853)
PRESET = "vspw_offline_r50"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["speed", "autocast"])
    parser.add_argument("--out", type=Path, help="JSON file to write; standard output always gets it")
    parser.add_argument("--frames", type=int, default=6, help="frames of the whole model (default 6)")
    parser.add_argument("--turns", type=int, default=5, help="turns of each row (default 5)")
    args = parser.parse_args()
    torch.manual_seed(0)
    parts = {
        "speed": lambda: speed(args.frames, args.turns),
        "autocast": lambda: {"autocast": autocast_row(args.frames, args.turns)},
    }
    report = {"environment": environment(), "size": SIZE}
    report |= parts[args.part]()
    text = json.dumps(report, indent=2)
    print(text)
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text + "\n")


@torch.no_grad()
def speed(frames: int, turns: int) -> dict[str, Any]:
    model = build_dvis(PRESET).requires_grad_(False)
    video = Shapes(frames)
    rate, stages = best_rate(), stage_rows(model, video, turns)
    rate = max(rate, *(2 * row["giga_multiply_adds_per_frame"] / row["fastest"] for row in stages))
    stages = [row | {"floor_seconds": round(2 * row["giga_multiply_adds_per_frame"] / rate, 4)} for row in stages]
    whole = whole_row(model, video, turns)
    return {
        "highest_gflop_per_s": round(rate),
        "stages": stages,
        "whole": whole,
    }


def stage_rows(model: DVIS, video: Shapes, turns: int) -> list[dict[str, Any]]:
    """Every stage by itself on every frame: median and fastest seconds, and multiply-adds."""
    run_stages(model, video, lambda _, call, *args, **kwargs: call(*args, **kwargs))
    flops: dict[str, list[float]] = defaultdict(list)

    def count(name: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with FlopCounterMode(display=False) as counter:
            result = call(*args, **kwargs)
        flops[name].append(counter.get_total_flops())
        return result

    run_stages(model, video, count)
    times: dict[str, list[float]] = defaultdict(list)

    def clock(name: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        result = call(*args, **kwargs)
        times[name].append(time.perf_counter() - start)
        return result

    for _ in range(turns):
        run_stages(model, video, clock)
    rows = []
    for name, seconds in times.items():
        share = len(video) if name == "refiner" else 1  # it takes the video at once
        operations = statistics.median(flops[name]) / share
        rows.append(
            {
                "stage": name,
                "seconds_per_frame": round(statistics.median(seconds) / share, 4),
                "fastest": round(min(seconds) / share, 4),
                "giga_multiply_adds_per_frame": round(operations / 2e9, 2),
            }
        )
    return rows


def run_stages(model: DVIS, video: Shapes, measure: Callable[..., Any]) -> None:
    """What ``stream_labels`` does but for the spill file, call by call."""
    head, tracker, refiner = model.sem_seg_head, model.tracker, model.refiner
    state, kept = None, []
    for index in range(len(video)):
        images = measure("normalise", model.normalise, video[index : index + 1].float() / 255)
        maps = measure("backbone", model.backbone, images)
        pixels = measure("pixel decoder", head.pixel_decoder, maps)
        queries = measure("query decoder", head.predictor, pixels)
        embeds, unnormed = queries.embeds[:, None], queries.embeds_unnormed[:, None]
        tracked = measure("tracker", tracker, embeds, unnormed, state=state)
        state = tracked.state
        kept.append((tracked.embeds, unnormed, queries.mask_features[0]))
    embeds, memory = (torch.cat([item[place] for item in kept], dim=1) for place in (0, 1))
    refined = measure("refiner", refiner, embeds, memory)
    table = class_table(refined.class_logits[0])
    for kernels, (_, _, features) in zip(refined.mask_embeds[0], kept, strict=True):
        masks = measure("mask logits", mask_logits, kernels, features)
        measure("semantic labels", semantic_labels, masks, table, size=SIZE, output_size=SIZE)


def whole_row(model: DVIS, video: Shapes, turns: int) -> dict[str, Any]:
    times = []
    for _ in range(turns + 1):
        start = time.perf_counter()
        for _ in model.stream_labels(video, clip_length=4):
            pass
        times.append((time.perf_counter() - start) / len(video))
    seconds = statistics.median(times[1:])
    return {
        "name": f"{PRESET}, stream_labels with its spill file, {len(video)} frames",
        "seconds_per_frame": round(seconds, 3),
        "seconds_per_frame_of_a_turn": [round(min(times[1:]), 3), round(max(times[1:]), 3)],
        "frames_per_second": round(1 / seconds, 3),
    }


@torch.no_grad()
def autocast_row(frames: int, turns: int) -> dict[str, Any]:
    """Time alone: labels of weights drawn at random prove nothing, ``tests/models/dvis/test_autocast.py`` compares."""
    model, video = build_dvis(PRESET), Shapes(frames)

    def labels() -> Tensor:
        return torch.cat(list(model.stream_labels(video, clip_length=4)))

    def halved() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return labels()

    row = compare(labels, halved, turns=turns)
    del row["outputs"]
    return {"name": f"{PRESET} under bf16 autocast, {frames} frames", "peer": "float32"} | row


class Shapes:
    """A video made as it is read: smooth colours that drift, the same for every length."""

    def __init__(self, length: int) -> None:
        self.length = length
        gen = torch.Generator().manual_seed(7)
        coarse = 128 + 90 * torch.randn(1, 3, 12, 24, generator=gen)
        self.picture = functional.interpolate(coarse, size=(SIZE[0], 2 * SIZE[1]), mode="bicubic")[0]
        self.picture = self.picture.clamp(0, 255).to(torch.uint8)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: slice) -> Tensor:
        steps = range(*index.indices(self.length))
        return torch.stack([self.picture.roll(5 * step, dims=2)[:, :, : SIZE[1]] for step in steps])


def best_rate() -> float:
    """GFLOP a second of a product that a processor likes; the floor is counted with it, or with a faster stage."""
    x = torch.randn(1, 1024, 96, 96).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(1024, 1024, 1, 1).contiguous(memory_format=torch.channels_last)
    times = []
    for _ in range(40):
        start = time.perf_counter()
        functional.conv2d(x, weight)
        times.append(time.perf_counter() - start)
    return 2e-9 * 96 * 96 * 1024**2 / min(times)


def compare(peer: Callable[[], Any], ours: Callable[[], Any], *, turns: int) -> dict[str, Any]:
    """Both in turn."""
    outputs = peer(), ours()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(turns):
        for place, call in enumerate((peer, ours)):
            start = time.perf_counter()
            call()
            times[place].append(time.perf_counter() - start)
    ratios = [p / o for p, o in zip(*times, strict=True)]
    return {
        "turns": turns,
        "peer_ms": round(1e3 * statistics.median(times[0]), 2),
        "ours_ms": round(1e3 * statistics.median(times[1]), 2),
        "fastest_ms": [round(1e3 * min(column), 2) for column in times],
        "ratio": round(statistics.median(times[0]) / statistics.median(times[1]), 2),
        "ratio_of_a_turn": [round(min(ratios), 2), round(max(ratios), 2)],
        "outputs": outputs,
    }


def environment() -> dict[str, Any]:
    import transformers

    return {
        "python": platform.python_version(),
        "platform": f"{sys.platform} {platform.machine()}",
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "cpus": os.cpu_count(),
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "transformers": transformers.__version__,
        "load_average": [round(x, 1) for x in os.getloadavg()] if hasattr(os, "getloadavg") else None,
    }


if __name__ == "__main__":
    main()
