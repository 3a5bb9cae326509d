"""Frames of a video that comes through a pipe."""

from __future__ import annotations

import io
import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import IO, Any

import av
import pytest
import torch
from torch import Tensor

from mvcseg.data import open_video
from mvcseg.data.pipe import iter_frames
from mvcseg.errors import DataError

COUNT = 24
KINDS: dict[str, dict[str, Any]] = {
    "matroska": {},
    "mpegts": {},
    "mp4": {"muxer": {"movflags": "+faststart"}},
    "fragments": {"container": "mp4", "muxer": {"movflags": "frag_keyframe+empty_moov"}},
    "avi": {"codec": "mpeg4", "options": {"g": "8"}},
    "flv": {},
    "h264": {},
    "webm": {"codec": "libvpx", "options": {"deadline": "realtime"}},
}
LIVE = {"tune": "zerolatency", "preset": "ultrafast", "g": "5"}


def make_frames(count: int = COUNT) -> Tensor:
    coarse = torch.rand(count, 3, 6, 9, generator=torch.Generator().manual_seed(0))
    return (torch.nn.functional.interpolate(coarse, size=(64, 96), mode="bilinear") * 255).to(torch.uint8)


def make_noise(count: int) -> Tensor:
    """Frames that take as many kilobytes as those of a real video do."""
    return torch.randint(0, 256, (count, 3, 64, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


class Camera:
    """A file that cannot be rewound and knows its length."""

    def __init__(self, path: Path) -> None:
        self.file = path.open("wb")
        self.length = 0

    def write(self, data: bytes) -> int:
        self.length += len(data)
        return self.file.write(data)


def encode(
    path: Path,
    *,
    container: str,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
    frames: Tensor | None = None,
    live: bool = False,
) -> list[int]:
    """Write a video; returns the file's length after each frame where that is ``live``."""
    lengths = []
    target = Camera(path) if live else path.open("w+b")
    with av.open(target, "w", format=container, options=muxer or {}) as output:
        stream = output.add_stream(codec, rate=Fraction(5), options=options or {"g": "8", "bf": "3"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for index, frame in enumerate(make_frames() if frames is None else frames):
            image = av.VideoFrame.from_ndarray(frame.permute(1, 2, 0).numpy().copy(), format="rgb24")
            image.pts = index
            output.mux(stream.encode(image))
            lengths.append(target.length if isinstance(target, Camera) else 0)
        output.mux(stream.encode(None))
    (target.file if isinstance(target, Camera) else target).close()
    return lengths


@contextmanager
def piped(data: bytes) -> Iterator[IO[bytes]]:
    """The bytes through a real pipe, which cannot be rewound."""
    reader, writer = os.pipe()

    def feed() -> None:
        with os.fdopen(writer, "wb") as target:
            target.write(data)

    thread = threading.Thread(target=feed)
    thread.start()
    with os.fdopen(reader, "rb") as source:
        yield source
        source.read()
    thread.join()


@pytest.fixture(scope="module", params=list(KINDS))
def video(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pipe") / request.param
    encode(path, **{"container": request.param, **KINDS[request.param]})
    return path


@pytest.fixture(scope="module")
def matroska(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("pipe") / "a.mkv"
    encode(path, container="matroska", options=LIVE)
    return path.read_bytes()


def test_frames_of_a_pipe_are_those_of_the_file(video: Path) -> None:
    with piped(video.read_bytes()) as source:
        frames = torch.stack(list(iter_frames(source)))
    assert len(frames) == COUNT
    assert torch.equal(frames, open_video(video)[:])


@pytest.mark.parametrize("matrix", [(0, 1, 0, -1, 0, 0), (0, -1, 0, 1, 0, 0)])
def test_a_stored_rotation_is_applied(tmp_path: Path, matrix: tuple[int, ...]) -> None:
    encode(tmp_path / "a.mp4", container="mp4", muxer={"movflags": "+faststart"})
    data = bytearray((tmp_path / "a.mp4").read_bytes())
    place = data.index(b"tkhd") + 4 + 4 + 20 + 8 + 8  # ISO 14496-12: version, times and ids, reserved, layer and volume
    data[place : place + 24] = struct.pack(">6i", *(65536 * value for value in matrix))
    (tmp_path / "a.mp4").write_bytes(data)
    frames = torch.stack(list(iter_frames(io.BytesIO(data))))
    assert frames.shape == (COUNT, 3, 96, 64)
    assert torch.equal(frames, open_video(tmp_path / "a.mp4")[:])


def test_an_mp4_with_its_index_at_the_end_is_refused_with_the_way_out(tmp_path: Path) -> None:
    # larger than what is buffered, inside which even a pipe can be rewound
    encode(tmp_path / "a.mp4", container="mp4", frames=make_noise(24), options=LIVE)
    assert (tmp_path / "a.mp4").stat().st_size > 1 << 16
    with (
        piped((tmp_path / "a.mp4").read_bytes()) as source,
        pytest.raises(DataError, match=r"^stdin: no video that can be read from front to back .*ffmpeg -i .*matroska"),
    ):
        next(iter_frames(source))


@pytest.mark.parametrize("data", [b"", b"text", bytes(range(256)) * 400, b"\x1a\x45\xdf\xa3" + bytes(5000)])
def test_what_is_no_video_is_named(data: bytes) -> None:
    with pytest.raises(DataError, match=r"^camera: no video that can be read from front to back"):
        next(iter_frames(io.BytesIO(data), name="camera"))


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "a.mkv"), "w", format="matroska") as output:
        stream = output.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame(format="s16", layout="mono", samples=800)
        sound.sample_rate = 8000
        output.mux(stream.encode(sound))
    with pytest.raises(DataError, match=r"^stdin: expected a video stream, got none$"):
        next(iter_frames(io.BytesIO((tmp_path / "a.mkv").read_bytes())))


@pytest.mark.parametrize("kind", ["matroska", "mp4", "avi"])
@pytest.mark.parametrize("part", [0.4, 0.75, 0.999])
def test_a_stream_cut_short_gives_its_frames_and_then_an_error(kind: str, part: float, tmp_path: Path) -> None:
    encode(tmp_path / "a", **{"container": kind, "frames": make_noise(COUNT), **KINDS[kind]})
    data = (tmp_path / "a").read_bytes()
    expected = open_video(tmp_path / "a")[:]
    frames: list[Tensor] = []
    with pytest.raises(DataError, match=r"^stdin: broken after \d+ frames \([^()]+\)$"):
        frames.extend(iter_frames(io.BytesIO(data[: int(len(data) * part)])))
    assert 0 < len(frames) <= COUNT
    assert torch.equal(torch.stack(frames), expected[: len(frames)])


def test_an_mp4_that_lacks_whole_frames_is_cut_short(tmp_path: Path) -> None:
    # the cut falls between two frames, so that nothing is damaged
    encode(tmp_path / "a.mp4", container="mp4", options=LIVE, muxer={"movflags": "+faststart"})
    with av.open(str(tmp_path / "a.mp4")) as container:
        places = [packet.pos for packet in container.demux(video=0) if packet.size]
    data = (tmp_path / "a.mp4").read_bytes()[: places[10]]
    source = iter_frames(io.BytesIO(data))
    for _ in range(10):
        next(source)
    with pytest.raises(DataError, match="broken after 10 frames"):
        next(source)


def test_a_source_that_fails_is_told() -> None:
    class Failing(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            raise OSError(5, "Input/output error")

    with pytest.raises(DataError, match=r"stdin: no video .*Input/output error"):
        next(iter_frames(Failing()))


def test_a_playlist_opens_nothing(tmp_path: Path) -> None:
    encode(tmp_path / "a.ts", container="mpegts")
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{tmp_path}/a.ts\n#EXT-X-ENDLIST\n"
    with pytest.raises(DataError, match="stdin"):
        next(iter_frames(io.BytesIO(playlist.encode())))


@pytest.mark.parametrize(
    ("kind", "muxer", "held"),
    [
        ("matroska", {"flush_packets": "1", "cluster_time_limit": "100"}, 4),
        ("mpegts", {"flush_packets": "1"}, 2),
        ("mp4", {"movflags": "frag_every_frame+empty_moov", "flush_packets": "1"}, 2),
        ("flv", {"flush_packets": "1"}, 3),
    ],
)
def test_frames_come_while_the_source_is_open(kind: str, muxer: dict[str, str], held: int, tmp_path: Path) -> None:
    lengths = encode(tmp_path / "a", container=kind, options=LIVE, muxer=muxer, frames=make_noise(12), live=True)
    data = (tmp_path / "a").read_bytes()
    reader, writer = os.pipe()
    got: list[Tensor] = []
    with os.fdopen(reader, "rb") as source, os.fdopen(writer, "wb", buffering=0) as target:
        received, finished = threading.Semaphore(0), threading.Event()

        def receive() -> None:
            for frame in iter_frames(source):
                got.append(frame)
                received.release()
            finished.set()

        thread = threading.Thread(target=receive, daemon=True)
        thread.start()
        sent = 0
        for index, length in enumerate(lengths):
            target.write(data[sent:length])
            sent = length
            if index >= held:
                assert received.acquire(timeout=10), f"no frame {index - held} after {index + 1} were sent"
        assert not finished.is_set()
        target.write(data[sent:])
        target.close()
        thread.join(timeout=10)
    assert finished.is_set()
    assert len(got) == 12
    assert torch.equal(torch.stack(got), torch.stack(list(iter_frames(io.BytesIO(data)))))


def test_sound_between_the_frames_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.flv"
    with av.open(str(path), "w", format="flv") as output:
        stream = output.add_stream("libx264", rate=Fraction(5), options=LIVE)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        sound = output.add_stream("aac", rate=44100, layout="mono")
        for index, frame in enumerate(make_frames()):
            samples = av.AudioFrame(format="fltp", samples=8820, layout="mono")
            samples.planes[0].update(bytes(8820 * 4))
            samples.sample_rate, samples.pts = 44100, index * 8820
            output.mux(sound.encode(samples))
            image = av.VideoFrame.from_ndarray(frame.permute(1, 2, 0).numpy().copy(), format="rgb24")
            image.pts = index
            output.mux(stream.encode(image))
        output.mux([*stream.encode(None), *sound.encode(None)])
    assert torch.equal(torch.stack(list(iter_frames(io.BytesIO(path.read_bytes())))), open_video(path)[:])
