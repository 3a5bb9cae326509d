"""Eq. 5-7: how steadily a label video follows the motion of its frames, and the choice of a model by it.

Labels of frame t are warped to frame t+1 and compared with the labels predicted there by SSIM. Where this
differs from the report, and why:

- The flow runs backward, ``flow(frame[t+1], frame[t])``: warping samples the source, and with the report's
  ``x_t -> x_{t+1}`` taken as a sampling map the score falls below that of no warp at all.
- SSIM is taken on one-hot maps and averaged over **all** K classes, a class absent from both maps counting
  exactly 1: on class ids the score depends on their numbering, and over the classes present flicker is rewarded.
- A pixel counts when its whole 7 x 7 window lies in the frame and maps inside it.

Pairs without a counted pixel are left out; where no pair is left (a single frame, frames below 7 x 7 pixels,
motion out of the frame everywhere) the score is 1. Ties go to the first candidate.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mvcseg.errors import ConfigError, DTypeError
from mvcseg.flow import FlowEstimator, TensorFarnebackFlow
from mvcseg.ops.parallel import for_each_item
from mvcseg.ops.ssim import label_ssim
from mvcseg.ops.warp import inside_mask, warp_labels
from mvcseg.segmenter import Video, check_label_video, check_video
from mvcseg.shapes import check_float, check_integer, check_num_classes, check_shapes

_WINDOW = 7
_CLIP_BYTES = 256 << 20
"""About the most bytes of float frames held at once, four frames apart."""
_DEVICE_PIXELS = 1 << 23
"""About the most pixels of a candidate compared at once on an accelerator."""


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
        The score, at most 1; 1 where no pixel counts in any pair, as in a video of one frame.

    Raises:
        ShapeError: lengths or sizes differ, or there is no frame.
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
        ShapeError: lengths or sizes differ, or there is no frame.
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
    pair_losses = _losses(video, candidates, num_classes=num_classes, flow=flow).cpu()  # the only copy to the host
    pair_losses = pair_losses[~pair_losses[:, 0].isnan()]
    losses = pair_losses.sum(dim=0) / max(len(pair_losses), 1)
    return {name: 1 - loss for name, loss in zip(candidates, losses.tolist(), strict=True)}


def _losses(video: Video, candidates: Mapping[str, Video], *, num_classes: int, flow: FlowEstimator) -> Tensor:
    """Mean ``1 - SSIM`` of each pair of frames and candidate, ``(T - 1, M)`` or fewer, where the flow is."""
    losses = [torch.empty(0, len(candidates), dtype=torch.float64)]
    # The flow of a clip is estimated while the labels of the one before are compared in a thread of their own.
    with ThreadPoolExecutor(1) as pool:
        compared: list[Future[Tensor]] = []
        for frames, maps in _clips(video, candidates, flow):
            if min(frames.shape[-2:]) < _WINDOW:
                continue
            motion = flow(frames[1:], frames[:-1])
            check_shapes(frames=(frames[1:], "n 3 h w"), flow=(motion, "n 2 h w"))
            check_float(flow=motion)
            if compared:
                compared[-1].result()  # or clips would pile up
            compared.append(pool.submit(_pair_losses, maps, motion.detach(), num_classes=num_classes))
        losses += [future.result() for future in compared]
    return torch.cat([some.to(losses[-1].device) for some in losses])


def _pair_losses(maps: Sequence[Sequence[Tensor]], motion: Tensor, *, num_classes: int) -> Tensor:
    """Mean ``1 - SSIM`` of each pair and candidate, ``(N, M)``; NaN for a pair without a counted pixel."""
    at_once = 1  # in one thread: several would wait for the interpreter between short operations
    if motion.device.type != "cpu":
        at_once = max(1, _DEVICE_PIXELS // maps[0][0].numel())
    losses = []
    for first in range(0, len(motion), at_once):
        move = motion[first : first + at_once]
        frames = [_as_bytes(labels, num_classes) for labels in maps[first : first + len(move) + 1]]
        losses.append(_losses_of(torch.stack(frames).to(motion.device), move, num_classes=num_classes))
    return torch.cat(losses)


def _losses_of(labels: Tensor, motion: Tensor, *, num_classes: int) -> Tensor:
    """The same of bytes ``(N + 1, M, H, W)`` on the flow's device, all pairs at once."""
    counted = _whole_windows(inside_mask(motion))
    warped = warp_labels(labels[:-1], motion)
    scores = [
        label_ssim(before, after, num_classes=num_classes, counted=counted, window=_WINDOW)
        for before, after in zip(warped.unbind(dim=1), labels[1:].unbind(dim=1), strict=True)
    ]
    return (1 - torch.stack(scores, dim=1)).mean(dim=2)


