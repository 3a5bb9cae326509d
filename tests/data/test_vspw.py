from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mvcseg.data.vspw import VSPW, class_ids
from mvcseg.data.vspw_classes import VSPW_CLASSES
from mvcseg.errors import ConfigError, DataError

CLASSES = '{"others": "0", "wall": "1", "sea": "2", "lake": "3"}'


def add_video(
    root: Path, name: str, *, frames: int = 3, size: tuple[int, int] = (4, 6), origin: bool = True, mask: bool = True
) -> Path:
    folder = root / "data" / name
    rng = np.random.default_rng(len(name))
    for index in range(frames):
        if origin:
            (folder / "origin").mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(
                folder / "origin" / f"{index:08d}.jpg"
            )
        if mask:
            (folder / "mask").mkdir(parents=True, exist_ok=True)
            values = rng.choice([0, 1, 2, 3, 255], size).astype(np.uint8)
            Image.fromarray(values).save(folder / "mask" / f"{index:08d}.png")
    return folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, frames in (("8_one", 3), ("10_two", 2)):
        add_video(tmp_path, name, frames=frames)
    (tmp_path / "val.txt").write_text("8_one\n10_two\n")
    (tmp_path / "label_num_dic_final.json").write_text(CLASSES)
    return tmp_path


def test_videos_come_in_the_order_of_the_list(root: Path) -> None:
    data = VSPW(root, split="val")
    assert len(data) == 2
    assert [video.name for video in data] == ["8_one", "10_two"]
    assert [data[-1].name, *(video.name for video in data[:1])] == ["10_two", "8_one"]
    assert data.class_names == ("wall", "sea", "lake")
    assert data.num_classes == 3
    with pytest.raises(IndexError):
        data[2]


def test_a_video_gives_frames_labels_raw_labels_and_names(root: Path) -> None:
    video = VSPW(root, split="val")[0]
    assert video.frame_names == ["00000000", "00000001", "00000002"]
    assert len(video) == len(video.frames) == 3
    assert video.frames[1:].shape == (2, 3, 4, 6)
    assert video.frames[:].dtype == torch.uint8
    raw, labels = video.raw_labels, video.labels
    assert raw is not None
    assert labels is not None
    assert labels.shape == raw.shape == (3, 4, 6)
    stored = np.stack([np.array(Image.open(path)) for path in sorted((root / "data/8_one/mask").iterdir())])
    assert np.array_equal(raw.numpy(), stored)
    expected = [[255 if value in (0, 255) else value - 1 for value in frame.ravel()] for frame in stored]
    assert labels.reshape(3, -1).tolist() == expected
    assert torch.equal(labels[1:2], labels[:][1:2])


def test_vspw_mask_values_map_as_the_data_set_says() -> None:
    raw = torch.arange(256, dtype=torch.uint8)
    steps = raw.clone()  # in words: 0 to 255, subtract 1, 254 back to 255
    steps[steps == 0] = 255
    steps = steps - 1
    steps[steps == 254] = 255
    assert torch.equal(class_ids(raw), steps)
    assert class_ids(raw)[[0, 1, 124, 255]].tolist() == [255, 0, 123, 255]


@pytest.mark.parametrize(
    "text",
    [
        "8_one\n10_two",
        "8_one\r\n10_two\r\n",
        "\n8_one \n\n  10_two\n\n",
        "\ufeff8_one\r10_two",
        ".hidden\n8_one\n10_two",
    ],
)
def test_vspw_no_letter_is_lost_whatever_the_line_ends(root: Path, text: str) -> None:
    (root / "val.txt").write_bytes(text.encode())
    assert [video.name for video in VSPW(root, split="val")] == ["8_one", "10_two"]


