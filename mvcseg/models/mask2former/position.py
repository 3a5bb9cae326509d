"""Where a pixel is, as sines: the two-dimensional position encoding of DETR (arXiv 2005.12872), normalised."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mvcseg.errors import ConfigError
from mvcseg.shapes import check_positive

TEMPERATURE = 10000.0
"""Ratio of the longest to the shortest wavelength, nearly."""


def sine_position(
    height: int, width: int, *, channels: int, device: torch.device | None = None, dtype: torch.dtype | None = None
) -> Tensor:
    """Sines and cosines of every pixel's row and column.

    Rows count from 1 and are scaled so that the last one stands at ``2 * pi``, columns alike. The first half of the
    channels encodes the row, the second the column; even channels are sines, odd ones cosines of the same angle.

    Args:
        height: rows.
        width: columns.
        channels: a multiple of 4.
        device: where the result lies.
        dtype: floating-point type of the result and of all work on the way.

    Returns:
        ``(height, width, channels)``; ``.flatten(0, 1)`` gives one row a pixel.

    Raises:
        ConfigError: a size is below 1 or ``channels`` is no multiple of 4.

    Example:
        >>> sine_position(2, 3, channels=4)[0, 0, 0]  # sin(2 * pi / 2)
        tensor(...)
    """
    check_positive(height=height, width=width, channels=channels)
    if channels % 4:
        raise ConfigError(f"channels: expected a multiple of 4, got {channels}")
    rows = _axis(height, channels=channels // 2, device=device, dtype=dtype)
    columns = _axis(width, channels=channels // 2, device=device, dtype=dtype)
    grid = (rows[:, None].expand(-1, width, -1), columns[None].expand(height, -1, -1))
    return torch.cat(grid, dim=-1)


def _axis(length: int, *, channels: int, device: torch.device | None, dtype: torch.dtype | None) -> Tensor:
    """``(length, channels)``."""
    place = torch.arange(1, length + 1, device=device, dtype=dtype or torch.get_default_dtype())
    place = place / (length + 1e-6) * (2 * math.pi)
    pair = torch.arange(channels, device=device, dtype=place.dtype).div(2, rounding_mode="floor")
    angles = place[:, None] / TEMPERATURE ** (2 * pair / channels)
    return torch.stack([angles[:, 0::2].sin(), angles[:, 1::2].cos()], dim=-1).flatten(1)
