"""Deformable attention against the `grid_sample` formula, and linear maps against `torch.nn.functional.linear`.

Inference on the CPU. Each row takes turns with its peer in one process, after a warm-up; it holds medians, the ratio of
the medians, the lowest and highest ratio of a turn, and how far the outputs of the same run lie from float64::

    python benchmarks/deform_attn_bench.py --out benchmarks/results/deform_attn.json
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mvcseg.models.layers.deformable import DeformableAttention
from mvcseg.models.mask2former.deformable_encoder import pixel_centres
from mvcseg.ops.deform_attn import deformable_attention
from mvcseg.ops.linear import linear

Shapes = list[tuple[int, int]]

PIXEL_DECODER = {
    "480 x 864": [(15, 27), (30, 54), (60, 108)],
    "736 x 1280": [(23, 40), (46, 80), (92, 160)],
}
"""Maps of strides 32, 16 and 8."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file to write; standard output always gets it")
    parser.add_argument("--turns", type=int, default=15, help="turns of each row (default 15)")
    args = parser.parse_args()
    torch.manual_seed(0)
    with torch.inference_mode():
        rows = attention_rows(args.turns) + linear_rows(args.turns)
    report = {"environment": environment(), "rows": rows}
    text = json.dumps(report, indent=2)
    print(text)
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text + "\n")


def attention_rows(turns: int) -> list[dict[str, Any]]:
    rows = []
    for size, shapes in PIXEL_DECODER.items():
        tokens = sum(height * width for height, width in shapes)
        gen = torch.Generator().manual_seed(0)
        value = torch.randn(1, tokens, 8, 32, generator=gen)
        centres = torch.cat([pixel_centres(*shape, dtype=torch.float32) for shape in shapes])
        extent = torch.tensor([[width, height] for height, width in shapes])
        offsets = 3 * torch.randn(1, tokens, 8, 3, 4, 2, generator=gen)
        locations = centres[None, :, None, None, None] + offsets / extent[:, None]
        weights = torch.randn(1, tokens, 8, 12, generator=gen).softmax(-1).view(1, tokens, 8, 3, 4)
        about = f"{size}: {tokens} tokens, 8 heads, 3 levels x 4 points, float32"
        rows.append(
            {"name": f"deformable_attention, {about}", "peer": "the grid_sample formula"}
            | compare(
                lambda v=value, x=locations, w=weights, s=shapes: by_grid_sample(v, x, w, s),
                lambda v=value, x=locations, w=weights, s=shapes: deformable_attention(v, x, w, spatial_shapes=s),
                by_grid_sample(value.double(), locations.double(), weights.double(), shapes),
                turns=turns,
            )
        )
        module = DeformableAttention(256, levels=3, heads=8, points=4).requires_grad_(False)
        for parameter in (module.sampling_offsets.weight, module.attention_weights.weight):
            torch.nn.init.normal_(parameter, std=0.05, generator=gen)
        query, memory = torch.randn(2, 1, tokens, 256, generator=gen)
        exact = with_grid_sample(module.double(), query.double(), memory.double(), centres.double()[None], shapes)
        module.float()
        rows.append(
            {"name": f"DeformableAttention of 256 channels, {about}", "peer": "its formula with grid_sample"}
            | compare(
                lambda q=query, m=memory, c=centres[None], s=shapes, net=module: with_grid_sample(net, q, m, c, s),
                lambda q=query, m=memory, c=centres[None], s=shapes, net=module: net(
                    q, m, reference_points=c, spatial_shapes=s
                ),
                exact,
                turns=turns,
            )
        )
    return rows


def linear_rows(turns: int) -> list[dict[str, Any]]:
    rows = []
    for count, channels, outputs in ((8505, 256, 256), (8505, 256, 1024), (8505, 1024, 256), (1620, 1024, 1024)):
        gen = torch.Generator().manual_seed(0)
        x = torch.randn(count, channels, generator=gen)
        weight = torch.randn(outputs, channels, generator=gen) / channels**0.5
        row = compare(
            lambda x=x, w=weight: functional.linear(x, w),
            lambda x=x, w=weight: linear(x, w),
            functional.linear(x.double(), weight.double()),
            turns=turns,
        )
        operations = 2e-6 * count * channels * outputs
        rows.append(
            {"name": f"linear, {count} rows, {channels} to {outputs} channels", "peer": "functional.linear"}
            | row
            | {
                "ours_gflop_per_s": round(operations / row["ours_ms"]),
                "peer_gflop_per_s": round(operations / row["peer_ms"]),
            }
        )
    return rows


def by_grid_sample(value: Tensor, locations: Tensor, weights: Tensor, shapes: Shapes) -> Tensor:
    """Upstream's way on the CPU: every map sampled for every head, then weighed."""
    n, _, heads, depth = value.shape
    queries, points = locations.shape[1], locations.shape[4]
    grids = (2 * locations - 1).transpose(1, 2).flatten(0, 1)
    maps = value.split([height * width for height, width in shapes], dim=1)
    sampled = torch.stack(
        [
            functional.grid_sample(
                maps[level].flatten(2).transpose(1, 2).reshape(n * heads, depth, height, width),
                grids[:, :, level],
                align_corners=False,
            )
            for level, (height, width) in enumerate(shapes)
        ],
        dim=-2,
    )
    shares = weights.transpose(1, 2).reshape(n * heads, 1, queries, len(shapes) * points)
    return (sampled.flatten(-2) * shares).sum(-1).view(n, heads * depth, queries).transpose(1, 2).contiguous()


def with_grid_sample(
    module: DeformableAttention, query: Tensor, memory: Tensor, centres: Tensor, shapes: Shapes
) -> Tensor:
    n, tokens, _ = query.shape
    heads, levels, points = module.heads, module.levels, module.points
    offsets = module.sampling_offsets(query).view(n, tokens, heads, levels, points, 2)
    weights = module.attention_weights(query).view(n, tokens, heads, levels * points).softmax(-1)
    extent = query.new_tensor([[width, height] for height, width in shapes])
    locations = centres[:, :, None, None, None] + offsets / extent[:, None]
    value = module.value_proj(memory).view(n, tokens, heads, -1)
    gathered = by_grid_sample(value, locations, weights.view(n, tokens, heads, levels, points), shapes)
    return module.output_proj(gathered)


def compare(peer: Callable[[], Tensor], ours: Callable[[], Tensor], exact: Tensor, *, turns: int) -> dict[str, Any]:
    """Both in turn, and their largest differences from the result in float64."""
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
        "peer_ms": round(1e3 * statistics.median(times[0]), 3),
        "ours_ms": round(1e3 * statistics.median(times[1]), 3),
        "ratio": round(statistics.median(times[0]) / statistics.median(times[1]), 2),
        "ratio_of_a_turn": [round(min(ratios), 2), round(max(ratios), 2)],
        "peer_error": float((outputs[0] - exact).abs().max()),
        "ours_error": float((outputs[1] - exact).abs().max()),
    }


def environment() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "platform": f"{sys.platform} {platform.machine()}",
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "cpus": os.cpu_count(),
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "load_average": [round(x, 1) for x in os.getloadavg()] if hasattr(os, "getloadavg") else None,
    }


if __name__ == "__main__":
    main()
