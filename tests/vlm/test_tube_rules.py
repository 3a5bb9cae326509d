from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tube_scenes import GROUPS, Reference, as_pixels, blank, label_videos, panned, pixels_of, scene, shift, tubes_of

from mvcseg.flow import FarnebackFlow
from mvcseg.vlm.tubes import find_tubes


@settings(max_examples=60, deadline=None)
@given(label_videos(), st.sampled_from([(0, 0), (1, 0), (-1, 0), (1, -1), (0, 2)]), st.integers(0, 3))
def test_tubes_are_those_of_the_rules_written_out(labels: torch.Tensor, step: tuple[int, int], seed: int) -> None:
    flow = None if step == (0, 0) else shift(*step)
    found = find_tubes(blank(labels), labels, group_of=GROUPS, min_area=0, flow=flow)
    assert as_pixels(labels, found) == Reference(labels, step=step, seed=seed).tubes()


@settings(max_examples=30, deadline=None)
@given(label_videos())
def test_tubes_in_place_are_the_same_in_a_film_run_backwards_or_seen_in_a_mirror(labels: torch.Tensor) -> None:
    tubes = {pixels_of(labels, tube) for tube in tubes_of(labels)}
    backwards, mirrored = labels.flip(0), labels.flip(2)
    last, right = len(labels) - 1, labels.shape[2] - 1
    again = [pixels_of(backwards, tube) for tube in tubes_of(backwards)]
    assert {frozenset((last - t, y, x) for t, y, x in tube) for tube in again} == tubes
    again = [pixels_of(mirrored, tube) for tube in tubes_of(mirrored)]
    assert {frozenset((t, y, right - x) for t, y, x in tube) for tube in again} == tubes


@settings(max_examples=20, deadline=None)
@given(label_videos(), st.integers(0, 10**6))
def test_classes_that_are_not_asked_about_may_be_any(labels: torch.Tensor, seed: int) -> None:
    others = torch.tensor([0, 6, 7, 254, 255, -1, 2**40])
    drawn = others[torch.randint(0, 7, labels.shape, generator=torch.Generator().manual_seed(seed))]
    relabelled = torch.where(torch.stack([labels == c for c in GROUPS]).any(dim=0), labels, drawn)
    assert tubes_of(relabelled) == tubes_of(labels)


@settings(max_examples=20, deadline=None)
@given(label_videos())
def test_names_within_a_group_change_shares_only_as_named(labels: torch.Tensor) -> None:
    swapped = torch.tensor([0, 3, 1, 2, 5, 4, 6])[labels]
    assert {pixels_of(swapped, tube) for tube in tubes_of(swapped)} == {pixels_of(labels, t) for t in tubes_of(labels)}


# Scenes made by hand. Class 1 is lake, 2 river, 3 sea; 4 and 5 are of another group, 0 and 6 of none.


def test_lake_whose_label_flips_while_the_camera_pans_is_one_tube() -> None:
    video = panned(scene(), step=3, frames=8)
    place = torch.zeros(48, 240, dtype=torch.uint8)
    place[20:44, 40:90] = 1
    labels = panned(place, step=3, frames=8)
    labels[[2, 5, 6]] *= 2  # river there
    labels[7] *= 3  # and sea
    (tube,) = find_tubes(video, labels, group_of=GROUPS, min_area=0, flow=FarnebackFlow()).large
    assert tube.frames == (0, 7)
    assert [index for index, _ in tube.shares] == [1, 2, 3]


def test_pan_by_more_than_half_an_area_is_followed_by_the_flow_alone() -> None:
    video = panned(scene(height=128, width=320), step=9, frames=6, width=192)
    place = torch.zeros(128, 320, dtype=torch.uint8)
    place[60:74, 110:124] = 1
    labels = panned(place, step=9, frames=6, width=192)
    with_flow = find_tubes(video, labels, group_of=GROUPS, min_area=0, flow=FarnebackFlow()).large
    in_place = find_tubes(video, labels, group_of=GROUPS, min_area=0, flow=None).large
    assert [(tube.frames, tube.pixels) for tube in with_flow] == [((0, 5), 6 * 14 * 14)]
    assert [tube.frames for tube in in_place] == [(t, t) for t in range(6)]


def test_river_that_meets_the_sea_stays_a_tube_of_its_own_however_the_border_wavers() -> None:
    labels = torch.full((12, 20, 40), 3, dtype=torch.uint8)
    generator = torch.Generator().manual_seed(0)
    for frame in labels:
        for row in frame:
            row[: 14 + int(torch.randint(0, 5, (), generator=generator))] = 2
    labels[5, 8, 30], labels[7, 9, 4] = 2, 3  # and each has a speckle of the other
    sea, river = tubes_of(labels)
    assert (sea.frames, river.frames) == ((0, 11), (0, 11))
    # A wavering border leaves crumbs of one in the other: they are the other's.
    assert dict(sea.shares)[3] > 0.98 * sea.pixels
    assert dict(river.shares)[2] > 0.98 * river.pixels
    assert sea.pixels + river.pixels == labels.numel()


def test_speckles_and_passing_patches_in_a_lake_are_the_lake() -> None:
    labels = torch.ones(9, 12, 16, dtype=torch.uint8)
    labels[1, 2, 2] = labels[4:6, 6:9, 3:7] = 2  # a speckle; a patch for two frames
    labels[5, 7, 4] = 3  # a speckle in the patch
    labels[3, 9:, 9:], labels[7, :, 10:] = 3, 4  # a patch at the border; something of another group in front
    lake, other = tubes_of(labels)
    assert (lake.frames, lake.shares) == ((0, 8), ((1, 1728 - 72 - 1 - 24 - 21), (2, 24), (3, 22)))
    assert (other.group, other.frames) == (1, (7, 7))


