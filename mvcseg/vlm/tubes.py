"""Tubes: areas of look-alike classes followed through a video, each the thing that one question is asked about.

An area is a connected set of pixels of one class in one frame. Areas are joined by three rules:

1. *The same thing, perhaps by another name.* Areas of consecutive frames whose classes are of one group are one thing
   where, once the earlier was moved along the optical flow, each covers more than half of the other. So a lake whose
   label flips between frames is one tube.
2. *Hidden.* What is gone for one or two frames and then lies where the flow has carried it is the same, if it was
   seen for more frames than it was gone, before and after.
3. *Flicker inside.* What comes out of one tube and goes back into it is part of it: the larger part of it lies in that
   tube in the frame before it appears and in the frame after it vanishes, and the tube is there without it for at
   least as many frames as it is seen. So speckles and passing patches of "river" in a lake belong to the lake.

What persists beside another stays a tube of its own with a question of its own, however its border wavers: a river that
meets the sea, a road beside grass. If one swallows the other for a frame, the merged area goes with the larger, and
the smaller is found again by rule 2. A cut ends all tubes (`cuts`); without a flow there is nothing to see cuts by.
Where frame after frame shows nothing of the one before (single pictures, noise) areas are compared in place.

What the rules cannot know: two things that have one class and touch are one area; a thing hidden for longer is a new
tube; of two things that exchange their classes at once, each keeps its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mvcseg.errors import ConfigError
from mvcseg.flow import FlowEstimator
from mvcseg.segmenter import Video, check_label_video, check_video
from mvcseg.vlm.areas import (
    BOTTOM,
    CLASS,
    EDGES,
    FRAME,
    LEFT,
    NUMBER,
    PIXELS,
    RIGHT,
    SQUARED_EDGES,
    TOP,
    Integers,
)
from mvcseg.vlm.tube_links import linked_areas
from mvcseg.vlm.tube_rules import tube_numbers


@dataclass(frozen=True)
class FrameSeen:
    """How a tube is seen in one frame.

    Attributes:
        pixels: how many.
        box: left, top, right, bottom, right and bottom excluded.
        sharpness: variance of the Laplacian of the frame's grey values (0 to 255) over these pixels.
    """

    pixels: int
    box: tuple[int, int, int, int]
    sharpness: float


@dataclass(frozen=True)
class Tube:
    """A thing over time.

    Attributes:
        group: position of its group.
        frames: first and last frame, both included.
        box: left, top, right, bottom over all frames, right and bottom excluded.
        pixels: pixels of all frames together.
        shares: its classes and their pixels, most first, of equals the lower id.
        parts: for each of its frames the areas it consists of, numbered as `mvcseg.vlm.areas.areas` does.
        seen: how it is seen in each of its frames.
    """

    group: int
    frames: tuple[int, int]
    box: tuple[int, int, int, int]
    pixels: int
    shares: tuple[tuple[int, int], ...]
    parts: Mapping[int, tuple[int, ...]]
    seen: Mapping[int, FrameSeen]

    @property
    def key_frame(self) -> int:
        """The frame where most of it is seen, of equals the first."""
        return min(self.seen, key=lambda frame: (-self.seen[frame].pixels, frame))


@dataclass(frozen=True)
class Tubes:
    """What `find_tubes` found.

    Attributes:
        large: the tubes to ask about, largest first.
        too_small: how many were left out as smaller than ``min_area``.
    """

    large: tuple[Tube, ...]
    too_small: int


def find_tubes(
    video: Video, labels: Video, *, group_of: Mapping[int, int], min_area: float, flow: FlowEstimator | None
) -> Tubes:
    """The tubes of a video. Every pixel of the classes asked about is in exactly one, large or too small.

    Video and labels are read once from front to back, a pair of frames at a time; in memory are a few numbers for
    every area. The flow is only asked for where there is an area to carry on: in the frame before or, if it may be
    hidden, the two before that.

    Args:
        video: uint8 ``(T, 3, H, W)``, a tensor or lazily read.
        labels: integer ``(T, H, W)``, likewise.
        group_of: the classes asked about, and the group of each.
        min_area: a tube counts when it covers at least this share of some frame, in ``[0, 1]``.
        flow: how areas are followed; None compares them in place.

    Raises:
        ConfigError: ``min_area`` is outside its range.
        DTypeError: labels are no integers, or the video is not uint8.
        ShapeError: video and labels differ in length or size, frames differ in size, or the flow is not of their size.

    Example:
        >>> import torch
        >>> video, labels = torch.zeros(5, 3, 8, 12, dtype=torch.uint8), torch.zeros(5, 8, 12, dtype=torch.uint8)
        >>> labels[:, 2:, :6], labels[:, 2:, 6:] = 1, 2  # a lake beside a river
        >>> labels[1, 4:6, 1:4], labels[3, 2:, :6] = 2, 3  # the lake with a speckle, then called sea
        >>> found = find_tubes(video, labels, group_of={1: 0, 2: 0, 3: 0}, min_area=0.01, flow=None)
        >>> [(tube.frames, tube.box, tube.shares) for tube in found.large]
        [((0, 4), (0, 2, 6, 8), ((1, 138), (3, 36), (2, 6))), ((0, 4), (6, 2, 12, 8), ((2, 180),))]
    """
    if not 0 <= min_area <= 1:
        raise ConfigError(f"min_area: expected a share of the frame in [0, 1], got {min_area}")
    check_label_video(labels, length=check_video(video))
    links = linked_areas(video, labels, group_of=group_of, flow=flow)
    if not len(links.areas):
        return Tubes(large=(), too_small=0)
    tube_of = tube_numbers(links)
    is_large = _peaks(links.areas, tube_of) >= min_area * labels[0:1].numel()
    rows = np.flatnonzero(is_large[tube_of])
    rows = rows[np.argsort(tube_of[rows], kind="stable")]
    members = np.split(rows, np.flatnonzero(np.diff(tube_of[rows])) + 1) if len(rows) else []
    large = [_tube(links.areas[part], group_of=group_of) for part in members]
    large.sort(key=rank)
    return Tubes(large=tuple(large), too_small=len(is_large) - len(large))


def rank(tube: Tube) -> tuple[object, ...]:
    """What tubes are sorted by: the largest first, of equals the earliest."""
    return -tube.pixels, tube.frames, tube.box, tube.shares


def _peaks(table: Integers, tube_of: Integers) -> Integers:
    """Most pixels of each tube in any one frame."""
    frames = int(table[-1, FRAME]) + 1
    keys, row_of = np.unique(tube_of * frames + table[:, FRAME], return_inverse=True)
    peaks = np.zeros(int(tube_of.max()) + 1, np.int64)
    np.maximum.at(peaks, keys // frames, np.bincount(row_of, table[:, PIXELS]).astype(np.int64))
    return peaks


def _tube(rows: Integers, *, group_of: Mapping[int, int]) -> Tube:
    cuts = np.flatnonzero(np.diff(rows[:, FRAME])) + 1
    frames = {int(part[0, FRAME]): part for part in np.split(rows, cuts)}
    classes, class_of = np.unique(rows[:, CLASS], return_inverse=True)
    shares = zip(classes.tolist(), np.bincount(class_of, rows[:, PIXELS]).astype(int).tolist(), strict=True)
    return Tube(
        group=group_of[int(rows[0, CLASS])],
        frames=(min(frames), max(frames)),
        box=_box(rows),
        pixels=int(rows[:, PIXELS].sum()),
        shares=tuple(sorted(shares, key=lambda share: (-share[1], share[0]))),
        parts={frame: tuple(part[:, NUMBER].tolist()) for frame, part in frames.items()},
        seen={frame: _seen(part) for frame, part in frames.items()},
    )


def _seen(rows: Integers) -> FrameSeen:
    pixels, total, squared = rows[:, [PIXELS, EDGES, SQUARED_EDGES]].sum(axis=0).tolist()
    return FrameSeen(pixels=pixels, box=_box(rows), sharpness=(squared - total * total / pixels) / pixels)


def _box(rows: Integers) -> tuple[int, int, int, int]:
    left, top = rows[:, [LEFT, TOP]].min(axis=0).tolist()
    right, bottom = rows[:, [RIGHT, BOTTOM]].max(axis=0).tolist()
    return left, top, right, bottom
