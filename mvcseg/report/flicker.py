"""Where label maps change although the picture says nothing moved: per-frame consistency, pixel by pixel.

The label map of the frame before is brought to a frame along the optical flow (as in Eq. 5 and 6). A pixel flickers
where its class lies nowhere in the 3 x 3 pixels around the place it should have come from: a border that is off by one
pixel is no flicker. Where the flow leaves the frame, or either map says 255, nothing is said.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from mvcseg.errors import DTypeError, ShapeError
from mvcseg.flow import FlowEstimator
from mvcseg.ops.warp import warp_labels
from mvcseg.segmenter import IGNORE_INDEX, Video

PAIRS_AT_ONCE = 15
"""Pairs of neighbouring frames in memory: a slice of a video is then 16 frames long at most."""


def flicker(frames: Video, labels: Video, *, flow: FlowEstimator) -> Tensor:
    """Pixels whose class changes from one frame to the next although the flow says they stay the same thing.

    Read a few frames at a time. A fast movement that the flow misses, what comes into view behind something that
    moves, and a cut between two scenes count as flicker too: compare predictions of one video with one another, and
    with the ground truth, whose own flicker shows how much of it is due to the flow.

    Args:
        frames: uint8 RGB ``(T, 3, H, W)``, a tensor or lazily read.
        labels: class ids of any integer dtype that holds 255, 255 for none, ``(T, H, W)``, a tensor or lazily read.
        flow: says where pixels went between two frames.

    Returns:
        ``(T, H, W)`` bool on the CPU; the first frame has none before it and is all False.

    Raises:
        ShapeError: frames and label maps do not fit each other.
        DTypeError: the frames are not uint8, or the label maps are no integers.

    Example:
        >>> frames = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
        >>> labels = torch.zeros(2, 8, 8, dtype=torch.uint8)
        >>> labels[1, 2:5, 2:5] = 1  # appears out of nowhere
        >>> still = lambda source, target: torch.zeros(len(source), 2, 8, 8)
        >>> flicker(frames, labels, flow=still).sum(dim=(1, 2))
        tensor([0, 9])
    """
    if len(labels) != len(frames):
        raise ShapeError(f"labels: expected {len(frames)} label maps, one a frame, got {len(labels)}")
    clips = []
    for start in range(0, len(frames), PAIRS_AT_ONCE):
        first = max(0, start - 1)
        clip = torch.as_tensor(frames[first : start + PAIRS_AT_ONCE])
        maps = torch.as_tensor(labels[first : start + PAIRS_AT_ONCE]).cpu()
        check_pair(clip, maps)
        if start == 0:
            clips.append(torch.zeros(1, *clip.shape[2:], dtype=torch.bool))
        clips.append(flicker_between(maps[:-1], maps[1:], backward_flow(clip, flow)))
    return torch.cat(clips) if clips else torch.zeros(0, 0, 0, dtype=torch.bool)


def check_pair(frames: Tensor, labels: Tensor) -> None:
    """Refuse frames ``(t, 3, H, W)`` and label maps ``(t, H, W)`` of other shapes or dtypes."""
    if frames.ndim != 4 or frames.shape[1] != 3:
        raise ShapeError(f"frames: expected (t 3 h w), got {tuple(frames.shape)}")
    if frames.dtype != torch.uint8:
        raise DTypeError(f"frames: expected uint8 in 0..255, got {frames.dtype}")
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise DTypeError(f"labels: expected integer class ids, got {labels.dtype}")
    if labels.shape != (len(frames), *frames.shape[2:]):
        raise ShapeError(
            f"labels: expected {(len(frames), *frames.shape[2:])} like the frames, got {tuple(labels.shape)}"
        )


def backward_flow(frames: Tensor, flow: FlowEstimator) -> Tensor:
    """Flow from each frame of ``(t, 3, H, W)`` uint8 but the first to the one before it, ``(t - 1, 2, H, W)``."""
    scaled = frames.cpu().float() / 255
    return flow(scaled[1:], scaled[:-1])


def flicker_between(before: Tensor, labels: Tensor, flow: Tensor) -> Tensor:
    """Which pixels of ``labels`` flicker against the maps ``before`` them, both ``(N, H, W)``, as bool of that shape.

    ``flow`` leads from each frame of ``labels`` to the one ``before``, ``(N, 2, H, W)`` pixels.
    """
    came_from = warp_labels(before, flow)
    height, width = labels.shape[-2:]
    around = pad(came_from, (1, 1, 1, 1), value=IGNORE_INDEX)
    is_new = (came_from != IGNORE_INDEX) & (labels != IGNORE_INDEX)
    for row in range(3):
        for column in range(3):
            is_new &= around[:, row : row + height, column : column + width] != labels
    return is_new
