"""What the report measured on DVIS++, measured on ENet and ESPNet with real video: every figure of docs/camvid.md.

    python benchmarks/camvid_study.py                    # all parts, results/camvid.json and the page's tables
    python benchmarks/camvid_study.py --only selection   # one part; the other figures stay as they are

The data lies in ``$MVCSEG_SHARED_DATA`` (``camvid/`` and ``weights/``), else in ``shared/data`` beside the repository.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import camvid_segmenters
import camvid_selection
import camvid_tables
import camvid_training
import cv2
import numpy as np
import torch
from camvid_scores import (
    NUM_CLASSES,
    Clip,
    StoredFlow,
    block_confusions,
    load,
    score,
    spread_of_difference,
    temporal_consistency,
)
from raft_small import load_raft_small
from torch import Tensor

import mvcseg
from mvcseg import PerFrame, predict_labels
from mvcseg.ensemble.average import Average
from mvcseg.ensemble.flow_ssim import select_model
from mvcseg.flow import FarnebackFlow
from mvcseg.ops.vote import majority, majority_among_tied
from mvcseg.pipeline import run_video
from mvcseg.tta import MeanTTA, View, multiscale_flip, vote_labels

HERE = Path(__file__).resolve().parent
DATA = camvid_segmenters.data_root()
RAFT = DATA / "weights" / "raft_small" / "model.safetensors"
NETS = ("espnet", "enet")
SETTINGS = {
    "1.0": multiscale_flip((1.0,), flip=False),
    "1.0 flip": multiscale_flip((1.0,)),
    "1.0 1.1 1.2": multiscale_flip((1.0, 1.1, 1.2), flip=False),
    "1.0 1.1 1.2 flip": multiscale_flip((1.0, 1.1, 1.2)),
    "0.9 1.0 1.1 1.2": multiscale_flip(flip=False),
    "0.9 1.0 1.1 1.2 flip": multiscale_flip(),
}
"""The report's table of views."""
PLAIN, FULL = "1.0", "0.9 1.0 1.1 1.2 flip"
RULES = ("literal", "among-tied", "mean")
FRAMES_AT_ONCE = 4
PARTS = ("tta", "selection", "chain", "training")

Predictions = dict[str, dict[str, Tensor]]
"""Label maps, uint8 ``(T, H, W)``, by video and by net, setting and rule: ``"espnet 1.0 flip mean"``."""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts to measure anew, of {','.join(PARTS)}")
    parser.add_argument("--frames", type=int, help="only the first frames of each video, for a quick look")
    parser.add_argument("--cache", type=Path, help="folder that keeps label maps between runs")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "camvid.json")
    parser.add_argument("--page", type=Path, default=HERE.parent / "docs" / "camvid.md", help="its tables are renewed")
    options = parser.parse_args(arguments)
    parts = options.only.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"--only: expected some of {','.join(PARTS)}, got {','.join(sorted(unknown))}")
    torch.set_flush_denormal(True)

    results: dict[str, Any] = {"environment": environment()}
    clips: list[Clip] = []
    predictions: Predictions = {}
    nets = {name: getattr(camvid_segmenters, name)() for name in NETS}
    if set(parts) != {"training"}:
        start = time.perf_counter()
        for split in ("val", "test"):
            clips += load(DATA / "camvid", split=split, frames=options.frames)
        predictions = {clip.name: predict(clip, nets, cache=options.cache) for clip in clips}
        results["check"] = check_composition(clips[0], nets, predictions[clips[0].name])
        results["seconds_of_prediction"] = round(time.perf_counter() - start, 1)
    measures = {
        "tta": lambda: measure_tta(clips, predictions),
        "selection": lambda: measure_selection(clips, predictions),
        "chain": lambda: measure_chain(clips, predictions, nets),
        "training": lambda: camvid_training.measure(
            DATA / "camvid", folder=options.cache and options.cache / "training"
        ),
    }
    for part in parts:
        start = time.perf_counter()
        results[part] = measures[part]() | {"seconds": round(time.perf_counter() - start, 1)}
        print(f"{part}: {results[part]['seconds']} s", file=sys.stderr)
        earlier = json.loads(options.out.read_text()) if options.out.is_file() else {}
        results = earlier | results
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(results, indent=1) + "\n")
    if options.page.is_file() and not options.frames:
        options.page.write_text(camvid_tables.renewed(options.page.read_text(), results))
    return 0


