"""Folders of images as videos."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest
import torch
from PIL import Image

from mvcseg.data import FrameFolder, open_video
from mvcseg.errors import DataError, DTypeError
from mvcseg.segmenter import Video

FRAMES = torch.randint(0, 256, (7, 3, 6, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def write_frames(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for index, frame in enumerate(FRAMES):
        Image.fromarray(frame.permute(1, 2, 0).numpy()).save(folder / f"f{index + 5}.png")
    return folder


def test_a_folder_is_a_video(tmp_path: Path) -> None:
    video = open_video(write_frames(tmp_path / "clip.a"))
    assert isinstance(video, FrameFolder)
    assert isinstance(video, Video)
    assert (len(video), video.size, video.name, video.fps) == (7, (6, 10), "clip.a", None)
    assert video.frame_names == ["f5", "f6", "f7", "f8", "f9", "f10", "f11"]
    assert torch.equal(video[:], FRAMES)


@pytest.mark.parametrize("index", [slice(2, 5), slice(-2, None), slice(None, None, -2), slice(5, 100), slice(4, 2)])
def test_slices_are_those_of_a_tensor(tmp_path: Path, index: slice) -> None:
    expected = FRAMES[index] if (index.step or 1) > 0 else FRAMES[list(range(7))[index]]
    got = open_video(write_frames(tmp_path / "clip"))[index]
    assert got.shape == expected.shape
    assert torch.equal(got, expected)


def test_a_vspw_video_folder_gives_its_origin_under_its_own_name(tmp_path: Path) -> None:
    write_frames(tmp_path / "1001_x" / "origin")
    (tmp_path / "1001_x" / "mask").mkdir()
    video = open_video(tmp_path / "1001_x")
    assert (video.name, len(video)) == ("1001_x", 7)


def test_origin_itself_has_its_videos_name(tmp_path: Path) -> None:
    assert open_video(write_frames(tmp_path / "pan" / "origin")).name == "pan"


def test_the_name_of_a_relative_path_is_the_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write_frames(tmp_path / "clip"))
    assert open_video(".").name == "clip"


def test_another_size_is_named(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "clip")
    Image.new("RGB", (6, 10)).save(folder / "f8.png")
    video = open_video(folder)
    assert torch.equal(video[:3], FRAMES[:3])
    with pytest.raises(DataError, match=r"f8\.png: expected 6 x 10 pixels like f5\.png, got 10 x 6"):
        video[:]


def test_a_broken_frame_is_named(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "clip")
    (folder / "f7.png").write_bytes((folder / "f7.png").read_bytes()[:60])
    with pytest.raises(DataError, match=r"f7\.png"):
        open_video(folder)[:]


def test_nothing_to_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected images .*, got none"):
        open_video(tmp_path)
    with pytest.raises(DataError, match="nowhere"):
        open_video(tmp_path / "nowhere")


def test_a_number_is_no_slice(tmp_path: Path) -> None:
    with pytest.raises(DTypeError, match="index: expected a slice, got int"):
        open_video(write_frames(tmp_path / "clip"))[0]  # type: ignore[index]


def test_names_that_are_no_utf8_are_kept(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    Image.new("RGB", (4, 2)).save(folder / os.fsdecode(b"\xff1.png"))
    video = open_video(folder)
    assert os.fsencode(video.name) == b"caf\xe9"
    assert os.fsencode(video.frame_names[0]) == b"\xff1"
    assert video[:].shape == (1, 3, 2, 4)


def test_a_folder_travels_to_other_processes(tmp_path: Path) -> None:
    video = open_video(write_frames(tmp_path / "clip"))
    assert torch.equal(pickle.loads(pickle.dumps(video))[1:3], FRAMES[1:3])
