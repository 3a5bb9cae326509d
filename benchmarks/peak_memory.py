"""Peak resident memory of whole videos through DVIS++, each in a fresh process (Linux): imports, weights and work.

Weights are drawn at random, saved as a published file would be and loaded from it, since loading has a peak too.
Float32 on the CPU, frames of 480 x 853, labels in clips of 4. The reference implementation, where its sources are
at hand, is measured in the same way by ``peers_upstream.py``::

    python benchmarks/peak_memory.py --out benchmarks/results/peak_memory.json
    python benchmarks/peak_memory.py --growth 100 400 --out benchmarks/results/peak_memory_growth.json

``--growth`` runs every frame through the whole model: 400 frames take some ten minutes. ``--every 50`` makes that
shorter: backbone and head, whose memory knows no earlier frame, run on every 50th frame and their answer serves for 50.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

SIZE = (480, 853)
PRESETS = {"vspw_offline_r50": 6, "vspw_online_r50": 6, "vspw_offline_vitl": 5}
"""Frames of the run, by preset."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file to write; standard output always gets it")
    parser.add_argument("--presets", nargs="+", help=f"models (default {', '.join(PRESETS)}; --growth: the first two)")
    parser.add_argument("--frames", type=int, help="frames of every run (default 6, 5 of ViT-L)")
    parser.add_argument("--growth", type=int, nargs="+", metavar="FRAMES", help="lengths of the videos, rising")
    parser.add_argument("--every", type=int, default=1, help="--growth: segment every n-th frame alone (default 1)")
    parser.add_argument("--process", type=Path, metavar="WEIGHTS", help="measure this very process (used internally)")
    args = parser.parse_args()
    if args.process is not None:
        print(json.dumps(of_preset(args.presets[0], args.process, frames=args.frames, every=args.every)))
        return
    from environment import environment, load_average  # not in a process that is measured

    report: dict[str, Any] = {"environment": environment(), "size": SIZE}
    with tempfile.TemporaryDirectory() as folder:
        if args.growth:
            chosen = args.presets or list(PRESETS)[:2]
            report["growth"] = [growth(preset, args.growth, every=args.every, folder=Path(folder)) for preset in chosen]
        else:
            report["memory"] = [
                in_process(preset, saved(preset, Path(folder)), frames=args.frames or PRESETS.get(preset, 6))
                for preset in args.presets or PRESETS
            ]
    report["environment"]["load_average_after"] = load_average()
    text = json.dumps(report, indent=2)
    print(text)
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(text + "\n")


def growth(preset: str, lengths: list[int], *, every: int, folder: Path) -> dict[str, Any]:
    """Peaks of videos of these lengths, and the last one's share of the first's."""
    weights = saved(preset, folder)
    runs = [in_process(preset, weights, frames=length, every=every) for length in lengths]
    return {
        "preset": preset,
        "segmenter_runs_on_every_nth_frame": every,
        "runs": runs,
        "peak_of_longest_to_shortest": round(runs[-1]["peak_gib"] / runs[0]["peak_gib"], 4),
    }


def saved(preset: str, folder: Path) -> Path:
    """A file of weights drawn for the preset, as the published ones are."""
    from mvcseg.models.dvis import build_dvis, official_state_dict

    torch.manual_seed(0)
    path = folder / f"{preset}.pth"
    torch.save({"model": official_state_dict(build_dvis(preset))}, path)
    return path


def in_process(preset: str, weights: Path, *, frames: int, every: int = 1) -> dict[str, Any]:
    """``of_preset`` in a process of its own."""
    options = ["--presets", preset, "--frames", str(frames), "--every", str(every), "--process", str(weights)]
    return answer_of([sys.executable, __file__, *options])


def answer_of(command: list[str]) -> dict[str, Any]:
    """The JSON on the last line that a command prints."""
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    row: dict[str, Any] = json.loads(printed.splitlines()[-1])
    print(row, file=sys.stderr)
    return row


def of_preset(preset: str, weights: Path, *, frames: int, every: int = 1) -> dict[str, Any]:
    """Memory of this process as it loads our model and labels a video: run in one of its own."""
    from mvcseg import iter_labels
    from mvcseg.models.dvis import load_official

    def load() -> Any:
        model = load_official(weights, preset=preset).requires_grad_(False)
        model.segment = repeating(model.segment, every)  # type: ignore[method-assign]
        return model

    def run(model: Any) -> None:
        for _ in iter_labels(model, Drifting(frames), clip_length=4):
            pass

    return {"model": preset, "frames": frames} | measured(load, run, frames=frames)


def measured(load: Callable[[], Any], run: Callable[[Any], None], *, frames: int) -> dict[str, Any]:
    """Resident memory of this process before and after a model is loaded, and the most it came to in all."""
    imported = resident("VmRSS")
    model = load()
    loaded, loading = resident("VmRSS"), resident("VmHWM")
    start = time.perf_counter()
    run(model)
    seconds = time.perf_counter() - start
    peak = resident("VmHWM")
    return {
        "seconds_per_frame": round(seconds / frames, 3),
        "after_imports_gib": round(imported / 2**30, 3),
        "model_loaded_gib": round(loaded / 2**30, 3),
        "peak_of_loading_gib": round(loading / 2**30, 3),
        "peak_gib": round(peak / 2**30, 3),
        "peak_gb": round(peak / 1e9, 3),
    }


def repeating(segment: Callable[[Tensor], Any], every: int) -> Callable[[Tensor], Any]:
    """The segmenter, its answer given several times over: its memory knows no past, its seconds are most of all."""
    calls, last = 0, None

    def call(frame: Tensor) -> Any:
        nonlocal calls, last
        if every == 1:
            return segment(frame)
        if calls % every == 0:
            last = None  # before the next is made, as without this function
            last = segment(frame)
        calls += 1
        return last

    return call


def resident(entry: str) -> int:
    """Bytes: VmRSS now, VmHWM at most so far (in this process alone, unlike ``getrusage``)."""
    found = re.search(rf"{entry}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    if found is None:
        raise OSError(f"no {entry} in /proc/self/status")
    return 1024 * int(found.group(1))


class Drifting:
    """A video made as it is read: smooth colours that drift, the same for every length.

    Args:
        length: frames.
        size: ``(height, width)``.
    """

    def __init__(self, length: int, size: tuple[int, int] = SIZE) -> None:
        self.length, self.width = length, size[1]
        gen = torch.Generator().manual_seed(7)
        coarse = 128 + 90 * torch.randn(1, 3, 12, 24, generator=gen)
        picture = functional.interpolate(coarse, size=(size[0], 2 * size[1]), mode="bicubic")[0]
        self.picture = picture.clamp(0, 255).to(torch.uint8)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: slice) -> Tensor:
        steps = range(*index.indices(self.length))
        return torch.stack([self.picture.roll(5 * step, dims=2)[:, :, : self.width] for step in steps])


if __name__ == "__main__":
    main()
