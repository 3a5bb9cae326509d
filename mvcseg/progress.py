"""Progress on standard error, shown only to a terminal and once two seconds have gone by."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from mvcseg.data.files import shown


@contextmanager
def watched_frames(video: Any) -> Iterator[Any]:
    """The video, with a bar that counts the frames read from it."""
    with _bar("frames read") as bar:
        yield _WatchedVideo(video, bar.update)


def _bar(unit: str) -> Any:
    """A bar that draws itself over again, which only a terminal shows as one: a file would hold every drawing."""
    from tqdm import tqdm

    return tqdm(unit=f" {unit}", delay=2, file=sys.stderr, leave=False, disable=None)


@dataclass(frozen=True)
class _WatchedVideo:
    video: Any
    advance: Callable[[int], object]

    def __len__(self) -> int:
        return len(self.video)

    def __getitem__(self, index: slice, /) -> Tensor:
        clip: Tensor = self.video[index]
        self.advance(len(clip))
        return clip


@contextmanager
def progress_bar(unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar to be called with what is done and what there is in all."""
    with _bar(unit) as bar:

        def update(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield update


@contextmanager
def frame_progress(unit: str = "frames") -> Iterator[Callable[[str, int, int], None]]:
    """A bar over the frames of several videos, called with a video's name, its frames done and its frames in all.

    Or over other things than frames, of others than videos.
    """
    with _bar(unit) as bar:
        finished = 0
        current = ""

        def update(name: str, done: int, total: int) -> None:
            nonlocal finished, current
            if name != current:
                finished += 0 if not current else int(bar.total or 0) - finished
                current = name
                bar.set_description(shown(name), refresh=False)
            bar.total = finished + total
            bar.update(finished + done - bar.n)

        yield update
