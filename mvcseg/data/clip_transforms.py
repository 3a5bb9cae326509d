"""What frames and labels of a clip go through as one: zoom, crop, mirror, colour. One draw serves all frames.

Two orders. `crop_and_zoom` cuts first, so that only pixels that stay are resized, and resizes in float.
`resize_and_crop` resizes first and in bytes, as DVIS++ does with Pillow's bilinear filter, which smooths before
shrinking; PyTorch's filter for bytes, used here, rounds otherwise by 1 of 255 in at most one of 200 values of real
frames. Labels take the nearest pixel in both.
Source of the second: zhang-tao-whu/DVIS_Plus, ``data_video/dataset_mapper_vss.py`` with detectron2's transforms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mvcseg.segmenter import IGNORE_INDEX, IMAGENET_MEAN

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in the grey of saturation jitter (ITU-R BT.601)."""


def crop_and_zoom(
    frames: Tensor,
    labels: Tensor,
    *,
    scales: tuple[float, float],
    crop_size: tuple[int, int],
    flip: bool,
    generator: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """A drawn part of a clip at a drawn zoom, of a fixed size.

    Args:
        frames: ``(T, 3, H, W)`` uint8.
        labels: ``(T, H, W)`` integer.
        scales: least and largest zoom, drawn evenly on the log scale.
        crop_size: (height, width) of the result; where a zoomed frame is smaller, the rest is the mean colour,
            labelled 255.
        flip: mirror half of the clips.
        generator: source of randomness.

    Returns:
        Frames float in ``[0, 1]`` and labels int64.
    """
    low, high = scales
    scale = math.exp(generator.uniform(math.log(low), math.log(high)))
    (height, width), (crop_height, crop_width) = frames.shape[-2:], crop_size
    window = (min(height, max(1, round(crop_height / scale))), min(width, max(1, round(crop_width / scale))))
    top, left = _place(window, (height, width), generator)
    is_flipped = flip and bool(generator.integers(2))
    frames, labels = (_cut(tensor, top, left, window) for tensor in (frames, labels))
    size = (_resized(window[0], crop_height, scale), _resized(window[1], crop_width, scale))
    frames, labels = _resize_floats(frames, size), resize_labels(labels, size)
    if is_flipped:
        frames, labels = frames.flip(-1), labels.flip(-1)
    return padded(frames, labels, crop_size)


def resize_and_crop(
    frames: Tensor,
    labels: Tensor,
    *,
    short_sides: Sequence[int] | None,
    long_side: int | None,
    scales: tuple[float, float],
    crop_size: tuple[int, int] | None,
    crop_range: tuple[int, int] | None,
    flip: bool,
    generator: np.random.Generator,
) -> tuple[Tensor, Tensor]:
    """A clip resized as a whole, then a part of it, or all where there is neither a crop size nor a range.

    Args:
        frames: ``(T, 3, H, W)`` uint8.
        labels: ``(T, H, W)`` integer.
        short_sides: lengths of the shorter side in pixels, one of which is drawn; None zooms by ``scales``.
        long_side: most pixels of the longer side; a frame that would be longer is resized to that. None is no cap.
        scales: least and largest zoom, drawn evenly on the log scale, where there are no ``short_sides``.
        crop_size: (height, width) of the result, filled up with the mean colour and label 255 where the frame is
            smaller.
        crop_range: least and largest side of a crop; height and width are drawn apart, each evenly between the two
            and never beyond the frame.
        flip: mirror half of the clips.
        generator: source of randomness.

    Returns:
        Frames float in ``[0, 1]`` and labels int64.
    """
    height, width = frames.shape[-2:]
    if short_sides is not None:
        drawn = short_sides[int(generator.integers(len(short_sides)))]
        size = size_of_short_side((height, width), drawn, long_side=long_side)
    else:
        scale = math.exp(generator.uniform(math.log(scales[0]), math.log(scales[1])))
        size = (max(1, round(scale * height)), max(1, round(scale * width)))
    window = size
    if crop_range is not None:
        low, high = crop_range
        window = (
            int(generator.integers(min(size[0], low), min(size[0], high) + 1)),
            int(generator.integers(min(size[1], low), min(size[1], high) + 1)),
        )
    elif crop_size is not None:
        window = (min(size[0], crop_size[0]), min(size[1], crop_size[1]))
    top, left = _place(window, size, generator)
    is_flipped = flip and bool(generator.integers(2))
    frames, labels = (
        _cut(tensor, top, left, window) for tensor in (resize_bytes(frames, size), resize_labels(labels, size))
    )
    if is_flipped:
        frames, labels = frames.flip(-1), labels.flip(-1)
    return padded(frames.float() / 255, labels, crop_size or window)


def size_of_short_side(size: tuple[int, int], short_side: int, *, long_side: int | None = None) -> tuple[int, int]:
    """Size of a frame whose shorter side gets a length, or whose longer side gets the cap where it would exceed it.

    Args:
        size: (height, width) in pixels.
        short_side: wanted length of the shorter side.
        long_side: cap on the longer side; None is no cap.

    Returns:
        (height, width), at least 1 each.

    Example:
        >>> size_of_short_side((480, 853), 720), size_of_short_side((480, 853), 800, long_side=1333)
        ((720, 1280), (750, 1333))
    """
    height, width = size
    scale = short_side / min(height, width)
    if long_side is not None and scale * max(height, width) > long_side:
        scale = long_side / max(height, width)
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def resize_bytes(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Frames at a size, bilinear, smoothed before shrinking.

    Args:
        frames: ``(T, 3, H, W)`` uint8.
        size: (height, width).

    Returns:
        ``(T, 3, *size)`` uint8.
    """
    if tuple(frames.shape[-2:]) == size:
        return frames
    # PyTorch's fast path wants the channels of a pixel side by side.
    pixels = frames.contiguous(memory_format=torch.channels_last)
    return functional.interpolate(pixels, size=size, mode="bilinear", align_corners=False, antialias=True)


def resize_labels(labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Labels at a size, int64, each the one nearest to the new pixel's centre."""
    rows, columns = (
        ((torch.arange(new) + 0.5) * (old / new)).long().clamp(max=old - 1)
        for old, new in zip(labels.shape[-2:], size, strict=True)
    )
    return labels[..., rows[:, None], columns].long()


def padded(frames: Tensor, labels: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Right and bottom filled up to a size with the mean colour and the ignore index.

    Args:
        frames: ``(T, 3, H, W)`` float in ``[0, 1]``.
        labels: ``(T, H, W)``.
        size: (height, width), not below the clip's.

    Returns:
        Frames and labels of that size, contiguous.
    """
    height, width = frames.shape[-2:]
    if (height, width) == tuple(size):
        return frames.contiguous(), labels.contiguous()
    full = torch.tensor(IMAGENET_MEAN).view(1, 3, 1, 1).repeat(len(frames), 1, *size)
    full[..., :height, :width] = frames
    full_labels = labels.new_full((len(labels), *size), IGNORE_INDEX)
    full_labels[..., :height, :width] = labels
    return full, full_labels


def recoloured(frames: Tensor, *, colour: float, generator: np.random.Generator) -> Tensor:
    """Brightness, contrast about the clip's mean grey, and saturation, each times its own drawn factor.

    Args:
        frames: ``(T, 3, H, W)`` float in ``[0, 1]``.
        colour: factors are drawn from ``1 - colour`` to ``1 + colour``.
        generator: source of randomness.

    Returns:
        The frames, still in ``[0, 1]``.
    """
    factors = generator.uniform(1 - colour, 1 + colour, size=3)
    brightness, contrast, saturation = (float(factor) for factor in factors)
    frames = frames * brightness
    grey = (frames * torch.tensor(LUMA).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    frames = grey + (frames - grey) * saturation
    mean = grey.mean()
    return (mean + (frames - mean) * contrast).clamp(0, 1)


def _place(window: tuple[int, int], size: tuple[int, int], generator: np.random.Generator) -> tuple[int, int]:
    """Top left corner of a window somewhere inside a frame."""
    top, left = (int(generator.integers(side - part + 1)) for side, part in zip(size, window, strict=True))
    return top, left


def _cut(tensor: Tensor, top: int, left: int, window: tuple[int, int]) -> Tensor:
    return tensor[..., top : top + window[0], left : left + window[1]]


def _resized(part: int, crop: int, scale: float) -> int:
    """Size of a window after zooming; a window that rounding alone keeps from filling the crop fills it."""
    size = round(part * scale)
    return crop if abs(size - crop) <= scale else max(1, min(crop, size))


def _resize_floats(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Frames in ``[0, 1]`` at a size, bilinear, smoothed before shrinking."""
    frames = frames.float() / 255
    if frames.shape[-2:] == size:
        return frames
    return functional.interpolate(frames, size=size, mode="bilinear", align_corners=False, antialias=True).clamp(0, 1)
