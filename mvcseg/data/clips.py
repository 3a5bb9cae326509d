"""Training clips: which frames, and the augmentation that frames and labels share.

Sample i is drawn by a generator keyed by (seed, i) and by nothing else, so that a run can stop anywhere and go on
with exactly the clips it would have seen, whatever the number of workers or processes. One draw serves all frames
of a clip: what moves in an augmented clip moved in the video.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import Dataset

from mvcseg.errors import ConfigError, DataError
from mvcseg.segmenter import IGNORE_INDEX, IMAGENET_MEAN, Video
from mvcseg.shapes import check_positive

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the grey of saturation jitter (ITU-R BT.601)."""


class LabelledVideo(Protocol):
    """A video of ``VSPW``, or anything alike."""

    @property
    def name(self) -> str:
        """Name, used in messages."""
        ...

    @property
    def frames(self) -> Video:
        """Slices give uint8 ``(t, 3, H, W)``."""
        ...

    @property
    def labels(self) -> Video | None:
        """Slices give integer ``(t, H, W)``, classes and 255; None where the video has no masks."""
        ...


class Clip(NamedTuple):
    """One training sample, or with a leading axis a batch of them.

    Attributes:
        frames: ``(T, 3, H, W)`` float in ``[0, 1]``.
        labels: ``(T, H, W)`` int64 classes, 255 where nothing is known.
        sample: its number, from which ``ClipDataset.source`` names its frames.
    """

    frames: Tensor
    labels: Tensor
    sample: int


@dataclass(frozen=True)
class ClipSource:
    """Where a clip comes from.

    Attributes:
        video: position of the video in the data set.
        name: its name.
        frames: positions of the clip's frames in the video.
    """

    video: int
    name: str
    frames: tuple[int, ...]

    def __str__(self) -> str:
        return f"video {self.name}, frames {', '.join(str(frame) for frame in self.frames)}"


