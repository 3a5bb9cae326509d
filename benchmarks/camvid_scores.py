"""Videos of the study with their labels, the scores of predictions, and how far a difference can be trusted."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mvcseg.data import VSPW
from mvcseg.flow import FlowEstimator
from mvcseg.metrics import MeanIoU, TemporalConsistency, VideoConsistency
from mvcseg.ops.confusion import confusion_matrix

NUM_CLASSES = 11
BLOCK_FRAMES = 5
RESAMPLES = 2000


@dataclass(frozen=True)
class Clip:
    """A video, or a run of its frames, in memory.

    Attributes:
        name: of the video.
        split: it belongs to.
        first: number of its first frame in the video.
        frames: uint8 ``(T, 3, H, W)``.
        labels: classes ``(T, H, W)``, 255 where void.
        raw_labels: the masks' own values ``(T, H, W)``.
    """

    name: str
    split: str
    first: int
    frames: Tensor
    labels: Tensor
    raw_labels: Tensor

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: slice) -> Clip:
        start = index.indices(len(self))[0]
        return Clip(
            self.name,
            self.split,
            self.first + start,
            self.frames[index],
            self.labels[index],
            self.raw_labels[index],
        )


def load(root, *, split: str, frames: int | None = None) -> list[Clip]:
    """The videos of a split, at most ``frames`` of each."""
    clips = []
    for video in VSPW(root, split=split):
        part = slice(0, frames)
        labels, raw = torch.as_tensor(video.labels[part]), torch.as_tensor(video.raw_labels[part])
        clips.append(Clip(video.name, split, 0, video.frames[part], labels, raw))
    return clips


def score(clips: Sequence[Clip], predictions: Mapping[str, Tensor]) -> dict[str, float]:
    """mIoU, VC8 and VC16 of predictions by video name, in percent."""
    metrics = {"mIoU": MeanIoU(NUM_CLASSES), "VC8": VideoConsistency(8), "VC16": VideoConsistency(16)}
    for clip in clips:
        pred = predictions[clip.name]
        metrics["mIoU"].update(pred, clip.labels)
        metrics["VC8"].update(pred, clip.raw_labels)
        metrics["VC16"].update(pred, clip.raw_labels)
    return {name: percent(metric.compute()) for name, metric in metrics.items()}


def mean_iou(pairs: Iterable[tuple[Clip, Tensor]]) -> float:
    """Mean IoU of clips and their predictions in one confusion matrix, in percent."""
    metric = MeanIoU(NUM_CLASSES)
    for clip, pred in pairs:
        metric.update(pred, clip.labels)
    return percent(metric.compute())


def temporal_consistency(clips: Sequence[Clip], predictions: Mapping[str, Tensor], *, flow: FlowEstimator) -> float:
    """TC over all videos, in percent."""
    metric = TemporalConsistency(NUM_CLASSES, flow)
    for clip in clips:
        metric.update(predictions[clip.name], clip.frames)
    return percent(metric.compute())


def block_confusions(clips: Sequence[Clip], predictions: Mapping[str, Tensor]) -> np.ndarray:
    """Confusion matrices of runs of five frames, ``(blocks, K, K + 1)``."""
    blocks = []
    for clip in clips:
        pred = predictions[clip.name]
        for start in range(0, len(clip), BLOCK_FRAMES):
            part = slice(start, start + BLOCK_FRAMES)
            blocks.append(confusion_matrix(pred[part], clip.labels[part], num_classes=NUM_CLASSES).numpy())
    return np.stack(blocks)


def spread_of_difference(blocks: np.ndarray, baseline: np.ndarray, *, seed: int = 0) -> tuple[float, float]:
    """Bounds that hold 95 % of the mIoU differences, in points, when the runs of frames are drawn with replacement.

    It says how much a difference depends on which frames happen to be in the split, neighbouring frames being
    near copies of each other; other videos could still say something else.
    """
    generator = np.random.default_rng(seed)
    draws = generator.integers(len(blocks), size=(RESAMPLES, len(blocks)))
    counts = np.stack([np.bincount(draw, minlength=len(blocks)) for draw in draws])
    differences = _mean_iou(counts, blocks) - _mean_iou(counts, baseline)
    low, high = np.percentile(100 * differences, [2.5, 97.5])
    return round(float(low), 2), round(float(high), 2)


def _mean_iou(counts: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    confusion = np.tensordot(counts, blocks, axes=1)
    hits = np.diagonal(confusion, axis1=1, axis2=2)
    true = confusion.sum(axis=2)
    union = true + confusion[:, :, :NUM_CLASSES].sum(axis=1) - hits
    iou = np.where(true > 0, hits / np.maximum(union, 1), np.nan)
    return np.nanmean(iou, axis=1)


class StoredFlow:
    """A flow that computes each pair of frames once."""

    def __init__(self, flow: FlowEstimator) -> None:
        self.flow = flow
        self.known: dict[bytes, Tensor] = {}

    def __call__(self, source: Tensor, target: Tensor) -> Tensor:
        """Flow ``(N, 2, H, W)`` from each source frame to its target."""
        keys = [
            hashlib.blake2b(pair.numpy().tobytes(), digest_size=16).digest()
            for pair in torch.stack([source, target], dim=1)
        ]
        for index, key in enumerate(keys):
            if key not in self.known:
                part = slice(index, index + 1)
                self.known[key] = self.flow(source[part], target[part])[0]
        return torch.stack([self.known[key] for key in keys])


def percent(fraction: float) -> float:
    """Percent, with enough digits to round again."""
    return round(100 * fraction, 4)
