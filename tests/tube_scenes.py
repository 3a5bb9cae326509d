"""Label videos for tests of tubes, and the rules of tubes written out area by area."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import numpy as np
import torch
from hypothesis import strategies as st

from mvcseg.vlm.areas import areas, frame_of, mask_of
from mvcseg.vlm.tubes import Tube, Tubes, find_tubes

GROUPS = {1: 0, 2: 0, 3: 0, 4: 1, 5: 1}
Pixel = tuple[int, int, int]


def blank(labels: torch.Tensor) -> torch.Tensor:
    """A video of this size in which nothing can be seen, so that no frame is taken for a cut."""
    return torch.zeros(len(labels), 3, *labels.shape[1:], dtype=torch.uint8)


def shift(x: float, y: float = 0) -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor]:
    """A flow that says everything moved by (x, y) since the frame before."""

    def flow(now: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        return torch.tensor([-float(x), -float(y)]).view(1, 2, 1, 1).expand(1, 2, *now.shape[2:])

    return flow


def tubes_of(labels: torch.Tensor) -> tuple[Tube, ...]:
    return find_tubes(blank(labels), labels, group_of=GROUPS, min_area=0, flow=None).large


def pixels_of(labels: torch.Tensor, tube: Tube) -> frozenset[Pixel]:
    found = set()
    for frame, parts in tube.parts.items():
        mask = mask_of(areas(frame_of(labels, frame), classes=GROUPS), parts)
        found |= {(frame, int(y), int(x)) for y, x in zip(*np.nonzero(mask), strict=True)}
    return frozenset(found)


def as_pixels(labels: torch.Tensor, found: Tubes) -> set[frozenset[Pixel]]:
    assert found.too_small == 0
    return {pixels_of(labels, tube) for tube in found.large}


def scene(*, height: int = 48, width: int = 240, seed: int = 0) -> torch.Tensor:
    """A wide picture with structure of many sizes, as in photographs, ``(3, height, width)``."""
    generator, picture = torch.Generator().manual_seed(seed), torch.zeros(3, height, width)
    for side in (2, 4, 8, 16):
        coarse = torch.rand(1, 3, -(-height // side), -(-width // side), generator=generator)
        picture += torch.nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")[0] / 4
    return (255 * picture).to(torch.uint8)


def panned(picture: torch.Tensor, *, step: int, frames: int, width: int = 96) -> torch.Tensor:
    return torch.stack([picture[..., step * t : step * t + width] for t in range(frames)])


@st.composite
def label_videos(draw: st.DrawFn) -> torch.Tensor:
    """Videos in which every rule has something to do: large areas that stay, flip, vanish, are speckled, or noise."""
    seed = draw(st.integers(0, 10**6))
    frames, height, width = draw(st.sampled_from([(1, 1, 1), (3, 4, 6), (7, 3, 5), (6, 5, 4), (9, 2, 6), (12, 2, 3)]))
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randint(0, 7, (frames, height, width), generator=generator)
    kind = draw(st.sampled_from(["noise", "still", "flips", "two"]))
    if kind == "noise":
        return noise
    scene = noise[:1, :1, :1].expand(frames, height, width).clone()
    if kind == "two":
        scene[:, :, width // 2 :] = noise[0, -1, -1]
    if kind == "flips":
        scene = torch.where(torch.rand(frames, 1, 1, generator=generator) < 0.7, scene, noise[:, :1, :1])
    return torch.where(torch.rand(noise.shape, generator=generator) < 0.85, scene, noise)


class Reference:
    """The rules of the module's docstring, area by area, in sets of pixels."""

    def __init__(self, labels: torch.Tensor, *, step: tuple[int, int] = (0, 0), seed: int = 0) -> None:
        self.frames, self.step = labels.tolist(), step
        self.members = [members for frame in range(len(labels)) for members in self._areas(frame)]
        self.time = [next(iter(members))[0] for members in self.members]
        group = {members: GROUPS[self._class(members)] for members in self.members}
        numbers = range(len(self.members))
        pairs = [
            (a, b)
            for a in numbers
            for b in numbers
            if 1 <= self.time[b] - self.time[a] <= 3 and group[self.members[a]] == group[self.members[b]]
        ]
        self.part = {a: {a} for a in numbers}
        self.random = random.Random(seed)
        linked_on: set[int] = set()
        linked_back: set[int] = set()
        hidden = []
        for gap in (0, 1, 2):
            for a, b in [pair for pair in pairs if self.time[pair[1]] - self.time[pair[0]] == gap + 1]:
                if a not in linked_on and b not in linked_back and self._is_same(a, b):
                    linked_on.add(a)
                    linked_back.add(b)
                    if gap == 0:
                        self._join(a, b)
                    else:
                        hidden.append((a, b, gap))
        seen = {a: len(self.part[a]) for a in numbers}
        for a, b, gap in hidden:
            if min(seen[a], seen[b]) > gap:
                self._join(a, b)
        self._join_flicker(pairs)

    def tubes(self) -> set[frozenset[Pixel]]:
        return {frozenset().union(*(self.members[a] for a in part)) for part in self.part.values()}

    def _class(self, members: frozenset[Pixel]) -> int:
        t, y, x = next(iter(members))
        return int(self.frames[t][y][x])

    def _areas(self, t: int) -> list[frozenset[Pixel]]:
        rows = self.frames[t]
        left = {(y, x) for y, row in enumerate(rows) for x, value in enumerate(row) if value in GROUPS}
        found = []
        while left:
            stack = [left.pop()]
            members = set(stack)
            while stack:
                y, x = stack.pop()
                near = {(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
                near = {(i, j) for i, j in near if rows[i][j] == rows[y][x]}
                left -= near
                members |= near
                stack += near
            found.append(frozenset((t, y, x) for y, x in members))
        return found

    def _moved(self, a: int, frames: int) -> set[tuple[int, int]]:
        height, width = len(self.frames[0]), len(self.frames[0][0])
        moved = {(y + frames * self.step[1], x + frames * self.step[0]) for _, y, x in self.members[a]}
        return {(y, x) for y, x in moved if 0 <= y < height and 0 <= x < width}

    def _shared(self, a: int, b: int) -> tuple[int, int, int]:
        moved, there = self._moved(a, self.time[b] - self.time[a]), {(y, x) for _, y, x in self.members[b]}
        return len(moved & there), len(moved), len(there)

    def _is_same(self, a: int, b: int) -> bool:
        shared, *sizes = self._shared(a, b)
        return 2 * shared > max(sizes)

    def _join(self, a: int, b: int) -> None:
        joined = self.part[a] | self.part[b]
        for c in joined:
            self.part[c] = joined

    def _join_flicker(self, pairs: list[tuple[int, int]]) -> None:
        threads = list({frozenset(part) for part in self.part.values()})
        next_to = [(a, b) for a, b in pairs if self.time[b] - self.time[a] == 1]
        has_changed = True
        while has_changed:
            has_changed = False
            self.random.shuffle(threads)
            for thread in threads:
                first, last = (end(thread, key=self.time.__getitem__) for end in (min, max))
                before, after = Counter[int](), Counter[int]()
                for a, b in next_to:
                    if b == first:
                        before[min(self.part[a])] += self._shared(a, b)[0]
                    if a == last:
                        after[min(self.part[b])] += self._shared(a, b)[0]
                for tube in before.keys() & after.keys() - {min(self.part[first])}:
                    is_there = 2 * before[tube] > len(self.members[first]) and 2 * after[tube] > len(
                        self._moved(last, 1)
                    )
                    times = [self.time[c] for c in self.part[tube]]
                    without = self.time[first] - min(times) + max(times) - self.time[last]
                    if is_there and without >= self.time[last] - self.time[first] + 1:
                        self._join(first, tube)
                        has_changed = True
