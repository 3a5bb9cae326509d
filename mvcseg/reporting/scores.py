"""Scores of the predictions of one video, in one pass over its label maps that holds a few of them at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from mvcseg.metrics import MeanIoU, VideoConsistency
from mvcseg.reporting.folders import READ_AT_ONCE
from mvcseg.reporting.steadiness import FrameByFrameConsistency
from mvcseg.segmenter import Video

CLIP_LENGTHS = (8, 16)
"""Window lengths of the consistency scores, as VSPW reports them."""
CLIP = CLIP_LENGTHS[0]
"""Frames of the clips that are listed, and that the steadiness of classes is counted over."""


@dataclass(frozen=True)
class VideoScores:
    """How right and how steady one prediction of a video is, by its ground truth.

    Attributes:
        miou: mIoU, IoU of each class, and the confusion matrix (its ``state``).
        consistency: VC_n by n.
        clips: VC of each clip of `CLIP` frames by its first frame, ``(max(T - CLIP, 0),)``; NaN where no label stays.
        class_steadiness: of the pixels whose true class stays for `CLIP` frames, the share whose prediction stays too,
            ``(K,)``; NaN where there are none.
    """

    miou: MeanIoU
    consistency: Mapping[int, float]
    clips: Tensor
    class_steadiness: Tensor

    def row(self) -> dict[str, float]:
        """The scores as a row of the score table."""
        return {"mIoU": self.miou.compute()} | {f"VC{n}": score for n, score in self.consistency.items()}


def score_predictions(
    maps: Mapping[str, Video],
    raw: Video,
    *,
    to_class_ids: Callable[[Tensor], Tensor],
    num_classes: int,
    progress: Callable[[int, int], object],
) -> dict[str, VideoScores]:
    """Scores by prediction, as `mvcseg.metrics` defines them, to the last digit.

    Args:
        maps: label maps ``(T, H, W)`` uint8 by name, lazily read.
        raw: ground truth in raw ids, likewise.
        to_class_ids: raw ids as class ids 0..K-1 or 255.
        num_classes: K.
        progress: called with frames done and frames in all.
    """
    mious = {name: MeanIoU(num_classes) for name in maps}
    streams = {name: FrameByFrameConsistency(CLIP_LENGTHS, num_classes=num_classes, class_clip=CLIP) for name in maps}
    for start in range(0, len(raw), READ_AT_ONCE):
        clip = slice(start, min(start + READ_AT_ONCE, len(raw)))
        raw_labels = raw[clip]
        truth = to_class_ids(raw_labels)
        for name, labels in maps.items():
            pred = labels[clip]
            mious[name].update(pred, truth)
            for frame in zip(pred, raw_labels, truth, strict=True):
                streams[name].update(*frame)
        progress(clip.stop, len(raw))
    return {name: _gathered(mious[name], stream) for name, stream in streams.items()}


def _gathered(miou: MeanIoU, stream: FrameByFrameConsistency) -> VideoScores:
    consistency = {}
    for length in CLIP_LENGTHS:
        metric = VideoConsistency(length)
        metric.add_clips(stream.clips(length))
        consistency[length] = metric.compute()
    return VideoScores(miou, consistency, stream.clips(CLIP), stream.by_class())
