"""The whole offline DVIS++ of ResNet-50 against the reference implementation: seconds, stages, labels and peak memory.

Needs copies of the reference's sources, which no package brings (they are read, never kept), and packages they import::

    git clone https://github.com/zhang-tao-whu/DVIS_Plus && git clone https://github.com/facebookresearch/detectron2
    pip install fvcore iopath omegaconf hydra-core yacs pycocotools cloudpickle tabulate termcolor
    python benchmarks/peers_upstream.py speed memory --dvis-plus DVIS_Plus --detectron2 detectron2

Both models hold the same weights, drawn by the reference and read by ``load_official`` from a file, and see the same
frames of 480 x 853 in float32 on the CPU, where the reference takes deformable attention's PyTorch formula. They run in
turn in one process; peak memory is resident memory of a fresh process each. Each part replaces its own entry in
``--out`` and keeps the other. Exit status 2 where something is missing.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from peak_memory import SIZE, Drifting, answer_of, measured
from torch import Tensor, nn
from upstream_dvis import MissingSources, build_upstream, check_sources, clocked, import_upstream, upstream_labels

PRESET = "vspw_offline_r50"
STAGES = {
    "backbone": "backbone.forward",
    "pixel decoder": "sem_seg_head.pixel_decoder.forward",
    "query decoder": "sem_seg_head.predictor.forward",
    "tracker": "tracker.forward",
}
"""Ours; the reference calls its pixel decoder by another method, and its refiner and class maps can be told apart."""
UPSTREAM_STAGES = STAGES | {
    "pixel decoder": "sem_seg_head.pixel_decoder.forward_features",
    "refiner": "refiner.forward",
    "class maps": "inference_video_task",
}
REST = "refiner, class maps and the rest"
DECIDED = {
    r"(out_proj|ffn_layers\.\d+\.linear2)\.weight$": 0.1,
    r"conv_short_aggregate_layers\.\d+\.\d+\.weight$": 0.1,
    r"mask_embed\.layers\.\d+\.weight$": 2.5,
    r"class_embed\.weight$": 10.0,
}
"""Factors on weights by name: as drawn, all queries become one and a single class is seen; so they stay apart."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=["speed", "memory", "process"])
    parser.add_argument("--dvis-plus", type=Path, required=True, help="the reference's sources")
    parser.add_argument("--detectron2", type=Path, required=True, help="detectron2's sources")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/peers_upstream.json"))
    parser.add_argument("--frames", type=int, default=6, help="frames of the video (default 6)")
    parser.add_argument("--turns", type=int, default=3, help="turns of either model (default 3)")
    parser.add_argument("--weights", type=Path, help="process: file of the weights (used internally)")
    args = parser.parse_args()
    try:
        check_sources(args.dvis_plus, args.detectron2)
    except MissingSources as missing:
        print(missing, file=sys.stderr)
        return 2
    if args.parts == ["process"]:
        print(json.dumps(upstream_memory(args.dvis_plus, args.detectron2, args.weights, frames=args.frames)))
        return 0
    from environment import environment, load_average  # not in a process that is measured

    report = json.loads(args.out.read_text()) if args.out.exists() else {}
    for part in args.parts:
        before = environment(["torchvision", "fvcore"])
        work = {"speed": lambda: speed(args), "memory": lambda: memory(args)}[part]
        report[part] = {"environment": before, "size": SIZE, "frames": args.frames} | work()
        before["load_average_after"] = load_average()
    text = json.dumps(report, indent=2)
    print(text)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(text + "\n")
    return 0


