"""Which areas of a video follow which: overlap of areas after the frame before was moved along the flow.

The video is read once from front to back, a pair of frames at a time. An area is carried on for three frames, so that
it is found again where it was hidden for one or two.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mvcseg.errors import ShapeError
from mvcseg.flow import FlowEstimator, load_cv2
from mvcseg.ops.warp import warp_labels
from mvcseg.segmenter import Video, read_clip
from mvcseg.shapes import check_float, check_shapes
from mvcseg.vlm.areas import CLASS, PIXELS, Integers, areas, frame_of, measured
from mvcseg.vlm.cuts import is_cut

LONGEST_GAP = 2
"""Frames for which an area may be hidden and still be the same."""
# In a map, area n of the video is the number n + 256; 0 is no area, 255 what `warp_labels` puts outside the frame.
_FIRST = 256
_Map: TypeAlias = NDArray[np.int32]


@dataclass(frozen=True)
class Links:
    """What follows what; areas are rows of the table.

    Attributes:
        areas: the table of all areas, ``(A, 10)``, in the order of the frames.
        direct: areas and the areas of the next frame that they are, ``(N, 2)``.
        gaps: areas, the areas that they are after a gap, and the frames of the gap, ``(N, 3)``.
        before: areas that follow none, the areas in whose place they appear, and the pixels there, ``(N, 3)``.
        after: areas that none follows, the areas that take their place, the pixels there, and their pixels that are
            in the frame by then, ``(N, 4)``.
    """

    areas: Integers
    direct: Integers
    gaps: Integers
    before: Integers
    after: Integers


def linked_areas(video: Video, labels: Video, *, group_of: Mapping[int, int], flow: FlowEstimator | None) -> Links:
    """Areas of a video and their links; only areas of one group are linked.

    Two areas are linked when each covers more than half of the other, once the earlier one was moved along the flow
    and what then lies outside the frame left out. So no area has two links to one side.

    Args:
        video: uint8 ``(T, 3, H, W)``.
        labels: integer ``(T, H, W)``.
        group_of: the classes looked at, and the group of each.
        flow: None to compare in place.

    Raises:
        DTypeError: labels are no integers, or the video is not uint8.
        ShapeError: frames differ in size, or the flow is not of theirs.
    """
    groups = np.full(max(group_of, default=-1) + 1, -1)
    groups[list(group_of)] = list(group_of.values())
    tables, found = [np.empty((0, 10), np.int64)], _Found()
    recent: deque[Integers] = deque(maxlen=LONGEST_GAP + 2)
    carried: list[_Map] = []  # the areas of the frame before, then of those before it, where they are now
    image: _Image | None = None
    count, size = 0, None
    is_shot = False  # whether the frame before shows what the one before it did
    for position in range(len(labels)):
        values = frame_of(labels, position)
        size = size or values.shape
        if values.shape != size:
            raise ShapeError(f"labels: expected (h w) = {size} in frame {position} as before, got {values.shape}")
        numbers = areas(values, classes=group_of)
        if not numbers.any() and not carried:
            continue
        image_before = image  # in a line of its own: a third frame would be in memory while the next is read
        image = _image(video, position, shape=values.shape)
        if carried and flow is not None and image_before is not None:
            carried, is_shot = _moved(carried, image_before, image, flow=flow, is_shot=is_shot)
        tables.append(measured(numbers, values, position=position, edges=image.edges()))
        recent.append(tables[-1])
        count += len(tables[-1])
        here = np.where(numbers > 0, numbers + (count - len(tables[-1]) + _FIRST - 1), 0).astype(np.int32)
        carried = found.add(carried, here, np.concatenate(recent), count=count, groups=groups)
    return Links(np.concatenate(tables), *found.all())


class _Found:
    """The links as they are found, frame by frame."""

    def __init__(self) -> None:
        self._direct = [np.empty((0, 2), np.int64)]
        self._gaps = [np.empty((0, 3), np.int64)]
        self._before = [np.empty((0, 3), np.int64)]
        self._after = [np.empty((0, 4), np.int64)]

    def add(
        self, carried: list[_Map], here: _Map, recent: Integers, *, count: int, groups: NDArray[np.int64]
    ) -> list[_Map]:
        """Link a frame's areas to those carried; returns what is carried on."""
        base = count - len(recent)
        free = np.ones(len(recent), bool)  # areas that are linked to none yet
        left = []
        for gap, map_before in enumerate(carried):
            one, other, shared = _overlaps(map_before, here)
            visible = _sizes(map_before, base=base, number=len(recent))
            of_group = groups[recent[one - base, CLASS]] == groups[recent[other - base, CLASS]]
            one, other, shared = one[of_group], other[of_group], shared[of_group]
            most = np.maximum(visible[one - base], recent[other - base, PIXELS])
            is_link = (2 * shared > most) & free[other - base]
            free[one[is_link] - base] = free[other[is_link] - base] = False
            if gap == 0:
                self._direct.append(np.stack([one[is_link], other[is_link]], axis=1))
                is_end, is_start = free[one - base], free[other - base]
                rows = np.stack([one, other, shared, visible[one - base]], axis=1)
                self._after.append(rows[is_end])
                self._before.append(rows[is_start][:, [1, 0, 2]])
            else:
                self._gaps.append(np.stack([one[is_link], other[is_link], np.full(is_link.sum(), gap)], axis=1))
            if gap < LONGEST_GAP:
                left.append(_without(map_before, ~free, base=base))
        kept = [here, *left]
        while kept and not (kept[-1] >= _FIRST).any():
            kept.pop()
        return kept

    def all(self) -> tuple[Integers, Integers, Integers, Integers]:
        """The four tables of `Links`."""
        direct, gaps, before, after = map(np.concatenate, (self._direct, self._gaps, self._before, self._after))
        return direct, gaps, before, after


