"""The report's inference from top to bottom: predict, vote, choose, correct (arXiv 2406.04979, section 2).

Training with masked video consistency happens before; its models come in as segmenters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mvcseg.ensemble.flow_ssim import Selection, select_model
from mvcseg.errors import ConfigError
from mvcseg.flow import FarnebackFlow, FlowEstimator
from mvcseg.inference import gather_clips, iter_labels
from mvcseg.segmenter import Segmenter, Video, check_video
from mvcseg.shapes import check_num_classes, check_positive
from mvcseg.tta import View, iter_vote_labels
from mvcseg.vlm import REPORT_PROMPT, VLM, Change, Group, correct_labels


@dataclass(frozen=True)
class PipelineResult:
    """What came out of a video.

    Attributes:
        labels: ``(T, H, W)`` int64 class ids in 0..K-1.
        choice: the chosen segmenter's name and the scores of all; no scores where there was one to choose from.
        changes: one record for every question asked of the VLM, empty without one.
    """

    labels: Tensor
    choice: Selection
    changes: tuple[Change, ...]


def run_video(
    video: Video,
    segmenters: Mapping[str, Segmenter],
    *,
    num_classes: int,
    clip_length: int,
    views: Sequence[View] | None = None,
    flow: FlowEstimator | None = None,
    vlm: VLM | None = None,
    groups: Sequence[Group] = (),
    class_names: Sequence[str] = (),
    prompt: str = REPORT_PROMPT,
) -> PipelineResult:
    """Labels of a video by every step of the report that is asked for.

    Each segmenter's labels of the whole video are kept as bytes until one is chosen; frames and logits go by
    clip by clip.

    Args:
        video: uint8 ``(T, 3, H, W)``, or anything with ``len`` and slices that give such tensors.
        segmenters: one or more models by name, such as ``{"mvc": ..., "plain": ...}``.
        num_classes: K of all of them.
        clip_length: most frames at once.
        views: views to vote over (Eq. 8), such as ``multiscale_flip()``; None predicts once.
        flow: estimates motion for choosing between segmenters (Eq. 5-7); needed where there are several.
            What the VLM is asked about is followed by the same, or by ``FarnebackFlow()`` where None is given.
        vlm: asked about look-alike classes; None leaves the labels as they are. A failing VLM changes nothing
            and is recorded.
        groups: classes that look alike; needed with ``vlm``.
        class_names: K names; needed with ``vlm``.
        prompt: the question that ``vlm`` is asked, as in `correct_labels`.

    Returns:
        The labels, the choice and the record of questions.

    Raises:
        ConfigError: no segmenter is given, one has another number of classes, several are given without a
            flow, or a VLM without groups and class names.
        ShapeError: the video is empty or not ``(T, 3, H, W)``, or logits do not fit the frames.
        DTypeError: frames are not uint8.
        DataError: logits hold NaN.

    Example:
        >>> from mvcseg import PerFrame
        >>> net = PerFrame(torch.nn.Conv2d(3, 5, 1), num_classes=5, logits_of=lambda out: out)
        >>> video = torch.zeros(4, 3, 32, 48, dtype=torch.uint8)
        >>> result = run_video(video, {"mine": net}, num_classes=5, clip_length=2)
        >>> result.labels.shape, result.choice.name, result.changes
        (torch.Size([4, 32, 48]), 'mine', ())
    """
    check_num_classes(num_classes)
    check_positive(clip_length=clip_length)
    length = check_video(video)
    _check_parts(segmenters, num_classes, flow=flow, vlm=vlm, groups=groups, class_names=class_names)

    candidates = {}
    for name, segmenter in segmenters.items():
        if views is None:
            clips = iter_labels(segmenter, video, clip_length=clip_length)
        else:
            clips = iter_vote_labels(segmenter, video, views=views, clip_length=clip_length)
        candidates[name] = gather_clips(clips, length=length, dtype=torch.uint8)

    choice = Selection(name=next(iter(candidates)), scores={})
    if len(candidates) > 1 and flow is not None:
        choice = select_model(video, candidates, num_classes=num_classes, flow=flow)
    labels, changes = candidates[choice.name], ()

    if vlm is not None:
        correction = correct_labels(
            video,
            labels,
            vlm=vlm,
            groups=groups,
            class_names=class_names,
            flow=FarnebackFlow() if flow is None else flow,
            prompt=prompt,
        )
        return PipelineResult(correction.labels.long(), choice, correction.changes)
    return PipelineResult(labels.long(), choice, changes)


def _check_parts(
    segmenters: Mapping[str, Segmenter],
    num_classes: int,
    *,
    flow: FlowEstimator | None,
    vlm: VLM | None,
    groups: Sequence[Group],
    class_names: Sequence[str],
) -> None:
    if not segmenters:
        raise ConfigError("segmenters: expected at least one by name, got none")
    for name, segmenter in segmenters.items():
        if segmenter.num_classes != num_classes:
            raise ConfigError(f"segmenters[{name!r}]: expected {num_classes} classes, got {segmenter.num_classes}")
    if len(segmenters) > 1 and flow is None:
        raise ConfigError(
            f"flow: expected one to choose between {len(segmenters)} segmenters, got None; "
            "the report's is FarnebackFlow()"
        )
    if vlm is not None and not groups:
        raise ConfigError("groups: expected the classes that look alike for the VLM to be asked about, got none")
    if vlm is not None and len(class_names) != num_classes:
        raise ConfigError(f"class_names: expected {num_classes} names for the VLM, got {len(class_names)}")
