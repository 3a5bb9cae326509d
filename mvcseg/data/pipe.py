"""Frames of a video that comes through a pipe, one by one as they arrive: the source need not have an end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

import numpy as np
import torch
from torch import Tensor

from mvcseg.errors import DataError


def iter_frames(stream: IO[bytes], *, name: str = "stdin") -> Iterator[Tensor]:
    """Frames of a video as it is read, in the order they are shown.

    The container must be one that can be read from front to back, as Matroska, MPEG-TS, AVI, and MP4 with its
    index at the front can.

    Args:
        stream: read as far as frames are asked for, ``sys.stdin.buffer`` say.
        name: what messages call it.

    Yields:
        ``(3, H, W)`` uint8 RGB, upright.

    Raises:
        DataError: the stream holds no video that can be read so, or breaks off inside a frame.
    """
    import av
    from av.error import FFmpegError

    count = 0
    try:
        with av.open(_ReadOnly(stream), mode="r", buffer_size=1 << 16, io_open=_refuse) as container:
            if not container.streams.video:
                raise DataError(f"{name}: expected a video stream, got none")
            for frame in container.decode(container.streams.video[0]):
                if frame.is_corrupt:
                    raise DataError(f"{name}: broken after {count} frames (damaged data)")
                image = frame.to_ndarray(format="rgb24")
                upright = np.rot90(image, round(frame.rotation / 90) % 4)
                count += 1
                yield torch.from_numpy(np.ascontiguousarray(upright.transpose(2, 0, 1)))
    except (FFmpegError, OSError, ValueError) as error:
        if count:
            raise DataError(f"{name}: broken after {count} frames ({error})") from error
        raise DataError(
            f"{name}: no video that can be read from front to back ({error}); send Matroska or MPEG-TS, such as "
            "`ffmpeg -i clip.mp4 -c copy -f matroska -`"
        ) from error
    if not count:
        raise DataError(f"{name}: expected at least one frame, got none")


class _ReadOnly:
    """A stream without its ``seek``, so that nobody tries to jump in it."""

    def __init__(self, stream: IO[bytes]) -> None:
        # read1 gives what has arrived, where read would wait for a full buffer
        self.read = getattr(stream, "read1", stream.read)


def _refuse(url: str, flags: int, options: dict[str, str]) -> IO[bytes]:
    raise PermissionError(f"a video must not open {url}")