def speed(args: argparse.Namespace) -> dict[str, Any]:
    """Both in turn: seconds of whole videos and of their stages, and the share of pixels with the same class."""
    from turns import take_turns

    from mvcseg import predict_labels
    from mvcseg.models.dvis import load_official

    config = import_upstream(args.dvis_plus, args.detectron2)
    torch.manual_seed(0)
    upstream = build_upstream(config)
    with tempfile.TemporaryDirectory() as folder:
        ours = load_official(save_decided(upstream, Path(folder)), preset=PRESET).requires_grad_(False)
    video = Drifting(args.frames)[:]
    seconds: tuple[list[dict[str, float]], list[dict[str, float]]] = ([], [])

    def run_ours() -> Tensor:
        with clocked(ours, STAGES) as stages:
            labels = predict_labels(ours, video, clip_length=4)
        seconds[0].append(dict(stages))
        return labels

    def run_upstream() -> Tensor:
        with clocked(upstream, UPSTREAM_STAGES) as stages:
            labels = upstream_labels(upstream, video)
        seconds[1].append(dict(stages))
        return labels

    turns = take_turns(run_ours, run_upstream, turns=args.turns)
    theirs = in_dataset_order(turns.peer_output)
    whole = (turns.ours, turns.peer)
    ours_by_stage, upstream_by_stage = (
        by_stage(stages[1:], column, frames=args.frames) for stages, column in zip(seconds, whole, strict=True)
    )
    return {
        "whole": turns.record(),
        "ours_seconds_per_frame": round(statistics.median(turns.ours) / args.frames, 4),
        "upstream_seconds_per_frame": round(statistics.median(turns.peer) / args.frames, 4),
        "ours_seconds_per_frame_by_stage": ours_by_stage,
        "upstream_seconds_per_frame_by_stage": upstream_by_stage,
        "pixels": theirs.numel(),
        "pixels_that_differ": int((theirs != turns.our_output).sum()),
        "classes_seen": len(theirs.unique()),
    }


def save_decided(upstream: nn.Module, folder: Path) -> Path:
    """Its weights, made to tell classes apart, in a file as its training writes them."""
    with torch.no_grad():
        for name, parameter in upstream.named_parameters():
            parameter.mul_(factor_of(name))
    path = folder / "weights.pth"
    torch.save({"model": upstream.state_dict()}, path)
    return path


def factor_of(name: str) -> float:
    """What ``DECIDED`` says of a weight, else 1."""
    return next((factor for pattern, factor in DECIDED.items() if re.search(pattern, name)), 1.0)


def in_dataset_order(labels: Tensor) -> Tensor:
    """Labels of the reference, whose classes are numbered as in its training, as data-set classes."""
    from mvcseg.models.dvis import PRESETS

    order = PRESETS[PRESET].class_order
    return labels if order is None else torch.tensor(order)[labels]


def by_stage(stages: list[dict[str, float]], whole: list[float], *, frames: int) -> dict[str, float]:
    """Median seconds a frame of each stage; what the stages common to both leave of the whole is ``REST``."""
    rows = [
        stage | {REST: total - sum(stage[name] for name in STAGES)} for stage, total in zip(stages, whole, strict=True)
    ]
    return {name: round(statistics.median(row[name] for row in rows) / frames, 4) for name in rows[0]}


def memory(args: argparse.Namespace) -> dict[str, Any]:
    """Peaks of two fresh processes that load the same file and label the same frames."""
    with tempfile.TemporaryDirectory() as folder:
        torch.manual_seed(0)
        weights = save_decided(build_upstream(import_upstream(args.dvis_plus, args.detectron2)), Path(folder))
        here = Path(__file__).resolve()
        sources = ["--dvis-plus", str(args.dvis_plus), "--detectron2", str(args.detectron2)]
        rest = ["--frames", str(args.frames)]
        upstream = answer_of([sys.executable, str(here), "process", *sources, *rest, "--weights", str(weights)])
        command = [sys.executable, str(here.with_name("peak_memory.py")), "--presets", PRESET]
        ours = answer_of([*command, *rest, "--process", str(weights)])
    share = ours["peak_gib"] / upstream["peak_gib"]
    return {"ours": ours, "upstream": upstream, "peak_of_ours_to_upstreams": round(share, 4)}


def upstream_memory(dvis_plus: Path, detectron2: Path, weights: Path, *, frames: int) -> dict[str, Any]:
    """Memory of this process as the reference loads its weights and labels a video: run in one of its own."""
    config = import_upstream(dvis_plus, detectron2)

    def load() -> nn.Module:
        model = build_upstream(config)
        model.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True)["model"])
        return model

    def run(model: nn.Module) -> None:
        upstream_labels(model, Drifting(frames)[:])

    return {"model": "upstream", "frames": frames} | measured(load, run, frames=frames)


if __name__ == "__main__":
    sys.exit(main())
