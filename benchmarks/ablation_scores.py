"""What the study scores: trained models on the val videos, and the report's steps after training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from camvid_scores import NUM_CLASSES, Clip, mean_iou, score
from torch import Tensor

from mvcseg import Segmenter, predict_labels
from mvcseg.ensemble.average import Average
from mvcseg.ensemble.flow_ssim import select_model
from mvcseg.flow import FlowEstimator
from mvcseg.tta import multiscale_flip, vote_labels

FRAMES_AT_ONCE = 8
VIEWS = multiscale_flip()
"""The report's eight: 0.9, 1.0, 1.1 and 1.2 of the size, each also mirrored."""


def scores_of(segmenter: Segmenter, clips: Sequence[Clip]) -> dict[str, float]:
    """mIoU, VC8 and VC16 in percent."""
    return score(clips, _labels(segmenter, clips))


def scores_of_chain(
    plain: Segmenter, mvc: Segmenter, clips: Sequence[Clip], *, flow: FlowEstimator
) -> dict[str, dict[str, object]]:
    """The report's steps after training, and averaging, which needs the same forward passes as choosing.

    Returns:
        ``"scores"``: by step, mIoU, VC8 and VC16 in percent. ``"choices"``: by stage and video, what flow and SSIM
        chose between the plain and the MVC model, both their scores and both their mIoU.
    """
    single = {"plain": _labels(plain, clips), "mvc": _labels(mvc, clips)}
    voted = {"plain": _voted(plain, clips), "mvc": _voted(mvc, clips)}
    chosen, choices = _chosen(single, clips, flow=flow)
    chosen_after, choices_after = _chosen(voted, clips, flow=flow)
    steps = {
        "plain": single["plain"],
        "mvc": single["mvc"],
        "plain, vote": voted["plain"],
        "mvc, vote": voted["mvc"],
        "selection": chosen,
        "vote, selection": chosen_after,
        "mean of both": _labels(Average([plain, mvc]), clips),
    }
    scores = {step: score(clips, labels) for step, labels in steps.items()}
    return {"scores": scores, "choices": {"single": choices, "vote": choices_after}}


def _labels(segmenter: Segmenter, clips: Sequence[Clip]) -> dict[str, Tensor]:
    return {clip.name: predict_labels(segmenter, clip.frames, clip_length=FRAMES_AT_ONCE) for clip in clips}


def _voted(segmenter: Segmenter, clips: Sequence[Clip]) -> dict[str, Tensor]:
    return {clip.name: vote_labels(segmenter, clip.frames, views=VIEWS, clip_length=FRAMES_AT_ONCE) for clip in clips}


def _chosen(
    labels: Mapping[str, Mapping[str, Tensor]], clips: Sequence[Clip], *, flow: FlowEstimator
) -> tuple[dict[str, Tensor], dict[str, object]]:
    """The labels of the model chosen for each video, and the choices."""
    chosen, choices = {}, {}
    for clip in clips:
        candidates = {name: maps[clip.name] for name, maps in labels.items()}
        choice = select_model(clip.frames, candidates, num_classes=NUM_CLASSES, flow=flow)
        chosen[clip.name] = candidates[choice.name]
        choices[clip.name] = {
            "chosen": choice.name,
            "scores": choice.scores,
            "mIoU": {name: mean_iou([(clip, maps)]) for name, maps in candidates.items()},
        }
    return chosen, choices
