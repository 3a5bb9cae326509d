"""Test-time augmentation: Eq. 8 of arXiv 2406.04979, and the mean of probabilities beside it.

The report runs the model on scaled and flipped copies of a video and takes, per pixel, the label most copies
agree on; on a tie, the label of the copy with the highest resolution. Read literally, that label need not be
one of the tied ones; ``tie="among-tied"`` asks that it is.

A view flips what the frame shows. Padding to a multiple is the model's own business and happens after the
flip, so it stays on the right and bottom; flipping a frame padded before would move it to the left.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
from einops import rearrange
from torch import Tensor, nn

from mvcseg.errors import ConfigError, DataError
from mvcseg.inference import gather_clips, iter_labels
from mvcseg.ops.resize import resize_frames, resize_scores
from mvcseg.ops.score_windows import mirrored, planes, probabilities, rectangles, resizing
from mvcseg.ops.vote import majority, majority_among_tied
from mvcseg.ops.workspace import Workspace
from mvcseg.segmenter import Segmenter, Video, check_segmenter, check_video, read_clip, size_of
from mvcseg.shapes import check_float, check_positive, check_shapes

Tie = Literal["literal", "among-tied"]


@dataclass(frozen=True)
class View:
    """One scaled and possibly mirrored look at a frame, with its inverse.

    Args:
        scale: factor on both sides of the frame, above 0.
        flip: mirrored left to right.

    Raises:
        ConfigError: ``scale`` is not a finite number above 0.

    Example:
        >>> frames = torch.rand(2, 3, 40, 60)
        >>> View(scale=1.5, flip=True).apply(frames).shape
        torch.Size([2, 3, 60, 90])
        >>> mirrored = View(scale=1.0, flip=True)
        >>> torch.equal(mirrored.invert(mirrored.apply(frames), size=(40, 60)), frames)
        True
    """

    scale: float = 1.0
    flip: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.scale) and self.scale > 0):
            raise ConfigError(f"scale: expected a finite number above 0, got {self.scale!r}")

    def size_of(self, size: tuple[int, int]) -> tuple[int, int]:
        """``(height, width)`` of the view of a frame of this size, rounded, at least 1."""
        return max(1, int(size[0] * self.scale + 0.5)), max(1, int(size[1] * self.scale + 0.5))

    def apply(self, frames: Tensor) -> Tensor:
        """The view of frames ``(..., 3, H, W)``, uint8 or floating-point, same dtype."""
        height, width = frames.shape[-2:]
        view = resize_frames(frames, size=self.size_of((height, width)))
        return view.flip(-1) if self.flip else view

    def invert(self, scores: Tensor, *, size: tuple[int, int]) -> Tensor:
        """Scores ``(..., K, h, w)`` of the view, back in place and size ``(height, width)`` of the frames."""
        return resize_scores(scores.flip(-1) if self.flip else scores, size=size)


def multiscale_flip(scales: Sequence[float] = (0.9, 1.0, 1.1, 1.2), *, flip: bool = True) -> tuple[View, ...]:
    """The report's views, by falling scale, unflipped before flipped.

    Args:
        scales: factors on the frame's sides; the defaults are the report's (648 to 864 pixels on the short
            side of a video tested at 720).
        flip: every scale also mirrored.

    Raises:
        ConfigError: no scale is given, one is given twice, or one is not a finite number above 0.

    Source: arXiv 2406.04979, section 2.3 and its table of TTA settings.

    Example:
        >>> [(view.scale, view.flip) for view in multiscale_flip((1.0, 1.1))]
        [(1.1, False), (1.1, True), (1.0, False), (1.0, True)]
    """
    if len(scales) == 0 or len(set(scales)) != len(scales):
        raise ConfigError(f"scales: expected at least one scale and none twice, got {tuple(scales)}")
    flips = (False, True) if flip else (False,)
    return tuple(
        View(scale=float(scale), flip=mirrored) for scale in sorted(scales, reverse=True) for mirrored in flips
    )


def vote_labels(
    segmenter: Segmenter,
    video: Video,
    *,
    views: Sequence[View],
    clip_length: int,
    tie: Tie = "literal",
) -> Tensor:
    """Class ids of a whole video by majority over views.

    One view is in memory at a time; every view's labels are kept as one byte a pixel until the vote.

    Args:
        segmenter: gives logits of clips; at most 255 classes.
        video: uint8 ``(T, 3, H, W)``, or anything with ``len`` and slices that give such tensors.
        views: they vote by falling scale, unflipped before flipped, in whatever order they are given.
        clip_length: most frames at once.
        tie: where no label has more votes than every other: ``"literal"``, the first view's label, be it
            among the tied ones or not (Eq. 8 as written); ``"among-tied"``, the first view's label that is.

    Returns:
        ``(T, H, W)`` int64 in 0..K-1, on the CPU, or on the video's device where it is a tensor elsewhere.

    Raises:
        ConfigError: no view is given, ``tie`` is unknown, ``clip_length`` below 1, or there are more than 255
            classes.
        ShapeError: the video is empty or not ``(T, 3, H, W)``, or logits do not fit the frames.
        DTypeError: frames are not uint8.
        DataError: logits hold NaN.

    Source: arXiv 2406.04979, Eq. 8.

    Example:
        >>> from mvcseg import PerFrame
        >>> net = PerFrame(nn.Conv2d(3, 5, 1), num_classes=5, logits_of=lambda out: out)
        >>> video = torch.zeros(3, 3, 40, 60, dtype=torch.uint8)
        >>> vote_labels(net, video, views=multiscale_flip((1.0, 1.1)), clip_length=2).shape
        torch.Size([3, 40, 60])
    """
    length = check_video(video)
    clips = iter_vote_labels(segmenter, video, views=views, clip_length=clip_length, tie=tie)
    return gather_clips(clips, length=length)


def iter_vote_labels(
    segmenter: Segmenter,
    video: Video,
    *,
    views: Sequence[View],
    clip_length: int,
    tie: Tie = "literal",
) -> Iterator[Tensor]:
    """``vote_labels`` as consecutive ``(t, H, W)`` uint8 clips, in bounded memory.

    A segmenter with a ``stream`` sees the whole video of one view after the other; the bytes of each view then
    wait in an unnamed temporary file, which is gone when the process ends, however it ends.

    Raises:
        ConfigError, ShapeError, DTypeError, DataError: as ``vote_labels``; DataError also when the temporary
            folder is full.
    """
    check_segmenter(segmenter)
    check_positive(clip_length=clip_length)
    total = check_video(video)
    if not views:
        raise ConfigError("views: expected at least one, got none")
    if tie not in get_args(Tie):
        raise ConfigError(f"tie: expected 'literal' or 'among-tied', got {tie!r}")
    ordered = sorted(views, key=lambda view: (-view.scale, view.flip))
    vote = majority if tie == "literal" else majority_among_tied
    if hasattr(segmenter, "stream"):
        stacks = _stacks_of_streams(segmenter, video, ordered, clip_length)
    else:
        stacks = _stacks_of_clips(segmenter, video, ordered, clip_length, total)
    device = video.device if isinstance(video, Tensor) else torch.device("cpu")
    with closing(stacks):
        for stack in stacks:
            yield vote(stack, num_classes=segmenter.num_classes).to(device)


class MeanTTA(nn.Module):
    """A segmenter that averages another's class probabilities over views: the usual test-time augmentation.

    Args:
        segmenter: gives logits of clips.
        views: each is run in turn; their order does not matter.

    Raises:
        ConfigError: no view is given.

    Example:
        >>> from mvcseg import PerFrame
        >>> net = PerFrame(nn.Conv2d(3, 5, 1), num_classes=5, logits_of=lambda out: out)
        >>> logits = MeanTTA(net, multiscale_flip((1.0, 1.1)))(torch.rand(1, 2, 3, 40, 60))
        >>> torch.allclose(logits.exp().sum(dim=2), torch.ones(1, 2, 40, 60))
        True
    """

    def __init__(self, segmenter: Segmenter, views: Sequence[View]) -> None:
        super().__init__()
        if not views:
            raise ConfigError("views: expected at least one, got none")
        self.segmenter = segmenter
        self.views = tuple(views)

    @property
    def num_classes(self) -> int:
        """K of the wrapped segmenter."""
        return self.segmenter.num_classes

    def forward(self, frames: Tensor, /) -> Tensor:
        """Log of the mean class probabilities, ``(B, T, K, H, W)``, in float32 at least.

        Where no gradient is asked for the classes of a pixel lie side by side in memory (channels-last).

        Raises:
            ShapeError: ``frames`` is not ``(B, T, 3, H, W)``, or logits do not fit them.
            DTypeError: they are not floating-point.
        """
        sizes = check_shapes(frames=(frames, "b t 3 h w"))
        check_float(frames=frames)
        size = (frames.shape[-2], frames.shape[-1])
        total: Tensor | None = None
        for view in self.views:
            logits = self.segmenter(view.apply(frames))
            check_shapes(logits=(logits, f"{sizes['b']} {sizes['t']} {self.num_classes} h w"))
            logits = logits.flatten(0, 1)
            with_graph = logits.requires_grad or (total is not None and total.requires_grad)
            if with_graph or torch.compiler.is_compiling():
                scores = logits.softmax(dim=1, dtype=torch.promote_types(logits.dtype, torch.float32))
                scores = view.invert(scores, size=size)
                total = scores if total is None else total + scores
            else:
                total = _with_scores(total, logits, view=view, size=size)
        assert total is not None  # there is a view
        least = torch.finfo(total.dtype).tiny
        if total.requires_grad:
            total = (total / len(self.views)).clamp_min(least).log()
        else:
            total.div_(len(self.views)).clamp_min_(least).log_()
        return rearrange(total, "(b t) k h w -> b t k h w", b=len(frames))


def _with_scores(total: Tensor | None, logits: Tensor, *, view: View, size: tuple[int, int]) -> Tensor:
    """A sum ``(N, K, H, W)`` with the probabilities of a view added to it, in place: they never exist as a whole."""
    number, num_classes, height, width = logits.shape
    memory = Workspace(logits)
    if total is None:
        total = torch.empty(
            (number, num_classes, *size),
            dtype=memory.like.dtype,
            device=logits.device,
            memory_format=torch.channels_last,
        ).zero_()
    resize = resizing((height, width), size, memory)
    for one, target in zip(logits, total.permute(0, 2, 3, 1), strict=True):
        scores = probabilities(planes(one), memory)
        scores = resize(mirrored(scores, memory, width=width) if view.flip else scores)
        for rows, columns in rectangles(size, size=(height, width), num_classes=num_classes, device=logits.device):
            target[slice(*rows), slice(*columns)] += scores(rows, columns)
    return total


def iter_view_labels(segmenter: Segmenter, video: Video, *, view: View, clip_length: int) -> Iterator[Tensor]:
    """Class ids of a video seen through one view, back in place and at the video's own size.

    Probabilities are resized, a mirrored view's labels mirrored back.

    Yields:
        ``(t, H, W)`` uint8, ``t <= clip_length``.

    Raises:
        ConfigError, ShapeError, DTypeError, DataError: as ``vote_labels``.
    """
    check_video(video)
    viewed = _ViewedVideo(video, view)
    for labels in iter_labels(segmenter, viewed, clip_length=clip_length, output_size=size_of(video)):
        yield labels.flip(-1) if view.flip else labels


def scaled_views(
    size: tuple[int, int],
    views: Sequence[View] | None,
    *,
    short_side: int | None,
    long_side: int | None = None,
) -> Sequence[View] | None:
    """Views of a video whose scale 1 is a test size.

    Args:
        size: ``(height, width)`` of the video's frames.
        views: their scales multiply the test size's; None is one plain view.
        short_side: shorter side at scale 1, in pixels; None is the video's own size.
        long_side: what the longer side at scale 1 must not exceed.

    Returns:
        None where one plain look at the video's own size is all there is.

    Raises:
        ConfigError: a number is below 1.

    Example:
        >>> scaled_views((480, 853), [View(1.1)], short_side=720)
        [View(scale=1.6500000000000001, flip=False)]
    """
    if short_side is None:
        return views
    check_positive(short_side=short_side)
    factor = short_side / min(size)
    if long_side is not None:
        check_positive(long_side=long_side)
        factor = min(factor, long_side / max(size))
    if factor == 1:
        return views
    return [View(scale=view.scale * factor, flip=view.flip) for view in views or (View(),)]


@dataclass(frozen=True)
class _ViewedVideo:
    """A stored video seen through a view, frame by frame as it is read."""

    video: Video
    view: View

    def __len__(self) -> int:
        return len(self.video)

    def __getitem__(self, index: slice, /) -> Tensor:
        return self.view.apply(self.video[index])


def _stacks_of_clips(
    segmenter: Segmenter, video: Video, views: Sequence[View], clip_length: int, total: int
) -> Generator[Tensor, None, None]:
    for start in range(0, total, clip_length):
        clip = read_clip(video, start, min(start + clip_length, total))
        labels = (
            torch.cat(list(iter_view_labels(segmenter, clip, view=view, clip_length=clip_length))) for view in views
        )
        yield torch.stack(list(labels))


def _stacks_of_streams(
    segmenter: Segmenter, video: Video, views: Sequence[View], clip_length: int
) -> Generator[Tensor, None, None]:
    total = len(video)
    height, width = size_of(video)
    # unbuffered: closing a buffered file on a full disk would fail a second time
    folder = getattr(segmenter, "spill_folder", None) or tempfile.gettempdir()
    kept = f"{len(views)} views of {total} frames"
    with _told(folder, kept):
        file = tempfile.TemporaryFile(prefix="mvcseg-votes-", buffering=0, dir=folder)  # noqa: SIM115
    with file as spill:
        for view in views:
            for labels in iter_view_labels(segmenter, video, view=view, clip_length=clip_length):
                remaining = memoryview(labels.cpu().numpy().tobytes())
                with _told(folder, kept):
                    while remaining:
                        remaining = remaining[spill.write(remaining) :]
        for start in range(0, total, clip_length):
            stop = min(start + clip_length, total)
            stack = torch.empty(len(views), stop - start, height, width, dtype=torch.uint8)
            for index in range(len(views)):
                spill.seek((index * total + start) * height * width)
                size = (stop - start) * height * width
                stack[index] = torch.from_numpy(
                    np.frombuffer(spill.read(size), dtype=np.uint8).copy().reshape(stop - start, height, width)
                )
            yield stack


@contextmanager
def _told(folder: object, kept: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"temporary folder {folder}: cannot keep {kept} ({error.strerror}); free space there or set TMPDIR"
        ) from error
