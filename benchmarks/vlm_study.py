"""What class correction is worth on CamVid, by the accuracy of whoever answers: the figures of docs/vlm.md.

    python benchmarks/vlm_study.py --camvid $CAMVID --weights $WEIGHTS
    python benchmarks/vlm_study.py --redraw              # the page's tables and its figure from the stored results

``--camvid`` is the data set in the VSPW layout, ``--weights`` holds ``enet_camvid/``, ``espnet_camvid/`` and
``cgnet_camvid/``. All parts take six to ten minutes on one CPU core; the figure needs matplotlib, which the package
itself does not.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import camvid_segmenters
import cv2
import torch
import vlm_study_figure
import vlm_study_parts
import vlm_study_tables
from camvid_scores import NUM_CLASSES, Clip, StoredFlow, load
from camvid_segmenters import CLASS_NAMES
from torch import Tensor
from vlm_study_cgnet import cgnet

import mvcseg
from mvcseg import PerFrame, predict_labels
from mvcseg.flow import FarnebackFlow
from mvcseg.ops.confusion import confusion_matrix
from mvcseg.vlm import Group, confusion_groups

HERE = Path(__file__).resolve().parent
PAIRS = (Group("ground", (3, 4)), Group("post", (2, 6)), Group("person", (9, 10)))
MEANING = (*PAIRS, Group("background", (1, 5, 7)))
"""Road or pavement, pole or sign, pedestrian or bicyclist; building, tree or fence."""
NETS: Mapping[str, Callable[[Path], PerFrame]] = {
    "enet": camvid_segmenters.enet,
    "espnet": camvid_segmenters.espnet,
    "cgnet": cgnet,
}
NETS_OF = {"val": ("enet", "espnet"), "test": ("enet", "espnet", "cgnet")}
"""CGNet learned from the val frames: on them its scores say nothing."""
OTHER = {"val": "test", "test": "val"}
PARTS = ("check", "curves", "groups", "flow", "areas", "sizes", "swaps")


@dataclass(frozen=True)
class Size:
    """How much is measured: frames of each video (None for all), seeds of answerers, drawings of swapped tubes."""

    frames: int | None = None
    seeds: int = 50
    swaps: int = 3
    shares: tuple[float, ...] = (0.1, 0.3)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--camvid", type=Path, help="folder of the data set")
    parser.add_argument("--weights", type=Path, help="folder of the nets' weights")
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts to measure anew, of {','.join(PARTS)}")
    parser.add_argument("--frames", type=int, help="only the first frames of each video, for a quick look")
    parser.add_argument("--seeds", type=int, default=Size.seeds, help="answerers of each accuracy")
    parser.add_argument("--swaps", type=int, default=Size.swaps, help="drawings of swapped tubes")
    parser.add_argument("--redraw", action="store_true", help="renew page and figure from the stored results")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "vlm_study.json")
    parser.add_argument("--page", type=Path, default=HERE.parent / "docs" / "vlm.md")
    parser.add_argument("--figure", type=Path, default=HERE.parent / "docs" / "vlm_study.png")
    parser.add_argument("--no-figure", action="store_true", help="leave the figure as it is")
    options = parser.parse_args(arguments)
    parts = options.only.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"--only: expected some of {','.join(PARTS)}, got {','.join(sorted(unknown))}")
    if not options.redraw:
        if options.camvid is None or options.weights is None:
            parser.error("--camvid and --weights: name both folders, or give --redraw")
        torch.set_flush_denormal(True)
        size = Size(frames=options.frames, seeds=options.seeds, swaps=options.swaps)
        splits = ("val", "test") if "groups" in parts else ("val",)
        material = Material.read(options.camvid, options.weights, size=size, splits=splits)
        for part in parts:
            found = {part: measured(part, material)}
            earlier = json.loads(options.results.read_text()) if options.results.is_file() else {}
            options.results.write_text(json.dumps(earlier | {"environment": environment()} | found, indent=1) + "\n")
    results = json.loads(options.results.read_text())
    options.page.write_text(vlm_study_tables.renewed(options.page.read_text(), results))
    if not options.no_figure:
        vlm_study_figure.draw(results, options.figure)
    return 0


@dataclass(frozen=True)
class Material:
    """Videos and predictions by split, and a flow that computes each pair of frames once."""

    clips: Mapping[str, Sequence[Clip]]
    labels: Mapping[str, Mapping[str, Mapping[str, Tensor]]]
    flow: StoredFlow
    size: Size

    @classmethod
    def read(cls, camvid: Path, weights: Path, *, size: Size, splits: Sequence[str] = ("val", "test")) -> Material:
        """Load the videos and label them with every net."""
        clips = {split: load(camvid, split=split, frames=size.frames) for split in splits}
        labels = {split: {net: predictions(net, weights, clips[split]) for net in NETS_OF[split]} for split in splits}
        return cls(clips, labels, StoredFlow(FarnebackFlow()), size)


def predictions(net: str, weights: Path, clips: Sequence[Clip]) -> dict[str, Tensor]:
    """A net's labels, uint8, by video."""
    segmenter = NETS[net](weights)
    return {clip.name: predict_labels(segmenter, clip.frames, clip_length=4).to(torch.uint8) for clip in clips}


