"""Videos in and out: files through PyAV, folders of frames, read slice by slice."""

from __future__ import annotations

import os
import threading
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeAlias

import numpy as np
import torch
from torch import Tensor

from mvcseg.data.containers import claimed_bytes
from mvcseg.data.files import shown, write_aside
from mvcseg.data.frames import FrameFolder
from mvcseg.errors import ConfigError, DataError, DTypeError, ShapeError
from mvcseg.shapes import check_shapes

_Image: TypeAlias = "np.ndarray[Any, np.dtype[np.uint8]]"

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream


def open_video(path: str | os.PathLike[str]) -> VideoFile | FrameFolder:
    """A video file or a folder of frames as a lazily read video.

    Args:
        path: a video file of any kind FFmpeg reads, a folder of images, or a VSPW video folder (its
            ``origin/`` is used).

    Returns:
        An object with ``len``, slices (``(t, 3, H, W)`` uint8 RGB), ``name``, ``frame_names``, ``size`` (H, W)
        and ``fps`` (None for folders).

    Raises:
        DataError: there is no such file or folder, or it holds no readable video; names it.
    """
    if Path(path).is_dir():
        return FrameFolder(path)
    return VideoFile(path)


class VideoFile:
    """A video file, decoded as frames are asked for.

    ``len(video)`` is T; a slice, of any step, gives ``(t, 3, H, W)`` uint8 RGB. Slices that follow one another
    decode every frame once; any other start decodes from the key frame before it. Frames are counted by reading
    the packets once, never taken from the header, and named by their time stamps, so that frame i is the same
    however it is reached. A rotation stored with the video is applied. Where a container stores no usable time
    stamps (AVI with B-frames) a backward jump decodes from the start.

    Safe to read from several threads, one at a time; every process opens the file anew. A file that was cut short is an
    error where its kind tells its length (MP4, MOV, AVI, Matroska); a transport stream, FLV or raw stream does
    not, and ends where it was cut.

    Args:
        path: a file of any kind FFmpeg reads. Playlists cannot name other files: nothing but this one is opened.

    Attributes:
        name: the file's stem.
        frame_names: ``00000000``, ``00000001``, ...
        size: height and width of the frames, in pixels.
        fps: average frames per second; None where the file does not say.

    Raises:
        DataError: the file is missing, no video, broken or cut short; names it, and how many frames can be read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.name = self.path.stem
        self._index = _scan(self.path)
        self.frame_names = [f"{index:08d}" for index in range(self._index.count)]
        self.fps = self._index.fps
        self._lock = threading.Lock()
        self._decoder: _Decoder | None = None
        self._recent = (0, torch.empty(0, 3, 0, 0, dtype=torch.uint8))
        first = self._read(0, 1)
        self.size = (first.shape[-2], first.shape[-1])

    def __len__(self) -> int:
        return self._index.count

    def __getitem__(self, index: slice, /) -> Tensor:
        """The frames of a slice, ``(t, 3, H, W)`` uint8 RGB.

        Raises:
            DTypeError: the index is not a slice.
            DataError: a frame cannot be decoded; names the file and how many can.
        """
        if not isinstance(index, slice):
            raise DTypeError(f"index: expected a slice, got {type(index).__name__}")
        wanted = range(*index.indices(len(self)))
        if not wanted:
            return torch.empty(0, 3, *self.size, dtype=torch.uint8)
        start, stop = min(wanted[0], wanted[-1]), max(wanted[0], wanted[-1]) + 1
        with self._lock:
            frames = self._read(start, stop)
        if wanted.step == 1:
            return frames
        return frames[torch.as_tensor([position - start for position in wanted])]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_lock": None, "_decoder": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def _read(self, start: int, stop: int) -> Tensor:
        if self._decoder is not None and self._decoder.process != os.getpid():
            # After a fork: closing the parent's decoder would wait for threads that this process does not have.
            _inherited.append(self._decoder)
            self._decoder = None
        if self._decoder is None:
            self._decoder = _Decoder(self.path, self._index)
        before, recent = self._recent
        frames: Tensor | None = None
        position = start
        # Slices that overlap the one before (pairs of neighbours, sliding windows) should not decode twice.
        if before <= start < before + len(recent):
            kept = recent[start - before : stop - before]
            frames = torch.empty(stop - start, *kept.shape[1:], dtype=torch.uint8)
            frames[: len(kept)].numpy()[:] = kept.numpy()
            position += len(kept)
        while position < stop:
            frame = self._decoder.frame(position)
            if frames is None:
                frames = torch.empty(stop - start, *frame.shape, dtype=torch.uint8)
            if frame.shape != tuple(frames.shape[1:]):
                raise DataError(
                    f"{shown(self.path)}: expected frames of {tuple(frames.shape[2:])} pixels throughout, "
                    f"got {tuple(frame.shape[1:])} at frame {position}"
                )
            # NumPy copies on this thread: PyTorch's pool, busy with a model, would take many times longer.
            frames[position - start].numpy()[:] = frame
            position += 1
        assert frames is not None
        kept_from = max(start, stop - _KEPT_FRAMES)
        self._recent = (kept_from, torch.from_numpy(frames[kept_from - start :].numpy().copy()))
        return frames


_KEPT_FRAMES = 16


def write_video(path: str | os.PathLike[str], frames: Iterable[Tensor], *, fps: float) -> None:
    """Write frames as an H.264 video that browsers play (yuv420p, BT.709, index at the front).

    Odd sides are padded to even ones by repeating the last row or column, which H.264 with
    halved colour planes needs.

    Args:
        path: the file, ``.mp4``, ``.mov``, ``.m4v`` or ``.mkv``; written aside and then named.
        frames: frames ``(3, H, W)`` or clips ``(t, 3, H, W)``, uint8 RGB, all of one size.
        fps: frames per second, above 0.

    Raises:
        ConfigError: ``fps`` is not above 0, there is no frame, or the suffix is another.
        ShapeError: frames are of another shape, or differ in size.
        DTypeError: frames are not uint8 tensors.
        DataError: the file cannot be written.
    """
    import av
    from av.error import FFmpegError

    suffix = Path(path).suffix.lower()
    if suffix not in _MUXERS:
        raise ConfigError(f"path: expected a name ending in {' '.join(_MUXERS)}, got {shown(path)}")
    if not 0 < fps < 1e5:
        raise ConfigError(f"fps: expected frames per second above 0, got {fps}")
    rate = Fraction(fps).limit_denominator(1001)
    images = _images(frames)
    first = next(images, None)
    if first is None:
        raise ConfigError("frames: expected at least one frame, got none")
    height, width = first.shape[:2]
    with write_aside(path) as part:
        try:
            # A file object, not its name: names that are no UTF-8 or look like a URL mean nothing to FFmpeg.
            options = {} if suffix == ".mkv" else {"movflags": "+faststart"}
            with part.open("w+b") as file, av.open(file, "w", format=_MUXERS[suffix], options=options) as container:
                stream = container.add_stream("libx264", rate=rate, options={"crf": "18", "preset": "veryfast"})
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
                # Untagged, players guess the matrix from the height and get the colours of every other video wrong.
                context = stream.codec_context
                context.colorspace = context.color_primaries = context.color_trc = _BT709
                context.color_range = _LIMITED_RANGE
                for index, image in enumerate(chain([first], images)):
                    frame = av.VideoFrame.from_ndarray(image, format="rgb24")
                    frame = frame.reformat(format="yuv420p", dst_colorspace=_BT709, dst_color_range=_LIMITED_RANGE)
                    frame.pts = index
                    container.mux(stream.encode(frame))
                container.mux(stream.encode(None))
        except FFmpegError as error:
            raise DataError(f"{shown(path)}: cannot be written: {error.strerror or error}") from error


_BT709 = _LIMITED_RANGE = 1  # as ITU-T H.273 numbers them, and FFmpeg with it
_MUXERS = {".mp4": "mp4", ".mov": "mov", ".m4v": "mp4", ".mkv": "matroska"}


def _images(frames: Iterable[Tensor]) -> Iterator[_Image]:
    """Frames one by one as ``(H, W, 3)`` arrays of even sides."""
    size: tuple[int, ...] | None = None
    for item in frames:
        if not isinstance(item, Tensor) or item.dtype != torch.uint8:
            kind = item.dtype if isinstance(item, Tensor) else type(item).__name__
            raise DTypeError(f"frames: expected uint8 tensors, got {kind}")
        clip = item[None] if item.ndim == 3 else item
        check_shapes(frames=(clip, "t 3 h w"))
        for frame in clip:
            size = size or tuple(frame.shape[1:])
            if tuple(frame.shape[1:]) != size or 0 in size:
                raise ShapeError(f"frames: expected (3 h w) with h={size[0]}, w={size[1]}, got {tuple(frame.shape)}")
            image = frame.permute(1, 2, 0).cpu().numpy()
            padding = ((0, size[0] % 2), (0, size[1] % 2), (0, 0))
            yield np.ascontiguousarray(np.pad(image, padding, mode="edge"))


@dataclass(frozen=True)
class _Index:
    """What one pass over the packets tells: where frames are and which of them can be jumped to."""

    count: int
    times: tuple[int, ...]  # rising presentation times; empty where the file has none that can be trusted
    keys: tuple[int, ...]  # frame numbers that decode without the ones before
    fps: float | None


class _Decoder:
    """An open file and the number of the frame that it decodes next."""

    def __init__(self, path: Path, index: _Index) -> None:
        from av.video.reformatter import VideoReformatter

        self._reformatter = VideoReformatter()  # one for all frames: a new one costs time and megabytes
        self.process = os.getpid()
        self._path = path
        self._index = index
        self._open()

    def frame(self, number: int) -> _Image:
        """Frame ``number``, ``(3, H, W)`` RGB."""
        if not self._is_near(number):
            self._jump(number)
        while True:
            frame = self._decode()
            if frame is None:
                raise self._broken("the file ends there")
            if self._place_of(frame) > self._next:
                raise self._broken("a frame is missing there")
            self._next += 1
            if self._next > number:
                if frame.is_corrupt:
                    raise self._broken("damaged data")
                return self._to_array(frame)

    def _open(self) -> None:
        self._file, self._container, self._stream = _open(self._path)
        self._stream.thread_type = "AUTO"
        self._frames: Iterator[VideoFrame] = self._container.decode(self._stream)
        self._next = 0

    def _to_array(self, frame: VideoFrame) -> _Image:
        image = self._reformatter.reformat(frame, format="rgb24").to_ndarray()
        turns = round(frame.rotation / 90) % 4
        upright = np.ascontiguousarray(np.rot90(image, turns)) if turns else image
        planes: _Image = upright.transpose(2, 0, 1)
        return planes

    def _key_before(self, number: int) -> int:
        """Place in the list of key frames of the last one up to ``number``; -1 where there is none."""
        return bisect_right(self._index.keys, number) - 1

    def _is_near(self, number: int) -> bool:
        # Decoding forward beats a jump as long as no key frame lies between.
        place = self._key_before(number)
        return self._next <= number and (place < 0 or self._index.keys[place] <= self._next)

    def _jump(self, number: int) -> None:
        times, keys = self._index.times, self._index.keys
        place = self._key_before(number)
        # Containers without an index land where they can: where that is too late, one key frame earlier is tried.
        for target in (place, place - 1):
            if target <= 0:
                break
            self._container.seek(times[keys[target]], stream=self._stream)
            self._frames = self._container.decode(self._stream)
            self._next = len(times)
            while (frame := self._decode()) is not None:
                found = self._place_of(frame)
                if found >= 0 and not frame.is_corrupt:
                    self._frames = chain([frame], self._frames)
                    self._next = found
                    break
            if self._next <= number:
                return
        self._container.close()
        self._file.close()
        self._open()

    def _place_of(self, frame: VideoFrame) -> int:
        """Number of a decoded frame by its time; -1 where that tells nothing."""
        times = self._index.times
        place = len(times) if frame.pts is None else bisect_left(times, frame.pts)
        return place if place < len(times) and times[place] == frame.pts else -1

    def _decode(self) -> VideoFrame | None:
        from av.error import FFmpegError

        try:
            return next(self._frames, None)
        except FFmpegError as error:
            raise self._broken(str(error)) from error

    def _broken(self, reason: str) -> DataError:
        return DataError(
            f"{shown(self._path)}: broken or cut short: {self._next} of {self._index.count} frames can be decoded "
            f"({reason})"
        )


_inherited: list[_Decoder] = []


def _open(path: Path) -> tuple[BinaryIO, InputContainer, VideoStream]:
    import av
    from av.error import FFmpegError

    try:
        file = path.open("rb")
    except OSError as error:
        raise DataError(f"{shown(path)}: cannot be read: {error.strerror or error}") from error
    try:
        container = av.open(file, mode="r", io_open=_refuse)
    except (FFmpegError, OSError, ValueError) as error:
        file.close()
        raise DataError(f"{shown(path)}: no readable video (broken, cut short or another kind of file)") from error
    if not container.streams.video:
        container.close()
        file.close()
        raise DataError(f"{shown(path)}: expected a video stream, got none")
    return file, container, container.streams.video[0]


def _refuse(url: str, flags: int, options: dict[str, str]) -> BinaryIO:
    raise PermissionError(f"a video file must not open {url}")


def _scan(path: Path) -> _Index:
    from av.error import FFmpegError

    file, container, stream = _open(path)
    times: list[int | None] = []
    keys: list[int] = []
    packets = -1  # the last packet is the demuxer's empty one
    with file, container:
        try:
            for packet in container.demux(stream):
                packets += 1
                if packet.is_corrupt:
                    raise DataError(f"{shown(path)}: cut short or damaged: {len(times)} frames can be read")
                if packet.size and not packet.is_discard:
                    if packet.is_keyframe:
                        keys.append(len(times))
                    times.append(packet.pts)
        except FFmpegError as error:
            raise DataError(f"{shown(path)}: broken or cut short after {len(times)} frames ({error})") from error
        promised = stream.frames if "mp4" in container.format.name else 0
        rate = stream.average_rate or stream.guessed_rate
    if promised > packets or claimed_bytes(path) > path.stat().st_size:
        of = f"{packets} of {promised}" if promised > packets else f"{len(times)}"
        raise DataError(f"{shown(path)}: cut short: {of} frames can be read")
    if not times:
        raise DataError(f"{shown(path)}: expected at least one frame, got none")
    known = [time for time in times if time is not None]
    fps = float(rate) if rate else None
    if len(set(known)) < len(times):
        return _Index(count=len(times), times=(), keys=(), fps=fps)
    rank = {time: number for number, time in enumerate(sorted(known))}
    return _Index(
        count=len(times), times=tuple(rank), keys=tuple(sorted(rank[known[number]] for number in keys)), fps=fps
    )
