"""A nameless temporary file for what a long video must keep of every frame.

The file loses its name as it is opened, so no exit leaves anything behind, not even SIGKILL. It is read and written in
pieces and never mapped, since mapped pages count as resident memory. If the folder is a RAM disk, as ``/tmp``
is on some systems, the data still occupies memory: choose a folder on a disk then.
"""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
import threading
import weakref
from array import array
from collections.abc import Iterator
from math import prod
from os import PathLike
from types import TracebackType
from typing import IO

import torch
from torch import Tensor

from mvcseg.errors import ConfigError, DataError, DTypeError, ShapeError

_FULL = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT}


class SpillFile:
    """Several growing arrays in one temporary file; a context manager, closed at the latest with the last reference.

    Threads may read and write at the same time.

    Args:
        folder: where the file lies; None takes ``tempfile.gettempdir()``, which follows ``TMPDIR``.

    Raises:
        DataError: the folder is missing or not writable.

    Example:
        >>> with SpillFile() as spill:
        ...     kept = spill.array((100, 512), torch.float32)
        ...     kept.append(torch.ones(3, 100, 512))
        ...     kept.read(slice(1, 3), rows=slice(0, 10)).shape
        torch.Size([2, 10, 512])
    """

    def __init__(self, folder: str | PathLike[str] | None = None) -> None:
        self.folder = tempfile.gettempdir() if folder is None else os.fsdecode(folder)
        try:
            self._file: IO[bytes] = tempfile.TemporaryFile(prefix="mvcseg-", dir=self.folder, buffering=0)  # noqa: SIM115
        except OSError as error:
            raise DataError(
                f"spill folder {self.folder}: cannot open a temporary file there ({error.strerror or error}); "
                f"{_OTHER_FOLDER}"
            ) from error
        self._size = 0
        self._lock = threading.Lock()
        self._closing = weakref.finalize(self, self._file.close)

    def array(self, shape: tuple[int, ...], dtype: torch.dtype, *, frames: int = 0) -> SpillArray:
        """A new array of frames.

        Args:
            shape: of one frame, ``(Q, C)`` say.
            dtype: of every frame, kept bit for bit.
            frames: how many frames to begin with; they hold zeros until written.
        """
        return SpillArray(self, tuple(shape), dtype, frames=frames)

    @property
    def size(self) -> int:
        """Bytes in the file."""
        return self._size

    def close(self) -> None:
        """Give the disk space back; the arrays cannot be read any more."""
        self._closing()

    def __enter__(self) -> SpillFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _allocate(self, size: int) -> int:
        with self._lock, self._explained(size):
            start = self._size
            self._file.truncate(start + size)
            self._size = start + size
        return start

    def _write(self, offset: int, data: memoryview) -> None:
        with self._lock, self._explained(len(data)):
            self._file.seek(offset)
            while data:
                data = data[self._file.write(data) :]  # the system may take less than it is given

    def _read(self, offset: int, into: memoryview) -> None:
        with self._lock:
            self._file.seek(offset)
            while into:
                count = self._file.readinto(into)  # type: ignore[attr-defined]
                if not count:
                    raise DataError(f"spill file in {self.folder}: ends at byte {offset}, though more was written")
                into, offset = into[count:], offset + count

    @contextlib.contextmanager
    def _explained(self, size: int) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = "no room left" if error.errno in _FULL else error.strerror or str(error)
            raise DataError(
                f"spill file in {self.folder}: {reason} for {_megabytes(size)} more beside the "
                f"{_megabytes(self._size)} of this video so far; {_OTHER_FOLDER}"
            ) from error


