"""Peak memory of `mvcseg predict` from a file to PNGs, for videos of different lengths (docs/dvis_speed.md).

The model is vspw_offline_r50 with random weights at 480 x 853. Its backbone and segmenter, whose memory cannot
depend on the number of frames, run on every 50th frame only, the others reuse what it gave; reading, tracker,
refiner, spill file, class maps and PNGs are done for every frame.

    python benchmarks/predict_growth.py --out benchmarks/results/predict_growth.json
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mvcseg.data import write_video
from mvcseg.models.dvis import DVIS, build_dvis

PRESET, SIZE, EVERY = "vspw_offline_r50", (480, 853), 50


def build() -> DVIS:
    """The segmenter of `mvcseg predict --segmenter`."""
    torch.manual_seed(0)
    model = build_dvis(PRESET)
    segment, seen = model.segment, []

    def reusing(frames: Tensor) -> Any:
        if len(seen) % EVERY == 0:
            seen[:] = [segment(frames)]
        else:
            seen.append(None)
        return seen[0]

    model.segment = reusing  # type: ignore[method-assign]
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lengths", type=int, nargs="+", default=[100, 400])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = [{"frames": length, "peak_mib": peak(length)} for length in options.lengths]
    ratio = rows[-1]["peak_mib"] / rows[0]["peak_mib"]
    result = {"preset": PRESET, "size": SIZE, "segmented_every": EVERY, "rows": rows, "last_over_first": ratio}
    text = json.dumps(result, indent=1)
    print(text)
    if options.out is not None:
        options.out.write_text(text + "\n")


def peak(length: int) -> float:
    """Peak resident memory of the whole command, in MiB."""
    with tempfile.TemporaryDirectory() as folder:
        video, script = Path(folder, "clip.mp4"), Path(__file__).resolve()
        write_video(video, frames(length), fps=15)
        command = [sys.executable, "-m", "mvcseg", "predict", str(video), "--segmenter", f"{script}:build"]
        process = subprocess.Popen([*command, "--out", str(Path(folder, "masks"))], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        written = len(list(Path(folder, "masks", "clip").glob("*.png")))
        if status != 0 or written != length:
            raise RuntimeError(f"predict: status {status}, {written} of {length} label maps")
        return usage.ru_maxrss / 1024


def frames(length: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(0)
    cells = torch.randint(0, 256, (1, 3, 15, 27), generator=generator).float()
    still = torch.nn.functional.interpolate(cells, size=SIZE, mode="bilinear")[0].to(torch.uint8)
    for index in range(length):
        yield still.roll(index, dims=-1)


if __name__ == "__main__":
    main()
