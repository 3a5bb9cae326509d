"""Zoom, crop, mirror and colour: sizes, alignment, and agreement with Pillow."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from filmed import Filmed, position_video
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from mvcseg.data.clip_transforms import (
    crop_and_zoom,
    recoloured,
    resize_and_crop,
    resize_frames,
    resize_labels,
    size_of_short_side,
)
from mvcseg.data.images import read_frame


def resized(video: Filmed, seed: int = 0, **numbers: object) -> tuple[Tensor, Tensor]:
    arguments = {
        "short_sides": None,
        "long_side": None,
        "scales": (1.0, 1.0),
        "crop_size": None,
        "crop_range": None,
        "flip": False,
        **numbers,
    }
    return resize_and_crop(video.frames, video.labels, generator=np.random.default_rng(seed), **arguments)  # type: ignore[arg-type]


# Lengths worked out by hand: 853 * 720 / 480 = 1279.5, rounded up; 853 * 800 / 480 = 1421.7 is over the cap.
@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [
        ((480, 853), 720, (720, 1280)),
        ((480, 853), 800, (750, 1333)),
        ((853, 480), 800, (1333, 750)),
        ((480, 480), 600, (600, 600)),
        ((1080, 1920), 480, (480, 853)),
        ((2, 4000), 480, (1, 1333)),
    ],
)
def test_the_shorter_side_gets_its_length_unless_the_longer_exceeds_the_cap(
    size: tuple[int, int], short_side: int, expected: tuple[int, int]
) -> None:
    assert size_of_short_side(size, short_side, long_side=1333) == expected


@pytest.mark.parametrize("size", [(60, 107), (33, 40), (95, 170), (61, 50)])
def test_frames_are_resized_as_pillow_does_but_for_roundings(size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(1)
    frames = torch.randint(0, 256, (2, 3, 50, 90), dtype=torch.uint8, generator=generator)
    mine = resize_frames(frames, size, window=(0, 0, *size), is_flipped=False)
    theirs = torch.stack(
        [
            torch.from_numpy(
                np.array(Image.fromarray(frame.permute(1, 2, 0).numpy()).resize(size[::-1], Image.Resampling.BILINEAR))
            ).permute(2, 0, 1)
            for frame in frames
        ]
    )
    difference = (mine.int() - theirs.int()).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 0.02  # noise is the worst case; real frames stay below 0.005
    assert mine.dtype == torch.uint8


def test_real_frames_differ_from_pillows_in_few_values(shared_data: Path) -> None:
    path = sorted((shared_data / "vspw_sample").glob("data/*/origin/*"))[0]
    frame = read_frame(path)
    for short_side in (512, 720, 800, 360):
        size = size_of_short_side((480, 853), short_side, long_side=1333)
        with Image.open(path) as image:
            theirs = np.asarray(image.resize(size[::-1], Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        mine = resize_frames(frame[None], size, window=(0, 0, *size), is_flipped=False)[0].numpy()
        difference = np.abs(mine.astype(int) - theirs)
        assert difference.max() <= 1
        assert np.mean(difference > 0) < 0.005


# Sizes without a new pixel whose centre lies between two old ones.
@pytest.mark.parametrize("size", [(60, 108), (34, 40), (100, 180)])
def test_labels_take_the_pixel_that_pillow_takes(size: tuple[int, int]) -> None:
    labels = position_video(1, height=50, width=90).labels
    theirs = Image.fromarray(labels[0].numpy()).resize(size[::-1], Image.Resampling.NEAREST)
    assert torch.equal(
        resize_labels(labels, size, window=(0, 0, *size), is_flipped=False)[0], torch.from_numpy(np.array(theirs))
    )


@settings(max_examples=40, deadline=None)
@given(
    short_side=st.integers(32, 100),
    low=st.integers(32, 60),
    more=st.integers(0, 60),
    seed=st.integers(0, 10**6),
    flip=st.booleans(),
    mode=st.sampled_from(["whole", "range", "size"]),
)
def test_labels_stay_on_their_pixels(short_side: int, low: int, more: int, seed: int, flip: bool, mode: str) -> None:
    crop = {"whole": {}, "range": {"crop_range": (low, low + more)}, "size": {"crop_size": (low, low + more)}}[mode]
    frames, labels = resized(position_video(2, height=48, width=96), seed, short_sides=[short_side], flip=flip, **crop)
    columns, rows = frames[:, :2].int().unbind(dim=1)
    # Half an old pixel a side to the nearest label, half a level of rounding for each colour, and the frame's edge.
    assert ((labels.int() - rows - columns).abs() <= 2.5).all()
    assert torch.equal(labels[0], labels[1])


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 120), st.integers(1, 120)),
    low=st.integers(32, 60),
    more=st.integers(0, 60),
    seed=st.integers(0, 10**6),
)
def test_crops_stay_within_range_and_frame(size: tuple[int, int], low: int, more: int, seed: int) -> None:
    video = position_video(1, height=size[0], width=size[1])
    frames, labels = resized(video, seed, crop_range=(low, low + more))
    assert frames.shape[-2:] == labels.shape[-2:]
    for side, whole in zip(labels.shape[-2:], size, strict=True):
        assert min(whole, low) <= side <= min(whole, low + more)


def test_whole_frames_without_a_zoom_are_what_was_read() -> None:
    video = position_video(2)
    frames, labels = resized(video)
    assert torch.equal(frames, video.frames)
    assert torch.equal(labels, video.labels)
    mirrored = {bool(resized(video, seed, flip=True)[1][0, 0, 0]) for seed in range(20)}
    assert mirrored == {False, True}


def test_sizes_and_crops_are_drawn_evenly() -> None:
    video = position_video(1, height=40, width=60)
    sizes = Counter(resized(video, seed, short_sides=[32, 40, 48])[1].shape[-2] for seed in range(900))
    assert set(sizes) == {32, 40, 48}
    assert all(abs(count - 300) < 60 for count in sizes.values())
    crops = [resized(video, seed, crop_range=(36, 70))[1].shape[-2:] for seed in range(1500)]
    heights, widths = Counter(height for height, _ in crops), Counter(width for _, width in crops)
    assert set(heights) == set(range(36, 41))  # capped by the frame
    assert set(widths) == set(range(36, 61))
    assert all(abs(count - 300) < 70 for count in heights.values())
    assert abs(np.corrcoef(np.array(crops).T)[0, 1]) < 0.1  # height and width are drawn apart


def test_both_places_of_a_crop_are_drawn_up_to_the_edges() -> None:
    video = position_video(1, height=34, width=35)
    corners = {tuple(resized(video, seed, crop_range=(32, 32))[0][0, :2, 0, 0].tolist()) for seed in range(200)}
    assert corners == {(left, top) for left in range(4) for top in range(3)}


def test_a_fixed_crop_of_a_smaller_frame_is_what_there_is() -> None:
    frames, labels = resized(position_video(2, height=40, width=60), short_sides=[32], crop_size=(50, 40))
    assert frames.shape == (2, 3, 32, 40)
    assert labels.shape == (2, 32, 40)


@pytest.mark.parametrize("is_flipped", [False, True])
def test_a_part_of_the_resized_is_the_resized_part(is_flipped: bool) -> None:
    video = position_video(2)
    numbers = {"size": (61, 85), "is_flipped": is_flipped}
    for resize, tensor in ((resize_frames, video.frames), (resize_labels, video.labels)):
        whole = resize(tensor, numbers["size"], window=(0, 0, 61, 85), is_flipped=False)
        part = whole[..., 7:40, 11:70]
        expected = part.flip(-1) if is_flipped else part
        got = resize(tensor, window=(7, 11, 33, 59), **numbers)
        assert torch.equal(got, expected)
        assert got.is_contiguous()


def test_scales_zoom_where_there_are_no_short_sides() -> None:
    areas = [resized(position_video(1), seed, scales=(0.5, 2.0))[1].shape[-2:] for seed in range(50)]
    assert len(set(areas)) > 30
    assert all(20 <= height <= 80 and abs(width / height - 1.4) < 0.05 for height, width in areas)


def test_cutting_first_and_resizing_first_see_the_same_picture() -> None:
    video = position_video(2, height=48, width=96)
    generators = (np.random.default_rng(seed) for seed in (0, 0))
    cut, _ = crop_and_zoom(
        video.frames,
        video.labels,
        scales=(2.0, 2.0),
        crop_size=(96, 192),
        flip=False,
        generator=next(generators),
    )
    whole, _ = resized(video, scales=(2.0, 2.0))
    torch.testing.assert_close(cut, whole / 255, atol=1.01 / 255, rtol=0)


def test_colour_factors_are_applied_in_turn() -> None:
    frames = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0)) * 0.5
    brightness, contrast, saturation = np.random.default_rng(4).uniform(0.9, 1.1, size=3)
    mine = recoloured(frames, colour=0.1, generator=np.random.default_rng(4)).double()
    expected = frames.double().numpy() * brightness
    grey = (expected * np.array([0.299, 0.587, 0.114]).reshape(1, 3, 1, 1)).sum(axis=1, keepdims=True)
    expected = grey + (expected - grey) * saturation
    expected = grey.mean() + (expected - grey.mean()) * contrast
    torch.testing.assert_close(mine, torch.from_numpy(expected.clip(0, 1)), atol=1e-6, rtol=0)