@dataclass(frozen=True)
class _Image:
    """A frame: uint8 RGB ``(1, 3, H, W)`` where the video keeps it, and its grey values ``(H, W)``."""

    rgb: Tensor
    grey: NDArray[np.uint8]

    def edges(self) -> NDArray[np.int16]:
        edges: NDArray[np.int16] = load_cv2().Laplacian(self.grey, load_cv2().CV_16S)
        return edges


def _image(video: Video, position: int, *, shape: tuple[int, ...]) -> _Image:
    rgb = read_clip(video, position, position + 1).detach()
    if tuple(rgb.shape[2:]) != shape:
        size = tuple(rgb.shape[2:])
        raise ShapeError(f"labels: expected (h w) = {size} as the video's in frame {position}, got {shape}")
    cv2 = load_cv2()
    return _Image(rgb, cv2.cvtColor(cv2.merge(list(rgb[0].cpu().contiguous().numpy())), cv2.COLOR_RGB2GRAY))


def _moved(
    maps: list[_Map], before: _Image, now: _Image, *, flow: FlowEstimator, is_shot: bool
) -> tuple[list[_Map], bool]:
    """Maps of the frame before as they lie in the frame now, none across a cut; and whether the two show the same.

    A cut ends a shot, frames that do show the same. Where frame after frame shows nothing of the one before (noise,
    single pictures) there is none, and areas are compared in place: the flow is as meaningless there.
    """
    motion = flow(now.rgb / 255, before.rgb / 255)
    check_shapes(video=(now.rgb, "n 3 h w"), flow=(motion, "n 2 h w"))
    check_float(flow=motion)
    stack = np.stack([before.grey.astype(np.int32) + _FIRST, *maps])
    grey, *moved = warp_labels(torch.from_numpy(stack)[None], motion.detach().cpu())[0].numpy()
    if not is_cut(grey - _FIRST, now.grey):
        return moved, True
    return [] if is_shot else maps, False


def _overlaps(one: _Map, other: _Map) -> tuple[Integers, Integers, Integers]:
    """Areas of two maps that share pixels, and how many."""
    both = (one >= _FIRST) & (other >= _FIRST)
    keys = one[both].astype(np.int64) << 32 | other[both]
    # Few runs in place of many pixels, or sorting them would be most of the work.
    starts = np.flatnonzero(np.diff(keys, prepend=-1))
    lengths = np.diff(starts, append=len(keys))
    pairs, run_of = np.unique(keys[starts], return_inverse=True)
    shared = np.bincount(run_of, lengths, minlength=len(pairs)).astype(np.int64)
    return (pairs >> 32) - _FIRST, (pairs & 0xFFFFFFFF) - _FIRST, shared


def _sizes(areas_map: _Map, *, base: int, number: int) -> Integers:
    """Pixels of each of the areas from ``base`` on in a map, ``(number,)``."""
    values = areas_map[areas_map >= _FIRST].astype(np.int64) - _FIRST - base
    sizes: Integers = np.bincount(values, minlength=number)
    return sizes


def _without(areas_map: _Map, is_gone: NDArray[np.bool_], *, base: int) -> _Map:
    """A map without some of the areas from ``base`` on."""
    kept: _Map = areas_map.copy()
    is_area = areas_map >= _FIRST
    kept[is_area] = np.where(is_gone[areas_map[is_area] - _FIRST - base], 0, areas_map[is_area])
    return kept
