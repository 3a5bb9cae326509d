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
    """A drawn part of a clip at a drawn zoom.

    Args:
        frames: ``(T, 3, H, W)`` uint8.
        labels: ``(T, H, W)`` uint8.
        scales: least and largest zoom, drawn evenly on the log scale.
        crop_size: (height, width) of the result; a side is shorter where the zoomed frame is.
        flip: mirror half of the clips.
        generator: source of randomness.

    Returns:
        Frames float in ``[0, 1]`` and labels uint8.
    """
    low, high = scales
    scale = math.exp(generator.uniform(math.log(low), math.log(high)))
    (height, width), (crop_height, crop_width) = frames.shape[-2:], crop_size
    part = (min(height, max(1, round(crop_height / scale))), min(width, max(1, round(crop_width / scale))))
    top, left = _place(part, (height, width), generator)
    is_flipped = flip and bool(generator.integers(2))
    frames = frames[..., top : top + part[0], left : left + part[1]]
    labels = labels[..., top : top + part[0], left : left + part[1]]
    size = (_resized(part[0], crop_height, scale), _resized(part[1], crop_width, scale))
    frames = _resize_floats(frames, size)
    labels = resize_labels(labels, size, window=(0, 0, *size), is_flipped=is_flipped)
    return (frames.flip(-1) if is_flipped else frames).contiguous(), labels


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
        labels: ``(T, H, W)`` uint8.
        short_sides: lengths of the shorter side in pixels, one of which is drawn; None zooms by ``scales``.
        long_side: most pixels of the longer side; a frame that would be longer is resized to that. None is no cap.
        scales: least and largest zoom, drawn evenly on the log scale, where there are no ``short_sides``.
        crop_size: (height, width) of the result; a side is shorter where the resized frame is.
        crop_range: least and largest side of a crop; height and width are drawn apart, each evenly between the two
            and never beyond the frame.
        flip: mirror half of the clips.
        generator: source of randomness.

    Returns:
        Frames and labels, uint8.
    """
    height, width = frames.shape[-2:]
    if short_sides is not None:
        drawn = short_sides[int(generator.integers(len(short_sides)))]
        size = size_of_short_side((height, width), drawn, long_side=long_side)
    else:
        scale = math.exp(generator.uniform(math.log(scales[0]), math.log(scales[1])))
        size = (max(1, round(scale * height)), max(1, round(scale * width)))
    part = size
    if crop_range is not None:
        low, high = crop_range
        part = (
            int(generator.integers(min(size[0], low), min(size[0], high) + 1)),
            int(generator.integers(min(size[1], low), min(size[1], high) + 1)),
        )
    elif crop_size is not None:
        part = (min(size[0], crop_size[0]), min(size[1], crop_size[1]))
    window = (*_place(part, size, generator), *part)
    is_flipped = flip and bool(generator.integers(2))
    return (
        resize_frames(frames, size, window=window, is_flipped=is_flipped),
        resize_labels(labels, size, window=window, is_flipped=is_flipped),
    )


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


def resize_frames(
    frames: Tensor, size: tuple[int, int], *, window: tuple[int, int, int, int], is_flipped: bool
) -> Tensor:
    """A part of the resized frames: bilinear, smoothed before shrinking.

    Args:
        frames: ``(T, 3, H, W)`` uint8.
        size: (height, width) of the whole resized frame.
        window: (top, left, height, width) of the part wanted.
        is_flipped: mirror the part.

    Returns:
        ``(T, 3, height, width)`` uint8.
    """
    top, left, height, width = window
    result = frames.new_empty(*frames.shape[:2], height, width)
    # Frame by frame: what lies between stays in the cache, and fresh memory costs more than the work in it.
    for frame, place in zip(frames, result, strict=True):
        if tuple(frame.shape[-2:]) != size:
            # PyTorch's fast path wants the channels of a pixel side by side.
            pixels = frame[None].contiguous(memory_format=torch.channels_last)
            frame = functional.interpolate(pixels, size=size, mode="bilinear", align_corners=False, antialias=True)[0]
        part = frame[..., top : top + height, left : left + width]
        place.copy_(part.flip(-1) if is_flipped else part)
    return result


def resize_labels(
    labels: Tensor, size: tuple[int, int], *, window: tuple[int, int, int, int], is_flipped: bool
) -> Tensor:
    """A part of the resized label maps, each label the one nearest to the new pixel's centre.

    Args:
        labels: ``(T, H, W)`` uint8.
        size: (height, width) of the whole resized map.
        window: (top, left, height, width) of the part wanted.
        is_flipped: mirror the part.

    Returns:
        ``(T, height, width)`` uint8.
    """
    rows, columns = (
        ((torch.arange(new) + 0.5) * (old / new)).long().clamp(max=old - 1)[start : start + length].numpy()
        for old, new, start, length in zip(labels.shape[-2:], size, window[:2], window[2:], strict=True)
    )
    if is_flipped:
        columns = columns[::-1]
    # Columns first, of NumPy: several times faster than indexing by both.
    return torch.from_numpy(labels.numpy().take(columns, axis=2).take(rows, axis=1))


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


def _resized(part: int, crop: int, scale: float) -> int:
    """Size of a window after zooming; a window that rounding alone keeps from filling the crop fills it."""
    size = round(part * scale)
    return crop if abs(size - crop) <= scale else max(1, min(crop, size))


def _resize_floats(frames: Tensor, size: tuple[int, int]) -> Tensor:
    """Frames in ``[0, 1]`` at a size, bilinear, smoothed before shrinking."""
    frames = frames.float().div_(255)
    if frames.shape[-2:] == size:
        return frames
    return functional.interpolate(frames, size=size, mode="bilinear", align_corners=False, antialias=True).clamp(0, 1)
