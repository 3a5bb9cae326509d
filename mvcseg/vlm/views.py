"""The views of a tube that a question is asked about: which frames, and how the tube is shown in them."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mvcseg.errors import ConfigError
from mvcseg.shapes import check_positive, check_shapes
from mvcseg.vlm.tubes import Tube

View: TypeAlias = Literal["outline", "mark", "frame"]
"""A tube outlined in its surroundings, tinted in its surroundings, or the whole frame untouched."""
Box: TypeAlias = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels, right and bottom excluded."""
MARK_COLOUR = (255, 0, 255)
"""Magenta, rare in photographs."""
CONTEXT = 0.5
"""What is shown around a tube on each side, as a share of the longer side of its box."""
_LARGE = 0.5
_LEAST_MARGIN = 8


def view_frames(tube: Tube, *, count: int) -> tuple[int, ...]:
    """The frames to show of a tube, the best first.

    The first is the one where most of the tube is seen. The second is the sharpest of those where at least half as
    much is seen, unless that is the first. Every further one is the farthest in time from those chosen, first among
    those with at least half as much, then among the others; of equally far ones the one with more of the tube.

    Args:
        tube: what `find_tubes` found.
        count: how many at most; fewer where the tube is in fewer frames.

    Raises:
        ConfigError: ``count`` is below 1.
    """
    check_positive(count=count)
    frames = np.array(sorted(tube.seen))
    seen = [tube.seen[frame] for frame in frames.tolist()]
    pixels = np.array([view.pixels for view in seen])
    is_large = pixels >= _LARGE * pixels.max()
    chosen = [int(pixels.argmax())]
    sharpest = int(np.where(is_large, [view.sharpness for view in seen], -1.0).argmax())
    if sharpest not in chosen:
        chosen.append(sharpest)
    distance = np.abs(frames[:, None] - frames[chosen]).min(axis=1)
    while len(chosen) < min(count, len(frames)):
        # The last key counts most; the first frame wins where all are equal.
        order = np.lexsort((-frames, pixels, distance, is_large, distance > 0))
        chosen.append(int(order[-1]))
        distance = np.minimum(distance, np.abs(frames - frames[chosen[-1]]))
    return tuple(frames[chosen[:count]].tolist())


def crop_box(box: Box, *, size: tuple[int, int], context: float = CONTEXT) -> Box:
    """What a crop shows of a frame: a tube's box with its surroundings, cut at the frame's border.

    Args:
        box: left, top, right, bottom in pixels, right and bottom excluded.
        size: height and width of the frame.
        context: what is shown on each side beyond the box, as a share of its longer side, but at least 8 pixels.

    Example:
        >>> crop_box((10, 20, 50, 30), size=(48, 60))
        (0, 0, 60, 48)
        >>> crop_box((30, 30, 34, 34), size=(48, 60))
        (22, 22, 42, 42)
    """
    left, top, right, bottom = box
    margin = max(_LEAST_MARGIN, round(context * max(bottom - top, right - left)))
    return max(0, left - margin), max(0, top - margin), min(size[1], right + margin), min(size[0], bottom + margin)


def outlined_crop(frame: Tensor, mask: Tensor, *, context: float = CONTEXT) -> Tensor:
    """The surroundings of a tube in a frame, with a line drawn around it, outside its own pixels.

    Args:
        frame: uint8 RGB ``(3, H, W)``, on the CPU like the mask.
        mask: bool ``(H, W)``, True inside the tube, somewhere at least.
        context: what is shown on each side beyond the mask's box, as a share of the box's longer side.

    Returns:
        uint8 ``(3, h, w)``, cut at the frame's border. The line is 1 pixel wide for every 200 of the longer side.

    Raises:
        ShapeError: the sizes disagree.
        ConfigError: the mask is True nowhere.
    """
    from scipy.ndimage import maximum_filter

    crop, inside = _crop(frame, mask, context=context)
    reach = max(1, round(max(inside.shape) / 200))
    line = (maximum_filter(inside.view(np.uint8), size=2 * reach + 1, mode="constant") > 0) & ~inside
    for channel, value in zip(crop, MARK_COLOUR, strict=True):
        channel[line] = value
    return torch.from_numpy(crop)


def marked_crop(frame: Tensor, mask: Tensor, *, context: float = CONTEXT, opacity: float = 0.3) -> Tensor:
    """The surroundings of a tube in a frame, the tube itself tinted.

    Args:
        frame: uint8 RGB ``(3, H, W)``, on the CPU like the mask.
        mask: bool ``(H, W)``, True inside the tube, somewhere at least.
        context: what is shown on each side beyond the mask's box, as a share of the box's longer side.
        opacity: how much of the tint's colour a tinted pixel has, in ``[0, 1]``.

    Returns:
        uint8 ``(3, h, w)``, cut at the frame's border.

    Raises:
        ShapeError: the sizes disagree.
        ConfigError: the mask is True nowhere, or ``opacity`` is outside its range.

    Example:
        >>> mask = torch.zeros(20, 30, dtype=torch.bool)
        >>> mask[5, 5] = True
        >>> marked_crop(torch.full((3, 20, 30), 100, dtype=torch.uint8), mask)[:, 5, 5:7]
        tensor([[146, 100],
                [ 70, 100],
                [146, 100]], dtype=torch.uint8)
    """
    if not 0 <= opacity <= 1:
        raise ConfigError(f"opacity: expected a number in [0, 1], got {opacity}")
    crop, inside = _crop(frame, mask, context=context)
    for channel, value in zip(crop, MARK_COLOUR, strict=True):
        channel[inside] = np.rint((1 - opacity) * channel[inside] + opacity * value).astype(np.uint8)
    return torch.from_numpy(crop)


def _crop(frame: Tensor, mask: Tensor, *, context: float) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    sizes = check_shapes(frame=(frame, "3 h w"), mask=(mask, "h w"))
    pixels, inside = frame.numpy(), mask.numpy()
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    if not len(rows):
        raise ConfigError("mask: expected True somewhere, got False everywhere")
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    left, top, right, bottom = crop_box(box, size=(sizes["h"], sizes["w"]), context=context)
    return pixels[:, top:bottom, left:right].copy(), inside[top:bottom, left:right]