def predict(clip: Clip, nets: Mapping[str, PerFrame], *, cache: Path | None) -> dict[str, Tensor]:
    """Labels of a video by every net, setting and rule, and by the mean of the nets' probabilities."""
    stored = cache / f"{clip.name}-{len(clip)}.npz" if cache else None
    if stored and stored.is_file():
        with np.load(stored) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    runs: dict[str, list[Tensor]] = {}
    for start in range(0, len(clip), FRAMES_AT_ONCE):
        frames = clip.frames[start : start + FRAMES_AT_ONCE]
        probabilities = {}
        for name, net in nets.items():
            labels, probabilities[name] = _label_by_views(frames, name, net)
            for key, maps in labels.items():
                runs.setdefault(key, []).append(maps)
        for setting, suffix in ((PLAIN, ""), (FULL, f" {FULL} mean")):
            mixed = sum(mean[setting] for mean in probabilities.values())
            runs.setdefault(f"average{suffix}", []).append(mixed.argmax(dim=1).to(torch.uint8))
        print(f"\r{clip.name}: {start + len(frames)} of {len(clip)} frames", end="", file=sys.stderr)
    print(file=sys.stderr)
    labels = {name: torch.cat(parts) for name, parts in runs.items()}
    if stored:
        stored.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(stored, **{name: maps.numpy() for name, maps in labels.items()})
    return labels


@torch.inference_mode()
def _label_by_views(frames: Tensor, name: str, net: PerFrame) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Labels by every setting and rule, and the summed probabilities of the settings.

    What ``vote_labels`` and ``MeanTTA`` do one setting at a time, with each view gone through once for all
    settings; ``check_composition`` holds the two against each other.
    """
    by_view: dict[View, Tensor] = {}
    total: dict[str, Tensor] = {}
    for view in SETTINGS[FULL]:
        logits = net(view.apply(frames)[None].float() / 255)
        scores = view.invert(logits.softmax(dim=2), size=frames.shape[-2:])[0]
        by_view[view] = scores.argmax(dim=1).to(torch.uint8)
        for setting, views in SETTINGS.items():
            if view in views:
                total[setting] = total[setting] + scores if setting in total else scores
    labels = {}
    for setting, views in SETTINGS.items():
        stack = torch.stack([by_view[view] for view in views])
        if setting == PLAIN:
            labels[name] = stack[0]
            continue
        labels[f"{name} {setting} literal"] = majority(stack, num_classes=net.num_classes)
        labels[f"{name} {setting} among-tied"] = majority_among_tied(stack, num_classes=net.num_classes)
        labels[f"{name} {setting} mean"] = total[setting].argmax(dim=1).to(torch.uint8)
    return labels, {setting: scores / len(SETTINGS[setting]) for setting, scores in total.items()}


def check_composition(clip: Clip, nets: Mapping[str, PerFrame], labels: Mapping[str, Tensor]) -> dict[str, float]:
    """Share of pixels on which the library's own functions give the labels of `predict`, on the first frames."""
    frames = clip.frames[:2]
    expected: dict[str, Tensor] = {}
    for name, net in nets.items():
        views = SETTINGS[FULL]
        expected[name] = predict_labels(net, frames, clip_length=2)
        expected[f"{name} {FULL} literal"] = vote_labels(net, frames, views=views, clip_length=1)
        expected[f"{name} {FULL} among-tied"] = vote_labels(
            net, frames, views=views[::-1], clip_length=2, tie="among-tied"
        )
        expected[f"{name} {FULL} mean"] = predict_labels(MeanTTA(net, views), frames, clip_length=2)
    expected["average"] = predict_labels(Average(list(nets.values())), frames, clip_length=2)
    return {name: float((labels[name][:2] == maps).float().mean()) for name, maps in expected.items()}


