"""Training clips of labelled videos: keyed draws of video, frames and augmentation.

Sample i is drawn by a generator keyed by (seed, i) and by nothing else, so that a run can stop anywhere and go on
with exactly the clips it would have seen, whatever the number of workers or processes. One draw serves all frames
of a clip: what moves in an augmented clip moved in the video.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mvcseg.data.clip import Clip as Clip
from mvcseg.data.clip import ClipSource, PackedClip
from mvcseg.data.clip import LabelledVideo as LabelledVideo
from mvcseg.data.clip_transforms import crop_and_zoom, recoloured, resize_and_crop
from mvcseg.data.frame_sampling import (
    Sampling,
    consecutive_frames,
    shuffled_position,
    strided_frames,
    window_frames,
)
from mvcseg.data.vspw import listing_error
from mvcseg.errors import ConfigError, DataError
from mvcseg.segmenter import Video
from mvcseg.shapes import check_positive

ShortVideos = Literal["refuse", "repeat"]
"""What becomes of videos with fewer frames than a clip: an error that names them, or their last frame repeated."""
MIN_SIDE = 32
"""Least height and width of clips, in pixels."""


class ClipDataset(Dataset[Clip]):
    """Random clips of labelled videos, as a map from sample number to clip.

    With ``sampling="stride"`` videos are drawn in proportion to their length; with the other two, as DVIS++ does, every
    video comes once, in shuffled order, before any comes again. Videos may differ in size.

    A clip is zoomed (by ``short_sides``, else by ``scales``), cropped (to ``crop_size``, or within ``crop_range``, or
    not at all) and mirrored. ``crop_range`` and whole frames give clips of different sizes, which
    `mvcseg.data.collate.padded_batch` joins.

    Args:
        videos: such as ``VSPW(root, split="train")``; each must carry labels.
        clip_length: T, frames of a clip.
        crop_size: (height, width) in pixels of what is returned, 32 or more; where a frame is smaller, the rest is the
            mean colour, labelled 255. None crops by ``crop_range``, or not.
        strides: distances between the frames of a clip, one drawn for each clip; for ``sampling="stride"``.
        scales: least and largest zoom, drawn evenly on the log scale; without effect where there are ``short_sides``.
        flip: mirror half of the clips.
        colour: largest change of brightness, contrast and saturation, as a factor ``1 - colour`` to ``1 + colour``;
            0 leaves colours alone.
        seed: of all draws.
        num_samples: what ``len`` says; any index of at least 0 can be asked for.
        sampling: ``"stride"`` (frames at one distance), ``"window"`` (a reference frame and others up to ``window``
            frames from it, drawn with replacement, in order) or ``"consecutive"`` (neighbours).
        window: largest distance from the reference frame; for ``sampling="window"``.
        reverse: probability that a clip runs backwards.
        short_sides: lengths of the shorter side in pixels, one drawn for each clip.
        long_side: most pixels of the longer side; for ``short_sides``.
        crop_range: least and largest side of a crop in pixels, height and width drawn apart and capped by the frame;
            not together with ``crop_size``.
        short_videos: what to do with videos shorter than a clip. ``"refuse"`` is an error that names them;
            ``"repeat"`` repeats their last frame. None repeats with ``sampling="stride"`` and refuses otherwise.

    Raises:
        ConfigError: a number is outside what is said above.
        DataError: there is no video, or one has no frames, no labels or (where refused) fewer frames than a clip.

    Example:
        >>> from types import SimpleNamespace
        >>> frames, labels = torch.zeros(9, 3, 40, 60, dtype=torch.uint8), torch.zeros(9, 40, 60, dtype=torch.uint8)
        >>> video = SimpleNamespace(name="a", frames=frames, labels=labels)
        >>> clips = ClipDataset([video], clip_length=4, crop_size=(32, 48), num_samples=8)
        >>> clips[5].frames.shape, clips[5].labels.shape
        (torch.Size([4, 3, 32, 48]), torch.Size([4, 32, 48]))
        >>> clips = ClipDataset([video], clip_length=2, sampling="consecutive", short_sides=[60], long_side=100)
        >>> clips[1].frames.shape
        torch.Size([2, 3, 60, 90])
    """

    def __init__(
        self,
        videos: Sequence[LabelledVideo],
        *,
        clip_length: int,
        crop_size: tuple[int, int] | None = None,
        strides: Sequence[int] = (1,),
        scales: tuple[float, float] = (1.0, 1.0),
        flip: bool = True,
        colour: float = 0.0,
        seed: int = 0,
        num_samples: int = 1,
        sampling: Sampling = "stride",
        window: int = 8,
        reverse: float = 0.0,
        short_sides: Sequence[int] | None = None,
        long_side: int | None = None,
        crop_range: tuple[int, int] | None = None,
        short_videos: ShortVideos | None = None,
    ) -> None:
        check_positive(clip_length=clip_length, num_samples=num_samples, window=window)
        _check_sizes(crop_size, crop_range, short_sides, long_side)
        if not strides or min(strides) < 1:
            raise ConfigError(f"strides: expected one or more distances of at least 1 frame, got {strides}")
        if len(scales) != 2 or not 0 < scales[0] <= scales[1] < math.inf:
            raise ConfigError(f"scales: expected (least, largest) zoom above 0, got {scales}")
        if not 0 <= colour < 1:
            raise ConfigError(f"colour: expected a share in [0, 1), got {colour}")
        if not 0 <= reverse <= 1:
            raise ConfigError(f"reverse: expected a probability in [0, 1], got {reverse}")
        if seed < 0:
            raise ConfigError(f"seed: expected at least 0, got {seed}")
        if sampling not in get_args(Sampling):
            raise ConfigError(f"sampling: expected one of {', '.join(get_args(Sampling))}, got {sampling!r}")
        if short_videos not in (None, *get_args(ShortVideos)):
            raise ConfigError(f"short_videos: expected one of {', '.join(get_args(ShortVideos))}, got {short_videos!r}")
        self.videos = list(videos)
        refuses = (short_videos or ("repeat" if sampling == "stride" else "refuse")) == "refuse"
        lengths = _checked_lengths(self.videos, least=clip_length if refuses else 1)
        self.clip_length, self.strides, self.window, self.reverse = clip_length, tuple(strides), window, reverse
        self.sampling: Sampling = sampling
        self.crop_size = None if crop_size is None else (int(crop_size[0]), int(crop_size[1]))
        self.crop_range = None if crop_range is None else (int(crop_range[0]), int(crop_range[1]))
        self.short_sides, self.long_side = None if short_sides is None else tuple(short_sides), long_side
        self.scales, self.flip, self.colour = (scales[0], scales[1]), flip, colour
        self.seed, self.num_samples = seed, num_samples
        self._last_frame = np.cumsum(lengths)

    def __len__(self) -> int:
        return self.num_samples

    def source(self, index: int) -> ClipSource:
        """The video and frames of sample ``index``."""
        return self._draw_source(index, self._generator(index))

    def __getitem__(self, index: int) -> Clip:
        """Sample ``index``.

        Raises:
            DataError: a frame cannot be read, or its label map has another size.
        """
        return self.packed(index).unpacked()

    def packed(self, index: int) -> PackedClip:
        """Sample ``index`` in the form in which it travels fastest.

        Raises:
            DataError: a frame cannot be read, or its label map has another size.
        """
        generator = self._generator(index)
        source = self._draw_source(index, generator)
        video = self.videos[source.video]
        frames, labels = _at(video.frames, source.frames), _labels_at(video, source.frames)
        if frames.shape[-2:] != labels.shape[-2:]:
            raise DataError(
                f"{source}: frames are {tuple(frames.shape[-2:])} pixels, their label maps {tuple(labels.shape[-2:])}"
            )
        frames, labels = self._augmented(frames, labels, generator)
        clip = PackedClip(frames, labels, torch.tensor(labels.shape[-2:]), index)
        if self.colour:  # before filling up, so that the ground keeps its colour and the contrast is the picture's own
            frames = recoloured(clip.unpacked().frames, colour=self.colour, generator=generator)
            clip = clip._replace(frames=frames)
        return clip if self.crop_size is None else clip.filled_up(*self.crop_size)

    def _generator(self, index: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, index))

    def _draw_source(self, index: int, generator: np.random.Generator) -> ClipSource:
        if self.sampling == "stride":
            drawn = generator.integers(self._last_frame[-1])
            position = int(np.searchsorted(self._last_frame, drawn, side="right"))
        else:
            position = shuffled_position(index, count=len(self.videos), seed=self.seed)
        video, clip_length = self.videos[position], self.clip_length
        length = len(video.frames)
        if self.sampling == "stride":
            frames = strided_frames(length, clip_length=clip_length, strides=self.strides, generator=generator)
        elif self.sampling == "window":
            frames = window_frames(length, clip_length=clip_length, window=self.window, generator=generator)
        else:
            frames = consecutive_frames(length, clip_length=clip_length, generator=generator)
        if self.reverse and generator.random() < self.reverse:
            frames = frames[::-1]
        return ClipSource(video=position, name=video.name, frames=frames)

    def _augmented(self, frames: Tensor, labels: Tensor, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
        if self.short_sides is None and self.crop_size is not None:
            return crop_and_zoom(
                frames, labels, scales=self.scales, crop_size=self.crop_size, flip=self.flip, generator=generator
            )
        return resize_and_crop(
            frames,
            labels,
            short_sides=self.short_sides,
            long_side=self.long_side,
            scales=self.scales,
            crop_size=self.crop_size,
            crop_range=self.crop_range,
            flip=self.flip,
            generator=generator,
        )


def _check_sizes(
    crop_size: Sequence[int] | None,
    crop_range: Sequence[int] | None,
    short_sides: Sequence[int] | None,
    long_side: int | None,
) -> None:
    if crop_size is not None and (len(crop_size) != 2 or min(crop_size) < MIN_SIDE):
        raise ConfigError(
            f"crop_size: expected (height, width) of at least {MIN_SIDE} pixels each, or None, got {crop_size}"
        )
    if crop_range is not None and (len(crop_range) != 2 or not MIN_SIDE <= crop_range[0] <= crop_range[1]):
        raise ConfigError(
            f"crop_range: expected (least, largest) side of at least {MIN_SIDE} pixels, or None, got {crop_range}"
        )
    if crop_range is not None and crop_size is not None:
        raise ConfigError("crop_range: expected only one of crop_size and crop_range, got both; set crop_size to None")
    if short_sides is not None and (not short_sides or min(short_sides) < MIN_SIDE):
        raise ConfigError(
            f"short_sides: expected one or more lengths of at least {MIN_SIDE} pixels, or None, got {short_sides}"
        )
    if short_sides is not None and long_side is not None and long_side < max(short_sides):
        raise ConfigError(f"long_side: expected at least {max(short_sides)} from short_sides, got {long_side}")


def _checked_lengths(videos: Sequence[LabelledVideo], *, least: int) -> list[int]:
    if not videos:
        raise DataError("videos: expected at least one video to draw clips from, got none")
    lengths = [len(video.frames) for video in videos]
    for video, length in zip(videos, lengths, strict=True):
        if length < 1 or video.labels is None:
            raise DataError(f"videos: {video.name} has no {'labels' if length else 'frames'}")
    short = [f"{video.name} ({length} frames)" for video, length in zip(videos, lengths, strict=True) if length < least]
    if short:
        raise listing_error(
            f"clip_length: expected videos of at least {least} frames, got {len(short)} of {len(videos)} that are "
            'shorter; lower it, leave them out, or set short_videos to "repeat"',
            short,
        )
    return lengths


def _at(video: Video, positions: Sequence[int]) -> Tensor:
    """Frames at the given positions, in as few reads as slices allow."""
    steps = {later - earlier for earlier, later in itertools.pairwise(positions)}
    if len(steps) == 1 and min(steps) > 0:
        return video[positions[0] : positions[-1] + 1 : steps.pop()]
    if len(steps) == 1 and max(steps) < 0:
        return _at(video, positions[::-1]).flip(0)
    wanted = sorted(set(positions))
    read = torch.cat([video[position : position + 1] for position in wanted])
    return read[[wanted.index(position) for position in positions]]


def _labels_at(video: LabelledVideo, positions: Sequence[int]) -> Tensor:
    labels = video.labels
    if labels is None:
        raise DataError(f"videos: {video.name} has no labels")
    return _at(labels, positions)