class ClipDataset(Dataset[Clip]):
    """Random clips of labelled videos, as a map from sample number to clip.

    Videos are drawn in proportion to their length, then a stride, then a start. A video too short for the stride
    gets the largest that fits; one shorter than the clip repeats its last frame.

    Args:
        videos: such as ``VSPW(root, split="train")``; each must carry labels.
        clip_length: T, frames of a clip.
        crop_size: (height, width) in pixels of what is returned, 32 or more.
        strides: distances between the frames of a clip, one drawn for each clip.
        scales: least and largest zoom, drawn evenly on the log scale before cropping. Where a frame is smaller than
            the crop, the rest is the mean colour, labelled 255.
        flip: mirror every second clip.
        colour: largest change of brightness, contrast and saturation, as a factor ``1 - colour`` to ``1 + colour``;
            0 leaves colours alone.
        seed: of all draws.
        num_samples: what ``len`` says; any index of at least 0 can be asked for.

    Raises:
        ConfigError: a number is outside what is said above.
        DataError: there is no video, or one has no frames or no labels.

    Example:
        >>> from types import SimpleNamespace
        >>> frames, labels = torch.zeros(9, 3, 40, 60, dtype=torch.uint8), torch.zeros(9, 40, 60, dtype=torch.uint8)
        >>> video = SimpleNamespace(name="a", frames=frames, labels=labels)
        >>> clips = ClipDataset([video], clip_length=4, crop_size=(32, 48), num_samples=8)
        >>> clips[5].frames.shape, clips[5].labels.shape
        (torch.Size([4, 3, 32, 48]), torch.Size([4, 32, 48]))
    """

    def __init__(
        self,
        videos: Sequence[LabelledVideo],
        *,
        clip_length: int,
        crop_size: tuple[int, int],
        strides: Sequence[int] = (1,),
        scales: tuple[float, float] = (1.0, 1.0),
        flip: bool = True,
        colour: float = 0.0,
        seed: int = 0,
        num_samples: int = 1,
    ) -> None:
        check_positive(clip_length=clip_length, num_samples=num_samples)
        if len(crop_size) != 2 or min(crop_size) < 32:
            raise ConfigError(f"crop_size: expected (height, width) of at least 32 pixels each, got {crop_size}")
        if not strides or min(strides) < 1:
            raise ConfigError(f"strides: expected one or more distances of at least 1 frame, got {strides}")
        if len(scales) != 2 or not 0 < scales[0] <= scales[1] < math.inf:
            raise ConfigError(f"scales: expected (least, largest) zoom above 0, got {scales}")
        if not 0 <= colour < 1:
            raise ConfigError(f"colour: expected a share in [0, 1), got {colour}")
        if seed < 0:
            raise ConfigError(f"seed: expected at least 0, got {seed}")
        self.videos = list(videos)
        if not self.videos:
            raise DataError("videos: expected at least one video to draw clips from, got none")
        for video in self.videos:
            if len(video.frames) < 1 or video.labels is None:
                raise DataError(f"videos: {video.name} has no {'labels' if len(video.frames) else 'frames'}")
        self.clip_length, self.crop_size = clip_length, (int(crop_size[0]), int(crop_size[1]))
        self.strides, self.scales, self.flip, self.colour = tuple(strides), tuple(scales), flip, colour
        self.seed, self.num_samples = seed, num_samples
        self._last_frame = np.cumsum([len(video.frames) for video in self.videos])

    def __len__(self) -> int:
        return self.num_samples

    def source(self, index: int) -> ClipSource:
        """The video and frames of sample ``index``."""
        return self._draw_source(self._generator(index))

    def __getitem__(self, index: int) -> Clip:
        """Sample ``index``.

        Raises:
            DataError: a frame cannot be read, or its label map has another size.
        """
        generator = self._generator(index)
        source = self._draw_source(generator)
        video = self.videos[source.video]
        frames, labels = _at(video.frames, source.frames), _labels_at(video, source.frames)
        if frames.shape[-2:] != labels.shape[-2:]:
            raise DataError(
                f"{source}: frames are {tuple(frames.shape[-2:])} pixels, their label maps {tuple(labels.shape[-2:])}"
            )
        frames, labels = self._crop(frames, labels, generator)
        if self.colour:
            frames = _recoloured(frames, generator.uniform(1 - self.colour, 1 + self.colour, size=3))
        return Clip(frames, labels, index)

    def _generator(self, index: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, index))

    def _draw_source(self, generator: np.random.Generator) -> ClipSource:
        position = int(np.searchsorted(self._last_frame, generator.integers(self._last_frame[-1]), side="right"))
        video = self.videos[position]
        length, steps = len(video.frames), self.clip_length - 1
        stride = self.strides[int(generator.integers(len(self.strides)))]
        if steps:
            stride = max(1, min(stride, (length - 1) // steps))
        start = int(generator.integers(max(1, length - stride * steps)))
        frames = tuple(min(start + stride * step, length - 1) for step in range(self.clip_length))
        return ClipSource(video=position, name=video.name, frames=frames)

    def _crop(self, frames: Tensor, labels: Tensor, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Zoom, crop and mirror; only the pixels that stay are resized."""
        low, high = self.scales
        scale = math.exp(generator.uniform(math.log(low), math.log(high)))
        (height, width), (crop_height, crop_width) = frames.shape[-2:], self.crop_size
        window = (min(height, max(1, round(crop_height / scale))), min(width, max(1, round(crop_width / scale))))
        top, left = (
            int(generator.integers(side - part + 1)) for side, part in zip((height, width), window, strict=True)
        )
        is_flipped = self.flip and bool(generator.integers(2))
        frames = frames[..., top : top + window[0], left : left + window[1]]
        labels = labels[..., top : top + window[0], left : left + window[1]]
        size = (_resized(window[0], crop_height, scale), _resized(window[1], crop_width, scale))
        frames, labels = _resize_frames(frames, size), _resize_labels(labels, size)
        if is_flipped:
            frames, labels = frames.flip(-1), labels.flip(-1)
        return _padded(frames, labels, self.crop_size)


def _at(video: Video, positions: Sequence[int]) -> Tensor:
    """Frames at the given positions, in as few reads as slices allow."""
    steps = {later - earlier for earlier, later in itertools.pairwise(positions)}
    if len(steps) == 1 and min(steps) > 0:
        return video[positions[0] : positions[-1] + 1 : steps.pop()]
    return torch.cat([video[position : position + 1] for position in positions])


def _labels_at(video: LabelledVideo, positions: Sequence[int]) -> Tensor:
    labels = video.labels
    if labels is None:
        raise DataError(f"videos: {video.name} has no labels")
    return _at(labels, positions)


def _resized(part: int, crop: int, scale: float) -> int:
    """Size of a window after zooming; a window that rounding alone keeps from filling the crop fills it."""
    size = round(part * scale)
    return crop if abs(size - crop) <= scale else max(1, min(crop, size))


def _resize_frames(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Frames in ``[0, 1]`` at a size, bilinear, smoothed before shrinking."""
    frames = frames.float() / 255
    if frames.shape[-2:] == size:
        return frames
    return functional.interpolate(frames, size=size, mode="bilinear", align_corners=False, antialias=True).clamp(0, 1)


def _resize_labels(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Labels at a size, int64, each the one nearest to the new pixel's centre."""
    rows, columns = (
        ((torch.arange(new) + 0.5) * (old / new)).long().clamp(max=old - 1)
        for old, new in zip(labels.shape[-2:], size, strict=True)
    )
    return labels[..., rows[:, None], columns].long()


def _padded(frames: Tensor, labels: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Right and bottom filled up to a size with the mean colour and the ignore index."""
    height, width = frames.shape[-2:]
    if (height, width) == size:
        return frames.contiguous(), labels.contiguous()
    full = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1).repeat(len(frames), 1, *size)
    full[..., :height, :width] = frames
    full_labels = labels.new_full((len(labels), *size), IGNORE_INDEX)
    full_labels[..., :height, :width] = labels
    return full, full_labels


def _recoloured(frames: Tensor, factors: np.ndarray) -> Tensor:
    """Brightness, contrast about the clip's mean grey, and saturation, each times its factor."""
    brightness, contrast, saturation = (float(factor) for factor in factors)
    frames = frames * brightness
    grey = (frames * torch.tensor(LUMA).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    frames = grey + (frames - grey) * saturation
    mean = grey.mean()
    return (mean + (frames - mean) * contrast).clamp(0, 1)
