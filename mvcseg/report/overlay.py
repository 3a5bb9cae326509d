"""Label maps laid over frames, with a fine line between classes so that look-alike colours read."""

from __future__ import annotations

from typing import Any, overload

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mvcseg.errors import ConfigError, DTypeError, ShapeError
from mvcseg.report.arrays import has_channels_last, to_array, to_channels, to_tensor
from mvcseg.segmenter import IGNORE_INDEX
from mvcseg.shapes import check_class_count, check_integer, check_shapes

LINE_STRENGTH = 0.6
"""How far a line's pixel moves towards black or white, as a share of ``opacity``."""
LIGHT_PAIR = 200_000
"""Luma (Rec. 601, times 1000) that two classes have together from which the line between them is dark."""
PIXELS_PER_LINE = 480
"""Short side of a frame for which a line is one pixel wide; it grows with the frame."""


@overload
def overlay(frames: Tensor, labels: Tensor, *, colours: Tensor | NDArray[np.uint8], opacity: float = 0.5) -> Tensor: ...
@overload
def overlay(
    frames: NDArray[np.uint8],
    labels: Tensor | NDArray[Any],
    *,
    colours: Tensor | NDArray[np.uint8],
    opacity: float = 0.5,
) -> NDArray[np.uint8]: ...
def overlay(
    frames: Tensor | NDArray[np.uint8],
    labels: Tensor | NDArray[Any],
    *,
    colours: Tensor | NDArray[np.uint8],
    opacity: float = 0.5,
) -> Tensor | NDArray[np.uint8]:
    """Frames tinted by the colour of each pixel's class, with a fine line where two classes meet.

    A line is dark between light classes and light between dark ones. Pixels labelled 255 keep the frame's
    own colour and draw no line. The same inputs give the same bytes on every device.

    Args:
        frames: uint8 RGB, a video ``(T, 3, H, W)`` or one frame ``(3, H, W)``; an array may have its channels last,
            ``(T, H, W, 3)`` or ``(H, W, 3)``, as plotting libraries do.
        labels: class ids 0..K-1 or 255, any integer dtype, ``(T, H, W)`` or ``(H, W)``, a tensor or an array.
        colours: RGB of each class, uint8 ``(K, 3)``, as `mvcseg.data.palette.class_colours` gives them.
        opacity: share of the class colour, in ``[0, 1]``; 0 gives the frames back.

    Returns:
        uint8 RGB of the shape and device of ``frames``: a tensor for a tensor, an array for an array.

    Raises:
        ShapeError: the shapes do not fit together.
        DTypeError: ``frames`` or ``colours`` are not uint8, ``labels`` are not integers, or one is no tensor or array.
        ConfigError: ``opacity`` is outside ``[0, 1]``, K above 255, or a label neither below K nor 255.

    Example:
        >>> frames = torch.full((1, 3, 2, 4), 100, dtype=torch.uint8)
        >>> labels = torch.tensor([[[0, 0, 255, 255], [0, 0, 255, 255]]])
        >>> overlay(frames, labels, colours=torch.tensor([[200, 0, 100]], dtype=torch.uint8))[0, 0]
        tensor([[150, 150, 100, 100],
                [150, 150, 100, 100]], dtype=torch.uint8)
    """
    if isinstance(labels, np.ndarray):
        labels = to_tensor(labels, argument="labels")
    if isinstance(frames, np.ndarray):
        are_last = has_channels_last(frames.shape, labels.shape)
        whole = to_channels(to_tensor(frames, argument="frames"), are_last=are_last)
        return to_array(overlay(whole, labels, colours=colours, opacity=opacity), are_last=are_last)
    if isinstance(frames, Tensor) and frames.ndim == 3:
        check_shapes(frames=(frames, "3 h w"), labels=(labels, "h w"))
        return overlay(frames[None], labels[None], colours=colours, opacity=opacity)[0]
    colours = torch.as_tensor(colours)
    check_shapes(frames=(frames, "t 3 h w"), labels=(labels, "t h w"), colours=(colours, "k 3"))
    check_integer(labels=labels)
    for name, tensor in (("frames", frames), ("colours", colours)):
        if tensor.dtype != torch.uint8:
            raise DTypeError(f"{name}: expected uint8 in 0..255, got {tensor.dtype}")
    if not 0 <= opacity <= 1:
        raise ConfigError(f"opacity: expected a number in [0, 1], got {opacity!r}")
    if len(colours) == 0:
        raise ShapeError("colours: expected (k 3) with at least one class, got (0, 3)")
    check_class_count(colours=len(colours))
    table = _colour_table(colours.to(frames.device), labels)
    # one frame at a time: the arithmetic needs four bytes for each of the frame's one
    tinted = [_tint(*pair, table, opacity) for pair in zip(frames, labels.to(frames.device), strict=True)]
    return torch.stack(tinted) if tinted else frames.clone()


