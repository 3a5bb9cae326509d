"""Regions over time: the areas of look-alike classes that one question is asked about.

An area is a connected set of pixels of one class in one frame (scikit-image's `label`, pixels that touch at a
corner connected). Areas of consecutive frames belong to one region where their classes are of one group and each
covers at least half of the other.

So an area whose label flips from frame to frame stays one region, while a road beside grass, or a river that
meets the sea, stays two. To follow a class by any overlap would take fewer questions and lose the second: where the
road is called grass in one frame, both are one area there, and everything before and after would hang together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mvcseg.errors import DTypeError, ShapeError
from mvcseg.segmenter import Video
from mvcseg.shapes import check_integer, check_shapes

Integers: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True)
class Region:
    """A region over time.

    Attributes:
        group: position of its group.
        frames: first and last frame, both included.
        box: left, top, right, bottom over all frames, right and bottom excluded.
        pixels: pixels of all frames together.
        shares: its classes and their pixels, most first, of equals the lower id.
        key_frame: the frame where most of it is seen, of equals the first.
        parts: for each of its frames the areas it consists of, numbered as `areas` does.
    """

    group: int
    frames: tuple[int, int]
    box: tuple[int, int, int, int]
    pixels: int
    shares: tuple[tuple[int, int], ...]
    key_frame: int
    parts: Mapping[int, tuple[int, ...]]


@dataclass(frozen=True)
class Regions:
    """What `find_regions` found.

    Attributes:
        large: the regions to ask about, largest first.
        too_small: how many were left out as smaller than ``min_area``.
    """

    large: tuple[Region, ...]
    too_small: int


def find_regions(labels: Video, *, group_of: Mapping[int, int], min_area: float) -> Regions:
    """The regions of a video; one frame of labels, and a few numbers for every area, are in memory at a time.

    Args:
        labels: integer ``(T, H, W)``, a tensor or lazily read.
        group_of: the classes asked about, and the group of each.
        min_area: a region counts when it covers at least this share of some frame, in ``[0, 1]``.

    Raises:
        DTypeError: labels are no integers.
        ShapeError: labels are not three-dimensional, or frames differ in size.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    # Columns: frame, number in the frame, class, pixels, left, top, right, bottom.
    tables: list[Integers] = [np.empty((0, 8), np.int64)]
    links: list[Integers] = [np.empty((2, 0), np.int64)]
    before, before_areas, frame_pixels, count = tables[0], None, 0, 0
    for position in range(len(labels)):
        frame = frame_of(labels, position)
        if before_areas is not None and before_areas.shape != frame.shape:
            raise ShapeError(
                f"labels: expected (h w) = {before_areas.shape} in frame {position} as before, got {frame.shape}"
            )
        found = areas(frame, classes=group_of)
        table = _measured(found, frame, position=position)
        if before_areas is not None:
            pair = _links(before_areas, found, before, table, group_of=group_of)
            links.append(pair + np.array([[count - len(before)], [count]]))
        before, before_areas, frame_pixels = table, found, frame.size
        tables.append(table)
        count += len(table)
    all_areas, (one, other) = np.concatenate(tables), np.concatenate(links, axis=1)
    if not count:
        return Regions(large=(), too_small=0)
    graph = coo_array((np.ones(len(one), bool), (one, other)), shape=(count, count))
    number, region_of = connected_components(graph, directed=False)
    is_large = _peak(all_areas, region_of, number) >= min_area * frame_pixels
    order = np.argsort(region_of, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(region_of[order])) + 1)
    large = [_region(all_areas[members], group_of) for members in groups if is_large[region_of[members[0]]]]
    large.sort(key=lambda region: (-region.pixels, region.frames, region.box))
    return Regions(large=tuple(large), too_small=int(number - is_large.sum()))


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


def _measured(found: Integers, frame: NDArray[Any], *, position: int) -> Integers:
    from scipy.ndimage import find_objects

    pixels = np.bincount(found.ravel())[1:]
    table = np.empty((len(pixels), 8), np.int64)
    classes = np.zeros(len(pixels) + 1, np.int64)
    classes[found.ravel()] = frame.ravel()
    table[:, 0], table[:, 1], table[:, 2], table[:, 3] = position, np.arange(1, len(pixels) + 1), classes[1:], pixels
    for row, (down, across) in zip(table, find_objects(found), strict=True):
        row[4:] = across.start, down.start, across.stop, down.stop
    return table


def _links(
    one: Integers, other: Integers, table: Integers, next_table: Integers, *, group_of: Mapping[int, int]
) -> Integers:
    """Rows of the two tables that belong together, ``(2, N)``."""
    both = (one > 0) & (other > 0)
    keys, shared = np.unique(one[both] * (len(next_table) + 1) + other[both], return_counts=True)
    pair = np.stack(np.divmod(keys, len(next_table) + 1)) - 1
    here, there = table[pair[0]], next_table[pair[1]]
    group = np.full(max(group_of, default=-1) + 1, -1)
    group[list(group_of)] = list(group_of.values())
    is_same_group = group[here[:, 2]] == group[there[:, 2]]
    covers_half = 2 * shared >= np.maximum(here[:, 3], there[:, 3])
    return pair[:, is_same_group & covers_half]


def _peak(all_areas: Integers, region_of: NDArray[np.int32], number: int) -> Integers:
    """Most pixels of each region in any one frame."""
    keys, inverse = np.unique(
        region_of.astype(np.int64) * (all_areas[-1, 0] + 1) + all_areas[:, 0], return_inverse=True
    )
    in_frame = np.zeros(len(keys), np.int64)
    np.add.at(in_frame, inverse, all_areas[:, 3])
    peak = np.zeros(number, np.int64)
    np.maximum.at(peak, keys // (all_areas[-1, 0] + 1), in_frame)
    return peak


def _region(rows: Integers, group_of: Mapping[int, int]) -> Region:
    parts: dict[int, list[int]] = {}
    in_frame: dict[int, int] = {}
    shares: dict[int, int] = {}
    for frame, part, index, pixels in rows[:, :4].tolist():
        parts.setdefault(frame, []).append(part)
        in_frame[frame] = in_frame.get(frame, 0) + pixels
        shares[index] = shares.get(index, 0) + pixels
    left, top = rows[:, 4:6].min(axis=0).tolist()
    right, bottom = rows[:, 6:8].max(axis=0).tolist()
    return Region(
        group=group_of[int(rows[0, 2])],
        frames=(min(parts), max(parts)),
        box=(left, top, right, bottom),
        pixels=sum(shares.values()),
        shares=tuple(sorted(shares.items(), key=lambda share: (-share[1], share[0]))),
        key_frame=max(in_frame, key=lambda frame: (in_frame[frame], -frame)),
        parts={frame: tuple(numbers) for frame, numbers in parts.items()},
    )


def mask_of(found: Integers, parts: Sequence[int]) -> NDArray[np.bool_]:
    """Where numbered areas ``(H, W)`` have one of these numbers."""
    wanted = np.zeros(int(found.max(initial=0)) + 1, bool)
    wanted[list(parts)] = True
    mask: NDArray[np.bool_] = wanted[found]
    return mask
