"""A video whose next frames are read while the last ones are worked on."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

from torch import Tensor

from mvcseg.segmenter import Video


@contextmanager
def read_ahead(video: Video) -> Iterator[Video]:
    """The video, with one slice read in advance by a thread: as long as the last one asked for, and right behind it.

    Who asks for slices in order never waits for more than what reading takes longer than the work between; other
    slices are read when asked for. What fails in advance is raised where the slice is asked for.

    Args:
        video: any; used by one thread at a time.

    Example:
        >>> import torch
        >>> with read_ahead(torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1)) as frames:
        ...     [len(frames[start : start + 2]) for start in (0, 2, 4)]
        [2, 2, 1]
    """
    reader = ThreadPoolExecutor(max_workers=1)
    try:
        yield _ReadAhead(video, reader)
    finally:
        reader.shutdown(wait=True, cancel_futures=True)


class _ReadAhead:
    def __init__(self, video: Video, reader: ThreadPoolExecutor) -> None:
        self._video, self._reader = video, reader
        self._next: tuple[slice, Future[Tensor]] | None = None

    def __len__(self) -> int:
        return len(self._video)

    def __getitem__(self, index: slice, /) -> Tensor:
        start, stop, step = index.indices(len(self._video))
        wanted, ready = slice(start, stop), self._next
        self._next = None
        if step == 1 and ready is not None and ready[0] == wanted:
            frames = ready[1].result()
        else:
            # the thread is the only one to read, since not every video may be read by two
            frames = self._reader.submit(self._video.__getitem__, index).result()
        behind = slice(stop, min(stop + (stop - start), len(self._video)))
        if step == 1 and start < stop < behind.stop:
            self._next = behind, self._reader.submit(self._video.__getitem__, behind)
        return frames
