"""CamVid in memory at the study's size, what of it is trained on, and the val videos with cells hidden."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from camvid_scores import Clip, load
from torch import Tensor
from torch.nn import functional

from mvcseg import PatchMask, apply_mask
from mvcseg.data.clips import ClipDataset

HIDDEN_RATIO = 0.5


@dataclass(frozen=True)
class Film:
    """A labelled video in memory, as ``ClipDataset`` wants it."""

    name: str
    frames: Tensor
    labels: Tensor


def videos_of(root, *, split: str, shrink: int) -> list[Clip]:
    """The videos of a split, sides divided by ``shrink``: frames averaged over squares, labels by one pixel of each."""
    return [_shrunk(clip, shrink) for clip in load(root, split=split)]


def _shrunk(clip: Clip, shrink: int) -> Clip:
    if shrink == 1:
        return clip
    frames = functional.avg_pool2d(clip.frames.float(), shrink).round().to(torch.uint8)
    half = shrink // 2
    labels, raw = (maps[:, half::shrink, half::shrink].contiguous() for maps in (clip.labels, clip.raw_labels))
    return replace(clip, frames=frames, labels=labels, raw_labels=raw)


def training_clips(
    videos: Sequence[Clip], *, clip_length: int, crop_size: tuple[int, int], seed: int, num_samples: int
) -> ClipDataset:
    """Clips of neighbouring frames, zoomed, mirrored and recoloured at random."""
    return ClipDataset(
        [Film(clip.name, clip.frames, clip.labels) for clip in videos],
        clip_length=clip_length,
        crop_size=crop_size,
        scales=(0.75, 1.5),
        flip=True,
        colour=0.2,
        seed=seed,
        num_samples=num_samples,
    )


def hidden(clips: Sequence[Clip], *, patch_size: int) -> list[Clip]:
    """The videos with half of their cells hidden, every frame on its own; the same cells at every call."""
    generator = torch.Generator().manual_seed(patch_size)
    mask = PatchMask(patch_size=patch_size, ratio=HIDDEN_RATIO)
    covered = []
    for clip in clips:
        frames = clip.frames[None].float() / 255
        seen = apply_mask(frames, mask(frames, generator=generator))[0]
        covered.append(replace(clip, frames=(255 * seen).round().to(torch.uint8)))
    return covered