@pytest.mark.parametrize(("last", "number"), [(5, 1), (6, 2)])
def test_patch_is_flicker_where_the_lake_is_there_without_it_for_as_many_frames(last: int, number: int) -> None:
    labels = torch.ones(8, 6, 8, dtype=torch.uint8)
    labels[2 : last + 1, 2:4, 2:4] = 2  # 2 frames before; last - 1 with it; 7 - last after
    assert (last - 1 <= 2 + 7 - last) == (number == 1)
    assert len(tubes_of(labels)) == number


def test_patch_must_go_back_at_its_end_and_not_where_it_is_hidden() -> None:
    labels = torch.ones(15, 1, 20, dtype=torch.uint8)
    labels[:, 0, :8] = 2
    labels[3:10, 0, 8:12] = 3
    labels[6, 0, 8:12] = 1  # for a frame it is called lake
    labels[10:, 0, 8:12] = 2  # but in the end it is river
    assert [tube.shares for tube in tubes_of(labels)] == [((2, 140),), ((1, 136),), ((3, 24),)]


def test_patch_that_was_there_from_the_start_or_stays_to_the_end_has_its_own_question() -> None:
    for frames in (slice(0, 2), slice(6, 8)):
        labels = torch.ones(8, 6, 8, dtype=torch.uint8)
        labels[frames, 2:4, 2:4] = 2
        assert [tube.frames for tube in tubes_of(labels)] == [(0, 7), (frames.start, frames.stop - 1)]


def test_road_and_grass_that_are_one_area_in_one_frame_are_two_tubes_before_and_after() -> None:
    labels = torch.ones(5, 6, 8, dtype=torch.uint8)
    labels[:, :, 5:] = 2
    labels[2] = 2  # the larger part flips and swallows the smaller for a frame
    assert [(tube.frames, tube.pixels, sorted(tube.parts)) for tube in tubes_of(labels)] == [
        ((0, 4), 168, [0, 1, 2, 3, 4]),
        ((0, 4), 72, [0, 1, 3, 4]),
    ]


def test_halves_that_merge_in_one_frame_are_not_joined_by_it() -> None:
    labels = torch.ones(5, 6, 8, dtype=torch.uint8)
    labels[:, :, 4:] = 2
    labels[2] = 3  # neither half is more than half of it
    assert [(tube.frames, tube.shares) for tube in tubes_of(labels)] == [
        ((0, 4), ((1, 96),)),
        ((0, 4), ((2, 96),)),
        ((2, 2), ((3, 48),)),
    ]


@pytest.mark.parametrize(("hidden", "number"), [(1, 1), (2, 1), (3, 2)])
def test_area_hidden_for_one_or_two_frames_is_the_same(hidden: int, number: int) -> None:
    labels = torch.zeros(10, 6, 8, dtype=torch.uint8)
    labels[:, 2:5, 2:6] = 1
    labels[4 : 4 + hidden, 1:6, 1:7] = 6  # a boat in front
    labels[4 + hidden :, 2:5, 2:6] = 3  # and when it has passed the water is called sea
    assert len(tubes_of(labels)) == number
    moving = torch.stack([torch.roll(frame, t, dims=1) for t, frame in enumerate(labels)])
    found = find_tubes(blank(labels), moving[:, :, :8], group_of=GROUPS, min_area=0, flow=shift(1))
    assert as_pixels(moving, found) == Reference(moving, step=(1, 0)).tubes()


def test_area_hidden_for_as_long_as_it_was_seen_is_another() -> None:
    labels = torch.zeros(8, 4, 4, dtype=torch.uint8)
    labels[[0, 1, 4, 5, 6]] = 1  # seen 2, hidden 2, seen 3
    assert [tube.frames for tube in tubes_of(labels)] == [(4, 6), (0, 1)]
    labels[7] = labels[3] = 1  # seen 2, hidden 1
    assert [tube.frames for tube in tubes_of(labels)] == [(0, 7)]


def test_area_that_follows_one_is_not_looked_for_among_the_hidden() -> None:
    labels = torch.zeros(5, 1, 20, dtype=torch.uint8)
    labels[:2, 0, 0:11] = 1
    labels[2, 0, 9:] = 1
    labels[3:, 0, 5:15] = 1  # more than half of both, which have 2 pixels in common
    assert [tube.frames for tube in tubes_of(labels)] == [(2, 4), (0, 1)]


def test_area_that_is_followed_by_one_is_not_hidden() -> None:
    labels = torch.zeros(5, 1, 20, dtype=torch.uint8)
    labels[:2, 0, :10] = labels[2, 0, 4:14] = 1
    labels[3:, 0, :8] = 1  # most of what was there at first, not of what followed it
    assert [tube.frames for tube in tubes_of(labels)] == [(0, 2), (3, 4)]


def test_areas_that_cover_half_of_each_other_or_less_are_two_tubes() -> None:
    labels = torch.zeros(2, 1, 12, dtype=torch.uint8)
    labels[0, 0, :8] = 1
    labels[1, 0, 3:11] = 1
    assert len(tubes_of(labels)) == 1
    labels[1, 0, 3] = 0
    assert len(tubes_of(labels)) == 2


def test_what_leaves_the_frame_is_followed_by_what_is_left_of_it() -> None:
    labels = torch.zeros(3, 4, 12, dtype=torch.uint8)
    for frame, columns in zip(labels, (10, 6, 2), strict=True):
        frame[:, :columns] = 1
    found = find_tubes(blank(labels), labels, group_of=GROUPS, min_area=0, flow=shift(-4))
    assert [tube.frames for tube in found.large] == [(0, 2)]
    assert len(tubes_of(labels)) == 2  # 10 and 6 columns in place, then 2
