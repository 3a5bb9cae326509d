"""Clips of different sizes as one batch."""

from __future__ import annotations

from collections.abc import Sequence

from torch.utils.data import default_collate

from mvcseg.data.clip_transforms import padded
from mvcseg.data.clips import Clip


def padded_batch(clips: Sequence[Clip]) -> Clip:
    """A batch of clips, each filled up at the right and bottom to the largest height and width among them.

    For ``DataLoader(clips, collate_fn=padded_batch)``. What is added has the mean colour and label 255, so that no loss
    counts it; clips of one size become the batch that PyTorch would make of them.

    Args:
        clips: one or more, of equal T.

    Returns:
        ``frames`` ``(B, T, 3, H, W)``, ``labels`` ``(B, T, H, W)``, ``sample`` ``(B,)`` int64.

    Example:
        >>> import torch
        >>> small = Clip(torch.zeros(2, 3, 40, 60), torch.zeros(2, 40, 60, dtype=torch.int64), 0)
        >>> large = Clip(torch.zeros(2, 3, 50, 30), torch.zeros(2, 50, 30, dtype=torch.int64), 1)
        >>> batch = padded_batch([small, large])
        >>> batch.frames.shape, int(batch.labels[1, 0, 0, 59])
        (torch.Size([2, 2, 3, 50, 60]), 255)
    """
    height, width = (max(clip.labels.shape[axis] for clip in clips) for axis in (-2, -1))
    batch: Clip = default_collate(
        [Clip(*padded(clip.frames, clip.labels, (height, width)), clip.sample) for clip in clips]
    )
    return batch
