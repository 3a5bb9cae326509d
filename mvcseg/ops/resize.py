"""Padding to a multiple, resizing of frames and of scores, and the exact undo.

Frames are resized as image libraries do it (bilinear, antialiased when shrinking, rounded on bytes), scores
bilinearly with ``align_corners=False``.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from mvcseg.errors import ShapeError
from mvcseg.shapes import check_positive


def resize_frames(frames: Tensor, *, size: tuple[int, int]) -> Tensor:
    """Frames at another size, bilinear with antialiasing (the filter Pillow uses).

    Args:
        frames: ``(..., C, H, W)`` uint8, or floating-point.
        size: ``(height, width)`` in pixels.

    Returns:
        ``(..., C, height, width)``, same dtype; uint8 is rounded.

    Raises:
        ShapeError: ``frames`` has fewer than three axes.
        ConfigError: a side is below 1.

    Example:
        >>> resize_frames(torch.zeros(5, 3, 8, 12, dtype=torch.uint8), size=(4, 6)).shape
        torch.Size([5, 3, 4, 6])
    """
    images = _as_images(size, frames=frames)
    if frames.shape[-2:] == size:
        return frames
    if frames.dtype == torch.uint8 and frames.device.type != "cpu":  # bytes are resized on the CPU alone
        resized = functional.interpolate(images.float(), size=size, mode="bilinear", antialias=True)
        resized = resized.round_().clamp_(0, 255).to(torch.uint8)
    else:
        resized = functional.interpolate(images, size=size, mode="bilinear", antialias=True)
    return resized.reshape(*frames.shape[:-2], *size)


def resize_scores(scores: Tensor, *, size: tuple[int, int]) -> Tensor:
    """Scores, probabilities or logits at another size, bilinear with ``align_corners=False``.

    Args:
        scores: ``(..., K, H, W)`` floating-point.
        size: ``(height, width)`` in pixels.

    Returns:
        ``(..., K, height, width)``, same dtype.

    Raises:
        ShapeError: ``scores`` has fewer than three axes.
        ConfigError: a side is below 1.
    """
    images = _as_images(size, scores=scores)
    if scores.shape[-2:] == size:
        return scores
    resized = functional.interpolate(images, size=size, mode="bilinear", align_corners=False)
    return resized.reshape(*scores.shape[:-2], *size)


def short_side_size(size: tuple[int, int], *, short_side: int, long_side: int | None = None) -> tuple[int, int]:
    """Size with its shorter side at ``short_side`` and its longer one at most ``long_side``, same aspect.

    Args:
        size: ``(height, width)`` in pixels.
        short_side: wanted shorter side in pixels.
        long_side: largest longer side allowed, or None.

    Returns:
        ``(height, width)`` in whole pixels, at least 1 each.

    Raises:
        ConfigError: a number is below 1.

    Example:
        >>> short_side_size((480, 853), short_side=720)
        (720, 1280)
        >>> short_side_size((400, 1000), short_side=720, long_side=1333)
        (533, 1333)
    """
    height, width = size
    check_positive(height=height, width=width, short_side=short_side)
    factor = short_side / min(size)
    if long_side is not None:
        check_positive(long_side=long_side)
        factor = min(factor, long_side / max(size))
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


def pad_to_multiple(images: Tensor, *, multiple: int, value: float = 0.0) -> Tensor:
    """Images padded right and bottom so that both sides are multiples; ``x[..., :H, :W]`` undoes it.

    Args:
        images: ``(..., H, W)``.
        multiple: at least 1.
        value: what the padding holds.

    Raises:
        ConfigError: ``multiple`` is below 1.

    Example:
        >>> pad_to_multiple(torch.zeros(3, 30, 33), multiple=8).shape
        torch.Size([3, 32, 40])
    """
    check_positive(multiple=multiple)
    height, width = images.shape[-2:]
    below, right = -height % multiple, -width % multiple
    return functional.pad(images, (0, right, 0, below), value=value) if below or right else images


def _as_images(size: tuple[int, int], **named: Tensor) -> Tensor:
    ((name, tensor),) = named.items()
    if tensor.ndim < 3:
        raise ShapeError(f"{name}: expected at least three axes (... c h w), got {tuple(tensor.shape)}")
    check_positive(height=size[0], width=size[1])
    return tensor.reshape(-1, *tensor.shape[-3:])