def test_vspw_hidden_files_are_ignored(root: Path) -> None:
    for kind in ("origin", "mask"):
        (root / "data/8_one" / kind / "._00000000.png").write_bytes(b"no image")
        (root / "data/8_one" / kind / ".DS_Store").write_bytes(b"")
    video = VSPW(root, split="val")[0]
    assert len(video) == 3
    assert video.labels is not None
    assert len(video.labels.cpu()) == 3


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"<html>not found</html>"])
def test_vspw_broken_mask_is_reported_by_name(root: Path, content: bytes) -> None:
    """As the files of 988_f_Xvy_DCPt8 in the public copy."""
    (root / "data/8_one/mask/00000001.png").write_bytes(content)
    labels = VSPW(root, split="val")[0].labels
    assert labels is not None
    with pytest.raises(DataError, match=r"8_one/mask/00000001\.png"):
        labels.cpu()


def test_vspw_broken_first_mask_is_reported_by_name(root: Path) -> None:
    (root / "data/8_one/mask/00000000.png").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"8_one/mask/00000000\.png: expected a PNG"):
        _ = VSPW(root, split="val")[0].labels


def test_truncated_mask_and_frame_are_reported_by_name(root: Path) -> None:
    for name in ("mask/00000002.png", "origin/00000002.jpg"):
        path = root / "data/8_one" / name
        path.write_bytes(path.read_bytes()[:-30])
    video = VSPW(root, split="val")[0]
    assert video.raw_labels is not None
    with pytest.raises(DataError, match=r"mask/00000002\.png"):
        video.raw_labels.cpu()
    with pytest.raises(DataError, match=r"origin/00000002\.jpg"):
        video.frames[:]


def test_video_without_masks_has_no_labels(root: Path) -> None:
    add_video(root, "plain", mask=False)
    (root / "test.txt").write_text("plain")
    video = VSPW(root, split="test")[0]
    assert video.labels is None
    assert video.raw_labels is None
    assert len(video) == 3


def test_video_without_frames_still_has_labels(root: Path) -> None:
    add_video(root, "labels only", origin=False)
    (root / "test.txt").write_text("labels only")
    video = VSPW(root, split="test")[0]
    assert video.labels is not None
    assert video.frame_names == ["00000000", "00000001", "00000002"]
    with pytest.raises(DataError, match="labels only/origin: expected a folder of frames"):
        _ = video.frames


def test_slices_read_their_masks_only(root: Path) -> None:
    (root / "data/8_one/mask/00000002.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    video = VSPW(root, split="val")[0]
    assert video.labels is not None
    assert video.labels[:2].shape == (2, 4, 6)


def test_missing_videos_are_listed_in_one_error(root: Path) -> None:
    names = [f"video_{index:02d}" for index in range(23)]
    (root / "val.txt").write_text("\n".join(["8_one", *names]))
    with pytest.raises(DataError, match=r"23 of 24 videos of val\.txt are missing") as caught:
        VSPW(root, split="val")
    lines = str(caught.value).splitlines()
    assert [line.strip() for line in lines[1:21]] == names[:20]
    assert lines[21:] == ["  ... 23 in all"]


def test_mask_value_outside_the_classes_names_file_and_value(root: Path) -> None:
    Image.fromarray(np.full((4, 6), 4, np.uint8)).save(root / "data/8_one/mask/00000001.png")
    video = VSPW(root, split="val")[0]
    assert video.labels is not None
    assert video.raw_labels is not None
    with pytest.raises(DataError, match=r"mask/00000001\.png: expected raw mask values .* 1\.\.3 or 255, got 4 in 24"):
        video.labels.cpu()
    assert int(video.raw_labels[1:2].max()) == 4


def test_frames_and_masks_must_be_of_the_same_names(root: Path) -> None:
    (root / "data/8_one/mask/00000002.png").rename(root / "data/8_one/mask/00000007.png")
    with pytest.raises(DataError, match="1 frames without mask and 1 masks without frame") as caught:
        _ = VSPW(root, split="val")[0].labels
    assert [line.strip() for line in str(caught.value).splitlines()[1:]] == ["origin/00000002", "mask/00000007"]


def test_masks_of_two_sizes_are_an_error(root: Path) -> None:
    Image.fromarray(np.zeros((5, 6), np.uint8)).save(root / "data/8_one/mask/00000001.png")
    labels = VSPW(root, split="val")[0].labels
    assert labels is not None
    with pytest.raises(DataError, match=r"00000001\.png: expected 4 x 6 .* got 5 x 6"):
        labels.cpu()


def test_missing_split_names_those_there_are(root: Path) -> None:
    (root / "train.txt").write_text("8_one")
    with pytest.raises(DataError, match=r"test\.txt: no such list of videos; splits found in the folder: train, val"):
        VSPW(root, split="test")
    with pytest.raises(DataError, match=r"nowhere/val\.txt"):
        VSPW(root / "nowhere", split="val")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("\n\n", "expected video names, one a line, got none"),
        ("8_one\n10_two\n8_one", r"expected every video once, got 1 more than once.*8_one"),
        ("b/../8_one", r"expected names of folders in data/, got b/\.\./8_one"),
        ("a/b", "got a/b"),
        ("a\0b", r"got a\\x00b"),
    ],
)
def test_broken_list_of_videos_is_an_error(root: Path, text: str, message: str) -> None:
    (root / "val.txt").write_text(text)
    with pytest.raises(DataError, match=rf"(?s)val\.txt: .*{message}"):
        VSPW(root, split="val")


