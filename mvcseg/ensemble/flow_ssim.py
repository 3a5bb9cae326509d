"""Eq. 5-7: how steadily a label video follows the motion of its frames, and the choice of a model by it.

Labels of frame t are warped to frame t+1 and compared with the labels predicted there by SSIM. Where this
differs from the report, and why:

- The flow runs backward, ``flow(frame[t+1], frame[t])``: warping samples the source, and with the report's
  ``x_t -> x_{t+1}`` taken as a sampling map the score falls below that of no warp at all.
- SSIM is taken on one-hot maps and averaged over **all** K classes, a class absent from both maps counting
  exactly 1: on class ids the score depends on their numbering, and over the classes present flicker is rewarded.
- A pixel counts when its whole 7 x 7 window lies in the frame and maps inside it.

Pairs without a counted pixel are left out; a video of one frame, or one where no pair has a counted pixel,
scores 1. Ties go to the first candidate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from mvcseg.errors import ConfigError, DTypeError
from mvcseg.flow import FlowEstimator
from mvcseg.ops.ssim import label_ssim
from mvcseg.ops.warp import inside_mask, warp_labels
from mvcseg.segmenter import Video, check_label_video, check_video
from mvcseg.shapes import check_integer, check_num_classes, check_shapes

_WINDOW = 7
_CHUNK_BYTES = 64 << 20
"""About how many bytes of float frames are held at once."""


@dataclass(frozen=True)
class Selection:
    """The outcome of `select_model`.

    Attributes:
        name: the candidate with the highest score, the first of them on a tie.
        scores: every candidate's score, in the order given.
    """

    name: str
    scores: dict[str, float]


def temporal_score(video: Video, labels: Video, *, num_classes: int, flow: FlowEstimator) -> float:
    """How steadily labels follow the video's motion: mean SSIM of warped and predicted labels over all pairs.

    Args:
        video: uint8 ``(T, 3, H, W)``, or anything with ``len`` and slices that give such tensors.
        labels: integers ``(T, H, W)``, or anything with ``len`` and slices that give such tensors. A label
            outside ``0..K-1`` is no class.
        num_classes: K, 1 to 255.
        flow: estimates the motion between neighbouring frames.

    Returns:
        The score, at most 1; 1 for a single frame, and where no pixel counts in any pair.

    Raises:
        ShapeError: lengths or sizes differ, a side is below 7 pixels, or there is no frame.
        DTypeError: frames are not uint8, or labels no integers.
        ConfigError: ``num_classes`` is outside 1 to 255.

    Source: arXiv 2406.04979, Eq. 5-7.

    Example:
        >>> from mvcseg.flow import FarnebackFlow
        >>> video = torch.zeros(3, 3, 32, 48, dtype=torch.uint8)
        >>> labels = torch.zeros(3, 32, 48, dtype=torch.uint8)
        >>> temporal_score(video, labels, num_classes=2, flow=FarnebackFlow())
        1.0
    """
    return _scores(video, {"labels": labels}, num_classes=num_classes, flow=flow)["labels"]


def select_model(video: Video, candidates: Mapping[str, Video], *, num_classes: int, flow: FlowEstimator) -> Selection:
    """The candidate whose labels follow the video's motion best, with every candidate's `temporal_score`.

    The flow is computed once, whatever the number of candidates.

    Args:
        video: uint8 ``(T, 3, H, W)``, or anything with ``len`` and slices that give such tensors.
        candidates: label video ``(T, H, W)`` of each model by name, read like ``video``.
        num_classes: K, 1 to 255.
        flow: estimates the motion between neighbouring frames.

    Returns:
        The winner's name (the first on a tie) and all scores.

    Raises:
        ConfigError: there is no candidate, or ``num_classes`` is outside 1 to 255.
        ShapeError: lengths or sizes differ, a side is below 7 pixels, or there is no frame.
        DTypeError: frames are not uint8, or labels no integers.

    Source: arXiv 2406.04979, Eq. 5-7.
    """
    if not candidates:
        raise ConfigError("candidates: expected at least one label video by name, got none")
    named = {f"candidates[{name!r}]": labels for name, labels in candidates.items()}
    scores = dict(zip(candidates, _scores(video, named, num_classes=num_classes, flow=flow).values(), strict=True))
    return Selection(name=max(scores, key=scores.__getitem__), scores=scores)


def _scores(
    video: Video, candidates: Mapping[str, Video], *, num_classes: int, flow: FlowEstimator
) -> dict[str, float]:
    check_num_classes(num_classes)
    length = check_video(video)
    for name, labels in candidates.items():
        check_label_video(labels, length=length, name=name)
    losses = dict.fromkeys(candidates, 0.0)
    pairs = 0
    for frames, clips in _clips(video, candidates):
        motion = flow(frames[1:], frames[:-1])
        check_shapes(frames=(frames[1:], "n 3 h w"), flow=(motion, "n 2 h w"))
        inside = inside_mask(motion)
        counted = ~torch.nn.functional.max_pool2d((~inside).float(), _WINDOW, stride=1, padding=_WINDOW // 2).bool()
        for name, labels in clips.items():
            labels = labels.to(motion.device)
            warped = warp_labels(_as_bytes(labels[:-1], num_classes), motion)
            scores = label_ssim(warped, labels[1:], num_classes=num_classes, counted=counted, window=_WINDOW)
            pair_scores = scores.mean(dim=1)
            valid = ~pair_scores.isnan()
            losses[name] += float((1 - pair_scores[valid]).sum())
        pairs += int(valid.sum())
    return {name: 1 - loss / pairs if pairs else 1.0 for name, loss in losses.items()}


def _clips(video: Video, candidates: Mapping[str, Video]) -> Iterator[tuple[Tensor, dict[str, Tensor]]]:
    """Float frames and label maps of consecutive runs of pairs, neighbouring runs sharing one frame."""
    first = video[0:1]
    length = len(video)
    check_shapes(video=(first, "t 3 h w"))
    step = max(4, min(32, _CHUNK_BYTES // (4 * first.numel())))
    for start in range(0, max(length - 1, 1), step):
        stop = min(start + step + 1, length)
        frames = video[start:stop]
        if frames.dtype != torch.uint8:
            raise DTypeError(f"video: expected uint8 frames, got {frames.dtype}")
        sizes = {"video": (frames, "t 3 h w")}
        clips = {name: labels[start:stop] for name, labels in candidates.items()}
        for name, labels in clips.items():
            check_shapes(**sizes, **{name: (labels, "t h w")})
            check_integer(**{name: labels})
        if len(frames) > 1:
            yield frames.float() / 255, clips


def _as_bytes(labels: Tensor, num_classes: int) -> Tensor:
    """Labels as uint8, every value outside ``0..K-1`` as 255."""
    return torch.where((labels >= 0) & (labels < num_classes), labels, 255).to(torch.uint8)
