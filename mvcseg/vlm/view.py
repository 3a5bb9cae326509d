"""The picture of a region that a question is asked about."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from mvcseg.shapes import check_shapes

OUTLINE_COLOUR = (255, 0, 255)
"""Magenta, rare in photographs."""


def outlined_crop(frame: Tensor, mask: Tensor, *, context: float = 0.5) -> Tensor:
    """The surroundings of a region, with a line drawn around it, outside its own pixels.

    Args:
        frame: uint8 RGB ``(3, H, W)``, on the CPU like the mask.
        mask: bool ``(H, W)``, True inside the region, somewhere at least.
        context: what is shown on each side beyond the region's box, as a share of the box's longer side.

    Returns:
        uint8 ``(3, h, w)``, cut at the frame's border. The line is 1 pixel wide for every 200 of the longer side.

    Raises:
        ShapeError: the sizes disagree.
    """
    from scipy.ndimage import maximum_filter

    sizes = check_shapes(frame=(frame, "3 h w"), mask=(mask, "h w"))
    pixels, region = frame.numpy(), mask.numpy()
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    margin = max(8, round(context * max(rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1)))
    top, bottom = max(0, rows[0] - margin), min(sizes["h"], rows[-1] + 1 + margin)
    left, right = max(0, columns[0] - margin), min(sizes["w"], columns[-1] + 1 + margin)
    crop, inside = pixels[:, top:bottom, left:right].copy(), region[top:bottom, left:right]
    reach = max(1, round(max(inside.shape) / 200))
    line = (maximum_filter(inside.view(np.uint8), size=2 * reach + 1, mode="constant") > 0) & ~inside
    for channel, value in zip(crop, OUTLINE_COLOUR, strict=True):
        channel[line] = value
    return torch.from_numpy(crop)