@pytest.mark.parametrize("split", ["", "../val", "a/b", ".val"])
def test_split_must_be_a_plain_name(root: Path, split: str) -> None:
    with pytest.raises(ConfigError, match="split: expected a plain name"):
        VSPW(root, split=split)


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux only")
def test_video_name_that_is_no_utf8_is_found_and_shown(root: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    add_video(root, name)
    (root / "val.txt").write_bytes(b"caf\xe9\nno_such_\xe9\n")
    with pytest.raises(DataError, match=r"1 of 2 videos") as caught:
        VSPW(root, split="val")
    assert str(caught.value).encode("utf-8").endswith(rb"no_such_\udce9")
    (root / "val.txt").write_bytes(b"caf\xe9\n")
    labels = VSPW(root, split="val")[0].labels
    assert labels is not None
    assert labels.cpu().shape == (3, 4, 6)


def test_data_set_without_class_list_has_the_classes_of_vspw(root: Path) -> None:
    (root / "label_num_dic_final.json").unlink()
    assert VSPW(root, split="val").class_names == VSPW_CLASSES
    assert VSPW(root, split="val", class_names=["a", "b"]).num_classes == 2


def test_videos_can_be_sent_to_another_process(root: Path) -> None:
    video = VSPW(root, split="val")[0]
    assert len(video.frames) == 3
    again = pickle.loads(pickle.dumps(video))
    assert again.labels is not None
    assert video.labels is not None
    assert torch.equal(again.labels, video.labels)


def test_camvid_masks_and_frames_are_read(shared_data: Path) -> None:
    data = VSPW(shared_data / "camvid", split="val")
    assert data.class_names[0] == "sky"
    assert [(video.name, len(video)) for video in data] == [("0016E5_07959", 38), ("0016E5_08035", 37)]
    video = data[1]
    assert video.labels is not None
    assert video.raw_labels is not None
    labels, raw = video.labels[:2], video.raw_labels[:2]
    assert video.frames[:2].shape == (2, 3, 360, 480)
    assert labels.shape == (2, 360, 480)
    assert set(labels.unique().tolist()) <= {*range(11), 255}
    assert torch.equal(labels == 255, raw == 0)


def test_every_video_of_the_vspw_lists_is_named(shared_data: Path, tmp_path: Path) -> None:
    for name in ("1001_3iEIq5HBY1s", "1007_YCTBBdbKSSg"):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / name).symlink_to(shared_data / "vspw_sample" / "data" / name)
    (tmp_path / "train.txt").write_bytes((shared_data / "vspw_meta" / "train.txt").read_bytes())
    with pytest.raises(DataError, match=r"2804 of 2806 videos of train\.txt are missing"):
        VSPW(tmp_path, split="train")
    (tmp_path / "val.txt").write_text("1007_YCTBBdbKSSg")
    video = VSPW(tmp_path, split="val")[0]
    assert video.labels is None
    assert video.frame_names[0] == "00000693"
    assert video.frames[:1].shape == (1, 3, 480, 853)
