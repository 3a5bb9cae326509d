"""The pictures of a tube that a question is asked about: which frames, and how the tube is marked in them."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mvcseg.shapes import check_positive, check_shapes
from mvcseg.vlm.tubes import Tube

View: TypeAlias = Literal["outline", "mark", "frame"]
"""A tube outlined in its surroundings, tinted in its surroundings, or the whole frame untouched."""
MARK_COLOUR = (255, 0, 255)
"""Magenta, rare in photographs."""
_LARGE = 0.5


def view_frames(tube: Tube, *, count: int) -> tuple[int, ...]:
    """The frames to show of a tube, the best first: the largest, the sharpest of those about as large, then spread.

    Args:
        tube: what `find_tubes` found.
        count: how many at most; fewer where the tube is in fewer frames.

    Raises:
        ConfigError: ``count`` is below 1.
    """
    check_positive(count=count)
    chosen = [tube.key_frame]
    largest = tube.seen[tube.key_frame].pixels
    large = [f for f, seen in tube.seen.items() if f not in chosen and seen.pixels >= _LARGE * largest]
    if large and count > 1:
        chosen.append(min(large, key=lambda frame: (-tube.seen[frame].sharpness, frame)))
    left = [frame for frame in sorted(tube.seen) if frame not in chosen]
    while left and len(chosen) < count:
        farthest = max(left, key=lambda f: (min(abs(f - other) for other in chosen), tube.seen[f].pixels, -f))
        chosen.append(farthest)
        left.remove(farthest)
    return tuple(chosen[:count])


def outlined_crop(frame: Tensor, mask: Tensor, *, context: float = 0.5) -> Tensor:
    """The surroundings of a tube in a frame, with a line drawn around it, outside its own pixels.

    Args:
        frame: uint8 RGB ``(3, H, W)``, on the CPU like the mask.
        mask: bool ``(H, W)``, True inside the tube, somewhere at least.
        context: what is shown on each side beyond the mask's box, as a share of the box's longer side.

    Returns:
        uint8 ``(3, h, w)``, cut at the frame's border. The line is 1 pixel wide for every 200 of the longer side.

    Raises:
        ShapeError: the sizes disagree.
    """
    from scipy.ndimage import maximum_filter

    crop, inside = _crop(frame, mask, context=context)
    reach = max(1, round(max(inside.shape) / 200))
    line = (maximum_filter(inside.view(np.uint8), size=2 * reach + 1, mode="constant") > 0) & ~inside
    for channel, value in zip(crop, MARK_COLOUR, strict=True):
        channel[line] = value
    return torch.from_numpy(crop)


def marked_crop(frame: Tensor, mask: Tensor, *, context: float = 0.5, opacity: float = 0.4) -> Tensor:
    """The surroundings of a tube in a frame, the tube tinted in magenta.

    Args:
        frame: uint8 RGB ``(3, H, W)``, on the CPU like the mask.
        mask: bool ``(H, W)``, True inside the tube, somewhere at least.
        context: what is shown on each side beyond the mask's box, as a share of the box's longer side.
        opacity: share of the tint, in ``[0, 1]``.

    Returns:
        uint8 ``(3, h, w)``, cut at the frame's border.

    Raises:
        ShapeError: the sizes disagree.
    """
    crop, inside = _crop(frame, mask, context=context)
    for channel, value in zip(crop, MARK_COLOUR, strict=True):
        channel[inside] = np.rint((1 - opacity) * channel[inside] + opacity * value)
    return torch.from_numpy(crop)


def _crop(frame: Tensor, mask: Tensor, *, context: float) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    sizes = check_shapes(frame=(frame, "3 h w"), mask=(mask, "h w"))
    pixels, region = frame.numpy(), mask.numpy()
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    margin = max(8, round(context * max(rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1)))
    top, bottom = max(0, rows[0] - margin), min(sizes["h"], rows[-1] + 1 + margin)
    left, right = max(0, columns[0] - margin), min(sizes["w"], columns[-1] + 1 + margin)
    return pixels[:, top:bottom, left:right].copy(), region[top:bottom, left:right]
