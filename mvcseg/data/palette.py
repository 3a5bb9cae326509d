"""A colour for every class."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from mvcseg.errors import ConfigError
from mvcseg.shapes import MAX_CLASSES


def class_colours(class_names: Sequence[str] | int) -> NDArray[np.uint8]:
    """Colours of the classes in their order, ``(K, 3)`` uint8 RGB.

    VSPW's 124 names get VSPW's own colours. Any other classes get the first K of one fixed list, so that a
    class keeps its colour when others are added behind it: each next colour is the one of a regular grid in RGB (16
    levels a channel, CIELAB lightness 30 to 92 and chroma up to 85) that lies farthest, in CIELAB, from black,
    white and all before it.

    Args:
        class_names: names of the K classes, or K itself, 1 to 255.

    Raises:
        ConfigError: there is no class, or more than 255.

    Example:
        >>> class_colours(["road", "sky"]).shape
        (2, 3)
    """
    count = class_names if isinstance(class_names, int) else len(class_names)
    if not 1 <= count <= MAX_CLASSES:
        raise ConfigError(f"class_names: expected 1 to {MAX_CLASSES} classes, got {count}")
    if not isinstance(class_names, int) and count == 124:
        from mvcseg.data.vspw_classes import VSPW_CLASSES, VSPW_COLOURS

        if list(class_names) == list(VSPW_CLASSES):
            return np.array(VSPW_COLOURS, dtype=np.uint8)
    colours: NDArray[np.uint8] = _distinct_colours()[:count].copy()
    return colours


@lru_cache(maxsize=1)
def _distinct_colours() -> NDArray[np.uint8]:
    levels = np.arange(0, 256, 17)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    lab = _cielab(grid)
    chroma = np.hypot(lab[:, 1], lab[:, 2])
    seen = (lab[:, 0] >= 30) & (lab[:, 0] <= 92) & (chroma <= 85)
    grid, lab = grid[seen], lab[seen]
    anchors = _cielab(np.array([[0, 0, 0], [255, 255, 255]]))
    nearest = np.square(lab[:, None] - anchors).sum(axis=2).min(axis=1)
    chosen: list[int] = []
    for _ in range(MAX_CLASSES):
        # Rounded, so that a last bit that differs between machines cannot change the order.
        chosen.append(int(np.argmax(nearest.round(3))))
        nearest = np.minimum(nearest, np.square(lab - lab[chosen[-1]]).sum(axis=1))
    return grid[chosen].astype(np.uint8)


def _cielab(rgb: NDArray[np.int64]) -> NDArray[np.float64]:
    """CIELAB (D65) of sRGB values 0..255, IEC 61966-2-1 and CIE 15."""
    value = rgb / 255.0
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = (linear @ to_xyz.T) / np.array([0.95047, 1.0, 1.08883])
    root = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = root[:, 0], root[:, 1], root[:, 2]
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)
