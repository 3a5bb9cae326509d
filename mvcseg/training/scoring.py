"""Scores of the model that is being trained, on videos that it does not learn from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from mvcseg.data.vspw import VSPWVideo
from mvcseg.inference import predict_labels
from mvcseg.metrics import MeanIoU, VideoConsistency
from mvcseg.segmenter import Segmenter, size_of
from mvcseg.tta import scaled_views, vote_labels


def score_videos(
    segmenter: Segmenter,
    videos: Sequence[VSPWVideo],
    *,
    clip_length: int,
    test_size: tuple[int | None, int | None],
    accelerator: Any,
) -> dict[str, float]:
    """mIoU, VC8 and VC16 over all videos, each process taking its share.

    Args:
        segmenter: the model.
        videos: labelled ones.
        clip_length: most frames at once.
        test_size: shorter side that the model sees and cap on the longer one; None is the video's own.
        accelerator: of Accelerate.

    Returns:
        The scores by name, NaN where no video is long enough.
    """
    from accelerate.utils import gather_object

    miou = MeanIoU(segmenter.num_classes)
    consistencies = {length: VideoConsistency(length) for length in (8, 16)}
    for video in videos[accelerator.process_index :: accelerator.num_processes]:
        pred = _predicted(segmenter, video, clip_length=clip_length, test_size=test_size)
        labels, raw_labels = video.labels, video.raw_labels
        if labels is not None and raw_labels is not None:
            miou.update(pred, labels)
            for consistency in consistencies.values():
                consistency.update(pred, raw_labels)
    if accelerator.num_processes > 1:
        everyone = gather_object([(miou, consistencies)])
        miou, consistencies = everyone[0]
        for other_miou, others in everyone[1:]:
            miou.merge(other_miou)
            for length, consistency in consistencies.items():
                consistency.merge(others[length])
    scores = {f"VC{length}": consistency.compute() for length, consistency in consistencies.items()}
    return {"mIoU": miou.compute(), **scores}


def jsonable(scores: dict[str, float]) -> dict[str, float | None]:
    """The scores with null, which JSON has, for NaN, which it has not."""
    return {name: None if math.isnan(value) else value for name, value in scores.items()}


def _predicted(
    segmenter: Segmenter, video: VSPWVideo, *, clip_length: int, test_size: tuple[int | None, int | None]
) -> Tensor:
    short_side, long_side = test_size
    views = scaled_views(size_of(video.frames), None, short_side=short_side, long_side=long_side)
    if views is None:
        return predict_labels(segmenter, video.frames, clip_length=clip_length)
    return vote_labels(segmenter, video.frames, views=views, clip_length=clip_length)
