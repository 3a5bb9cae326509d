from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor

from mvcseg.data.read_ahead import read_ahead
from mvcseg.errors import DataError


class Recorded:
    """A video that remembers which slices were read, and by how many at once."""

    def __init__(self, length: int, *, broken_from: int = 10**9) -> None:
        self.frames = torch.arange(length, dtype=torch.uint8).view(length, 1, 1, 1).expand(length, 3, 2, 4)
        self.read: list[tuple[int, int]] = []
        self.broken_from = broken_from
        self.lock = threading.Lock()
        self.changed = threading.Condition()

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: slice, /) -> Tensor:
        assert self.lock.acquire(blocking=False), "two read at once"
        try:
            start, stop, _ = index.indices(len(self))
            if stop > self.broken_from:
                raise DataError(f"frame {self.broken_from} is broken")
            return self.frames[index]
        finally:
            with self.changed:
                self.read.append((start, stop))
                self.changed.notify_all()
            self.lock.release()

    def wait_for(self, count: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.read) >= count, timeout=60), self.read


def test_the_next_slice_is_read_before_it_is_asked_for() -> None:
    video = Recorded(7)
    with read_ahead(video) as frames:
        assert torch.equal(frames[0:3], video.frames[0:3])
        video.wait_for(2)
        assert video.read == [(0, 3), (3, 6)]
        assert torch.equal(frames[3:6], video.frames[3:6])
        assert torch.equal(frames[6:7], video.frames[6:7])
    assert video.read == [(0, 3), (3, 6), (6, 7)]


@pytest.mark.parametrize("index", [slice(0, 2), slice(5, 6), slice(0, 7, 2), slice(6, 2, -1), slice(4, 4)])
def test_any_other_slice_is_the_videos(index: slice) -> None:
    video = torch.arange(7, dtype=torch.uint8).view(7, 1, 1, 1).expand(7, 3, 2, 4)
    for steps in ([index], [slice(0, 3), index], [slice(0, 3), slice(3, 6), index]):
        with read_ahead(Flipped(video)) as frames:
            for step in steps:
                assert torch.equal(frames[step], Flipped(video)[step])
            assert len(frames) == 7


def test_a_broken_frame_is_told_where_it_is_asked_for() -> None:
    video = Recorded(6, broken_from=3)
    with read_ahead(video) as frames:
        frames[0:3]
        video.wait_for(2)
        with pytest.raises(DataError, match="frame 3 is broken"):
            frames[3:6]
        assert torch.equal(frames[1:2], video.frames[1:2])


class Flipped:
    """A video that, unlike a tensor, knows steps below zero."""

    def __init__(self, frames: Tensor) -> None:
        self.frames = frames

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: slice, /) -> Tensor:
        return self.frames[list(range(*index.indices(len(self.frames))))]
