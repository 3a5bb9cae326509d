"""How steady predictions are where there is no ground truth: pixels that flicker against the motion."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from mvcseg.flow import FlowEstimator
from mvcseg.report.flicker import PAIRS_AT_ONCE, backward_flow, flicker_between
from mvcseg.report.media import sample_positions
from mvcseg.reporting.scores import CLIP
from mvcseg.segmenter import Video
from mvcseg.shapes import MAX_CLASSES

MOST_PAIRS = 300
"""Pairs of neighbouring frames that the motion is estimated for; of a longer video, clips are sampled evenly."""
LONG_SIDE = 480
"""Longer side in pixels that frames and label maps are scaled down to for it, as the page shows them."""
LEAST_SHARE = 0.001
"""Share of the pixels below which a class is too small to be named as the one that flickers most."""


@dataclass(frozen=True)
class FlickerScores:
    """How much one prediction flickers.

    Attributes:
        share: share of the pixels of all frames measured but the first of each clip; NaN for a single frame.
        clips: share of pixels that do not flicker in the frames of a clip but its first, by the clip's first frame.
        pixels: for each label byte the pixels seen, and those of them that flicker, ``(256, 2)``.
    """

    share: float
    clips: Mapping[int, float]
    pixels: Tensor

    def worst_class(self) -> tuple[int, float] | None:
        """The class of which the largest share flickers, and that share; None where nothing flickers."""
        seen, moved = self.pixels[:MAX_CLASSES].to(torch.float64).unbind(dim=1)
        shares = (moved / seen).masked_fill(seen < max(1.0, LEAST_SHARE * float(seen.sum())), -math.inf)
        worst = int(shares.argmax())
        return (worst, float(shares[worst])) if float(shares[worst]) > 0 else None


def measure_flicker(
    frames: Video, maps: Mapping[str, Video], *, flow: FlowEstimator, progress: Callable[[int, int], object]
) -> dict[str, FlickerScores]:
    """Flicker of each prediction, by `mvcseg.report.flicker`'s rule, one flow for all of them.

    Args:
        frames: the video, uint8 ``(T, 3, H, W)``, lazily read.
        maps: label maps ``(T, H, W)`` uint8 by name, likewise.
        flow: says where pixels went between two frames.
        progress: called with pairs of frames done and in all.
    """
    runs = measured_runs(len(frames))
    total = sum(len(run) - 1 for run in runs)
    shares: dict[str, dict[int, float]] = {name: {} for name in maps}
    pixels = {name: torch.zeros(256, 2, dtype=torch.int64) for name in maps}
    done = 0
    for run in runs:
        for start, stop in _pieces(run):
            motion = backward_flow(_small_frames(frames[start:stop]), flow)
            for name, labels in maps.items():
                clip = _small_labels(labels[start:stop])
                flickers = flicker_between(clip[:-1], clip[1:], motion)
                shares[name] |= dict(enumerate(flickers.double().mean(dim=(1, 2)).tolist(), start=start + 1))
                pixels[name] += _counted_by_label(clip[1:], flickers)
            done += stop - start - 1
            progress(done, total)
    return {name: _gathered(shares[name], runs, pixels[name]) for name in maps}


def measured_runs(length: int) -> list[range]:
    """Frames that the motion is followed through: all of them, or clips of `CLIP` frames evenly over a long video."""
    if length - 1 <= MOST_PAIRS:
        return [range(length)]
    return [range(start, start + CLIP) for start in sample_positions(length - CLIP + 1, MOST_PAIRS // (CLIP - 1))]


def _pieces(run: range) -> Iterator[tuple[int, int]]:
    """Slices of a run that share their border frame, so that every pair of neighbours is in one of them."""
    for start in range(run.start, run.stop - 1, PAIRS_AT_ONCE):
        yield start, min(start + PAIRS_AT_ONCE + 1, run.stop)


def _gathered(shares: Mapping[int, float], runs: list[range], pixels: Tensor) -> FlickerScores:
    clips = {
        start: 1 - sum(shares[frame] for frame in range(start + 1, start + CLIP)) / (CLIP - 1)
        for run in runs
        for start in run[: max(0, len(run) - CLIP + 1)]
    }
    return FlickerScores(sum(shares.values()) / len(shares) if shares else math.nan, clips, pixels)


def _counted_by_label(labels: Tensor, flickers: Tensor) -> Tensor:
    flat = labels.flatten().long()
    return torch.stack(
        [torch.bincount(flat, minlength=256), torch.bincount(flat[flickers.flatten()], minlength=256)], 1
    )


def _small_size(size: torch.Size) -> tuple[int, int]:
    scale = min(1.0, LONG_SIDE / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _small_frames(frames: Tensor) -> Tensor:
    size = _small_size(frames.shape[-2:])
    if size == tuple(frames.shape[-2:]):
        return frames
    return interpolate(frames.float(), size=size, mode="area").round().to(torch.uint8)


def _small_labels(labels: Tensor) -> Tensor:
    """The class at the centre of each remaining pixel."""
    height, width = _small_size(labels.shape[-2:])
    rows = (torch.arange(height) * 2 + 1) * labels.shape[-2] // (2 * height)
    columns = (torch.arange(width) * 2 + 1) * labels.shape[-1] // (2 * width)
    return labels[:, rows[:, None], columns]
