"""Label maps laid over frames, with a fine line between classes so that look-alike colours read."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mvcseg.errors import ConfigError, DTypeError, ShapeError
from mvcseg.segmenter import IGNORE_INDEX
from mvcseg.shapes import check_integer, check_shapes

LINE_STRENGTH = 0.75
"""How far a line's pixel moves towards black or white, as a share of ``opacity``."""
PIXELS_PER_LINE = 480
"""Short side of a frame for which a line is one pixel wide; it grows with the frame."""


def overlay(frames: Tensor, labels: Tensor, *, colours: Tensor | NDArray[np.uint8], opacity: float = 0.5) -> Tensor:
    """Frames tinted by the colour of each pixel's class, with a fine line where two classes meet.

    A line is dark beside a light class and light beside a dark one. Pixels labelled 255 keep the frame's
    own colour and draw no line. The same inputs give the same bytes on every device.

    Args:
        frames: uint8 RGB, a video ``(T, 3, H, W)`` or one frame ``(3, H, W)``.
        labels: class ids 0..K-1 or 255, any integer dtype, ``(T, H, W)`` or ``(H, W)``.
        colours: RGB of each class, uint8 ``(K, 3)``, as `mvcseg.data.palette.class_colours` gives them.
        opacity: share of the class colour, in ``[0, 1]``; 0 gives the frames back.

    Returns:
        uint8 RGB of the shape and device of ``frames``.

    Raises:
        ShapeError: the shapes do not fit together.
        DTypeError: ``frames`` or ``colours`` are not uint8, or ``labels`` are not integers.
        ConfigError: ``opacity`` is outside ``[0, 1]``, or a label is neither below K nor 255.

    Example:
        >>> frames = torch.full((1, 3, 2, 4), 100, dtype=torch.uint8)
        >>> labels = torch.tensor([[[0, 0, 255, 255], [0, 0, 255, 255]]])
        >>> overlay(frames, labels, colours=torch.tensor([[200, 0, 100]], dtype=torch.uint8))[0, 0]
        tensor([[150, 150, 100, 100],
                [150, 150, 100, 100]], dtype=torch.uint8)
    """
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
    table = _colour_table(colours.to(frames.device), labels)
    # one frame at a time: the arithmetic needs four bytes for each of the frame's one
    tinted = [_tint(*pair, table, opacity) for pair in zip(frames, labels.to(frames.device), strict=True)]
    return torch.stack(tinted) if tinted else frames.clone()


def class_edges(labels: Tensor) -> Tensor:
    """Pixels whose right or lower neighbour has another class, ``(..., H, W)`` bool; 255 has no edges.

    Args:
        labels: class ids or 255, ``(..., H, W)``.
    """
    edges = torch.zeros_like(labels, dtype=torch.bool)
    known = labels != IGNORE_INDEX
    edges[..., :-1] |= (labels[..., :-1] != labels[..., 1:]) & known[..., :-1] & known[..., 1:]
    edges[..., :-1, :] |= (labels[..., :-1, :] != labels[..., 1:, :]) & known[..., :-1, :] & known[..., 1:, :]
    return edges


def _colour_table(colours: Tensor, labels: Tensor) -> Tensor:
    """Colour and line colour of every byte, int32 ``(256, 2, 3)``; unused rows are black."""
    used = torch.unique(labels)
    wrong = used[(used != IGNORE_INDEX) & ((used < 0) | (used >= len(colours)))]
    if len(wrong):
        raise ConfigError(
            f"labels: expected class ids 0..{len(colours) - 1} or {IGNORE_INDEX} for {len(colours)} colours, "
            f"got {int(wrong[0])}"
        )
    table = torch.zeros(256, 2, 3, dtype=torch.int32, device=colours.device)
    table[: len(colours), 0] = colours.to(torch.int32)
    luma = (table[:, 0] * torch.tensor([299, 587, 114], dtype=torch.int32, device=colours.device)).sum(dim=1)
    table[:, 1] = torch.where(luma > 110_000, 0, 255)[:, None]
    return table


def _tint(frame: Tensor, labels: Tensor, table: Tensor, opacity: float) -> Tensor:
    """One frame ``(3, H, W)`` under its labels ``(H, W)``, in integers so that every device agrees."""
    height, width = labels.shape
    colour, line = table[labels.to(torch.int64)].permute(2, 3, 0, 1)
    known = labels != IGNORE_INDEX
    edges = class_edges(labels)
    thickness = max(1, round(min(height, width) / PIXELS_PER_LINE))
    if thickness > 1:
        wide = functional.max_pool2d(edges[None, None].float(), 2 * (thickness // 2) + 1, 1, thickness // 2)
        edges = (wide[0, 0] > 0) & known
    tinted = torch.where(known, _mix(frame.to(torch.int32), colour, opacity), frame)
    return torch.where(edges, _mix(tinted, line, opacity * LINE_STRENGTH), tinted).to(torch.uint8)


def _mix(below: Tensor, above: Tensor, share: float) -> Tensor:
    """``(1 - share) * below + share * above``, rounded, in steps of 1/256."""
    weight = round(share * 256)
    return (below * (256 - weight) + above * weight + 128) >> 8
