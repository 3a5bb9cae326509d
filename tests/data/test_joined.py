"""Several data sets as one: class maps, names, what is refused."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mvcseg.data.clips import ClipDataset
from mvcseg.data.joined import VideoSet, joined_videos
from mvcseg.data.vspw import VSPW
from mvcseg.errors import ConfigError, DataError

OURS = ("road", "sky", "tree")


def data_set(root: Path, names: tuple[str, ...], **lists: list[str]) -> Path:
    """Videos of two frames; the left half of a mask is void, the right half holds one class a row, in turn."""
    for video in {video for videos in lists.values() for video in videos}:
        for kind in ("origin", "mask"):
            (root / "data" / video / kind).mkdir(parents=True)
        for index in range(2):
            Image.new("RGB", (4, 6), (index, 0, 0)).save(root / f"data/{video}/origin/{index}.png")
            mask = np.zeros((6, 4), np.uint8)
            mask[:, 2:] = (1 + np.arange(6) % len(names))[:, None]
            Image.fromarray(mask).save(root / f"data/{video}/mask/{index}.png")
    classes = {"others": "0"} | {name: str(index + 1) for index, name in enumerate(names)}
    (root / "label_num_dic_final.json").write_text(json.dumps(classes))
    for split, videos in lists.items():
        (root / f"{split}.txt").write_text("\n".join(videos))
    return root


def test_train_and_val_of_one_folder_are_its_videos(tmp_path: Path) -> None:
    root = data_set(tmp_path, OURS, train=["b", "a"], val=["c"])
    videos = joined_videos([VideoSet(root), VideoSet(root, split="val")], class_names=OURS)
    assert [video.name for video in videos] == ["b", "a", "c"]
    assert torch.equal(videos[2].labels[:], VSPW(root, split="val")[0].labels[:])


def test_a_map_moves_labels_to_our_classes_and_the_rest_to_void(tmp_path: Path) -> None:
    ours = data_set(tmp_path / "ours", OURS, train=["a"])
    theirs = data_set(tmp_path / "theirs", ("tarmac", "car", "oak", "fir"), train=["a", "b"])
    classes = {"fir": "tree", "oak": "tree", "tarmac": "road", "car": None}
    videos = joined_videos([VideoSet(ours), VideoSet(theirs, classes=classes)], class_names=OURS)
    assert [video.name for video in videos] == ["a", f"{theirs}/a", f"{theirs}/b"]
    labels = videos[1].labels
    assert labels.shape == (2, 6, 4)
    assert labels[1:2].tolist() == [[[255, 255, new, new] for new in (0, 255, 2, 2, 0, 255)]]
    assert torch.equal(videos[1].frames[:], videos[0].frames[:])
    unmapped = joined_videos([VideoSet(ours), VideoSet(theirs, classes={"car": "sky"})], class_names=OURS)
    assert unmapped[1].labels[:].unique().tolist() == [1, 255]


def test_equal_names_in_another_order_need_no_map(tmp_path: Path) -> None:
    theirs = data_set(tmp_path / "theirs", ("tree", "road"), train=["a"])
    video = joined_videos([VideoSet(theirs)], class_names=OURS)[0]
    assert video.labels[:][0, :3, 3].tolist() == [2, 0, 2]
    assert "theirs" in repr(video)


def test_joined_videos_give_clips_and_can_be_sent_to_workers(tmp_path: Path) -> None:
    theirs = data_set(tmp_path / "theirs", ("tree", "road"), train=["a"])
    videos = pickle.loads(pickle.dumps(joined_videos([VideoSet(theirs)], class_names=OURS)))
    clip = ClipDataset(videos, clip_length=2, flip=False)[0]
    assert clip.labels[1, :2].tolist() == [[255, 255, 2, 2], [255, 255, 0, 0]]


def test_a_folder_named_in_two_ways_is_one(tmp_path: Path) -> None:
    root = data_set(tmp_path / "ours", OURS, train=["a", "b"], val=["c", "b"])
    link = tmp_path / "link"
    link.symlink_to(root)
    assert [video.name for video in joined_videos([VideoSet(root), VideoSet(root / ".")][:1], class_names=OURS)] == [
        "a",
        "b",
    ]
    with pytest.raises(DataError, match=r"link: 1 videos of val\.txt stand in train\.txt too(.|\n)*  b$"):
        joined_videos([VideoSet(root), VideoSet(link, split="val")], class_names=OURS)


def test_what_does_not_fit_is_refused_by_name(tmp_path: Path) -> None:
    ours = data_set(tmp_path / "ours", OURS, train=["a"])
    theirs = data_set(tmp_path / "theirs", ("tarmac", "sky"), train=["a"])
    bare = data_set(tmp_path / "bare", OURS, train=["a"])
    (bare / "data/a/mask").rename(bare / "data/a/unused")

    def join(root: Path, classes: dict[str, str | None] | None = None) -> None:
        joined_videos([VideoSet(ours), VideoSet(root, classes=classes)], class_names=OURS)

    with pytest.raises(ConfigError, match=r"theirs: 1 of 2 are none of the joined set's \(tarmac\); map them"):
        join(theirs)
    with pytest.raises(ConfigError, match=r"theirs: the data set has no class tarmak; did you mean tarmac\?"):
        join(theirs, {"tarmak": "road"})
    with pytest.raises(ConfigError, match=r"theirs: the joined set has no class rode; did you mean road\?"):
        join(theirs, {"tarmac": "rode"})
    for nothing in ({}, {"sky": None}):
        with pytest.raises(ConfigError, match="expected a map of at least one class"):
            join(theirs, nothing)
    with pytest.raises(DataError, match=r"bare: no video of train\.txt has a mask/ folder"):
        join(bare)
    with pytest.raises(DataError, match=r"nowhere/train\.txt: no such list"):
        join(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="at least one data set"):
        joined_videos([], class_names=OURS)
