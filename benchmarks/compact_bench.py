"""Frames a second of the compact segmenter, eval mode, fp32; on the CPU also a second of one core's work.

The latter is what holds on a busy machine, where threads wait for each other and for other programs.

python benchmarks/compact_bench.py --out benchmarks/results/compact.json
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from pathlib import Path

import torch

from mvcseg.models.compact import CompactSegmenter

SETTINGS = (
    {"T": 8, "H": 96, "W": 160, "K": 12},  # the demo's videos
    {"T": 8, "H": 480, "W": 853, "K": 124},  # VSPW's
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    result = {
        "what": "CompactSegmenter, defaults, one clip at a time",
        "parameters": sum(weight.numel() for weight in CompactSegmenter(12).parameters()),
        "settings": [measured(setting, options.rounds, options.device) for setting in SETTINGS],
        "machine": {"device": options.device, "threads": torch.get_num_threads(), "torch": torch.__version__}
        | {"processor": platform.machine(), "python": platform.python_version()},
    }
    print(json.dumps(result, indent=1))
    if options.out:
        options.out.write_text(json.dumps(result, indent=1) + "\n")


def measured(setting: dict[str, int], rounds: int, device: str) -> dict[str, object]:
    model = CompactSegmenter(setting["K"]).to(device).eval()
    frames = torch.rand(1, setting["T"], 3, setting["H"], setting["W"], device=device)
    seconds, worked = [], []
    with torch.inference_mode():
        model(frames)
        for _ in range(rounds):
            start, start_worked = time.perf_counter(), time.process_time()
            float(model(frames)[0, 0, 0, 0, 0])  # waits for a GPU
            seconds.append(time.perf_counter() - start)
            worked.append(time.process_time() - start_worked)
    return {
        "clip": setting,
        "rounds": rounds,
        "frames_a_second_median": round(setting["T"] / statistics.median(seconds), 1),
        "frames_a_second_best": round(setting["T"] / min(seconds), 1),
        "frames_a_core_second_median": round(setting["T"] / statistics.median(worked), 1),
    }


if __name__ == "__main__":
    main()
