"""Areas: connected pixels of one class in one frame, numbered and measured.

Pixels that touch at a corner are connected. Numbers are scikit-image's `label`'s, so the same labels always give the
same numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mvcseg.errors import DTypeError
from mvcseg.segmenter import Video
from mvcseg.shapes import check_integer, check_shapes

Integers: TypeAlias = NDArray[np.int64]

FRAME, NUMBER, CLASS, PIXELS, LEFT, TOP, RIGHT, BOTTOM, EDGES, SQUARED_EDGES = range(10)
"""Columns of a table of areas: the frame, the number in it, the class, how many pixels, the box (right and bottom
excluded), and the sum of the Laplacian over the area and of its square."""


def frame_of(labels: Video, position: int) -> NDArray[Any]:
    """Labels ``(H, W)`` of one frame.

    Raises:
        DTypeError: they are no integers.
        ShapeError: the slice is not ``(1, H, W)``.
    """
    frame = labels[position : position + 1]
    if not isinstance(frame, Tensor):
        raise DTypeError(f"labels: expected slices that are tensors, got {type(frame).__name__}")
    check_integer(labels=frame)
    check_shapes(labels=(frame, "1 h w"))
    array: NDArray[Any] = frame[0].detach().cpu().numpy()
    return array


def areas(frame: NDArray[Any], *, classes: Mapping[int, int]) -> Integers:
    """The areas of the given classes in labels ``(H, W)``, numbered from 1; 0 elsewhere."""
    from skimage.measure import label

    known = np.zeros(max(classes, default=-1) + 2, np.int32)
    for index in classes:
        known[index] = index + 1
    is_inside = (frame >= 0) & (frame < len(known) - 1)
    values = known[np.where(is_inside, frame, len(known) - 1).astype(np.int64)]
    numbered: Integers = label(values, background=0, connectivity=2).astype(np.int64, copy=False)
    return numbered


def mask_of(found: Integers, parts: Sequence[int]) -> NDArray[np.bool_]:
    """Where numbered areas ``(H, W)`` have one of these numbers."""
    wanted = np.zeros(int(found.max(initial=0)) + 1, bool)
    wanted[list(parts)] = True
    mask: NDArray[np.bool_] = wanted[found]
    return mask


def measured(found: Integers, labels: NDArray[Any], *, position: int, edges: NDArray[np.int16] | None) -> Integers:
    """The table of the areas of one frame, ``(N, 10)``, a row an area.

    Args:
        found: numbered areas ``(H, W)``.
        labels: ``(H, W)``.
        position: the frame.
        edges: Laplacian of the frame's grey values, ``(H, W)``; None for zeros.
    """
    pixels = np.bincount(found.ravel())[1:]
    table = np.zeros((len(pixels), 10), np.int64)
    table[:, FRAME], table[:, NUMBER], table[:, PIXELS] = position, np.arange(1, len(pixels) + 1), pixels
    numbers, rows, starts, stops = _runs(found)
    table[numbers - 1, CLASS] = labels[rows, starts]
    for column, least in ((LEFT, starts), (TOP, rows)):
        table[:, column] = max(found.shape)
        np.minimum.at(table[:, column], numbers - 1, least)
    for column, most in ((RIGHT, stops), (BOTTOM, rows + 1)):
        np.maximum.at(table[:, column], numbers - 1, most)
    if edges is not None and len(pixels):
        strength = edges.astype(np.float64).ravel()  # sums of whole numbers below 2**53: exact in any order
        for column, values in ((EDGES, strength), (SQUARED_EDGES, strength * strength)):
            table[:, column] = np.bincount(found.ravel(), values)[1:]
    return table


def _runs(found: Integers) -> tuple[Integers, Integers, Integers, Integers]:
    """Number, row, first and end column of every run of equal numbers along the rows, background left out."""
    height, width = found.shape
    is_start = np.ones((height, width), bool)
    is_start[:, 1:] = found[:, 1:] != found[:, :-1]
    starts = np.flatnonzero(is_start)
    lengths = np.diff(starts, append=height * width)
    numbers = found.ravel()[starts]
    is_area = numbers > 0
    rows, columns = np.divmod(starts[is_area], max(width, 1))
    return numbers[is_area], rows, columns, columns + lengths[is_area]
