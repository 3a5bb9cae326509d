"""Seconds a frame and peak memory of DVIS++ offline with ResNet-50, stage by stage and whole; weights drawn at random.

Float32 on the CPU, frames of 480 x 853. Peers take turns with ours in one process, after a warm-up: transformers'
Mask2Former of the same backbone, size and query count, the `grid_sample` formula, upstream's semantic output written
down. Upstream's own figures are constants, measured on another machine. Peak memory is that of a fresh process (Linux).
Other work on the machine stretches seconds, so the fastest turn stands beside the median::

    python benchmarks/inference_bench.py speed --out benchmarks/results/inference.json
    python benchmarks/inference_bench.py memory --out benchmarks/results/inference_memory.json
    python benchmarks/inference_bench.py growth --lengths 100 400 --out benchmarks/results/inference_growth.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from deform_attn_bench import PIXEL_DECODER, by_grid_sample
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from mvcseg import iter_labels
from mvcseg.models.dvis import build_dvis
from mvcseg.models.dvis.model import DVIS
from mvcseg.models.dvis.semantic import class_table, mask_logits, semantic_labels
from mvcseg.models.mask2former.deformable_encoder import pixel_centres
from mvcseg.ops.deform_attn import deformable_attention

SIZE, PADDED = (480, 853), (480, 864)
PRESET = "vspw_offline_r50"
UPSTREAM = {
    "remark": "DVIS++ offline R50 on two CPU cores, 6 frames, measured elsewhere: ratios to it compare two machines",
    "seconds_per_frame": 3.66,
    "peak_gib": 4.0,
    "seconds_per_frame_by_stage": {
        "backbone": 0.65,
        "pixel decoder": 1.97,
        "query decoder": 0.43,
        "semantic labels": 0.45,
    },
    "transformers_segmenter_seconds": 2.65,
}
"""As given with the targets."""
TARGETS = {
    "whole model, frames per second to upstream's": 1.5,
    "peak memory, share of upstream's at most": 0.5,
    "segmenter to transformers'": 1.25,
    "deformable attention to grid_sample": 6,
    "semantic labels to upstream's way": 2.5,
    "peak at the longest to the shortest video, at most": 1.1,
    "ViT-L, 5 frames, peak GB below": 12,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["speed", "autocast", "memory", "growth", "process"])
    parser.add_argument("--out", type=Path, help="JSON file to write; standard output always gets it")
    parser.add_argument("--frames", type=int, default=6, help="frames of the whole model (default 6)")
    parser.add_argument("--turns", type=int, default=5, help="turns of each row (default 5)")
    parser.add_argument("--lengths", type=int, nargs="+", default=[100, 400], help="growth: frames of the videos")
    parser.add_argument("--presets", nargs="+", default=[PRESET, "vspw_online_r50"], help="growth: models")
    parser.add_argument(
        "--every",
        type=int,
        default=1,
        help="growth: run backbone and head on every n-th frame alone (default 1: on all)",
    )
    parser.add_argument("--model", default=PRESET, help="process: a preset, or 'transformers'")
    args = parser.parse_args()
    torch.manual_seed(0)
    if args.part == "process":
        print(json.dumps(process(args.model, args.frames, args.every)))
        return
    parts = {
        "speed": lambda: speed(args.frames, args.turns),
        "autocast": lambda: {"autocast": autocast_row(args.frames, args.turns)},
        "memory": lambda: memory(args.frames),
        "growth": lambda: {"growth": [growth(preset, args.lengths, args.every) for preset in args.presets]},
    }
    report = {"environment": environment(), "size": SIZE, "targets": TARGETS, "upstream": UPSTREAM}
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
        "peers": [
            segmenter_row(model, turns),
            attention_row(3 * turns),
            semantic_row(model, 3 * turns),
        ],
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
        "ratio_to_upstream_measured_elsewhere": round(UPSTREAM["seconds_per_frame"] / seconds, 2),
    }


def segmenter_row(model: DVIS, turns: int) -> dict[str, Any]:
    peer, images = transformers_segmenter(), model.normalise(Shapes(1)[0:1].float() / 255)
    row = compare(
        lambda: peer(pixel_values=images).masks_queries_logits,
        lambda: model.sem_seg_head(model.backbone(images)).masks(),
        turns=turns,
    )
    shapes = [tuple(output.shape) for output in row.pop("outputs")]
    return {"name": "segmenter, frame to mask logits", "peer": "transformers.Mask2Former", "shapes": shapes} | row


def attention_row(turns: int) -> dict[str, Any]:
    shapes = PIXEL_DECODER["480 x 864"]
    tokens = sum(height * width for height, width in shapes)
    gen = torch.Generator().manual_seed(0)
    value = torch.randn(1, tokens, 8, 32, generator=gen)
    centres = torch.cat([pixel_centres(*shape, dtype=torch.float32) for shape in shapes])
    extent = torch.tensor([[width, height] for height, width in shapes])
    offsets = 3 * torch.randn(1, tokens, 8, 3, 4, 2, generator=gen)
    locations = centres[None, :, None, None, None] + offsets / extent[:, None]
    weights = torch.randn(1, tokens, 8, 12, generator=gen).softmax(-1).view(1, tokens, 8, 3, 4)
    row = compare(
        lambda: by_grid_sample(value, locations, weights, shapes),
        lambda: deformable_attention(value, locations, weights, spatial_shapes=shapes),
        turns=turns,
    )
    peer, ours = row.pop("outputs")
    about = f"deformable attention, {tokens} tokens, 8 heads, 3 levels x 4 points"
    return {"name": about, "peer": "the grid_sample formula"} | row | {"difference": float((peer - ours).abs().max())}


def semantic_row(model: DVIS, turns: int) -> dict[str, Any]:
    gen = torch.Generator().manual_seed(0)
    queries = model.segment(Shapes(1)[0:1].float() / 255)
    coarse = 4 * torch.randn(1, 100, 15, 27, generator=gen)  # masks of some extent, not of noise
    masks = functional.interpolate(coarse, size=queries.mask_features.shape[-2:], mode="bicubic", align_corners=False)
    table = class_table(3 * torch.randn(100, 125, generator=gen))
    innermost = masks[0].permute(1, 2, 0).contiguous()
    row = compare(
        lambda: upstream_labels(masks, table),
        lambda: semantic_labels(innermost, table, size=SIZE, output_size=SIZE)[0],
        turns=turns,
    )
    peer, ours = row.pop("outputs")
    return (
        {
            "name": "mask logits to labels, 100 masks, 124 classes",
            "peer": "upstream's way: full-size masks, then einsum",
        }
        | row
        | {"pixels_that_differ": int((peer != ours).sum())}
    )


def upstream_labels(masks: Tensor, table: Tensor) -> Tensor:
    """Logits enlarged, cropped, made probabilities, resized to the output, multiplied, arg-max: all full-size."""
    full = functional.interpolate(masks, size=PADDED, mode="bilinear", align_corners=False)
    shares = full[..., : SIZE[0], : SIZE[1]].sigmoid()
    shares = functional.interpolate(shares, size=SIZE, mode="bilinear", align_corners=False)[0]
    return torch.einsum("qk,qhw->khw", table, shares).argmax(dim=0)


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


def memory(frames: int) -> dict[str, Any]:
    rows = [in_process(PRESET, frames), in_process("vspw_online_r50", frames)]
    rows += [in_process("vspw_offline_vitl", 5), in_process("transformers", 1)]
    peak = rows[0]["peak_gib"]
    return {"memory": rows, "offline_r50_peak_to_upstream_measured_elsewhere": round(peak / UPSTREAM["peak_gib"], 3)}


def growth(preset: str, lengths: list[int], every: int) -> dict[str, Any]:
    rows = [in_process(preset, length, every) for length in lengths]
    peaks = [row["peak_gib"] for row in rows]
    return {
        "preset": preset,
        "segmenter_runs_on_every_nth_frame": every,
        "runs": rows,
        "peak_of_longest_to_shortest": round(peaks[-1] / peaks[0], 4),
    }


def in_process(model: str, frames: int, every: int = 1) -> dict[str, Any]:
    command = [sys.executable, __file__, "process", "--model", model, "--frames", str(frames), "--every", str(every)]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    row: dict[str, Any] = json.loads(result.stdout)
    print(row, file=sys.stderr)
    return row


@torch.no_grad()
def process(name: str, frames: int, every: int) -> dict[str, Any]:
    """Resident memory of this process, and what it rose to: run in one of its own."""
    start = resident("VmRSS")
    if name == "transformers":
        peer = transformers_segmenter()
        built = resident("VmRSS")
        clock = time.perf_counter()
        for frame in Shapes(frames)[:].split(1):
            peer(pixel_values=functional.pad(frame.float() / 255, (0, PADDED[1] - SIZE[1])))
    else:
        model = build_dvis(name)
        model.segment = repeating(model.segment, every)
        built = resident("VmRSS")
        clock = time.perf_counter()
        for _ in iter_labels(model, Shapes(frames), clip_length=4):
            pass
    seconds = time.perf_counter() - clock
    peak = resident("VmHWM")
    return {
        "model": name,
        "frames": frames,
        "seconds_per_frame": round(seconds / frames, 3),
        "after_imports_gib": round(start / 2**30, 3),
        "model_built_gib": round(built / 2**30, 3),
        "peak_gib": round(peak / 2**30, 3),
        "peak_gb": round(peak / 1e9, 3),
        "above_the_built_model_gib": round((peak - built) / 2**30, 3),
    }


def repeating(segment: Callable[[Tensor], Any], every: int) -> Callable[[Tensor], Any]:
    """The segmenter, its answer given several times over: its memory knows no past, its seconds are most of all."""
    calls, last = 0, None

    def call(frame: Tensor) -> Any:
        nonlocal calls, last
        if calls % every == 0:
            last = None  # before the next is made, as without this function
            last = segment(frame)
        calls += 1
        return last

    return call


def resident(entry: str) -> int:
    """Bytes: VmRSS now, VmHWM at most so far (in this process alone, unlike ``getrusage``)."""
    found = re.search(rf"{entry}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None, f"no {entry} in /proc/self/status"
    return 1024 * int(found.group(1))


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


def transformers_segmenter() -> nn.Module:
    from transformers import Mask2FormerConfig, Mask2FormerForUniversalSegmentation, ResNetConfig

    backbone = ResNetConfig(out_features=["stage1", "stage2", "stage3", "stage4"])  # its defaults are ResNet-50
    config = Mask2FormerConfig(backbone_config=backbone, num_queries=100, num_labels=124)
    return Mask2FormerForUniversalSegmentation(config).eval()


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