def measure_tta(clips: Sequence[Clip], predictions: Predictions) -> dict:
    """Every setting of the report's table by both tie rules and by the mean of probabilities."""
    rows = []
    for split in ("val", "test"):
        mine = [clip for clip in clips if clip.split == split]
        for net in NETS:
            baseline = block_confusions(mine, _of(predictions, net))
            for setting in SETTINGS:
                for rule in RULES if setting != PLAIN else ("literal",):
                    name = net if setting == PLAIN else f"{net} {setting} {rule}"
                    labels = _of(predictions, name)
                    spread = spread_of_difference(block_confusions(mine, labels), baseline)
                    row = {"split": split, "net": net, "setting": setting, "rule": rule}
                    rows.append(row | score(mine, labels) | {"difference": spread})
    changed = {
        net: _share_changed(clips, predictions, f"{net} {FULL} literal", f"{net} {FULL} among-tied") for net in NETS
    }
    return {"rows": rows, "pixels_where_tie_rules_differ": changed}


def _share_changed(clips: Sequence[Clip], predictions: Predictions, first: str, second: str) -> float:
    pairs = [(predictions[clip.name][first], predictions[clip.name][second]) for clip in clips]
    return sum(int((a != b).sum()) for a, b in pairs) / sum(a.numel() for a, _ in pairs)


def measure_selection(clips: Sequence[Clip], predictions: Predictions) -> dict:
    """Choices between the nets, what flow-SSIM rewards, and how it depends on the frame rate."""
    flows = {"farneback": StoredFlow(FarnebackFlow()), "raft": StoredFlow(load_raft_small(RAFT))}
    flow = flows["farneback"]
    rewarded = ("espnet", "enet", "average", f"espnet {FULL} literal", f"enet {FULL} literal", f"espnet {FULL} mean")
    shown = {video: {name: labels[name] for name in rewarded} for video, labels in predictions.items()}
    found = camvid_selection.measure_selection(clips, predictions, pair=NETS, average="average", flow=flow)
    voted = (f"espnet {FULL} literal", f"enet {FULL} literal")
    mixed = f"average {FULL} mean"
    after_vote = camvid_selection.measure_selection(clips, predictions, pair=voted, average=mixed, flow=flow)
    reward = camvid_selection.measure_reward(clips, shown, flows)
    rate = camvid_selection.measure_rate(clips, predictions, pair=NETS, flow=flow)
    return {**found, "after_vote": after_vote, "reward": reward, "rate": rate}


def measure_chain(clips: Sequence[Clip], predictions: Predictions, nets: Mapping[str, PerFrame]) -> dict:
    """Scores after each step, and whether the pipeline gives the same labels on the first video."""
    flows = {"farneback": StoredFlow(FarnebackFlow()), "raft": StoredFlow(load_raft_small(RAFT))}
    chosen: dict[str, Tensor] = {}
    choices = {}
    for clip in clips:
        voted = {net: predictions[clip.name][f"{net} {FULL} literal"] for net in NETS}
        choice = select_model(clip.frames, voted, num_classes=NUM_CLASSES, flow=flows["farneback"])
        chosen[clip.name], choices[clip.name] = voted[choice.name], choice.name
    first = clips[0]
    whole = run_video(
        first.frames,
        nets,
        num_classes=NUM_CLASSES,
        clip_length=FRAMES_AT_ONCE,
        views=SETTINGS[FULL],
        flow=FarnebackFlow(),
    )
    agreement = float((whole.labels == chosen[first.name]).float().mean())
    steps = {
        "ENet": _of(predictions, "enet"),
        "ESPNet": _of(predictions, "espnet"),
        "ESPNet, vote": _of(predictions, f"espnet {FULL} literal"),
        "both, vote, selection": chosen,
        "both, mean of probabilities": _of(predictions, "average"),
        "both, mean over views and nets": _of(predictions, f"average {FULL} mean"),
    }
    rows = []
    for split in ("val", "test"):
        mine = [clip for clip in clips if clip.split == split]
        for step, labels in steps.items():
            row = {"split": split, "step": step} | score(mine, labels)
            if split == "val":  # at 1 Hz no flow connects two frames
                row |= {f"TC {name}": temporal_consistency(mine, labels, flow=flow) for name, flow in flows.items()}
            rows.append(row)
    return {"rows": rows, "choices": choices, "run_video_agrees": agreement}


def _of(predictions: Predictions, name: str) -> dict[str, Tensor]:
    return {video: labels[name] for video, labels in predictions.items()}


def environment() -> dict:
    return {
        "mvcseg": mvcseg.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "opencv": cv2.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} CPU cores",
        "threads": torch.get_num_threads(),
    }


if __name__ == "__main__":
    sys.exit(main())
