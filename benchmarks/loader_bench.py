"""How fast clips come from disk, alone and while a model trains on them: every figure of docs/data.md's last part.

Alone: clips of the settings that DVIS++ trains with, and of ``mvcseg train``'s defaults, with and without workers, as
packed clips and as floats. Seconds are the clock's; core seconds are those that all processes together worked, which
other programs of the machine change less. In training: the share of steps of the compact segmenter in which it waits
for its next batch.

Frames are real ones: CamVid's (480 x 360, with their labels) and those of two VSPW videos (853 x 480); the latter have
no published labels, so their masks here are the frames' own grey levels in wide steps, which are harder to decode.

    python benchmarks/loader_bench.py                  # results/loader.json and the page's tables
    python benchmarks/loader_bench.py --tables-only    # the tables from the stored figures
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import loader_tables
import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from mvcseg import MVCWrapper, PatchMask
from mvcseg.data import VSPW
from mvcseg.data.clips import ClipDataset
from mvcseg.data.collate import PackedClips, packed_batch, padded_batch
from mvcseg.losses import PixelObjective
from mvcseg.models.compact import CompactSegmenter

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("MVCSEG_SHARED_DATA", HERE.parent.parent / "shared" / "data"))
RESULTS, PAGE = HERE / "results" / "loader.json", HERE.parent / "docs" / "data.md"

_PUBLISHED = {"short_sides": tuple(range(480, 801, 32)), "long_side": 1333}
_DEFAULT = {"clip_length": 4, "strides": (1, 2, 3), "crop_size": (320, 480), "scales": (0.75, 1.5)}
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "DVIS++ segmenter": ("vspw", {"clip_length": 1, "sampling": "consecutive", **_PUBLISHED}),
    "DVIS++ segmenter, CTVIS": ("vspw", {"clip_length": 4, "sampling": "window", **_PUBLISHED}),
    "DVIS++ tracker": ("vspw", {"clip_length": 5, "sampling": "consecutive", **_PUBLISHED}),
    "DVIS++ refiner": (
        "vspw",
        {"clip_length": 21, "sampling": "consecutive", "reverse": 0.5, "crop_range": (600, 720), **_PUBLISHED},
    ),
    "`mvcseg train`, VSPW": ("vspw", _DEFAULT),
    "`mvcseg train`, CamVid": ("camvid", _DEFAULT),
}
TRAINING = ("`mvcseg train`, CamVid", {"batch_size": 2, "mask": PatchMask(patch_size=64, ratio=0.5)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="where the model trains")
    parser.add_argument("--workers", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--frames", type=int, default=300, help="frames read for each figure")
    parser.add_argument("--steps", type=int, default=30, help="training steps for each figure")
    parser.add_argument("--tables-only", action="store_true")
    options = parser.parse_args()
    if not options.tables_only:
        with tempfile.TemporaryDirectory() as scratch:
            roots = {"camvid": DATA / "camvid", "vspw": labelled_sample(DATA / "vspw_sample", Path(scratch))}
            results = measured(
                roots, workers=options.workers, frames=options.frames, steps=options.steps, device=options.device
            )
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    PAGE.write_text(loader_tables.renewed(PAGE.read_text(), json.loads(RESULTS.read_text())))


def measured(
    roots: Mapping[str, Path], *, workers: Sequence[int], frames: int, steps: int, device: str
) -> dict[str, Any]:
    """All figures, and the machine that they hold for."""
    found_machine, alone = machine(), []
    for name, (root, numbers) in SETTINGS.items():
        clips = clip_data(roots[root], numbers, num_samples=max(3, frames // numbers["clip_length"]))
        for count in workers:
            alone.append({"setting": name, "workers": count, **rate(clips, workers=count, is_packed=True)})
        alone.append({"setting": name, "workers": 1, **rate(clips, workers=1, is_packed=False)})
    name, run = TRAINING
    root, numbers = SETTINGS[name]
    clips = clip_data(roots[root], numbers, num_samples=(steps + 2) * run["batch_size"])
    training = [wait_share(clips, workers=count, device=device, **run) for count in workers]
    return {"alone": alone, "training": {"setting": name, "device": device, "rows": training}, "machine": found_machine}


def labelled_sample(sample: Path, folder: Path) -> Path:
    """The VSPW videos with label maps made of their own grey levels, 12 of them."""
    names = sorted(video.name for video in (sample / "data").iterdir())
    for name in names:
        target = folder / "data" / name
        (target / "mask").mkdir(parents=True)
        shutil.copytree(sample / "data" / name / "origin", target / "origin")
        for path in sorted((target / "origin").iterdir()):
            with Image.open(path) as image:
                small = image.convert("L").resize((image.width // 8, image.height // 8), Image.Resampling.BILINEAR)
                labels = Image.fromarray(1 + np.asarray(small) // 22).resize(image.size, Image.Resampling.NEAREST)
            labels.save(target / "mask" / f"{path.stem}.png")
    (folder / "train.txt").write_text("\n".join(names))
    return folder


def clip_data(root: Path, numbers: Mapping[str, Any], *, num_samples: int) -> ClipDataset:
    videos = [video for video in VSPW(root, split="train") if video.has_masks]
    return ClipDataset(videos, num_samples=num_samples, **numbers)


def rate(clips: ClipDataset, *, workers: int, is_packed: bool) -> dict[str, Any]:
    """Clips and frames a second, by the clock and by the seconds of cores, start of the workers included in neither."""
    data = PackedClips(clips) if is_packed else clips
    collate = packed_batch if is_packed else padded_batch
    loader = DataLoader(data, batch_size=1, num_workers=workers, collate_fn=collate)  # type: ignore[var-annotated]
    idle_loader = DataLoader(data, batch_sampler=[[0]], num_workers=workers, collate_fn=collate)  # type: ignore[var-annotated]
    list(idle_loader)  # modules and files come into the system's cache
    worked_before = core_seconds()
    list(idle_loader)
    idle, start, worked = core_seconds() - worked_before, time.perf_counter(), core_seconds()
    batches = iter(loader)
    next(batches)
    start_of_rest = time.perf_counter()
    rest = sum(1 for _ in batches)
    del batches  # only workers that have ended are counted
    seconds, cores = time.perf_counter() - start_of_rest, core_seconds() - worked - idle
    length = clips.clip_length
    return {
        "packed": is_packed,
        "clips": rest,
        "clips_a_second": round(rest / seconds, 2),
        "frames_a_second": round(rest * length / seconds, 1),
        "frames_a_core_second": round(rest * length / cores, 1),
        "first_clip_seconds": round(start_of_rest - start, 3),
    }


def core_seconds() -> float:
    """Seconds that cores worked for this process and for those it started and that have ended."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def wait_share(clips: ClipDataset, *, workers: int, device: str, batch_size: int, mask: PatchMask) -> dict[str, Any]:
    """Share of training with MVC that passes before a step's batch is there; the first two steps do not count."""
    torch.manual_seed(0)
    segmenter = CompactSegmenter(12).to(device).train()
    objective = MVCWrapper(segmenter, mask=mask, weight=1.0, objective=PixelObjective())
    optimizer = torch.optim.AdamW(segmenter.parameters(), lr=1e-3)
    generator = torch.Generator(device).manual_seed(0)
    loader = DataLoader(PackedClips(clips), batch_size=batch_size, num_workers=workers, collate_fn=packed_batch)
    waits, steps, batches = [], [], iter(loader)
    for _ in range(len(loader)):
        start = time.perf_counter()
        batch = next(batches)
        waited = time.perf_counter()
        frames, labels, _ = batch.unpacked(device)
        for term in objective.loss_terms(frames, labels, generator=generator):
            term.backward()
        optimizer.step()
        optimizer.zero_grad()
        if device != "cpu":
            torch.cuda.synchronize()
        waits.append(waited - start)
        steps.append(time.perf_counter() - start)
    return {
        "workers": workers,
        "steps": len(steps) - 2,
        "frames_a_step": batch_size * clips.clip_length,
        "step_seconds_median": round(statistics.median(steps[2:]), 4),
        "wait_seconds_median": round(statistics.median(waits[2:]), 4),
        "wait_share": round(sum(waits[2:]) / sum(steps[2:]), 4),
        "frames_a_second": round(batch_size * clips.clip_length * len(steps[2:]) / sum(steps[2:]), 2),
    }


def machine() -> dict[str, Any]:
    return {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
        "threads_of_the_model": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    main()
