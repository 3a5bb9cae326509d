"""Flow-SSIM on real video: does it pick the net that is right more often, what does it reward, and at which rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from camvid_scores import NUM_CLASSES, Clip, mean_iou, percent, score
from torch import Tensor

from mvcseg.ensemble.flow_ssim import select_model
from mvcseg.flow import FlowEstimator
from mvcseg.ops.warp import inside_mask, warp, warp_labels

LENGTHS = (None, 19, 9)
"""Frames of the clips that are decided on, None for the whole video."""
STEPS = (1, 2, 4, 8, 15)
"""Every n-th frame of the 15 Hz videos: 15, 7.5, 3.75, 1.9 and 1 frames a second."""
ROAD = 3


def measure_selection(
    clips: Sequence[Clip],
    predictions: Mapping[str, Mapping[str, Tensor]],
    *,
    pair: tuple[str, str],
    average: str,
    flow: FlowEstimator,
) -> dict:
    """Each choice between two candidates against the truth, and what the splits' mIoU becomes by it.

    Args:
        clips: whole videos.
        predictions: label maps by video and candidate.
        pair: the two candidates.
        average: the prediction that mixes the two, for comparison.
        flow: estimates the motion.
    """
    decisions, summaries = [], []
    for split in dict.fromkeys(clip.split for clip in clips):
        for length in LENGTHS:
            made = [
                _decide(part, {name: predictions[part.name][name][run] for name in pair}, flow=flow)
                for clip in clips
                if clip.split == split
                for run in _runs(len(clip), length)
                for part in [clip[run]]
            ]
            summaries.append(_summary(split, length, clips, predictions, made, pair=pair, average=average))
            decisions += [decision for decision in made if length is None]
    return {"decisions": decisions, "summaries": summaries}


def _runs(total: int, length: int | None) -> list[slice]:
    """Consecutive runs of ``length`` frames; a last one shorter than half of that is left out."""
    length = length or total
    starts = range(0, total, length)
    return [slice(start, min(start + length, total)) for start in starts if 2 * (total - start) >= length]


def _decide(clip: Clip, candidates: Mapping[str, Tensor], *, flow: FlowEstimator) -> dict:
    choice = select_model(clip.frames, candidates, num_classes=NUM_CLASSES, flow=flow)
    true = {name: mean_iou([(clip, labels)]) for name, labels in candidates.items()}
    better = max(true, key=true.__getitem__)
    return {
        "video": clip.name,
        "first": clip.first,
        "frames": len(clip),
        "scores": choice.scores,
        "mIoU": true,
        "chosen": choice.name,
        "better": better,
    }


def _summary(
    split: str,
    length: int | None,
    clips: Sequence[Clip],
    predictions: Mapping[str, Mapping[str, Tensor]],
    decisions: Sequence[dict],
    *,
    pair: tuple[str, str],
    average: str,
) -> dict:
    by_name = {clip.name: clip for clip in clips}

    def pooled(names: Sequence[str]) -> float:
        parts = []
        for decision, name in zip(decisions, names, strict=True):
            run = slice(decision["first"], decision["first"] + decision["frames"])
            video = decision["video"]
            parts.append((by_name[video][run], predictions[video][name][run]))
        return mean_iou(parts)

    return {
        "split": split,
        "frames": length,
        "clips": len(decisions),
        "right": sum(decision["chosen"] == decision["better"] for decision in decisions),
        "first_is_better": sum(decision["better"] == pair[0] for decision in decisions),
        "first_is_chosen": sum(decision["chosen"] == pair[0] for decision in decisions),
        "mIoU": {
            **{name: pooled([name] * len(decisions)) for name in pair},
            "chosen": pooled([decision["chosen"] for decision in decisions]),
            "best": pooled([decision["better"] for decision in decisions]),
            "average": pooled([average] * len(decisions)),
        },
    }


def measure_reward(
    clips: Sequence[Clip], predictions: Mapping[str, Mapping[str, Tensor]], flows: Mapping[str, FlowEstimator]
) -> list[dict]:
    """Flow-SSIM beside mIoU and VC8 for good, mixed, frozen and senseless label videos, and for the truth itself."""
    rows: dict[str, dict] = {}
    for clip in clips:
        candidates = dict(predictions[clip.name])
        first = next(iter(candidates.values()))
        candidates["truth"] = clip.labels
        candidates["frozen"] = first[:1].expand_as(first)
        candidates["road"] = torch.full_like(first, ROAD)
        scores = {
            name: select_model(clip.frames, candidates, num_classes=NUM_CLASSES, flow=flow).scores
            for name, flow in flows.items()
        }
        for candidate, labels in candidates.items():
            row = {name: scores[name][candidate] for name in flows}
            found = score([clip], {clip.name: labels})
            rows.setdefault(candidate, {"candidate": candidate})[clip.name] = {**row, **found}
    return list(rows.values())


def measure_rate(
    clips: Sequence[Clip],
    predictions: Mapping[str, Mapping[str, Tensor]],
    *,
    pair: tuple[str, str],
    flow: FlowEstimator,
) -> list[dict]:
    """What is left of flow and of the scores when only every n-th frame is seen, all starts pooled."""
    rows = []
    for split in dict.fromkeys(clip.split for clip in clips):
        for step in STEPS if split == "val" else (1,):
            totals: dict[str, float] = {}
            pairs = 0
            for clip in clips:
                for start in range(step if clip.split == split else 0):
                    seen = clip[start::step]
                    weight = len(seen) - 1
                    if weight < 1:
                        continue
                    candidates = {name: predictions[clip.name][name][start::step] for name in pair}
                    candidates["truth"] = seen.labels
                    choice = select_model(seen.frames, candidates, num_classes=NUM_CLASSES, flow=flow)
                    found = {**choice.scores, **_explained(seen, flow)}
                    for name, value in found.items():
                        totals[name] = totals.get(name, 0.0) + weight * value
                    pairs += weight
            if not pairs:
                continue
            row = {name: value / pairs for name, value in totals.items()}
            rows.append({"split": split, "step": step, "pairs": pairs, **row})
    return rows


def _explained(clip: Clip, flow: FlowEstimator) -> dict[str, float]:
    """How alike neighbouring frames and true labels are, as they are and after warping, where the flow stays inside."""
    frames = clip.frames.float() / 255
    motion = flow(frames[1:], frames[:-1])
    inside = inside_mask(motion)
    both_known = inside & (clip.labels[1:] != 255) & (clip.labels[:-1] != 255)
    colour = (frames[1:] - frames[:-1]).abs().mean(dim=1)[inside].mean()
    warped_colour = (frames[1:] - warp(frames[:-1], motion)).abs().mean(dim=1)[inside].mean()
    same = (clip.labels[1:] == clip.labels[:-1])[both_known].float().mean()
    warped_same = (clip.labels[1:] == warp_labels(clip.labels[:-1], motion))[both_known].float().mean()
    return {
        "inside": percent(float(inside.float().mean())),
        "colour": 255 * float(colour),
        "colour_warped": 255 * float(warped_colour),
        "same": percent(float(same)),
        "same_warped": percent(float(warped_same)),
        "motion": float(motion.norm(dim=1)[inside].median()),
    }