def measured(part: str, material: Material) -> list[dict[str, Any]]:
    """The rows of one part."""
    size, flow, clips, labels = material.size, material.flow, material.clips["val"], material.labels["val"]
    shared = {"groups": MEANING, "flow": flow}
    start = time.perf_counter()
    if part == "check":
        first = clips[0]
        rows = vlm_study_parts.measure_check(first, labels["enet"][first.name], accuracies=(0.6, 0.8, 1.0), **shared)
    elif part == "groups":
        rows = vlm_study_parts.measure_groups(
            material.clips, material.labels, sets=lambda split: group_sets(material, split), flow=flow, seeds=size.seeds
        )
    elif part == "swaps":
        sources = {"ground truth": truth(clips), "enet": labels["enet"]}
        rows = vlm_study_parts.measure_swaps(
            clips, sources, shares=size.shares, swaps=size.swaps, seeds=max(2, size.seeds // 5), **shared
        )
    else:
        measure = {
            "curves": vlm_study_parts.measure_curves,
            "flow": vlm_study_parts.measure_flow,
            "areas": vlm_study_parts.measure_areas,
            "sizes": vlm_study_parts.measure_sizes,
        }[part]
        rows = measure(clips, labels, seeds=size.seeds, **shared)
    print(f"{part}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
    return rows


def truth(clips: Sequence[Clip]) -> dict[str, Tensor]:
    """The ground truth as if a net had given it; void stays 255, which no question is about."""
    return {clip.name: clip.labels.to(torch.uint8) for clip in clips}


def group_sets(material: Material, split: str) -> dict[str, Sequence[Group]]:
    """The sets of groups that a split is corrected with; ENet's errors on the other split propose one of them."""
    other = OTHER[split]
    pairs = [(material.labels[other]["enet"][clip.name], clip.labels) for clip in material.clips[other]]
    confusion = sum(confusion_matrix(pred, labels, num_classes=NUM_CLASSES) for pred, labels in pairs)
    proposed = confusion_groups(confusion, class_names=CLASS_NAMES)
    single = {group.noun: (group,) for group in MEANING} if split == "val" else {}
    return {"meaning": MEANING, "pairs": PAIRS, **single, "proposed": proposed}


def environment() -> dict[str, Any]:
    """What the figures hang on besides the data."""
    return {
        "commit": _commit(),
        "mvcseg": mvcseg.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "opencv": cv2.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} CPU cores",
        "threads": torch.get_num_threads(),
    }


def _commit() -> str:
    """The checkout's commit, with a plus sign where the package or the study differs from it."""

    def git(*words: str) -> str:
        return subprocess.run(("git", *words), cwd=HERE, capture_output=True, text=True, check=False).stdout.strip()

    is_changed = git("status", "--porcelain", "--", str(HERE.parent / "mvcseg"), str(HERE / "*.py"))
    return git("rev-parse", "HEAD") + ("+" if is_changed else "")


if __name__ == "__main__":
    sys.exit(main())