def _colour_table(colours: Tensor, labels: Tensor) -> Tensor:
    """Red, green, blue and luma of every byte, int32 ``(256, 4)``; unused rows are black."""
    used = torch.unique(labels)
    wrong = used[(used != IGNORE_INDEX) & ((used < 0) | (used >= len(colours)))]
    if len(wrong):
        raise ConfigError(
            f"labels: expected class ids 0..{len(colours) - 1} or {IGNORE_INDEX} for {len(colours)} colours, "
            f"got {int(wrong[0])}"
        )
    table = torch.zeros(256, 4, dtype=torch.int32, device=colours.device)
    table[: len(colours), :3] = colours.to(torch.int32)
    table[:, 3] = (table[:, :3] * torch.tensor([299, 587, 114], dtype=torch.int32, device=colours.device)).sum(dim=1)
    return table


def _tint(frame: Tensor, labels: Tensor, table: Tensor, opacity: float) -> Tensor:
    """One frame ``(3, H, W)`` under its labels ``(H, W)``, in integers so that every device agrees."""
    red, green, blue, luma = table[labels.to(torch.int64)].unbind(dim=-1)
    known = labels != IGNORE_INDEX
    out = torch.where(known, _mix(frame.to(torch.int32), torch.stack((red, green, blue)), opacity), frame)
    thickness = max(1, round(min(labels.shape) / PIXELS_PER_LINE))
    dark, light = _lines(labels, luma)
    if thickness > 1:
        dark, light = (_widened(lines, thickness) & known for lines in (dark, light))
    for lines, grey in ((dark, 0), (light & ~dark, 255)):
        out = torch.where(lines, _mix(out, torch.full_like(out, grey), opacity * LINE_STRENGTH), out)
    return out.to(torch.uint8)


def _lines(labels: Tensor, luma: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels of dark and of light lines, ``(H, W)`` bool each: where the right or else the lower neighbour differs."""
    beside, lumas = labels.clone(), luma.clone()
    # the lower neighbour first, so that the right one has the last word
    but_last, but_first = slice(-1), slice(1, None)
    for here, there in (((but_last,), (but_first,)), ((..., but_last), (..., but_first))):
        differs = (labels[here] != labels[there]) & (labels[there] != IGNORE_INDEX)
        beside[here] = torch.where(differs, labels[there], beside[here])
        lumas[here] = torch.where(differs, luma[there], lumas[here])
    edges = (beside != labels) & (labels != IGNORE_INDEX)
    is_light_pair = luma + lumas > LIGHT_PAIR
    return edges & is_light_pair, edges & ~is_light_pair


def _widened(lines: Tensor, thickness: int) -> Tensor:
    half = thickness // 2
    return functional.max_pool2d(lines[None].float(), 2 * half + 1, stride=1, padding=half)[0] > 0


def _mix(below: Tensor, above: Tensor, share: float) -> Tensor:
    """``(1 - share) * below + share * above``, rounded, in steps of 1/256."""
    weight = round(share * 256)
    return (below * (256 - weight) + above * weight + 128) >> 8