def _clips(
    video: Video, candidates: Mapping[str, Video], flow: FlowEstimator
) -> Iterator[tuple[Tensor, list[list[Tensor]]]]:
    """Frames ``(t, 3, H, W)`` in ``[0, 1]`` and of each frame the candidates' label maps ``(H, W)``.

    Each clip starts with the last frame of the one before, so that every pair of the video is in one; it is kept
    and not read again, so that a video file is read once from front to back.
    """
    frames, maps = _read(video, candidates, slice(0, 1))
    device, step = frames[0].device, min(2 * torch.get_num_threads(), 32)
    if isinstance(flow, TensorFarnebackFlow):
        device, step = flow.device or device, flow.pairs_at_once
    step = max(min(step, _CLIP_BYTES // max(1, 4 * frames[0].numel())), 4)
    for start in range(1, len(video), step):
        more, more_maps = _read(video, candidates, slice(start, min(start + step, len(video))))
        check_shapes(**{"video[0:1]": (frames[-1], "3 h w"), "video": (more[0], "3 h w")})
        yield _as_float([frames[-1], *more], device), [maps[-1], *more_maps]
        frames, maps = more, more_maps


def _read(video: Video, candidates: Mapping[str, Video], window: slice) -> tuple[list[Tensor], list[list[Tensor]]]:
    """The frames ``(3, H, W)`` of a slice, and of each the candidates' label maps ``(H, W)``."""
    frames = video[window]
    check_shapes(video=(frames, f"{window.stop - window.start} 3 h w"))
    if frames.dtype != torch.uint8:
        raise DTypeError(f"video: expected uint8 frames, got {frames.dtype}")
    clips = []
    for name, labels in candidates.items():
        clip = labels[window]
        check_shapes(**{"video": (frames, "t 3 h w"), name: (clip, "t h w")})
        check_integer(**{name: clip})
        clips.append(list(clip))
    return list(frames), [list(maps) for maps in zip(*clips, strict=True)]


def _as_float(frames: Sequence[Tensor], device: torch.device) -> Tensor:
    """Byte frames in ``[0, 1]``, ``(t, 3, H, W)``, on a device."""
    if frames[0].device.type != "cpu" or device.type != "cpu":
        return torch.stack(list(frames)).to(device) / 255
    result = torch.empty(len(frames), *frames[0].shape)
    scaled = result.numpy()

    def scale(index: int) -> None:
        scaled[index] = frames[index].numpy()
        scaled[index] /= 255

    for_each_item(scale, len(frames))
    return result


def _as_bytes(maps: Sequence[Tensor], num_classes: int) -> Tensor:
    """Label maps ``(H, W)`` as one ``(M, H, W)`` of bytes, every value outside ``0..K-1`` at least K."""
    if any(labels.device.type != "cpu" for labels in maps):
        wide = torch.stack([labels.long() for labels in maps])
        return torch.where((wide >= 0) & (wide < num_classes), wide, 255).to(torch.uint8)
    result = np.empty((len(maps), *maps[0].shape), dtype=np.uint8)
    for own, labels in zip(result, maps, strict=True):
        values = labels.numpy()
        own[:] = values.astype(np.uint8, copy=False)
        if values.dtype != np.uint8:
            own[(values < 0) | (values >= num_classes)] = 255
    return torch.from_numpy(result)


def _whole_windows(inside: Tensor) -> Tensor:
    """Pixels whose whole window lies in the frame and is inside, ``(N, H, W)``."""
    counted = torch.zeros_like(inside)
    whole: Any
    result: Any
    whole, result = (inside.numpy(), counted.numpy()) if inside.device.type == "cpu" else (inside, counted)
    for shift in (1, 2, 3):  # runs of 2, 4, then 4 + 3 = 7 pixels
        whole = whole[:, shift:] & whole[:, :-shift]
    for shift in (1, 2, 3):
        whole = whole[:, :, shift:] & whole[:, :, :-shift]
    margin = _WINDOW // 2
    result[:, margin:-margin, margin:-margin] = whole
    return counted
