"""Which frames make a clip: reach, order and evenness of the draws."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mvcseg.data.frame_sampling import consecutive_frames, shuffled_position, strided_frames, window_frames

SEEDS = range(3000)


def generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_consecutive_frames_start_anywhere_evenly_and_at_the_last_possible_frame_too() -> None:
    drawn = [consecutive_frames(7, clip_length=4, generator=generator(seed)) for seed in SEEDS]
    assert all(frames == tuple(range(frames[0], frames[0] + 4)) for frames in drawn)
    counts = Counter(frames[0] for frames in drawn)
    assert set(counts) == {0, 1, 2, 3}
    # Binomial with 3000 draws at 1/4: four standard deviations are 95.
    assert all(abs(count - 750) < 95 for count in counts.values())


def test_a_video_of_the_clips_own_length_is_the_clip() -> None:
    assert consecutive_frames(5, clip_length=5, generator=generator(0)) == (0, 1, 2, 3, 4)
    assert consecutive_frames(3, clip_length=5, generator=generator(0)) == (0, 1, 2, 2, 2)
    assert consecutive_frames(1, clip_length=1, generator=generator(0)) == (0,)


def test_every_distance_is_drawn_as_often_as_the_next() -> None:
    drawn = [strided_frames(40, clip_length=3, strides=(1, 3, 5), generator=generator(seed)) for seed in SEEDS]
    counts = Counter(frames[1] - frames[0] for frames in drawn)
    assert set(counts) == {1, 3, 5}
    assert all(abs(count - 1000) < 105 for count in counts.values())
    assert max(frames[-1] for frames in drawn) == 39


@given(length=st.integers(1, 40), clip_length=st.integers(1, 12), window=st.integers(1, 50), seed=st.integers(0, 10**9))
def test_a_window_lies_around_one_of_its_frames(length: int, clip_length: int, window: int, seed: int) -> None:
    frames = window_frames(length, clip_length=clip_length, window=window, generator=generator(seed))
    assert len(frames) == clip_length
    assert list(frames) == sorted(frames)
    assert frames[0] >= 0
    assert frames[-1] < length
    assert any(all(abs(frame - reference) <= window for frame in frames) for reference in frames)


def test_a_windows_neighbours_are_drawn_evenly_and_never_the_reference_again() -> None:
    pairs = [window_frames(9, clip_length=2, window=2, generator=generator(seed)) for seed in SEEDS]
    # Any two frames at most two apart: from each reference two neighbours at the ends, three beside them, else four.
    expected = Counter[tuple[int, int]]()
    for reference in range(9):
        others = [other for other in range(max(0, reference - 2), min(9, reference + 3)) if other != reference]
        for other in others:
            expected[min(reference, other), max(reference, other)] += 1 / 9 / len(others)
    counts = Counter(pairs)
    assert set(counts) == set(expected)
    for pair, share in expected.items():
        assert abs(counts[pair] - 3000 * share) < 4.5 * np.sqrt(3000 * share * (1 - share)), pair


def test_a_window_draws_with_replacement() -> None:
    drawn = [window_frames(40, clip_length=6, window=2, generator=generator(seed)) for seed in range(200)]
    assert all(len(set(frames)) <= 5 for frames in drawn)
    assert any(len(set(frames)) < 5 for frames in drawn)
    assert window_frames(1, clip_length=3, window=8, generator=generator(0)) == (0, 0, 0)


@pytest.mark.parametrize("count", [1, 2, 7])
def test_every_value_comes_once_before_any_comes_again(count: int) -> None:
    rounds = [
        [shuffled_position(part * count + place, count=count, seed=3) for place in range(count)] for part in range(60)
    ]
    assert all(sorted(values) == list(range(count)) for values in rounds)
    if count > 1:
        assert len({tuple(values) for values in rounds}) > 1
        assert {values[0] for values in rounds} == set(range(count))
    backwards = [shuffled_position(place, count=count, seed=3) for place in reversed(range(60 * count))][::-1]
    assert backwards == [value for values in rounds for value in values]


def test_another_seed_shuffles_anew() -> None:
    first, second = ([shuffled_position(place, count=20, seed=seed) for place in range(20)] for seed in (0, 1))
    assert first != second
