"""``mvcseg data check``: every fault at once, lists where there are none."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mvcseg.data import VSPW
from mvcseg.data.check import check_folder, find_faults
from mvcseg.errors import DataError


def make(root: Path, *videos: str, frames: int = 2, masks: bool = True) -> Path:
    rng = np.random.default_rng(0)
    for video in videos:
        for kind in ("origin", "mask") if masks else ("origin",):
            (root / "data" / video / kind).mkdir(parents=True)
        for index in range(frames):
            image = rng.integers(0, 256, (6, 10, 3), dtype=np.uint8)
            Image.fromarray(image).save(root / f"data/{video}/origin/{index}.jpg")
            if masks:
                Image.fromarray(image[..., 0] % 3).save(root / f"data/{video}/mask/{index}.png")
    (root / "label_num_dic_final.json").write_text(json.dumps({"others": "0", "road": "1", "sky": "2", "sea": "3"}))
    return root


def test_a_sound_folder_is_told_in_numbers(tmp_path: Path) -> None:
    make(tmp_path, "a", "b", "c")
    make(tmp_path, "d", masks=False)
    steps: list[tuple[int, int]] = []
    checked = check_folder(tmp_path, progress=lambda *step: steps.append(step))
    assert (checked.videos, checked.frames, checked.labelled) == (4, 8, 3)
    assert steps == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
    masks = [np.array(Image.open(path)) for path in tmp_path.glob("data/*/mask/*.png")]
    assert checked.pixels == {"road": np.sum(np.equal(masks, 1)), "sky": np.sum(np.equal(masks, 2)), "sea": 0}
    text = str(checked)
    assert "4, 3 with masks; 8 frames" in text
    assert "never    sea" in text


def test_lists_are_written_where_there_are_none(tmp_path: Path) -> None:
    make(tmp_path, *(f"v{index}" for index in range(1, 12)))
    make(tmp_path, "plain", masks=False)
    checked = check_folder(tmp_path)
    assert checked.written == ("train", "val", "test")
    assert checked.splits == {"train": 9, "val": 2, "test": 1}
    assert [video.name for video in VSPW(tmp_path, split="val")] == ["v5", "v10"]
    assert [video.name for video in VSPW(tmp_path, split="test")] == ["plain"]
    again = check_folder(tmp_path)
    assert again.written == ()
    assert again.splits == checked.splits


@pytest.mark.parametrize(("count", "val"), [(1, None), (2, "v1\n"), (4, "v3\n"), (6, "v4\n")])
def test_few_videos_still_leave_one_to_score(tmp_path: Path, count: int, val: str | None) -> None:
    check_folder(make(tmp_path, *(f"v{index}" for index in range(count))))
    assert (tmp_path / "val.txt").exists() == (val is not None)
    assert val is None or (tmp_path / "val.txt").read_text() == val


def test_lists_that_exist_stay_as_they_are(tmp_path: Path) -> None:
    make(tmp_path, "a", "b")
    (tmp_path / "val.txt").write_text("a")
    checked = check_folder(tmp_path)
    assert (tmp_path / "val.txt").read_text() == "a"
    assert not (tmp_path / "train.txt").exists()
    assert checked.unlisted == ("b",)
    assert "in no list: 1 videos (b)" in str(checked)


def test_names_that_are_no_utf8_can_be_listed(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    check_folder(make(tmp_path, name))
    assert [video.name for video in VSPW(tmp_path, split="train")] == [name]


def test_every_fault_is_found_at_once(tmp_path: Path) -> None:
    make(tmp_path, "a", "b", "c", frames=4)
    data = tmp_path / "data"
    (data / "a/origin/0.jpg").write_bytes((data / "a/origin/0.jpg").read_bytes()[:200])
    (data / "a/mask/1.png").unlink()
    (data / "a/origin/2.jpg").unlink()
    Image.new("RGB", (6, 10)).save(data / "a/origin/3.jpg")
    Image.new("L", (10, 6), 4).save(data / "b/mask/0.png")
    Image.new("RGB", (10, 6)).save(data / "b/mask/1.png")
    Image.new("L", (4, 4)).save(data / "b/mask/2.png")
    (data / "b/mask/3.png").write_bytes(b"")
    for path in (data / "c/origin").iterdir():
        path.unlink()
    (data / "d").mkdir()
    (tmp_path / "val.txt").write_text("a\nnowhere\n")
    faults = find_faults(tmp_path)
    for expected in (
        "val.txt are missing",
        "a/origin/0.jpg: cannot be read: ",
        "a/origin/1.jpg: has no mask",
        "a/mask/2.png: has no frame",
        "a/origin/3.jpg: expected 6 x 10 pixels like 1.jpg, got 10 x 6",
        "b/mask/0.png: expected raw mask values 0 (void), 1..3 or 255, got 4 in 60 pixels",
        "b/mask/1.png: expected one 8-bit channel",
        "b/mask/2.png: expected 6 x 10 pixels like 0.jpg, got 4 x 4",
        "b/mask/3.png: expected a PNG label map",
        "c/origin: expected images, got none",
        "d: has no folder origin; put its frames into origin/",
    ):
        assert sum(expected in fault for fault in faults) == 1, (expected, faults)
    assert len(faults) == 11
    with pytest.raises(DataError, match=": 11 faults\n") as raised:
        check_folder(tmp_path)
    assert all(fault in str(raised.value) for fault in faults)
    assert not (tmp_path / "train.txt").exists()


def test_many_faults_are_counted_and_the_first_twenty_told(tmp_path: Path) -> None:
    make(tmp_path, "a", frames=30)
    for path in (tmp_path / "data/a/mask").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match=": 30 faults") as raised:
        check_folder(tmp_path)
    assert len(str(raised.value).splitlines()) == 22


def test_a_broken_class_list_is_one_fault(tmp_path: Path) -> None:
    make(tmp_path, "a")
    (tmp_path / "label_num_dic_final.json").write_text("{")
    assert ["expected JSON" in fault for fault in find_faults(tmp_path)] == [True]


def test_another_folder_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data: expected a folder with one folder a video, got none; arrange it"):
        check_folder(tmp_path)
    with pytest.raises(DataError, match=r"nowhere: no such folder"):
        check_folder(tmp_path / "nowhere")


def one_level_up(root: Path) -> None:
    for video in ("a", "b c"):
        (root / "data" / video).rename(root / video)
    (root / "data").rmdir()


def frames_in_the_videos_folder(root: Path) -> None:
    for video in ("a", "b c"):
        folder = root / "data" / video
        for path in (folder / "origin").iterdir():
            path.rename(folder / path.name)
        (folder / "origin").rmdir()


def other_names(root: Path) -> None:
    for video in ("a", "b c"):
        folder = root / "data" / video
        (folder / "origin").rename(folder / "Images")
        (folder / "mask").rename(folder / "labels")


def images_and_masks_by_video(root: Path) -> None:
    for kind, name in (("origin", "images"), ("mask", "masks")):
        for video in ("a", "b c"):
            (root / name).mkdir(exist_ok=True)
            (root / "data" / video / kind).rename(root / name / video)
    for video in ("a", "b c"):
        (root / "data" / video).rmdir()
    (root / "data").rmdir()


def images_and_masks_in_data(root: Path) -> None:
    images_and_masks_by_video(root)
    (root / "data").mkdir()
    for name in ("images", "masks"):
        (root / name).rename(root / "data" / name)


def images_and_masks_of_one_video(root: Path) -> None:
    for kind, name in (("origin", "frames"), ("mask", "gt")):
        (root / "data" / "a" / kind).rename(root / name)
    shutil.rmtree(root / "data")


def images_and_masks_of_all_videos(root: Path) -> None:
    for kind, name in (("origin", "images"), ("mask", "masks")):
        (root / name).mkdir()
        for video in ("a", "b c"):
            for path in (root / "data" / video / kind).iterdir():
                path.rename(root / name / f"{video}_{path.name}")
    shutil.rmtree(root / "data")


def images_and_masks_of_all_videos_in_data(root: Path) -> None:
    images_and_masks_of_all_videos(root)
    (root / "data").mkdir()
    for name in ("images", "masks"):
        (root / name).rename(root / "data" / name)


@pytest.mark.parametrize(
    "disorder",
    [
        images_and_masks_of_all_videos,
        images_and_masks_of_all_videos_in_data,
        one_level_up,
        frames_in_the_videos_folder,
        other_names,
        images_and_masks_by_video,
        images_and_masks_in_data,
        images_and_masks_of_one_video,
    ],
)
def test_the_commands_of_a_fault_arrange_the_folder(tmp_path: Path, disorder: Callable[[Path], None]) -> None:
    root = make(tmp_path / "my data", "a", "b c")
    disorder(root)
    faults = find_faults(root)
    assert faults
    for fault in faults:
        assert "\n" not in fault
        command = fault[fault.index("; ") :].split(": ", 1)[1]
        subprocess.run(["bash", "-c", command], check=True)
    assert find_faults(root) == []
    assert check_folder(root).labelled in (1, 2)


def test_files_that_name_their_video_become_one_video_each(tmp_path: Path) -> None:
    root = make(tmp_path / "mine", "a", "b c")
    images_and_masks_of_all_videos(root)
    (fault,) = find_faults(root)
    assert "sort frames and masks by video: (cd" in fault
    subprocess.run(["bash", "-c", fault.split("video: ", 1)[1]], check=True)
    assert sorted(path.name for path in (root / "data").iterdir()) == ["a", "b c"]
    assert check_folder(root).splits == {"train": 1, "val": 1}


def test_frames_without_a_video_in_their_names_are_said_to_be_one(tmp_path: Path) -> None:
    root = make(tmp_path / "mine", "a")
    images_and_masks_of_one_video_only(root)
    (fault,) = find_faults(root)
    assert "if all frames are of one video: (cd" in fault


def images_and_masks_of_one_video_only(root: Path) -> None:
    for kind, name in (("origin", "images"), ("mask", "masks")):
        (root / "data" / "a" / kind).rename(root / name)
    shutil.rmtree(root / "data")


def test_masks_that_seem_to_count_from_zero_are_remarked(tmp_path: Path) -> None:
    root = make(tmp_path, "a")
    told = str(check_folder(root))  # 0, 1, 2 of three classes
    assert "note: do these masks count from 0? The value 3 never occurs and 0 often does; here 0 is void" in told
    assert "add 1 to the masks" in told
    for path in root.glob("data/*/mask/*.png"):
        Image.fromarray(np.array(Image.open(path)) + 1).save(path)
    assert "count from 0" not in str(check_folder(root))


def test_a_video_may_be_called_images(tmp_path: Path) -> None:
    assert find_faults(make(tmp_path, "images", "masks")) == []


def test_the_data_folder_itself_is_recognised(tmp_path: Path) -> None:
    root = make(tmp_path, "a")
    with pytest.raises(DataError, match="give the folder that holds it, " + str(tmp_path)):
        check_folder(root / "data")


def test_masks_of_a_newcomer_are_told_what_is_wrong(tmp_path: Path) -> None:
    root = make(tmp_path, "colours", "jpeg", "named")
    Image.new("RGB", (10, 6), (255, 0, 0)).save(root / "data/colours/mask/0.png")
    for index in range(2):
        (root / f"data/jpeg/mask/{index}.png").unlink()
        Image.new("L", (10, 6)).save(root / f"data/jpeg/mask/{index}.jpg")
        (root / f"data/named/mask/{index}.png").rename(root / f"data/named/mask/{index}_mask.png")
    faults = find_faults(root)
    for expected in (
        "colours/mask/0.png: expected one 8-bit channel of class ids (grey or palette), got 8-bit RGB; write the num",
        "jpeg/mask: expected label maps (.png), got 2 other images (0.jpg, ...); JPEG and its like change the values",
        "named: no mask has the name of a frame (the first are 0.jpg and 0_mask.png); a mask is named like its frame",
    ):
        assert sum(expected in fault for fault in faults) == 1, (expected, faults)
    assert len(faults) == 3


def test_masks_without_any_class_are_a_fault(tmp_path: Path) -> None:
    root = make(tmp_path, "a")
    for path in root.glob("data/*/mask/*.png"):
        Image.fromarray(np.full((6, 10), 255, np.uint8)).save(path)
    (fault,) = find_faults(root)
    assert "no pixel of any mask has a class, all values are 0 or 255 (void)" in fault


def test_what_is_void_and_whose_classes_they_are_is_told(tmp_path: Path) -> None:
    root = make(tmp_path, "a")
    masks = np.stack([np.array(Image.open(path)) for path in root.glob("data/*/mask/*.png")])
    checked = check_folder(root)
    assert checked.void == np.sum(masks == 0)
    assert f"void     {100 * np.mean(masks == 0):.1f} % of all pixels" in str(checked)
    assert "classes  3 (label_num_dic_final.json)" in str(checked)
    (root / "label_num_dic_final.json").unlink()
    vspw = str(check_folder(root))
    assert "note: values were read as VSPW's classes" in vspw
    assert "pole, floor" in vspw
    assert ", ... 122 in all" in vspw
    assert "keyboard" not in vspw
    (root / "classes.txt").write_text("road\nsky\n")
    plain = check_folder(root)
    assert "classes  2 (classes.txt)" in str(plain)
    assert plain.pixels == {"road": np.sum(masks == 1), "sky": np.sum(masks == 2)}
    assert VSPW(root, split="train").class_names == ("road", "sky")


def test_real_folders_are_sound(shared_data: Path) -> None:
    assert find_faults(shared_data / "camvid") == []
