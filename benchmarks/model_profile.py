"""Where a frame of DVIS++ goes on the CPU: seconds, operations and rate of every stage, and its largest PyTorch calls.

Offline ResNet-50, 480 x 853, weights drawn at random; float32, or bf16 with ``--autocast``. Stages follow one another
frame by frame, as in a video; the refiner takes the video at once and counts a frame's share. The profiler runs apart,
since it costs time::

    python benchmarks/model_profile.py --out benchmarks/results/model_profile.json --name after
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from environment import environment
from predict_share import drifting
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode
from turns import significant

from mvcseg.models.dvis import build_dvis
from mvcseg.models.dvis.model import DVIS
from mvcseg.models.dvis.semantic import class_table, mask_logits, semantic_labels

PRESET, SIZE = "vspw_offline_r50", (480, 853)
Measure = Callable[..., Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="now", help="of this profile in the file (default now)")
    parser.add_argument("--frames", type=int, default=4)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--autocast", action="store_true", help="under bf16 autocast")
    parser.add_argument("--out", type=Path, help="JSON file; profiles of other names in it are kept")
    options = parser.parse_args()
    torch.manual_seed(0)
    model = build_dvis(PRESET).requires_grad_(False).eval()
    with torch.autocast("cpu", torch.bfloat16, enabled=options.autocast):
        stages = profiled(model, torch.stack(list(drifting(options.frames, SIZE))), turns=options.turns)
    kept = json.loads(options.out.read_text()) if options.out is not None and options.out.exists() else {}
    kept[options.name] = {"environment": environment(), "preset": PRESET, "size": SIZE, "stages": stages}
    print(json.dumps(stages, indent=1))
    if options.out is not None:
        options.out.write_text(json.dumps(kept, indent=1) + "\n")


@torch.no_grad()
def profiled(model: DVIS, video: Tensor, *, turns: int) -> dict[str, dict[str, Any]]:
    """Stage by stage: median and fastest milliseconds a frame, GFLOP, GFLOP a second at the median, and top calls."""
    run_stages(model, video, lambda _, call, *args, **named: call(*args, **named))
    seconds: dict[str, list[float]] = defaultdict(list)
    operations: dict[str, int] = defaultdict(int)
    calls: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))

    def clock(name: str, call: Measure, *args: Any, **named: Any) -> Any:
        start = time.perf_counter()
        result = call(*args, **named)
        seconds[name].append(time.perf_counter() - start)
        return result

    def count(name: str, call: Measure, *args: Any, **named: Any) -> Any:
        with FlopCounterMode(display=False) as counter:
            result = call(*args, **named)
        operations[name] += counter.get_total_flops()
        return result

    def look(name: str, call: Measure, *args: Any, **named: Any) -> Any:
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            result = call(*args, **named)
        for event in seen.key_averages():
            calls[name][event.key] += event.self_cpu_time_total / 1e3
        return result

    for _ in range(turns):
        run_stages(model, video, clock)
    run_stages(model, video, count)
    run_stages(model, video[:1], look)
    return {
        name: _row(
            [each * len(seconds[name]) / (turns * len(video)) for each in seconds[name]],
            operations[name],
            calls[name],
            len(video),
        )
        for name in seconds
    }  # seconds of a call, shared out over the frames it serves


def _row(seconds: list[float], operations: int, calls: dict[str, float], frames: int) -> dict[str, Any]:
    a_frame = statistics.median(seconds)
    largest = sorted(calls.items(), key=lambda item: -item[1])[:5]
    return {
        "ms": significant(1e3 * a_frame),
        "fastest_ms": significant(1e3 * min(seconds)),
        "gflop": significant(operations / frames / 1e9),
        "gflop_per_s": significant(operations / frames / 1e9 / a_frame),
        "top_calls_ms": {name: significant(spent) for name, spent in largest},
    }


def run_stages(model: DVIS, video: Tensor, measure: Measure) -> None:
    """What ``stream_labels`` does but for the spill file, call by call."""
    head, tracker, refiner = model.sem_seg_head, model.tracker, model.refiner
    assert tracker is not None
    assert refiner is not None
    state, kept = None, []
    for frame in torch.split(video, 1):
        images = measure("normalise", model.normalise, frame.float() / 255)
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
        measure("semantic labels", semantic_labels, masks, table, size=video.shape[-2:], output_size=video.shape[-2:])


if __name__ == "__main__":
    main()
