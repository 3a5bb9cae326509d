"""Video files: exact frames however they are reached, named errors for damage, files that play."""

from __future__ import annotations

import io
import os
import pickle
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mvcseg.data import VideoFile, open_video, write_video
from mvcseg.data.containers import claimed_bytes
from mvcseg.errors import ConfigError, DataError, DTypeError, ShapeError
from mvcseg.segmenter import Video


def moving(frames: int = 30, height: int = 32, width: int = 48) -> Tensor:
    """Smooth colours that differ in every frame."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    shades = [torch.stack([x * 3 + 9 * t, y * 4 + 5 * t, x + y + 40 + t]) % 512 for t in range(frames)]
    return (255 - (torch.stack(shades) - 256).abs().clamp(max=255)).to(torch.uint8)


FRAMES = moving()


def encode(path: Path, codec: str, *, container: str, pix_fmt: str = "yuv420p", **options: str) -> Path:
    """A file of any codec; mvcseg itself writes H.264 only."""
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 48, 32, pix_fmt
        for frame in FRAMES:
            image = av.VideoFrame.from_ndarray(frame.permute(1, 2, 0).numpy().copy(), format="rgb24")
            output.mux(stream.encode(image.reformat(format=pix_fmt)))
        output.mux(stream.encode(None))
    return path


KINDS: dict[str, dict[str, Any]] = {
    "a.mp4": {"codec": "libx264", "container": "mp4", "g": "8", "bf": "3"},
    "a.mkv": {"codec": "libx264", "container": "matroska", "g": "8", "bf": "3", "x264-params": "open-gop=1"},
    "a.ts": {"codec": "libx264", "container": "mpegts", "g": "8", "bf": "3"},
    "a.h264": {"codec": "libx264", "container": "h264", "g": "8", "bf": "3"},
    "a.avi": {"codec": "mpeg4", "container": "avi", "g": "8", "bf": "2"},
    "b.avi": {"codec": "mjpeg", "container": "avi", "pix_fmt": "yuvj420p"},
    "a.flv": {"codec": "libx264", "container": "flv", "g": "8", "bf": "3"},
    "a.mpg": {"codec": "mpeg2video", "container": "mpeg", "g": "8", "bf": "2"},
    "c.mp4": {"codec": "libx264", "container": "mp4", "movflags": "frag_keyframe+empty_moov", "g": "8"},
}


@pytest.fixture(scope="module", params=list(KINDS))
def encoded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    options = dict(KINDS[request.param])
    return encode(tmp_path_factory.mktemp("kinds") / request.param, options.pop("codec"), **options)


@pytest.fixture(scope="module")
def mp4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("mp4") / "clip.mp4"
    write_video(path, FRAMES, fps=12.5)
    return path


def all_frames(path: Path) -> Tensor:
    """Every frame by plain decoding from the start."""
    with av.open(str(path)) as container:
        images = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def test_a_video_file_is_a_video(mp4: Path) -> None:
    video = open_video(mp4)
    assert isinstance(video, VideoFile)
    assert isinstance(video, Video)
    assert (len(video), video.size, video.name, video.fps) == (30, (32, 48), "clip", 12.5)
    assert video.frame_names[:2] == ["00000000", "00000001"]
    assert video[:2].dtype == torch.uint8
    assert (video[:].int() - FRAMES).abs().float().mean() < 3  # H.264 is lossy, and halves the colour planes


def test_every_slice_is_that_of_a_full_decode(encoded: Path) -> None:
    expected = all_frames(encoded)
    video = open_video(encoded)
    assert len(video) == len(expected) == 30
    assert torch.equal(torch.cat([video[start : start + 7] for start in range(0, 30, 7)]), expected)
    for start, stop in ((29, 30), (3, 5), (17, 20), (16, 17), (0, 1), (8, 24), (7, 9), (28, 30), (27, 29), (4, 30)):
        assert torch.equal(video[start:stop], expected[start:stop]), (start, stop)


@settings(max_examples=25, deadline=None, database=None)
@given(st.lists(st.slices(30), min_size=1, max_size=4))
def test_slices_are_those_of_a_list(mp4: Path, slices: list[slice]) -> None:
    video = open_video(mp4)
    expected = all_frames(mp4)
    for index in slices:
        assert torch.equal(video[index], expected[list(range(30))[index]]), index


def test_slices_in_order_decode_every_frame_once(mp4: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mvcseg.data import io as module

    decoded = []
    original = module._Decoder._to_array
    monkeypatch.setattr(module._Decoder, "_to_array", lambda self, frame: decoded.append(1) or original(self, frame))
    video = open_video(mp4)
    for start in range(0, 30, 4):
        video[start : start + 5]  # one frame of overlap
    assert len(decoded) == 30


def test_changing_a_slice_changes_no_later_one(mp4: Path) -> None:
    video = open_video(mp4)
    video[0:4].zero_()
    assert torch.equal(video[2:6], all_frames(mp4)[2:6])


def test_threads_and_processes_may_share_a_video(mp4: Path) -> None:
    video = open_video(mp4)
    expected = all_frames(mp4)
    wrong = []

    def read(start: int) -> None:
        wrong.extend(not torch.equal(video[start : start + 3], expected[start : start + 3]) for _ in range(5))

    threads = [threading.Thread(target=read, args=(start,)) for start in (0, 9, 18, 27)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not any(wrong)
    assert torch.equal(pickle.loads(pickle.dumps(video))[5:8], expected[5:8])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_worker_reads_on(mp4: Path) -> None:
    video = open_video(mp4)
    expected = all_frames(mp4)[11:13].numpy()
    video[0:9]
    child = os.fork()
    if child == 0:  # NumPy compares: PyTorch's thread pool does not survive a fork
        os._exit(0 if np.array_equal(video[11:13].numpy(), expected) else 1)
    for _ in range(200):
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            break
        time.sleep(0.05)
    else:
        os.kill(child, signal.SIGKILL)
        pytest.fail("the forked worker hangs")
    assert status == 0


@pytest.mark.parametrize(("matrix", "turns"), [((0, 1, 0, -1, 0, 0), -1), ((0, -1, 0, 1, 0, 0), 1)])
def test_a_stored_rotation_is_applied(mp4: Path, tmp_path: Path, matrix: tuple[int, ...], turns: int) -> None:
    data = bytearray(mp4.read_bytes())
    place = data.index(b"tkhd") + 4 + 4 + 20 + 8 + 8  # ISO 14496-12: version, times and ids, reserved, layer and volume
    data[place : place + 24] = struct.pack(">6i", *(65536 * value for value in matrix))
    (tmp_path / "turned.mp4").write_bytes(data)
    video = open_video(tmp_path / "turned.mp4")
    assert video.size == (48, 32)
    assert torch.equal(video[3:5], torch.rot90(all_frames(mp4)[3:5], turns, (2, 3)))


def test_frames_before_an_edit_lists_start_do_not_count(tmp_path: Path) -> None:
    # What `ffmpeg -ss -c copy` writes: the key frame before the cut is in the file, and is not shown.
    source = encode(tmp_path / "a.mp4", "libx264", container="mp4", g="8", bf="0")
    data = bytearray(source.read_bytes())
    place = data.index(b"elst") + 4 + 4 + 4 + 4  # version, number of entries, first entry's duration
    start = struct.unpack_from(">i", data, place)[0]
    struct.pack_into(">i", data, place, start + 3 * 512)  # three frames of 512 ticks at 25 fps
    (tmp_path / "cut.mp4").write_bytes(data)
    expected = all_frames(tmp_path / "cut.mp4")
    video = open_video(tmp_path / "cut.mp4")
    assert len(video) == len(expected) == 27
    assert torch.equal(video[20:25], expected[20:25])
    assert torch.equal(video[0:9], expected[0:9])


def test_a_playlist_opens_no_other_file_and_no_connection(mp4: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        port = server.getsockname()[1]
        for target in (f"http://127.0.0.1:{port}/a.ts", str(mp4)):
            playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{target}\n#EXT-X-ENDLIST\n"
            (tmp_path / "list.m3u8").write_text(playlist)
            with pytest.raises(DataError, match=r"list\.m3u8"):
                open_video(tmp_path / "list.m3u8")
        with pytest.raises(TimeoutError):
            server.accept()


def test_what_is_no_video_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("hello" * 100)
    for name in ("none.mp4", "empty.mp4", "text.mp4", "http:/host/a.mp4"):
        with pytest.raises(DataError, match=name):
            open_video(tmp_path / name)
    with av.open(str(tmp_path / "sound.mp4"), "w") as output:
        stream = output.add_stream("aac", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 8000
        output.mux(stream.encode(sound))
        output.mux(stream.encode(None))
    with pytest.raises(DataError, match=r"sound\.mp4: expected a video stream, got none"):
        open_video(tmp_path / "sound.mp4")


@pytest.mark.parametrize("name", ["a.mp4", "c.mp4", "a.avi", "b.avi", "a.mkv", "fast.mp4"])
def test_a_cut_file_is_a_named_error_or_whole(tmp_path: Path, mp4: Path, name: str) -> None:
    if name == "fast.mp4":
        source = mp4
    else:
        options = dict(KINDS[name])
        source = encode(tmp_path / f"whole-{name}", options.pop("codec"), **options)
    data, expected = source.read_bytes(), all_frames(source)
    path = tmp_path / name

    @settings(max_examples=25, deadline=None, database=None)
    @given(st.integers(0, len(data) - 1))
    def check(length: int) -> None:
        path.write_bytes(data[:length])
        try:
            frames = open_video(path)[:]
        except DataError as error:
            assert name in str(error)  # noqa: PT017 - either outcome is right
        else:
            # A fragmented file that ends behind a fragment is whole as far as anybody can tell.
            assert torch.equal(frames, expected[: len(frames)])
            assert name == "c.mp4" or len(frames) == len(expected)

    check()


def test_a_cut_file_says_how_many_frames_are_there(mp4: Path, tmp_path: Path) -> None:
    data = mp4.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) - 200])
    with pytest.raises(DataError, match=r"cut\.mp4: (broken or )?cut short.* \d+ (of 30 )?frames can be"):
        open_video(tmp_path / "cut.mp4")[:]


def test_damage_inside_a_file_is_a_named_error_or_frames(mp4: Path, tmp_path: Path) -> None:
    data = mp4.read_bytes()

    @settings(max_examples=40, deadline=None, database=None)
    @given(st.integers(0, len(data) - 1), st.binary(min_size=1, max_size=40))
    def check(place: int, junk: bytes) -> None:
        (tmp_path / "junk.mp4").write_bytes(data[:place] + junk + data[place + len(junk) :])
        try:
            frames = open_video(tmp_path / "junk.mp4")[:]
        except DataError as error:
            assert "junk.mp4" in str(error)  # noqa: PT017 - either outcome is right
        else:
            assert frames.ndim == 4

    check()


def test_promised_lengths_are_read_from_the_head(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for head, expected in {
        b"RIFF" + (1000).to_bytes(4, "little") + b"AVI ": 1000,
        b"RIFF" + b"\xff" * 4 + b"AVI ": 0,
        b"\x1a\x45\xdf\xa3\x82ab\x18\x53\x80\x67\x42\x00": 7 + 6 + 0x200,
        b"\x1a\x45\xdf\xa3\x82ab\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xff": 0,
        b"\x1a\x45\xdf\xa3": 0,
        b"": 0,
    }.items():
        path.write_bytes(head)
        assert claimed_bytes(path) == expected, head


def test_names_that_are_no_utf8_or_look_like_urls_work(tmp_path: Path) -> None:
    for name in (b"caf\xe9.mp4", b"http:x%03d.mp4", b"a\nb.mp4"):
        path = tmp_path / os.fsdecode(name)
        write_video(path, FRAMES[:2], fps=5)
        assert len(open_video(path)) == 2


def test_a_number_is_no_slice(mp4: Path) -> None:
    with pytest.raises(DTypeError, match="index: expected a slice, got int"):
        open_video(mp4)[0]  # type: ignore[index]


def test_the_written_file_plays_in_a_browser(mp4: Path) -> None:
    data = mp4.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    with av.open(str(mp4)) as container:
        stream = container.streams.video[0]
        context = stream.codec_context
        assert (context.name, context.pix_fmt, context.profile) == ("h264", "yuv420p", "High")
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (1, 1, 1, 1)
        assert stream.average_rate == 12.5


def test_colours_survive(tmp_path: Path) -> None:
    colours = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255], [0, 0, 0], [200, 30, 90]])
    frames = colours.to(torch.uint8)[:, :, None, None].expand(-1, 3, 32, 48)
    write_video(tmp_path / "a.mp4", frames, fps=5)
    assert (open_video(tmp_path / "a.mp4")[:].int() - frames.int()).abs().max() <= 3


@pytest.mark.parametrize(("height", "width"), [(33, 47), (32, 47), (1, 1)])
def test_odd_sides_repeat_their_last_row_and_column(tmp_path: Path, height: int, width: int) -> None:
    frames = moving(3, height, width)
    write_video(tmp_path / "a.mp4", frames, fps=5)
    got = open_video(tmp_path / "a.mp4")[:]
    assert got.shape == (3, 3, height + height % 2, width + width % 2)
    assert (got[:, :, :height, :width].int() - frames).abs().float().mean() < 8


def test_frames_and_clips_may_be_mixed_and_made_as_they_are_needed(tmp_path: Path) -> None:
    def pieces() -> Iterator[Tensor]:
        yield FRAMES[:4]
        yield FRAMES[4]

    write_video(tmp_path / "a.mkv", pieces(), fps=30000 / 1001)
    video = open_video(tmp_path / "a.mkv")
    assert len(video) == 5
    assert video.fps == pytest.approx(29.97, abs=0.01)


def test_what_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    for fps in (0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="fps: expected frames per second above 0, got"):
            write_video(path, FRAMES, fps=fps)
    with pytest.raises(ConfigError, match=r"path: expected a name ending in \.mp4 .*, got .*a\.gif"):
        write_video(tmp_path / "a.gif", FRAMES, fps=5)
    with pytest.raises(ConfigError, match="frames: expected at least one frame, got none"):
        write_video(path, [], fps=5)
    with pytest.raises(DTypeError, match=r"frames: expected uint8 tensors, got torch\.float32"):
        write_video(path, FRAMES.float(), fps=5)
    with pytest.raises(DTypeError, match="frames: expected uint8 tensors, got ndarray"):
        write_video(path, [FRAMES.numpy()], fps=5)  # type: ignore[list-item]
    with pytest.raises(ShapeError, match="frames: expected"):
        write_video(path, FRAMES[:, :1], fps=5)
    with pytest.raises(ShapeError, match=r"frames: expected \(3 h w\) with h=32, w=48, got \(3, 16, 48\)"):
        write_video(path, [FRAMES[0], FRAMES[0, :, :16]], fps=5)
    with pytest.raises(DataError, match=r"/proc/mvcseg/a\.mp4: cannot be written"):
        write_video("/proc/mvcseg/a.mp4", FRAMES, fps=5)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    import resource

    noise = torch.randint(0, 256, (20, 3, 64, 64), dtype=torch.uint8)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, old[1]))
    try:
        with pytest.raises(DataError, match=r"a\.mp4: cannot be written: "):
            write_video(tmp_path / "a.mp4", noise, fps=5)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_frames_is_the_callers_own(tmp_path: Path) -> None:
    def pieces() -> Iterator[Tensor]:
        yield FRAMES[0]
        raise DataError("b.png: broken")

    with pytest.raises(DataError, match=r"^b\.png: broken$"):
        write_video(tmp_path / "a.mp4", pieces(), fps=5)
    assert list(tmp_path.iterdir()) == []


def test_a_file_object_is_no_path() -> None:
    with pytest.raises(TypeError):
        open_video(io.BytesIO())  # type: ignore[arg-type]
