"""Pictures of the same video beside one another, each under its caption, as frames of one video."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from mvcseg.errors import ConfigError, DTypeError
from mvcseg.shapes import check_positive, check_shapes

PAPER, INK = 250, 30
"""Grey of the ground and of the captions."""


def beside(panels: Mapping[str, Tensor], *, columns: int, scale: int = 1, gap: int = 4) -> Tensor:
    """A grid of videos of one size, row by row, a caption above each.

    Args:
        panels: uint8 RGB ``(T, 3, H, W)`` by caption, all of one shape.
        columns: panels in a row; a last row that is not full is filled with the ground's grey.
        scale: every pixel becomes a square of this side.
        gap: pixels of ground around each panel.

    Returns:
        uint8 RGB ``(T, 3, h, w)`` on the CPU.

    Raises:
        ConfigError: there is no panel, or a number is below 1 (``gap``: below 0).
        ShapeError: panels differ in shape.
        DTypeError: a panel is not uint8.

    Example:
        >>> red = torch.zeros(5, 3, 20, 30, dtype=torch.uint8)
        >>> beside({"frame": red, "labels": red, "overlay": red}, columns=2, gap=0).shape
        torch.Size([5, 3, 76, 60])
    """
    check_positive(columns=columns, scale=scale)
    if not panels or gap < 0:
        raise ConfigError(f"panels, gap: expected at least one panel and a gap of at least 0, got {len(panels)}, {gap}")
    sizes = check_shapes(**{f"panels[{name!r}]": (panel, "t 3 h w") for name, panel in panels.items()})
    for name, panel in panels.items():
        if panel.dtype != torch.uint8:
            raise DTypeError(f"panels[{name!r}]: expected uint8, got {panel.dtype}")
    height, width = sizes["h"] * scale, sizes["w"] * scale
    line = caption_height(scale)
    cell = (height + line + gap, width + gap)
    rows = math.ceil(len(panels) / columns)
    columns = min(columns, len(panels))
    sheet = torch.full((sizes["t"], 3, rows * cell[0] + gap, columns * cell[1] + gap), PAPER, dtype=torch.uint8)
    for index, (name, panel) in enumerate(panels.items()):
        top, left = gap + index // columns * cell[0], gap + index % columns * cell[1]
        sheet[:, :, top : top + line, left : left + width] = _caption(name, width=width, scale=scale)
        large = panel.cpu().repeat_interleave(scale, dim=2).repeat_interleave(scale, dim=3)
        sheet[:, :, top + line : top + line + height, left : left + width] = large
    return sheet


def caption_height(scale: int) -> int:
    """Rows of a caption above panels of this scale."""
    return 12 + 6 * scale


def _caption(text: str, *, width: int, scale: int) -> Tensor:
    """Text as a grey picture ``(h, width)``, cut where it is too long."""
    from PIL import Image, ImageDraw, ImageFont

    height = caption_height(scale)
    image = Image.new("L", (width, height), PAPER)
    ImageDraw.Draw(image).text((1, 1), text, fill=INK, font=ImageFont.load_default(size=height - 7))
    return torch.from_numpy(np.array(image))
