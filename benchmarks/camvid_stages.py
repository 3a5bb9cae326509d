"""DVIS++ with ResNet-50 trained in its three stages on CamVid from the command line, with MVC, at a small size.

    python benchmarks/camvid_stages.py --root camvid --out stages

Runs `mvcseg train` for segmenter, tracker and refiner, each from the one before, then `mvcseg predict` and
`mvcseg eval` on val, and writes what happened to benchmarks/results/camvid_stages.json. A stopped run goes on. The
architecture of the presets, 11 classes, random weights to begin with: this shows that the stages train, not how
well they can.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
STAGES = ("segmenter", "tracker", "refiner")
RESULTS = HERE / "results" / "camvid_stages.json"
WINDOW = 20
"""Steps at either end of a run whose losses are averaged."""


def measure(root: Path, out: Path) -> dict:
    """Train, predict and score, in ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for stage in STAGES:
        config = f"camvid_r50_{stage}.json"
        shutil.copy(HERE / config, out)
        _mvcseg(out, "train", "--vspw", root, "--config", config, "--out", f"runs/{stage}", "--resume")
        rows.append(_row(stage, out))
        print(rows[-1], flush=True)
    model = "runs/refiner/model.safetensors"
    start = time.time()
    _mvcseg(out, "predict", "--vspw", root, "--split", "val", "--checkpoint", model, "--out", "masks")
    seconds = time.time() - start
    scores = json.loads(_mvcseg(out, "eval", "masks", "--vspw", root, "--split", "val", "--json"))
    return {
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "torch": torch.__version__,
        "configs": {stage: json.loads((HERE / f"camvid_r50_{stage}.json").read_text()) for stage in STAGES},
        "stages": rows,
        "predict_seconds": round(seconds),
        "scores": {name: scores[name] for name in ("mIoU", "VC8", "VC16")},
    }


def _row(stage: str, out: Path) -> dict:
    lines = [json.loads(line) for line in (out / "runs" / stage / "log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "loss_clean" in line]
    terms = ("loss_clean", "loss_masked", "loss_ce", "loss_mask", "loss_dice", "loss_contrast")

    def ends(key: str) -> list[float]:
        values = [line[key] for line in steps]
        return [round(statistics.fmean(part), 3) for part in (values[:WINDOW], values[-WINDOW:])]

    return {
        "stage": stage,
        "steps": len(steps),
        "seconds_per_step": round(statistics.median(line["seconds"] for line in steps), 2),
        "first_and_last": {key: ends(key) for key in terms if key in steps[0]},
    }


def _mvcseg(folder: Path, *arguments: str | Path) -> str:
    command = [sys.executable, "-m", "mvcseg", *map(str, arguments)]
    return subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="CamVid in the VSPW layout")
    parser.add_argument("--out", type=Path, required=True, help="folder for runs and label maps")
    options = parser.parse_args()
    RESULTS.write_text(json.dumps(measure(options.root.resolve(), options.out.resolve()), indent=1) + "\n")


if __name__ == "__main__":
    main()
