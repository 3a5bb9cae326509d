"""Clips of different sizes as one batch, and clips as they travel fastest."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.utils.data import Dataset, default_collate

from mvcseg.data.clip import Clip, PackedClip
from mvcseg.data.clips import ClipDataset


class PackedClips(Dataset[PackedClip]):
    """The samples of a data set as packed clips, for a ``DataLoader`` with workers.

    Bytes take a fifth of the memory of floats and 64-bit labels; in workers, where every batch goes through memory that
    is fresh and shared, they take as much less time.

    Args:
        clips: the data set.

    Example:
        >>> loader = DataLoader(PackedClips(clips), batch_size=4, collate_fn=packed_batch)  # doctest: +SKIP
        >>> frames, labels, samples = next(iter(loader)).unpacked(device)  # doctest: +SKIP
    """

    def __init__(self, clips: ClipDataset) -> None:
        self.clips = clips

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> PackedClip:
        """Sample ``index``.

        Raises:
            DataError: as ``ClipDataset``.
        """
        return self.clips.packed(index)


def packed_batch(clips: Sequence[PackedClip]) -> PackedClip:
    """A batch of packed clips, each filled up at the right and bottom to the largest height and width among them.

    Args:
        clips: one or more, of equal T.

    Returns:
        ``frames`` ``(B, T, 3, H, W)``, ``labels`` ``(B, T, H, W)``, ``size`` ``(B, 2)``, ``sample`` ``(B,)`` int64.
    """
    height, width = (max(clip.labels.shape[axis] for clip in clips) for axis in (-2, -1))
    batch: PackedClip = default_collate([clip.filled_up(height, width) for clip in clips])
    return batch


def padded_batch(clips: Sequence[Clip]) -> Clip:
    """A batch of clips, each filled up at the right and bottom to the largest height and width among them.

    For ``DataLoader(clips, collate_fn=padded_batch)``. What is added has the mean colour and label 255, so that no loss
    counts it; clips of one size become the batch that PyTorch would make of them.

    Args:
        clips: one or more, of equal T.

    Returns:
        ``frames`` ``(B, T, 3, H, W)``, ``labels`` ``(B, T, H, W)``, ``sample`` ``(B,)`` int64.

    Example:
        >>> small = Clip(torch.zeros(2, 3, 40, 60), torch.zeros(2, 40, 60, dtype=torch.int64), 0)
        >>> large = Clip(torch.zeros(2, 3, 50, 30), torch.zeros(2, 50, 30, dtype=torch.int64), 1)
        >>> batch = padded_batch([small, large])
        >>> batch.frames.shape, int(batch.labels[1, 0, 0, 59])
        (torch.Size([2, 2, 3, 50, 60]), 255)
    """
    height, width = (max(clip.labels.shape[axis] for clip in clips) for axis in (-2, -1))
    packed = [PackedClip(clip.frames, clip.labels, torch.tensor(clip.labels.shape[-2:]), clip.sample) for clip in clips]
    filled = [clip.filled_up(height, width) for clip in packed]
    batch: PackedClip = default_collate(filled)
    return batch.unpacked()
