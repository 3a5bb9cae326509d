"""mIoU + VC8 + VC16 of a 70-frame 480 x 853 video: `mvcseg.metrics` against the plain script, and from disk.

Both take turns in one process; a row holds medians, their ratio, that of the fastest runs, the least ratio of a turn
and the same for processor time, which a busy machine disturbs less (the script uses one core, the metrics all)::

    python benchmarks/scores_bench.py --out benchmarks/results/scores.json
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import vspw_scripts
from numpy.typing import NDArray

from mvcseg.data import class_colours, read_label_map, write_label_map
from mvcseg.data.vspw_classes import VSPW_CLASSES
from mvcseg.evaluation import evaluate
from mvcseg.metrics import MeanIoU, VideoConsistency, clip_consistency

FRAMES, HEIGHT, WIDTH, CLASSES = 70, 480, 853, 124
Maps = NDArray[np.uint8]


def coherent_video(rng: np.random.Generator) -> tuple[Maps, Maps]:
    """A panned patchwork of classes with void seams, predicted with blocks of wrong classes in every frame."""
    cell = 40
    patches = rng.integers(0, CLASSES + 1, (HEIGHT // cell + 4, WIDTH // cell + 6)).astype(np.uint8)
    canvas = np.repeat(np.repeat(patches, cell, axis=0), cell, axis=1)
    raw = np.stack([canvas[t // 2 : t // 2 + HEIGHT, t : t + WIDTH] for t in range(FRAMES)])
    pred = np.where(raw == 0, 0, raw - 1).astype(np.uint8)
    for frame in pred:
        for _ in range(60):
            top, left = rng.integers(0, HEIGHT - 30), rng.integers(0, WIDTH - 30)
            frame[top : top + 30, left : left + 30] = rng.integers(0, CLASSES)
    return pred, raw


def random_video(rng: np.random.Generator) -> tuple[Maps, Maps]:
    """Independent pixels over a still background: the worst case for anything that lives on coherence."""
    raw = rng.integers(0, CLASSES + 1, (FRAMES, HEIGHT, WIDTH)).astype(np.uint8)
    raw[:, :, : WIDTH // 2] = raw[:1, :, : WIDTH // 2]  # or no clip would have a steady pixel
    return rng.integers(0, CLASSES, raw.shape).astype(np.uint8), raw


@dataclass(frozen=True)
class LabelMaps:
    """Label maps of a video in memory: predictions, class ids and raw masks, ``(T, H, W)``."""

    pred: NDArray[Any]
    labels: Maps
    raw: Maps


def by_script(video: LabelMaps) -> tuple[float, float, float]:
    return (
        vspw_scripts.mean_iou([(video.pred, video.labels)], num_classes=CLASSES),
        vspw_scripts.video_consistency([(video.pred, video.raw)], clip_length=8),
        vspw_scripts.video_consistency([(video.pred, video.raw)], clip_length=16),
    )


def by_metrics(video: LabelMaps) -> tuple[float, float, float]:
    """The three metrics, each updated by itself."""
    miou, vc8, vc16 = MeanIoU(CLASSES), VideoConsistency(8), VideoConsistency(16)
    pred, labels, raw_labels = (torch.from_numpy(maps) for maps in (video.pred, video.labels, video.raw))
    miou.update(pred, labels)
    vc8.update(pred, raw_labels)
    vc16.update(pred, raw_labels)
    return miou.compute(), vc8.compute(), vc16.compute()


def by_metrics_together(video: LabelMaps) -> tuple[float, float, float]:
    """Both clip lengths in one pass, as `mvcseg.evaluation` does it."""
    miou, vc8, vc16 = MeanIoU(CLASSES), VideoConsistency(8), VideoConsistency(16)
    pred, labels, raw_labels = (torch.from_numpy(maps) for maps in (video.pred, video.labels, video.raw))
    miou.update(pred, labels)
    for metric, scores in zip((vc8, vc16), clip_consistency(pred, raw_labels, clip_lengths=(8, 16)), strict=True):
        metric.add_clips(scores)
    return miou.compute(), vc8.compute(), vc16.compute()


def compare(
    plain: Callable[[], tuple[float, ...]], ours: Callable[[], tuple[float, ...]], *, repeats: int
) -> dict[str, Any]:
    """Both in turn; their figures must agree to 1e-12."""
    expected, got = plain(), ours()
    difference = max(abs(a - b) for a, b in zip(expected, got, strict=True))
    if not difference < 1e-12:
        raise SystemExit(f"figures differ by {difference}: {expected} {got}")
    times: tuple[list[float], list[float]] = ([], [])
    cpu: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for run, record, cpu_record in zip((plain, ours), times, cpu, strict=True):
            start, cpu_start = time.perf_counter(), time.process_time()
            run()
            record.append(time.perf_counter() - start)
            cpu_record.append(time.process_time() - cpu_start)
    slow, fast = (statistics.median(record) for record in times)
    slow_cpu, fast_cpu = (statistics.median(record) for record in cpu)
    return {
        "figures": dict(zip(("mIoU", "VC8", "VC16"), got, strict=True)),
        "largest_difference": difference,
        "script_ms": round(1e3 * slow, 2),
        "mvcseg_ms": round(1e3 * fast, 2),
        "mvcseg_ms_range": [round(1e3 * min(times[1]), 2), round(1e3 * max(times[1]), 2)],
        "ratio": round(slow / fast, 2),
        "fastest_ms": {"script": round(1e3 * min(times[0]), 2), "mvcseg": round(1e3 * min(times[1]), 2)},
        "ratio_of_fastest": round(min(times[0]) / min(times[1]), 2),
        "script_cpu_ms": round(1e3 * slow_cpu, 2),
        "mvcseg_cpu_ms": round(1e3 * fast_cpu, 2),
        "cpu_ratio": round(slow_cpu / fast_cpu, 2),
        "least_ratio_of_a_turn": round(min(a / b for a, b in zip(*times, strict=True)), 2),
    }


def from_disk(video: LabelMaps, folder: Path, *, repeats: int, videos: int = 2) -> dict[str, Any]:
    """A split of equal videos: files decoded one by one and scored by the script, against `evaluate`."""
    colours = class_colours(VSPW_CLASSES)
    names = [f"video_{index}" for index in range(videos)]
    for name in names:
        for kind, maps in ((folder / "pred" / name, video.pred), (folder / "set/data" / name / "mask", video.raw)):
            kind.mkdir(parents=True)
            for index, frame in enumerate(maps):
                write_label_map(kind / f"{index:08d}.png", torch.from_numpy(frame), colours=colours)
    (folder / "set/val.txt").write_text("\n".join(names))

    def plain() -> tuple[float, ...]:
        loaded = []
        for name in names:
            files = sorted((folder / "set/data" / name / "mask").iterdir())
            raw_maps = np.stack([read_label_map(file).numpy() for file in files])
            pred_maps = np.stack([read_label_map(folder / "pred" / name / file.name).numpy() for file in files])
            loaded.append((pred_maps, raw_maps))
        mapped = [(pred_maps, vspw_scripts.class_ids(raw_maps)) for pred_maps, raw_maps in loaded]
        return (
            vspw_scripts.mean_iou(mapped, num_classes=CLASSES),
            vspw_scripts.video_consistency(loaded, clip_length=8),
            vspw_scripts.video_consistency(loaded, clip_length=16),
        )

    def ours() -> tuple[float, ...]:
        result = evaluate(folder / "pred", root=folder / "set", split="val", progress=False)
        return tuple(math.nan if result[key] is None else float(result[key] or 0) for key in ("mIoU", "VC8", "VC16"))

    return {**compare(plain, ours, repeats=repeats), "videos": videos}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    coherent, scattered = (
        LabelMaps(pred, vspw_scripts.class_ids(raw), raw) for pred, raw in (coherent_video(rng), random_video(rng))
    )
    rows: dict[str, Any] = {}
    for name, ours, video in (
        ("coherent maps, uint8", by_metrics, coherent),
        ("coherent maps, uint8, VC8 and VC16 in one pass", by_metrics_together, coherent),
        ("coherent maps, int64 predictions", by_metrics, replace(coherent, pred=coherent.pred.astype(np.int64))),
        ("random maps, uint8", by_metrics, scattered),
    ):
        rows[name] = compare(partial(by_script, video), partial(ours, video), repeats=options.repeats)
        print(name, json.dumps(rows[name]), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        rows["coherent maps, PNGs on disk"] = from_disk(coherent, Path(folder), repeats=3)
    print("disk", json.dumps(rows["coherent maps, PNGs on disk"]))
    report = {
        "benchmark": "scores",
        "size": {"frames": FRAMES, "height": HEIGHT, "width": WIDTH, "classes": CLASSES},
        "repeats": options.repeats,
        "environment": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
            "cores": os.cpu_count(),
            "threads": torch.get_num_threads(),
            "load_average_1_minute": round(os.getloadavg()[0], 1),
        },
        "rows": rows,
    }
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
