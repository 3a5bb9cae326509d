"""What a GPU is asked for, in one command: whole models, kernels against plain PyTorch, operations against the CPU.

Every row takes turns in one process, waits for the device inside the timing, and compares outputs; without a CUDA
device nothing is measured and the exit status is 2. Whole models take a checkpoint each: with weights drawn at random
seconds are right, but labels lie so close that their share of equal pixels says nothing::

    python benchmarks/peers_gpu.py --r50 R50.pth --vitl VITL.pth --out benchmarks/results/gpu.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from environment import environment
from torch import Tensor, nn
from torch.nn import functional
from turns import significant, take_turns, wait_for

from mvcseg import iter_labels
from mvcseg.flow import FarnebackFlow, TensorFarnebackFlow
from mvcseg.loading import load_checkpoint
from mvcseg.metrics.video_consistency import clip_consistency
from mvcseg.models.dvis import build_dvis
from mvcseg.models.dvis.semantic import semantic_labels
from mvcseg.ops.confusion import confusion_matrix
from mvcseg.ops.deform_attn import deformable_attention
from mvcseg.ops.ssim import label_ssim
from mvcseg.ops.triton_support import disabled
from mvcseg.ops.vote import majority
from mvcseg.ops.warp import warp_labels
from mvcseg.segmenter import Segmenter

Row = dict[str, Any]
MODELS = {"r50": ("vspw_online_r50", (480, 853), 60.0), "vitl": ("vspw_online_vitl", (720, 1280), 10.0)}
"""Preset, size of the frames, and frames a second asked for in bf16."""
TARGETS = {"equal labels": 0.999, "attention": 3.0, "flow": 20.0, "flow difference, pixels": 0.05}


@dataclass(frozen=True)
class Scale:
    """How much work the rows do.

    Attributes:
        size: ``(height, width)`` of frames and label maps.
        frames: of a video or clip.
        classes: of label maps.
        queries: masks of semantic decoding.
        turns: of each row.
    """

    size: tuple[int, int] = (480, 853)
    frames: int = 17
    classes: int = 124
    queries: int = 100
    turns: int = 15


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, (preset, _, _) in MODELS.items():
        parser.add_argument(f"--{name}", metavar="FILE", help=f"checkpoint of {preset} (default: drawn at random)")
    parser.add_argument("--frames", type=int, default=60, help="frames of the whole models' videos (default 60)")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    options = parser.parse_args(arguments)
    if not torch.cuda.is_available():
        print("no CUDA device: nothing measured", file=sys.stderr)
        return 2
    rows = []
    for row in every_row(options, Scale(), device="cuda"):
        print(line(row), flush=True)
        rows.append(row)
    report = {"environment": environment(["triton"], device="cuda"), "targets": TARGETS, "rows": rows}
    if options.out is not None:
        options.out.write_text(json.dumps(report, indent=1) + "\n")
    return 0


def every_row(options: argparse.Namespace, scale: Scale, *, device: str) -> Iterator[Row]:
    yield from attention_rows(scale, device=device)
    yield semantic_row(scale, device=device)
    yield flow_row(scale, device=device)
    yield from label_rows(scale, device=device)
    for name, (preset, size, asked) in MODELS.items():
        file = getattr(options, name)
        if file is None:
            torch.manual_seed(0)
            model: Segmenter = build_dvis(preset).requires_grad_(False).eval().to(device)
        else:
            model = load_checkpoint(file, preset=preset, device=device).segmenter
        video = photographs(options.frames, size)
        yield model_row(name, model, video, asked=asked, is_trained=file is not None, device=device)
        del model


def model_row(
    name: str, model: Segmenter, video: Tensor, *, asked: float, is_trained: bool, device: str, turns: int = 5
) -> Row:
    """Label maps of a whole video under bf16 autocast against float32, frames moved from the host included."""

    def labels() -> Tensor:
        return torch.cat(list(iter_labels(model, video, clip_length=8)))

    def halved() -> Tensor:
        with torch.autocast(device, torch.bfloat16):
            return labels()

    peaks = {kind: peak_of(work, device=device) for kind, work in (("bf16", halved), ("fp32", labels))}
    timed = take_turns(halved, labels, turns=turns, device=device)
    same = float((timed.our_output == timed.peer_output).double().mean())
    rates = {"bf16": timed.ours, "fp32": timed.peer}
    return {
        "name": f"model/{name}",
        "peer": "float32",
        "frames": len(video),
        "size": list(video.shape[-2:]),
        "frames_per_second": {kind: significant(len(video) / statistics.median(s)) for kind, s in rates.items()},
        "asked_frames_per_second_bf16": asked,
        "share_of_equal_labels": same if is_trained else None,
        "equal_labels_remark": None if is_trained else "weights drawn at random: labels prove nothing",
        "peak_bytes": peaks,
    } | timed.record()


def attention_rows(scale: Scale, *, device: str) -> Iterator[Row]:
    """Deformable attention, forward, and forward with backward, against `grid_sample`."""
    shapes = [(-(-scale.size[0] // stride), -(-scale.size[1] // stride)) for stride in (32, 16, 8)]
    tokens = sum(height * width for height, width in shapes)
    gen = torch.Generator().manual_seed(0)
    value = torch.randn(1, tokens, 8, 32, generator=gen)
    locations = torch.rand(1, tokens, 8, 3, 4, 2, generator=gen)
    weights = torch.randn(1, tokens, 8, 12, generator=gen).softmax(-1).view(1, tokens, 8, 3, 4)
    inputs = [tensor.to(device) for tensor in (value, locations, weights)]
    upward = torch.randn(1, tokens, 256, generator=gen).to(device)

    def forward() -> list[Tensor]:
        with torch.no_grad():
            return [deformable_attention(*inputs, spatial_shapes=shapes)]

    def backward() -> list[Tensor]:
        leaves = [tensor.clone().requires_grad_() for tensor in inputs]
        return list(torch.autograd.grad(deformable_attention(*leaves, spatial_shapes=shapes), leaves, upward))

    for name, work in (("forward", forward), ("forward and backward", backward)):
        peaks = {"ours": peak_of(work, device=device), "peer": peak_of(plain(work), device=device)}
        timed = take_turns(work, plain(work), turns=scale.turns, device=device)
        difference = max(
            float((one - other).abs().max() / other.abs().max())
            for one, other in zip(timed.our_output, timed.peer_output, strict=True)
        )
        yield {
            "name": f"attention/{name}",
            "peer": "the grid_sample formula on the same device",
            "tokens": tokens,
            "difference_to_largest": difference,
            "asked_ratio": TARGETS["attention"],
            "peak_bytes": peaks,
        } | timed.record()


def semantic_row(scale: Scale, *, device: str) -> Row:
    """Mask logits to labels in one kernel against strips of plain PyTorch."""
    height, width = (-(-side // 32) * 8 for side in scale.size)
    gen = torch.Generator().manual_seed(0)
    coarse = 4 * torch.randn(1, scale.queries, 15, 27, generator=gen)
    masks = functional.interpolate(coarse, size=(height, width), mode="bicubic")[0].permute(1, 2, 0).contiguous()
    table = (3 * torch.randn(scale.queries, scale.classes + 1, generator=gen)).softmax(-1)[:, :-1]
    masks, table = masks.to(device), table.to(device)

    def labels() -> Tensor:
        return semantic_labels(masks, table, size=scale.size, output_size=scale.size)[0]

    peaks = {"ours": peak_of(labels, device=device), "peer": peak_of(plain(labels), device=device)}
    timed = take_turns(labels, plain(labels), turns=scale.turns, device=device)
    same = float((timed.our_output == timed.peer_output).double().mean())
    row = {"name": "semantic", "peer": "strips in plain PyTorch", "share_of_equal_labels": same, "peak_bytes": peaks}
    return row | timed.record()


def flow_row(scale: Scale, *, device: str) -> Row:
    """Farneback's flow as tensor operations against OpenCV's on the CPU, its threads as they come."""
    frames = photographs(scale.frames, scale.size).float() / 255
    here = frames.to(device)
    ours, theirs = TensorFarnebackFlow(), FarnebackFlow()
    timed = take_turns(
        lambda: ours(here[1:], here[:-1]),
        lambda: theirs(frames[1:], frames[:-1]),
        turns=max(1, scale.turns // 3),
        device=device,
    )
    apart = (timed.our_output.cpu() - timed.peer_output).norm(dim=1)
    return {
        "name": "flow",
        "peer": "OpenCV on the CPU",
        "pairs": len(frames) - 1,
        "mean_difference_pixels": float(apart.mean()),
        "largest_difference_pixels": float(apart.max()),
        "asked_ratio": TARGETS["flow"],
        "asked_mean_difference_pixels": TARGETS["flow difference, pixels"],
    } | timed.record()


def label_rows(scale: Scale, *, device: str) -> Iterator[Row]:
    """Operations on label maps that stay on the device, against the same on the CPU; equal outputs are asked."""
    maps = torch.stack([regions(scale, seed=seed) for seed in range(2)])
    maps = torch.stack([maps, maps.roll(2, dims=-1)]).flatten(0, 1)
    votes = torch.stack([maps[:1].roll(shift, dims=-1) for shift in range(8)])
    video = torch.cat([maps[:1].roll(shift, dims=-1) for shift in range(scale.frames)])
    moved = torch.full((len(maps), 2, *scale.size), 1.5)
    one, other, classes = maps, maps.roll(1, dims=0), scale.classes
    works: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...]]] = {
        "label ssim": (lambda a, b: label_ssim(a, b, num_classes=classes), (one, other)),
        "warp": (warp_labels, (maps.unsqueeze(1), moved)),
        "vote": (lambda v: majority(v, num_classes=classes), (votes,)),
        "confusion": (lambda a, b: confusion_matrix(a, b, num_classes=classes), (one, other)),
        "clip consistency": (
            lambda a: torch.cat(clip_consistency(a, video.to(a.device), clip_lengths=(8, 16))),
            (video.roll(1, dims=-1),),
        ),
    }
    for name, (work, arguments) in works.items():
        there = tuple(argument.to(device) for argument in arguments)
        timed = take_turns(partial(work, *there), partial(work, *arguments), turns=scale.turns, device=device)
        result, expected = timed.our_output, timed.peer_output
        is_near = torch.allclose(result.cpu().double(), expected.double(), rtol=0, atol=1e-9, equal_nan=True)
        yield {
            "name": f"labels/{name}",
            "peer": "the same on the CPU",
            "stays_on_device": result.device.type == torch.device(device).type,
            "outputs_agree": is_near,
        } | timed.record()


def plain(work: Callable[[], Any]) -> Callable[[], Any]:
    """The same without kernels in Triton."""

    def call() -> Any:
        with disabled():
            return work()

    return call


def peak_of(work: Callable[[], Any], *, device: str) -> int | None:
    """Most bytes of the device in use while it runs; None on the CPU, where nobody counts them."""
    if torch.device(device).type != "cuda":
        return None
    work()  # compiles
    wait_for(device)
    torch.cuda.reset_peak_memory_stats(device)
    work()
    wait_for(device)
    return torch.cuda.max_memory_allocated(device)


def photographs(frames: int, size: tuple[int, int]) -> Tensor:
    """A textured picture that pans, uint8 ``(T, 3, H, W)``."""
    gen = torch.Generator().manual_seed(5)
    height, width = size
    picture = torch.zeros(1, 3, height + frames, width + 3 * frames)
    for cells, strength in ((8, 60.0), (40, 30.0), (160, 12.0)):
        coarse = torch.randn(1, 3, cells, 2 * cells, generator=gen)
        picture += strength * nn.functional.interpolate(coarse, size=picture.shape[-2:], mode="bicubic")
    picture = (picture[0] + 128).clamp(0, 255).to(torch.uint8)
    return torch.stack([picture[:, t : t + height, 3 * t : 3 * t + width] for t in range(frames)])


def regions(scale: Scale, *, seed: int) -> Tensor:
    """A label map of smooth regions, uint8 ``(H, W)``."""
    gen = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, scale.classes, (1, 1, 12, 20), generator=gen).float()
    return functional.interpolate(coarse, size=scale.size, mode="nearest")[0, 0].to(torch.uint8)


def line(row: Row) -> str:
    """One row in words, what is asked beside what came."""
    parts = [f"{row['name']} against {row['peer']}: ratio {row['ratio']}"]
    parts += [
        f"{key.replace('_', ' ')} {value}" for key, value in row.items() if key.startswith(("asked", "frames_per"))
    ]
    told = ("difference_to_largest", "mean_difference_pixels", "share_of_equal_labels", "outputs_agree", "peak_bytes")
    parts += [f"{key.replace('_', ' ')} {row[key]}" for key in told if row.get(key) is not None]
    return ", ".join(parts)


if __name__ == "__main__":
    sys.exit(main())
