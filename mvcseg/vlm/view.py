"""The picture of a region that a question is asked about."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from mvcseg.shapes import check_shapes

OUTLINE_COLOUR = (255, 0, 255)
"""Magenta, rare in photographs."""


def outlined_crop(frame: Tensor, mask: Tensor, *, context: float = 0.5) -> Tensor:
    """The surroundings of a region, with a line drawn around it, outside its own pixels.

    Args:
        frame: uint8 RGB ``(3, H, W)``.
        mask: bool ``(H, W)``, True inside the region, somewhere at least.
        context: what is shown on each side beyond the region's box, as a share of the box's longer side.

    Returns:
        uint8 ``(3, h, w)``, cut at the frame's border. The line is 1 pixel wide for every 200 of the longer side.

    Raises:
        ShapeError: the sizes disagree.
    """
    height, width = (check_shapes(frame=(frame, "3 h w"), mask=(mask, "h w"))[side] for side in "hw")
    rows, columns = mask.any(dim=1).nonzero()[:, 0].tolist(), mask.any(dim=0).nonzero()[:, 0].tolist()
    margin = max(8, round(context * max(rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1)))
    top, bottom = max(0, rows[0] - margin), min(height, rows[-1] + 1 + margin)
    left, right = max(0, columns[0] - margin), min(width, columns[-1] + 1 + margin)
    crop, inside = frame[:, top:bottom, left:right].clone(), mask[top:bottom, left:right]
    reach = max(1, round(max(crop.shape[-2:]) / 200))
    grown = functional.max_pool2d(inside[None].float(), kernel_size=2 * reach + 1, stride=1, padding=reach)[0] > 0
    crop[:, grown & ~inside] = torch.tensor(OUTLINE_COLOUR, dtype=torch.uint8, device=crop.device)[:, None]
    return crop
