"""Frames of a video that comes through a pipe, one by one as they arrive: the source need not have an end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import IO

import numpy as np
import torch
from torch import Tensor

from mvcseg.data.containers import HEAD_BYTES, claimed_length
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

    count = packets = 0
    source = _ReadOnly(stream)
    # FFmpeg would hold back the first twenty frames to guess the frame rate, which nobody asks for here. Its other
    # switch against delay, fflags=nobuffer, loses frames.
    options = {"fpsprobesize": "0", "analyzeduration": "500000"}
    try:
        with av.open(source, mode="r", buffer_size=1 << 16, options=options, io_open=_refuse) as container:
            if not container.streams.video:
                raise DataError(f"{name}: expected a video stream, got none")
            video = container.streams.video[0]
            for packet in container.demux(video):
                packets += packet.size > 0
                if packet.is_corrupt:
                    raise DataError(f"{name}: broken after {count} frames (damaged data)")
                for frame in packet.decode():
                    if frame.is_corrupt:
                        raise DataError(f"{name}: broken after {count} frames (damaged data)")
                    image = frame.to_ndarray(format="rgb24")
                    upright = np.rot90(image, round(frame.rotation / 90) % 4)
                    count += 1
                    yield torch.from_numpy(np.ascontiguousarray(upright.transpose(2, 0, 1)))
            promised = video.frames if "mp4" in container.format.name else 0  # elsewhere that is an estimate
            if promised > packets or source.is_cut_short():
                raise DataError(f"{name}: broken after {count} frames (cut short)")
    except DataError:  # a ValueError too
        raise
    except (FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        if count:
            raise DataError(f"{name}: broken after {count} frames ({reason})") from error
        raise DataError(
            f"{name}: no video that can be read from front to back ({reason}); send Matroska or MPEG-TS, such as "
            "`ffmpeg -i clip.mp4 -c copy -f matroska -`"
        ) from error
    if not count:
        raise DataError(f"{name}: expected at least one frame, got none")


class _ReadOnly:
    """A stream without its ``seek``, so that nobody tries to jump in it; counts what it gives."""

    def __init__(self, stream: IO[bytes]) -> None:
        # read1 gives what has arrived, where read would wait for a full buffer
        self._read = getattr(stream, "read1", stream.read)
        self._head = b""
        self._count = 0

    def read(self, size: int) -> bytes:
        data: bytes = self._read(size)
        if len(self._head) < HEAD_BYTES:
            self._head += data[: HEAD_BYTES - len(self._head)]
        self._count += len(data)
        return data

    def is_cut_short(self) -> bool:
        """Whether the stream ends before the length that its head gives; reads what is left of it."""
        claimed = claimed_length(self._head)
        while self._count < claimed and self.read(1 << 16):
            pass
        return self._count < claimed


def _refuse(url: str, flags: int, options: dict[str, str]) -> IO[bytes]:
    raise PermissionError(f"a video must not open {url}")
