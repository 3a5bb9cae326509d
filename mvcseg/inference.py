"""Whole videos through a segmenter, clip by clip, in memory that does not grow with their length."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from mvcseg.errors import ConfigError, DataError, DTypeError, ShapeError
from mvcseg.ops.score_windows import best_classes, planes
from mvcseg.ops.workspace import Workspace
from mvcseg.segmenter import (
    Segmenter,
    Video,
    check_numbers,
    check_segmenter,
    check_video,
    device_of,
    own_labels,
    read_clip,
    size_of,
)
from mvcseg.shapes import check_positive, check_shapes


def iter_logits(segmenter: Segmenter, video: Video, *, clip_length: int) -> Iterator[Tensor]:
    """Consecutive logits of a video, without a graph.

    The segmenter's own ``stream`` is used where it has one; else the video goes through it in clips of
    ``clip_length`` frames, the last one shorter, each moved to the segmenter's device. A module is put into
    eval mode for each clip and back into the mode it had.

    Args:
        segmenter: gives logits of clips.
        video: uint8 ``(T, 3, H, W)``, or anything with ``len`` and slices that give such tensors.
        clip_length: most frames at once.

    Yields:
        ``(1, t, K, H, W)``, ``t <= clip_length``, on the segmenter's device.

    Raises:
        ConfigError: ``clip_length`` is below 1.
        ShapeError: the video is empty or not ``(T, 3, H, W)``, or the logits do not fit the frames.
        DTypeError: frames are not uint8.
    """
    check_positive(clip_length=clip_length)
    total = check_video(video)
    stream = getattr(segmenter, "stream", None)
    if stream is not None:
        height, width = size_of(video)
        for logits in _without_graph(segmenter, stream(video, clip_length=clip_length)):
            check_shapes(logits=(logits, f"1 t {segmenter.num_classes} {height} {width}"))
            yield logits
        return
    for start in range(0, total, clip_length):
        frames = _read_frames(segmenter, video, start, min(start + clip_length, total))
        with evaluating(segmenter), torch.no_grad():
            logits = segmenter(frames)
        check_shapes(frames=(frames, "b t 3 h w"), logits=(logits, f"b t {segmenter.num_classes} h w"))
        yield logits


def iter_labels(
    segmenter: Segmenter, video: Video, *, clip_length: int, output_size: tuple[int, int] | None = None
) -> Iterator[Tensor]:
    """Class ids of a video as consecutive clips, in bounded memory.

    A segmenter's own ``stream_labels`` is used where it has one; where it has neither that nor ``stream``, its
    ``clip_labels``; else its logits. A subclass that changes how logits come about, but not these, has its logits
    used, and so has one of clips with hooks or out of `torch.compile`.

    Args:
        segmenter: gives logits of clips; at most 255 classes.
        video: uint8 ``(T, 3, H, W)``, or anything with ``len`` and slices that give such tensors.
        clip_length: most frames at once.
        output_size: ``(height, width)`` of the labels; None keeps the frames'. Probabilities are resized to it,
            bilinearly with ``align_corners=False``.

    Yields:
        ``(t, H, W)`` uint8 in 0..K-1, ``t <= clip_length``, on the CPU, or on the video's device where it is a
        tensor elsewhere.

    Raises:
        ConfigError: ``clip_length`` is below 1, ``output_size`` is not two sides of at least 1, or the segmenter has
            more than 255 classes.
        ShapeError: the video is empty or not ``(T, 3, H, W)``, or the logits do not fit the frames.
        DTypeError: frames or a segmenter's own labels are not uint8, or the segmenter is none.
        DataError: the logits hold NaN.
    """
    check_segmenter(segmenter)
    check_positive(clip_length=clip_length)
    check_video(video)
    device = video.device if isinstance(video, Tensor) else torch.device("cpu")
    if output_size is not None and len(output_size) != 2:
        raise ConfigError(f"output_size: expected (height, width), got {output_size}")
    height, width = size_of(video) if output_size is None else output_size
    check_positive(height=height, width=width)
    for labels in _label_clips(segmenter, video, clip_length=clip_length, size=(height, width)):
        check_shapes(labels=(labels, f"t {height} {width}"))
        if labels.dtype != torch.uint8:
            raise DTypeError(f"labels: expected uint8 from the segmenter's own method, got {labels.dtype}")
        yield labels.to(device)


def _label_clips(segmenter: Segmenter, video: Video, *, clip_length: int, size: tuple[int, int]) -> Iterator[Tensor]:
    stream_labels = own_labels(segmenter, "stream_labels")
    if stream_labels is not None:
        yield from _without_graph(segmenter, stream_labels(video, clip_length=clip_length, output_size=size))
        return
    clip_labels = own_labels(segmenter, "clip_labels")
    if clip_labels is not None and not hasattr(segmenter, "stream"):
        yield from _labels_of_clips(segmenter, clip_labels, video, clip_length=clip_length, size=size)
        return
    start = 0
    for logits in iter_logits(segmenter, video, clip_length=clip_length):
        stop = start + logits.shape[1]
        with _named(start, stop):
            labels = _classes_of(logits, size)
        yield labels
        start = stop


def _labels_of_clips(
    segmenter: Segmenter, clip_labels: Callable[..., Tensor], video: Video, *, clip_length: int, size: tuple[int, int]
) -> Iterator[Tensor]:
    total = len(video)
    for start in range(0, total, clip_length):
        stop = min(start + clip_length, total)
        frames = _read_frames(segmenter, video, start, stop)
        with _named(start, stop), evaluating(segmenter), torch.no_grad():
            labels = clip_labels(frames, output_size=size)
        check_shapes(frames=(frames, "1 t 3 h w"), labels=(labels, f"1 t {size[0]} {size[1]}"))
        yield labels[0]


def _classes_of(logits: Tensor, output_size: tuple[int, int]) -> Tensor:
    """The most likely class of every pixel, uint8 ``(t, height, width)``, of logits ``(1, t, K, H, W)``."""
    labels, is_number = best_classes(
        [planes(one) for one in logits.squeeze(0)],
        size=(logits.shape[-2], logits.shape[-1]),
        output_size=output_size,
        num_classes=logits.shape[2],
        memory=Workspace(logits),
    )
    check_numbers(is_number)
    return labels


@contextmanager
def _named(start: int, stop: int) -> Iterator[None]:
    """Errors about the data say of which frames."""
    try:
        yield
    except DataError as error:
        raise DataError(f"frames {start} to {stop - 1}: {error}") from error


def _read_frames(segmenter: Segmenter, video: Video, start: int, stop: int) -> Tensor:
    """Frames ``(1, t, 3, H, W)`` in ``[0, 1]`` on the segmenter's device."""
    clip = read_clip(video, start, stop)
    return clip.to(device_of(segmenter, clip.device), non_blocking=True).unsqueeze(0).float() / 255


