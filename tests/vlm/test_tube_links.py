from __future__ import annotations

import weakref

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tube_scenes import GROUPS, blank, label_videos, panned, scene, shift

from mvcseg.flow import FarnebackFlow
from mvcseg.vlm.tubes import Tubes, find_tubes


class Lazy:
    """A video read slice by slice, which notes what was read."""

    def __init__(self, video: torch.Tensor) -> None:
        self.video, self.read = video, list[tuple[int, int]]()

    def __len__(self) -> int:
        return len(self.video)

    def __getitem__(self, index: slice) -> torch.Tensor:
        self.read.append((index.start, index.stop))
        return self.video[index]


@settings(max_examples=10, deadline=None)
@given(label_videos(), st.sampled_from([torch.uint8, torch.int16, torch.int32, torch.int64]))
def test_lazy_video_and_any_integers_give_the_same_one_frame_at_a_time(
    labels: torch.Tensor, dtype: torch.dtype
) -> None:
    video = torch.randint(0, 256, (len(labels), 3, *labels.shape[1:]), dtype=torch.uint8)
    lazy, lazy_labels = Lazy(video), Lazy(labels.to(dtype))
    found = find_tubes(lazy, lazy_labels, group_of=GROUPS, min_area=0, flow=shift(1))
    assert found == find_tubes(video, labels, group_of=GROUPS, min_area=0, flow=shift(1))
    assert all(stop - start == 1 for start, stop in lazy.read + lazy_labels.read)
    starts = [start for start, _ in lazy.read]
    assert starts == sorted(set(starts))  # front to back, each frame at most once


class Counted:
    """Frames or label maps that count how many of them are in memory."""

    def __init__(self, length: int, *, axes: tuple[int, ...]) -> None:
        self.length, self.axes, self.most = length, axes, 0
        self.alive = list[weakref.ref[np.ndarray]]()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: slice) -> torch.Tensor:
        array = np.ones((1, *self.axes, 48, 64), np.uint8)
        self.alive = [other for other in self.alive if other() is not None] + [weakref.ref(array)]
        self.most = max(self.most, len(self.alive))
        return torch.from_numpy(array)


def test_two_frames_are_in_memory_however_long_the_video() -> None:
    video, labels = Counted(30, axes=(3,)), Counted(30, axes=())
    (tube,) = find_tubes(video, labels, group_of=GROUPS, min_area=0, flow=shift(1)).large
    assert tube.frames == (0, 29)
    assert (video.most, labels.most) == (2, 2)


def test_cut_ends_tubes_and_a_flash_does_not() -> None:
    one, other = panned(scene(seed=1), step=2, frames=4), panned(scene(seed=2), step=2, frames=4)
    labels = torch.zeros(8, 48, 96, dtype=torch.uint8)
    labels[:, 20:] = 1
    found = find_tubes(torch.cat([one, other]), labels, group_of=GROUPS, min_area=0, flow=FarnebackFlow())
    assert [tube.frames for tube in found.large] == [(0, 3), (4, 7)]
    in_place = find_tubes(torch.cat([one, other]), labels, group_of=GROUPS, min_area=0, flow=None)
    assert [tube.frames for tube in in_place.large] == [(0, 7)]
    one[2] = (one[2] * 0.6).to(torch.uint8) + 100
    found = find_tubes(one, labels[:4], group_of=GROUPS, min_area=0, flow=FarnebackFlow())
    assert [tube.frames for tube in found.large] == [(0, 3)]


def test_pictures_that_show_nothing_of_each_other_are_compared_in_place() -> None:
    pictures = torch.stack([scene(width=96, seed=seed) for seed in range(5)])
    labels = torch.zeros(5, 48, 96, dtype=torch.uint8)
    labels[:, 20:] = 1
    for order, frames in (([0, 1, 2, 3, 4], [(0, 4)]), ([0, 1, 1, 1, 4], [(0, 3), (4, 4)])):
        found = find_tubes(pictures[order], labels, group_of=GROUPS, min_area=0, flow=FarnebackFlow())
        assert [tube.frames for tube in found.large] == frames


def test_frames_are_read_and_flow_asked_for_where_there_is_something_to_carry_on() -> None:
    labels = torch.zeros(12, 4, 5, dtype=torch.uint8)
    labels[[2, 3, 9], :2] = 1
    video, pairs = torch.arange(12, dtype=torch.uint8).view(12, 1, 1, 1).repeat(1, 3, 4, 5), []

    def flow(now: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        assert now.shape == before.shape == (1, 3, 4, 5)
        pairs.append(((255 * before).round().int().unique().item(), (255 * now).round().int().unique().item()))
        return torch.zeros(1, 2, 4, 5)

    lazy = Lazy(video)
    find_tubes(lazy, labels, group_of=GROUPS, min_area=0, flow=flow)
    assert [start for start, _ in lazy.read] == [2, 3, 4, 5, 6, 9, 10, 11]
    assert pairs == [(2, 3), (3, 4), (4, 5), (5, 6), (9, 10), (10, 11)]
    pairs.clear()
    assert find_tubes(video, labels, group_of={6: 0}, min_area=0, flow=flow) == Tubes(large=(), too_small=0)
    assert find_tubes(video, labels, group_of={}, min_area=0, flow=flow) == Tubes(large=(), too_small=0)
    assert pairs == []


def test_flow_of_no_number_lies_outside_the_frame() -> None:
    labels = torch.ones(3, 4, 5, dtype=torch.uint8)
    found = find_tubes(
        blank(labels), labels, group_of=GROUPS, min_area=0, flow=lambda now, _: torch.full((1, 2, 4, 5), torch.nan)
    )
    assert [tube.frames for tube in found.large] == [(0, 0), (1, 1), (2, 2)]
