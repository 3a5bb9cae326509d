"""Which linked areas are one tube: the rules of `tubes` that join them.

Rule 3 only asks for more of what joining gives (a larger tube, a longer one), so its result does not depend on the
order in which threads are looked at.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mvcseg.vlm.areas import FRAME, PIXELS, Integers
from mvcseg.vlm.tube_links import Links


def tube_numbers(links: Links) -> Integers:
    """The tube of each area, numbered from 0, ``(A,)``."""
    return _with_flicker(_threads(links), links)


def _threads(links: Links) -> Integers:
    """Areas that follow each other (rule 1) with what was hidden in between (rule 2), numbered."""
    number = len(links.areas)
    chain_of = _joined(links.direct, number)
    first, last = _lives(chain_of, links.areas[:, FRAME])
    frames = (last - first + 1)[chain_of]
    one, other, gap = links.gaps.T
    is_same = (frames[one] > gap) & (frames[other] > gap)
    return _joined(np.concatenate([links.direct, links.gaps[is_same, :2]]), number)


def _with_flicker(thread_of: Integers, links: Links) -> Integers:
    """The tubes: threads joined to those they come out of and go back into (rule 3)."""
    first, last = _lives(thread_of, links.areas[:, FRAME])
    number = len(first)
    visible = np.zeros(len(links.areas), np.int64)
    visible[links.after[:, 0]] = links.after[:, 3]
    before = _beyond(links.before, thread_of, links, ends=first, pixels=links.areas[:, PIXELS])
    after = _beyond(links.after, thread_of, links, ends=last, pixels=visible)
    tube_of = np.arange(number)
    while True:
        start, stop = _lives(tube_of, first)[0], _lives(tube_of, last)[1]
        origin, destination = (_larger_part(place, tube_of) for place in (before, after))
        inside = np.flatnonzero((origin == destination) & (origin >= 0) & (origin != tube_of))
        frames_without = (first[inside] - start[origin[inside]]) + (stop[origin[inside]] - last[inside])
        inside = inside[frames_without >= last[inside] - first[inside] + 1]
        if not len(inside):
            return tube_of[thread_of]
        pairs = np.stack([tube_of[inside], origin[inside]], axis=1)
        tube_of = _joined(pairs, len(start))[tube_of]


class _Place(NamedTuple):
    """Where threads lie beyond one of their ends: threads, the threads there, the pixels; and pixels of each end."""

    threads: Integers
    others: Integers
    shared: Integers
    pixels: Integers


def _beyond(rows: Integers, thread_of: Integers, links: Links, *, ends: Integers, pixels: Integers) -> _Place:
    threads = thread_of[rows[:, 0]]
    is_end = links.areas[rows[:, 0], FRAME] == ends[threads]  # not where a gap begins or ends
    rows, threads = rows[is_end], threads[is_end]
    whole = np.zeros(len(ends), np.int64)
    whole[threads] = pixels[rows[:, 0]]
    return _Place(threads, thread_of[rows[:, 1]], rows[:, 2], whole)


def _larger_part(place: _Place, tube_of: Integers) -> Integers:
    """The tube in which more than half of each thread lies beyond its end; -1 where there is none."""
    number = len(tube_of)
    keys, row_of = np.unique(place.threads * number + tube_of[place.others], return_inverse=True)
    shared = np.bincount(row_of, place.shared, minlength=len(keys))
    threads, tubes = np.divmod(keys, number)
    is_larger = 2 * shared > place.pixels[threads]
    found = np.full(number, -1)
    found[threads[is_larger]] = tubes[is_larger]
    return found


def _lives(part_of: Integers, frames: Integers) -> tuple[Integers, Integers]:
    """Least and greatest frame of each part."""
    number = int(part_of.max(initial=-1)) + 1
    first, last = np.full(number, np.iinfo(np.int64).max), np.full(number, -1)
    np.minimum.at(first, part_of, frames)
    np.maximum.at(last, part_of, frames)
    return first, last


def _joined(pairs: Integers, number: int) -> Integers:
    """The part of a graph that each of its nodes is in, numbered from 0."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    is_pair: NDArray[np.bool_] = np.ones(len(pairs), bool)
    graph = coo_array((is_pair, (pairs[:, 0], pairs[:, 1])), shape=(number, number))
    parts: Integers = connected_components(graph, directed=False)[1].astype(np.int64)
    return parts