def predict_labels(segmenter: Segmenter, video: Video, *, clip_length: int) -> Tensor:
    """Class ids of a whole video.

    Args:
        segmenter: gives logits of clips; at most 255 classes.
        video: uint8 ``(T, 3, H, W)``, or anything with ``len`` and slices that give such tensors.
        clip_length: most frames at once.

    Returns:
        ``(T, H, W)`` int64 in 0..K-1, on the CPU, or on the video's device where it is a tensor elsewhere.

    Raises:
        ConfigError: ``clip_length`` is below 1, or the segmenter has more than 255 classes.
        ShapeError: the video is empty or not ``(T, 3, H, W)``, or the logits do not fit the frames.
        DTypeError: frames are not uint8, or the segmenter is none.
        DataError: the logits hold NaN.

    Example:
        >>> from mvcseg import PerFrame
        >>> segmenter = PerFrame(nn.Conv2d(3, 5, 1), num_classes=5, logits_of=lambda out: out)
        >>> predict_labels(segmenter, torch.zeros(7, 3, 32, 48, dtype=torch.uint8), clip_length=4).shape
        torch.Size([7, 32, 48])
    """
    length = check_video(video)
    return gather_clips(iter_labels(segmenter, video, clip_length=clip_length), length=length)


def gather_clips(clips: Iterator[Tensor], *, length: int, dtype: torch.dtype = torch.int64) -> Tensor:
    """``(T, H, W)`` from consecutive ``(t, H, W)`` clips that add up to ``length`` frames.

    Raises:
        ShapeError: they add up to another number.
    """
    labels: Tensor | None = None
    start = 0
    for clip in clips:
        if labels is None:
            labels = torch.empty(length, *clip.shape[1:], dtype=dtype, device=clip.device)
        if start + len(clip) <= length:
            labels[start : start + len(clip)] = clip
        start += len(clip)
    if labels is None or start != length:
        raise ShapeError(f"segmenter: expected labels for {length} frames, got {start}")
    return labels


@contextmanager
def evaluating(segmenter: object) -> Iterator[None]:
    """A module in eval mode, and afterwards each of its parts back in the mode it had."""
    training = [part for part in segmenter.modules() if part.training] if isinstance(segmenter, nn.Module) else []
    for part in training:
        part.training = False
    try:
        yield
    finally:
        for part in training:
            part.training = True


def _without_graph(segmenter: Segmenter, clips: Iterator[Tensor]) -> Iterator[Tensor]:
    # the modes are entered for each clip, so that the caller's code between two clips runs in its own
    while True:
        with evaluating(segmenter), torch.no_grad():
            logits = next(clips, None)
        if logits is None:
            return
        yield logits
