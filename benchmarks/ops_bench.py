"""Vote, flow, SSIM of label maps and selection against `torch.mode`, OpenCV and scikit-image.

Each row takes turns with its peer in one process, after a warm-up; it holds medians, the ratio of the medians, the
lowest and highest ratio of a turn, and how far the outputs differ in the same run::

    python benchmarks/ops_bench.py --out benchmarks/results/ops.json
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

import cv2
import numpy as np
import skimage
import torch
from skimage.data import astronaut
from skimage.metrics import structural_similarity
from torch import Tensor
from torch.nn import functional

from mvcseg.ensemble.flow_ssim import select_model
from mvcseg.flow import FarnebackFlow
from mvcseg.ops.ssim import label_ssim, ssim
from mvcseg.ops.vote import majority

HEIGHT, WIDTH, VIEWS, CLASSES = 480, 853, 8, 8
FARNEBACK = (0.5, 3, 15, 3, 5, 1.2, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file to write; standard output always gets it")
    parser.add_argument("--turns", type=int, default=15, help="turns of each short row (default 15)")
    parser.add_argument("--frames", type=int, default=70, help="frames of the flow and selection rows (default 70)")
    parser.add_argument("--long-turns", type=int, default=5, help="turns of the flow and selection rows (default 5)")
    parser.add_argument("--only", choices=["vote", "ssim", "flow"], help="one group of rows")
    args = parser.parse_args()
    rows: list[dict[str, Any]] = []
    if args.only in (None, "vote"):
        rows += vote_rows(args.turns)
    if args.only in (None, "ssim"):
        rows += ssim_rows(args.turns)
    if args.only in (None, "flow"):
        rows += flow_rows(args.frames, args.long_turns)
    report = {"environment": environment(), "size": [HEIGHT, WIDTH], "rows": rows}
    text = json.dumps(report, indent=2)
    print(text)
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text + "\n")


def vote_rows(turns: int) -> list[dict[str, Any]]:
    """Random labels, label maps that agree but for noise, and label maps of views, that differ along borders."""
    gen = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 124, (VIEWS, HEIGHT, WIDTH), generator=gen, dtype=torch.uint8)
    patches = torch.randint(0, 124, (9, 16), generator=gen, dtype=torch.uint8)
    patchwork = patches.repeat_interleave(60, dim=0).repeat_interleave(60, dim=1)[:HEIGHT, :WIDTH]
    noisy = torch.where(torch.rand(noise.shape, generator=gen) < 0.05, noise, patchwork)
    shapes = class_shapes(HEIGHT + 8, WIDTH + 8, seed=1)
    views = torch.stack([shapes[v : v + HEIGHT, v % 3 : v % 3 + WIDTH] for v in range(VIEWS)])
    rows = []
    for name, maps in (("random", noise), ("coherent, 5% noise", noisy), ("coherent, moved borders", views)):
        for dtype in (torch.uint8, torch.int64):
            stack = maps.to(dtype)
            row = compare(
                lambda stack=stack: torch.mode(stack, dim=0).values,
                lambda stack=stack: majority(stack, num_classes=124),
                turns=turns,
            )
            counts = torch.stack([(stack == one).sum(dim=0) for one in stack])
            leads = counts == counts.amax(dim=0)
            unique = (torch.where(leads, stack, 0).amax(dim=0)) == (torch.where(leads, stack, 255).amin(dim=0))
            peer, ours = row.pop("outputs")
            wrong = int((peer != ours)[unique].sum()) + int((ours != stack[0])[~unique].sum())
            label = f"vote of {VIEWS} maps, {name}, {str(dtype).removeprefix('torch.')}"
            rows.append(
                {"name": label, "peer": "torch.mode(maps, dim=0)"}
                | row
                | {"tied_share": float((~unique).float().mean()), "pixels_that_differ_where_they_must_agree": wrong}
            )
    return rows


def ssim_rows(turns: int) -> list[dict[str, Any]]:
    shapes = class_shapes(HEIGHT + 8, WIDTH + 8, seed=2)
    a = shapes[None, 4 : 4 + HEIGHT, 4 : 4 + WIDTH].contiguous()
    b = with_blobs(shapes[None, 4 : 4 + HEIGHT, 2 : 2 + WIDTH].contiguous(), number=20, seed=3)
    planes = [(x == 2)[0].double().numpy() for x in (a, b)]
    row = compare(
        lambda: structural_similarity(*planes, data_range=1.0),
        lambda: label_ssim(a, b, num_classes=CLASSES),
        turns=turns,
        share=1 / CLASSES,
    )
    peer, ours = row.pop("outputs")
    rows = [
        {"name": f"SSIM of one-hot label maps, a class of {CLASSES}", "peer": "structural_similarity of one class"}
        | row
        | {"disagreeing_pixels": float((a != b).float().mean()), "difference": abs(peer - float(ours[0, 2]))}
    ]
    image = photograph()[:, :HEIGHT, :WIDTH][None]
    moved = photograph()[:, 1 : 1 + HEIGHT, 2 : 2 + WIDTH][None]
    for dtype in (torch.float32, torch.float64):
        x, y = image.to(dtype) / 255, moved.to(dtype) / 255
        row = compare(
            lambda x=x, y=y: [
                structural_similarity(x[0, c].numpy(), y[0, c].numpy(), data_range=1.0) for c in range(3)
            ],
            lambda x=x, y=y: ssim(x, y, data_range=1.0),
            turns=turns,
        )
        peer, ours = row.pop("outputs")
        rows.append(
            {"name": f"SSIM of an RGB frame, {str(dtype).removeprefix('torch.')}", "peer": "structural_similarity"}
            | row
            | {"difference": max(abs(p - float(o)) for p, o in zip(peer, ours[0], strict=True))}
        )
    return rows


def flow_rows(frames: int, turns: int) -> list[dict[str, Any]]:
    video, candidates = moving_scene(frames)
    grey = [cv2.cvtColor(np.ascontiguousarray(f.permute(1, 2, 0).numpy()), cv2.COLOR_RGB2GRAY) for f in video]
    flow = FarnebackFlow()

    def loop() -> list[np.ndarray]:
        return [
            cv2.calcOpticalFlowFarneback(source, target, None, *FARNEBACK)
            for source, target in zip(grey[1:], grey[:-1], strict=True)
        ]

    def ours() -> Tensor:
        parts = []
        for start in range(0, frames - 1, 13):
            real = video[start : min(start + 13, frames - 1) + 1] / 255
            parts.append(flow(real[1:], real[:-1]))
        return torch.cat(parts)

    about = f"{frames - 1} pairs"
    row = compare(loop, ours, turns=turns)
    peer, got = row.pop("outputs")
    difference = max(float(np.abs(p - o.permute(1, 2, 0).numpy()).max()) for p, o in zip(peer, got, strict=True))
    rows = [
        {"name": f"Farneback flow from float RGB, {about}", "peer": "loop of cv2.calcOpticalFlowFarneback on grey"}
        | row
        | {"difference": difference}
    ]
    row = compare(loop, lambda: select_model(video, candidates, num_classes=CLASSES, flow=flow), turns=turns)
    choice = row.pop("outputs")[1]
    rows.append(
        {
            "name": f"select_model of two candidates, {CLASSES} classes, {about}",
            "peer": "loop of cv2.calcOpticalFlowFarneback alone, OpenCV's own threads",
        }
        | row
        | {"chosen": choice.name, "scores": choice.scores}
    )
    return rows


def compare(peer: Callable[[], Any], ours: Callable[[], Any], *, turns: int, share: float = 1.0) -> dict[str, Any]:
    """Both in turn; our times count ``share`` (a part of the work that equals the peer's)."""
    outputs = peer(), ours()
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(turns):
        for place, call in enumerate((peer, ours)):
            start = time.perf_counter()
            call()
            times[place].append(time.perf_counter() - start)
    slow, fast = times[0], [share * t for t in times[1]]
    ratios = [p / o for p, o in zip(slow, fast, strict=True)]
    return {
        "turns": turns,
        "peer_ms": round(1e3 * statistics.median(slow), 3),
        "ours_ms": round(1e3 * statistics.median(fast), 3),
        "ratio": round(statistics.median(slow) / statistics.median(fast), 2),
        "ratio_of_a_turn": [round(min(ratios), 2), round(max(ratios), 2)],
        "outputs": outputs,
    }


def class_shapes(height: int, width: int, *, seed: int) -> Tensor:
    """A label map of smooth regions."""
    gen = torch.Generator().manual_seed(seed)
    heights = functional.interpolate(
        torch.randn(1, CLASSES, 12, 20, generator=gen), size=(height, width), mode="bicubic"
    )
    return heights[0].argmax(dim=0).to(torch.uint8)


def with_blobs(labels: Tensor, *, number: int, seed: int) -> Tensor:
    """The same label maps with spurious squares of 12 pixels in each."""
    rng = np.random.default_rng(seed)
    labels = labels.clone()
    for item in labels:
        for _ in range(number):
            top, left = rng.integers(0, HEIGHT - 12), rng.integers(0, WIDTH - 12)
            item[top : top + 12, left : left + 12] = int(rng.integers(0, CLASSES))
    return labels


def photograph() -> Tensor:
    """scikit-image's astronaut at 720 x 1280, uint8 ``(3, H, W)``."""
    picture = torch.from_numpy(astronaut()).permute(2, 0, 1)[None].float()
    resized = functional.interpolate(picture, size=(720, 1280), mode="bicubic", align_corners=False)
    return resized[0].round().clamp(0, 255).to(torch.uint8)


def moving_scene(frames: int) -> tuple[Tensor, dict[str, Tensor]]:
    """A camera that pans over a photograph, and two label videos that follow it, one with more flicker."""
    picture, shapes = photograph(), class_shapes(720, 1280, seed=4)
    corners = [(t, 3 * t if t < 70 else 210) for t in range(frames)]
    video = torch.stack([picture[:, y : y + HEIGHT, x : x + WIDTH] for y, x in corners])
    labels = torch.stack([shapes[y : y + HEIGHT, x : x + WIDTH] for y, x in corners])
    return video, {
        "steady": with_blobs(labels, number=10, seed=5),
        "flicker": with_blobs(labels, number=40, seed=6),
    }


def environment() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "platform": f"{sys.platform} {platform.machine()}",
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "cpus": os.cpu_count(),
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
        "opencv": cv2.__version__,
        "opencv_threads": cv2.getNumThreads(),
        "numpy": np.__version__,
        "scikit-image": skimage.__version__,
        "load_average": [round(x, 1) for x in os.getloadavg()] if hasattr(os, "getloadavg") else None,
    }


if __name__ == "__main__":
    main()
