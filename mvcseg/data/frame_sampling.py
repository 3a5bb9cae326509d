"""Which frames of a video make a clip: evenly spaced, neighbours, or drawn around one of them.

DVIS++ trains its segmenter on frames around a reference frame (the form of CTVIS), its tracker and refiner on
neighbouring frames, the refiner's in reversed order half of the time. Here neighbours may also start at the last
possible frame, which the published sampling never does.
Source: zhang-tao-whu/DVIS_Plus, ``data_video/dataset_mapper_vss.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np

Sampling = Literal["stride", "window", "consecutive"]
"""How the frames of a clip are drawn: `strided_frames`, `window_frames` or `consecutive_frames`."""


def strided_frames(
    length: int, *, clip_length: int, strides: Sequence[int], generator: np.random.Generator
) -> tuple[int, ...]:
    """Frames at one drawn distance, from a drawn start.

    A video too short for the distance gets the largest that fits; one shorter than the clip repeats its last frame.

    Args:
        length: frames of the video, at least 1.
        clip_length: T, frames of the clip.
        strides: distances in frames, one of which is drawn.
        generator: source of randomness.

    Returns:
        T positions in ``[0, length)``, never falling.

    Example:
        >>> strided_frames(9, clip_length=3, strides=(4,), generator=np.random.default_rng(0))
        (0, 4, 8)
    """
    steps = clip_length - 1
    stride = strides[int(generator.integers(len(strides)))]
    if steps:
        stride = max(1, min(stride, (length - 1) // steps))
    start = int(generator.integers(max(1, length - stride * steps)))
    return tuple(min(start + stride * step, length - 1) for step in range(clip_length))


def window_frames(length: int, *, clip_length: int, window: int, generator: np.random.Generator) -> tuple[int, ...]:
    """A drawn reference frame and ``clip_length - 1`` of its neighbours, drawn with replacement, in order.

    Args:
        length: frames of the video, at least 1.
        clip_length: T, frames of the clip.
        window: largest distance from the reference frame; the video's ends cut it. Where it leaves no neighbour
            (a video of one frame), the reference is repeated.
        generator: source of randomness.

    Returns:
        T positions in ``[0, length)``, never falling.

    Example:
        >>> window_frames(60, clip_length=4, window=8, generator=np.random.default_rng(0))
        (47, 51, 52, 54)
    """
    reference = int(generator.integers(length))
    first, last = max(0, reference - window), min(length - 1, reference + window)
    draws = generator.integers(max(1, last - first), size=clip_length - 1)
    # Positions from the reference on move up by one, so that it is not drawn itself.
    others = [min(last, first + int(draw) + (first + int(draw) >= reference)) for draw in draws]
    return tuple(sorted([reference, *others]))


def consecutive_frames(length: int, *, clip_length: int, generator: np.random.Generator) -> tuple[int, ...]:
    """Neighbouring frames from a drawn start, the last possible one included.

    Args:
        length: frames of the video, at least 1; one shorter than the clip repeats its last frame.
        clip_length: T, frames of the clip.
        generator: source of randomness.

    Returns:
        T positions in ``[0, length)``, never falling.

    Example:
        >>> consecutive_frames(3, clip_length=5, generator=np.random.default_rng(0))
        (0, 1, 2, 2, 2)
    """
    return strided_frames(length, clip_length=clip_length, strides=(1,), generator=generator)


def shuffled_position(index: int, *, count: int, seed: int) -> int:
    """Position ``index`` of an endless row of shuffles of ``range(count)``: each value once before any comes again.

    Args:
        index: place in the row, at least 0.
        count: how many values there are.
        seed: of the shuffles; every round of ``count`` has its own.

    Example:
        >>> sorted(shuffled_position(index, count=4, seed=7) for index in range(4, 8))
        [0, 1, 2, 3]
    """
    return int(_shuffle(index // count, count, seed)[index % count])


@lru_cache(maxsize=4)
def _shuffle(part: int, count: int, seed: int) -> np.ndarray:
    # The third number keeps this apart from the generators of samples, which are keyed by two.
    return np.random.default_rng((seed, part, 1)).permutation(count)
