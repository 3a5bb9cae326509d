"""Which linked areas are one tube: the rules that join them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mvcseg.vlm.areas import FRAME, PIXELS, Integers
from mvcseg.vlm.tube_links import Links


def tube_numbers(links: Links) -> Integers:
    """The tube of each area, numbered from 0, ``(A,)``."""
    number = len(links.areas)
    chain_of = _joined(links.direct, number)
    first, last = _lives(chain_of, links.areas[:, FRAME])
    frames = (last - first + 1)[chain_of]
    one, other, gap = links.gaps.T
    # Who is away for longer than seen flickers rather than is hidden.
    is_same = (frames[one] > gap) & (frames[other] > gap)
    thread_of = _joined(np.concatenate([links.direct, links.gaps[is_same, :2]]), number)
    return _without_flicker(thread_of, links)


def _without_flicker(thread_of: Integers, links: Links) -> Integers:
    """The tube of each area once threads that come out of a tube and go back into it are part of it."""
    first, last = _lives(thread_of, links.areas[:, FRAME])
    before = _ends(links.before[:, :3], thread_of, links, frame_of_end=first, pixels=links.areas[:, PIXELS])
    visible = np.zeros(len(links.areas), np.int64)
    visible[links.after[:, 0]] = links.after[:, 3]
    after = _ends(links.after[:, :3], thread_of, links, frame_of_end=last, pixels=visible)
    tube_of = np.arange(len(first))
    while True:
        start, end = np.full(len(first), np.inf), np.full(len(first), -np.inf)
        np.minimum.at(start, tube_of, first)
        np.maximum.at(end, tube_of, last)
        origin, destination = (_larger_part(ends, tube_of, number=len(first)) for ends in (before, after))
        is_inside = (origin == destination) & (origin >= 0) & (origin != tube_of)
        beside = (first - start[origin]) + (end[origin] - last)
        is_inside &= beside >= last - first + 1
        if not is_inside.any():
            return tube_of[thread_of]
        pairs = np.stack([tube_of[is_inside], origin[is_inside]], axis=1)
        tube_of = _joined(pairs, len(first))[tube_of]
        tube_of = np.unique(tube_of, return_inverse=True)[1]


def _ends(
    rows: Integers, thread_of: Integers, links: Links, *, frame_of_end: Integers, pixels: Integers
) -> tuple[Integers, Integers, NDArray[np.float64]]:
    """Threads, the threads in their place beyond one end, and the share of the end's area there."""
    thread = thread_of[rows[:, 0]]
    is_end = links.areas[rows[:, 0], FRAME] == frame_of_end[thread]
    rows, thread = rows[is_end], thread[is_end]
    return thread, thread_of[rows[:, 1]], rows[:, 2] / pixels[rows[:, 0]]


def _larger_part(ends: tuple[Integers, Integers, NDArray[np.float64]], tube_of: Integers, *, number: int) -> Integers:
    """The tube in which more than half of each thread's end lies, -1 where there is none."""
    thread, other, share = ends
    keys, row_of = np.unique(thread * number + tube_of[other], return_inverse=True)
    is_larger = np.bincount(row_of, share, minlength=len(keys)) > 0.5
    tubes = np.full(number, -1)
    tubes[keys[is_larger] // number] = keys[is_larger] % number
    return tubes


def _lives(chain_of: Integers, frames: Integers) -> tuple[Integers, Integers]:
    """First and last frame of each chain."""
    number = int(chain_of.max(initial=-1)) + 1
    first, last = np.full(number, np.iinfo(np.int64).max), np.full(number, -1)
    np.minimum.at(first, chain_of, frames)
    np.maximum.at(last, chain_of, frames)
    return first, last


def _joined(pairs: Integers, number: int) -> Integers:
    """The number of the part of a graph that each of its nodes is in."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(number, number))
    parts: Integers = connected_components(graph, directed=False)[1].astype(np.int64)
    return parts
