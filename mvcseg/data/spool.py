"""A video that comes through a pipe: kept in a temporary file while it is used."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from mvcseg.data.io import VideoFile
from mvcseg.errors import DataError


@contextmanager
def spool_video(stream: IO[bytes], *, name: str = "stdin") -> Iterator[VideoFile]:
    """The video file that a stream holds, ``sys.stdin.buffer`` say, for the length of a block.

    Its frames are needed by number and more than once, which a pipe cannot give, so the bytes (not the
    decoded frames) go to a temporary file in ``TMPDIR``.

    Args:
        stream: read to its end.
        name: the video's name.

    Yields:
        The video.

    Raises:
        DataError: the stream holds no readable video, or the temporary folder is full.

    Example:
        >>> with spool_video(sys.stdin.buffer) as video:  # doctest: +SKIP
        ...     labels = mvcseg.predict_labels(segmenter, video, clip_length=8)
    """
    with tempfile.TemporaryDirectory(prefix="mvcseg-") as folder:
        path = Path(folder, name)
        try:
            with path.open("wb") as file:
                shutil.copyfileobj(stream, file, 1 << 20)
        except OSError as error:
            raise DataError(f"{name}: cannot be kept in {tempfile.gettempdir()}: {error.strerror or error}") from error
        try:
            video = VideoFile(path)
        except DataError as error:
            raise DataError(str(error).replace(str(path), name)) from error
        video.name = name
        yield video