class SpillArray:
    """Frames of one shape and dtype in a ``SpillFile``, whose method ``array`` makes it; ``len`` counts the frames.

    Attributes:
        file: the file that holds it.
        frame_shape: shape of one frame.
        dtype: of every frame.
        frame_bytes: size of one frame.
    """

    def __init__(self, file: SpillFile, shape: tuple[int, ...], dtype: torch.dtype, *, frames: int) -> None:
        if not shape or min(shape) < 1:
            raise ShapeError(f"shape: expected the sizes of one frame, each at least 1, got {shape}")
        if frames < 0:
            raise ConfigError(f"frames: expected at least 0, got {frames}")
        self.file, self.frame_shape, self.dtype = file, shape, dtype
        self._row_bytes = prod(shape[1:]) * dtype.itemsize
        self.frame_bytes = shape[0] * self._row_bytes
        self._offsets = array("q")  # of each frame, so that arrays may grow in turn
        self._reserve(frames)

    def __len__(self) -> int:
        return len(self._offsets)

    @property
    def shape(self) -> tuple[int, ...]:
        """``(T, *frame_shape)``."""
        return (len(self), *self.frame_shape)

    def append(self, frames: Tensor) -> None:
        """Put ``(t, *frame_shape)`` at the end.

        Raises:
            DataError: the disk is full; the array is as long as before.
            ShapeError, DTypeError: the frames do not fit the array.
        """
        self._check(frames, self.frame_shape)
        data = _bytes_of(frames)
        offset = self.file._allocate(len(data))
        self.file._write(offset, data)
        self._offsets.extend(range(offset, offset + len(data), self.frame_bytes))

    def read(self, frames: slice, rows: slice | None = None) -> Tensor:
        """``(t, *frame_shape)`` on the CPU, or ``(t, r, ...)`` with some rows (first axis of a frame) only.

        Raises:
            ShapeError: a slice has a step.
        """
        start, stop = _bounds("frames", frames, len(self))
        first, last = _bounds("rows", rows or slice(None), self.frame_shape[0])
        result = torch.empty((stop - start, last - first, *self.frame_shape[1:]), dtype=self.dtype)
        data = _bytes_of(result)
        for offset, piece in self._pieces(start, stop, first, last):
            self.file._read(offset, data[piece])
        return result

    def write(self, start: int, frames: Tensor, rows: slice | None = None) -> None:
        """Replace frames from number ``start`` on, or only some rows of them.

        Args:
            start: number of the first frame.
            frames: ``(t, *frame_shape)``, or ``(t, r, ...)`` with ``rows``.
            rows: which rows of every frame; None replaces all.

        Raises:
            DataError: the disk is full.
            ShapeError, DTypeError: the frames do not fit the array.
        """
        first, last = _bounds("rows", rows or slice(None), self.frame_shape[0])
        self._check(frames, (last - first, *self.frame_shape[1:]))
        stop = start + len(frames)
        if not 0 <= start <= stop <= len(self):
            raise ShapeError(f"frames: {start} to {stop} lie outside the {len(self)} frames of the array")
        data = _bytes_of(frames)
        for offset, piece in self._pieces(start, stop, first, last):
            self.file._write(offset, data[piece])

    def _reserve(self, count: int) -> None:
        if count:
            offset = self.file._allocate(count * self.frame_bytes)
            self._offsets.extend(range(offset, offset + count * self.frame_bytes, self.frame_bytes))

    def _pieces(self, start: int, stop: int, first: int, last: int) -> Iterator[tuple[int, slice]]:
        """Runs that lie together in the file, each with its place in the contiguous tensor."""
        size, skip = (last - first) * self._row_bytes, first * self._row_bytes
        if not size:
            return
        begin = start
        for frame in range(start + 1, stop + 1):
            together = frame < stop and self._offsets[frame] == self._offsets[frame - 1] + size
            if not together:
                yield self._offsets[begin] + skip, slice((begin - start) * size, (frame - start) * size)
                begin = frame

    def _check(self, frames: Tensor, shape: tuple[int, ...]) -> None:
        if tuple(frames.shape[1:]) != shape or frames.dim() != len(shape) + 1:
            raise ShapeError(f"frames: expected (t, {', '.join(map(str, shape))}), got {tuple(frames.shape)}")
        if frames.dtype != self.dtype:
            raise DTypeError(f"frames: expected {self.dtype} as the array has, got {frames.dtype}")


_OTHER_FOLDER = "choose a folder on a disk with room: --spill-dir, spill_folder=... or the environment variable TMPDIR"


def _bounds(name: str, chosen: slice, length: int) -> tuple[int, int]:
    start, stop, step = chosen.indices(length)
    if step != 1:
        raise ShapeError(f"{name}: expected a slice without a step, got {chosen}")
    return start, max(start, stop)


def _bytes_of(tensor: Tensor) -> memoryview:
    # NumPy knows no bfloat16, bytes are bytes
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return memoryview(flat.view(torch.uint8).numpy())  # type: ignore[arg-type]


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
