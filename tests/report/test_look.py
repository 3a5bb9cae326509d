"""One look in a notebook: what it takes, what it refuses, how large it is."""

from __future__ import annotations

import json
import math
import re
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mvcseg.data import LabelFolder, class_colours, open_video, write_classes, write_label_map, write_video
from mvcseg.errors import ConfigError, DataError, DTypeError, ShapeError
from mvcseg.report import Look, show

T, H, W = 5, 12, 20
EVIL = "</iframe><script>alert(1)</script>\"'"


def frames_of(length: int = T) -> torch.Tensor:
    return torch.randint(0, 256, (length, 3, H, W), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def labels_of(length: int = T) -> torch.Tensor:
    return torch.randint(0, 3, (length, H, W), generator=torch.Generator().manual_seed(1))


def data_of(look: Look) -> dict[str, Any]:
    block = re.search(r'<script type="application/json" id="data">(.*?)</script>', look.html, flags=re.DOTALL)
    assert block is not None
    data: dict[str, Any] = json.loads(block[1])
    return data


class Tags(HTMLParser):
    """Start tags with their attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


def test_a_notebook_gets_one_sandboxed_frame_that_holds_the_page() -> None:
    look = show(frames_of(), {EVIL: labels_of()}, class_names=[EVIL, "sea", "lake"])
    tags = Tags()
    tags.feed(look._repr_html_())
    assert [tag for tag, _ in tags.found] == ["iframe"]
    attributes = tags.found[0][1]
    assert attributes["srcdoc"] == look.html
    assert attributes["sandbox"] == "allow-scripts"
    assert attributes["title"] == "5 frames of video, 1 prediction"
    assert "alert(1)</script>" not in look.html


def test_elsewhere_it_says_what_it_is_and_how_to_keep_it(tmp_path: Path) -> None:
    look = show(frames_of(), labels_of())
    assert repr(look) == "<Look: 5 frames of video, 1 prediction; a notebook shows it, .save('look.html') writes it>"
    path = look.save(tmp_path / "new" / "look.html")
    assert path.read_text(encoding="utf-8") == look.html
    assert look.html.startswith("<!doctype html>")


def test_tensors_arrays_and_either_layout_show_the_same() -> None:
    frames, labels = frames_of(), labels_of()
    expected = show(frames, labels).html
    last = frames.movedim(1, -1)
    assert show(last, labels).html == expected
    assert show(frames.numpy(), labels.numpy()).html == expected
    assert show(last.numpy(), labels.numpy().astype(np.uint16)).html == expected
    frozen = last.numpy()[..., ::-1].copy()
    frozen.flags.writeable = False
    assert show(frozen[..., ::-1], labels.to(torch.uint8)).html == expected


def test_lazily_read_frames_and_maps_are_read_where_they_are_shown() -> None:
    class Counted:
        def __init__(self, values: Any) -> None:
            self.values, self.read = values, 0

        def __len__(self) -> int:
            return len(self.values)

        def __getitem__(self, index: slice, /) -> Any:
            clip = self.values[index]
            self.read += len(clip)
            return clip

    frames, labels = Counted(frames_of(400)), Counted(labels_of(400).numpy())
    look = show(frames, labels, max_frames=4)
    assert data_of(look)["videos"][0]["positions"] == [0, 133, 266, 399]
    assert frames.read < 20
    assert labels.read < 20


def test_one_frame_is_a_video_of_one() -> None:
    frame, label = frames_of()[0], labels_of()[0]
    expected = show(frame[None], label[None]).html
    assert show(frame, label).html == expected
    assert show(frame.movedim(0, -1).numpy(), label.numpy()).html == expected


def test_paths_of_a_video_and_of_label_maps(tmp_path: Path) -> None:
    write_video(tmp_path / "pan.mp4", [frames_of()], fps=10)
    for index, label in enumerate(labels_of()):
        write_label_map(tmp_path / "masks" / f"{index:08d}.png", label, colours=class_colours(3))
    look = show(str(tmp_path / "pan.mp4"), {"mine": tmp_path / "masks"}, truth=LabelFolder(tmp_path / "masks"))
    assert (
        look.html
        == show(
            open_video(tmp_path / "pan.mp4"),
            {"mine": LabelFolder(tmp_path / "masks")},
            truth=LabelFolder(tmp_path / "masks"),
        ).html
    )
    video = data_of(look)["videos"][0]
    assert (video["name"], video["fps"], video["frameNames"][1]) == ("pan", 10, "00000001")
    assert [each["name"] for each in video["maps"]] == ["ground truth", "mine"]
    assert repr(look).startswith("<Look: 5 frames of pan, 1 prediction;")


def write_maps(folder: Path, labels: torch.Tensor) -> Path:
    for index, label in enumerate(labels):
        write_label_map(folder / f"{index:08d}.png", label, colours=class_colours(4))
    return folder


def test_ground_truth_given_as_a_path_holds_raw_ids(tmp_path: Path) -> None:
    write_video(tmp_path / "pan.mp4", [frames_of()], fps=10)
    video = open_video(tmp_path / "pan.mp4")
    raw = labels_of() + 1
    raw[0, 0, :3] = torch.tensor([0, 255, 1])  # void, void, class 0
    true = labels_of()
    true[0, 0, :3] = torch.tensor([255, 255, 0])
    folder = write_maps(tmp_path / "pan" / "mask", raw)
    for names in (["sky", "sea", "lake"], None):
        expected = show(video, labels_of(), truth=true, class_names=names).html
        for path in (folder, str(folder.parent), tmp_path):  # itself, a video of VSPW, one of several videos
            assert show(video, labels_of(), truth=path, class_names=names).html == expected
    with pytest.raises(DataError, match=r"pan/mask: expected raw mask values 0 .void., 1\.\.2 or 255, got 3"):
        show(video, labels_of() % 2, truth=folder, class_names=["sky", "sea"])
    with pytest.raises(DataError, match="nowhere: expected a folder of label maps"):
        show(video, labels_of(), truth=tmp_path / "nowhere")


def test_label_maps_are_found_by_the_name_of_the_video_and_bring_their_class_names(tmp_path: Path) -> None:
    write_video(tmp_path / "pan.mp4", [frames_of()], fps=10)
    video, names = open_video(tmp_path / "pan.mp4"), ["sky", "sea", "lake"]
    write_maps(tmp_path / "masks" / "pan", labels_of())
    write_classes(tmp_path / "masks", names, class_colours(names))
    expected = show(video, {"mine": labels_of()}, class_names=names).html
    for path in (tmp_path / "masks", tmp_path / "masks" / "pan"):
        assert show(video, {"mine": path}).html == expected
    both: dict[str, Any] = {"mine": path, "other": labels_of()}
    mixed = show(video, both, class_names=["a", "b", "c"])
    assert [each["name"] for each in data_of(mixed)["classes"]] == ["a", "b", "c"]
    write_maps(tmp_path / "else" / "pan", labels_of())
    write_classes(tmp_path / "else", ["sky", "lake", "sea"], class_colours(names))
    with pytest.raises(ConfigError, match="expected one list of classes"):
        show(video, {"mine": tmp_path / "masks", "other": tmp_path / "else"})


def test_classes_without_names_are_numbered_up_to_the_highest_shown() -> None:
    labels = labels_of()
    labels[0, 0, 0], labels[1, 0, 0] = 6, 255
    assert [each["name"] for each in data_of(show(frames_of(), labels))["classes"]] == [f"class {i}" for i in range(7)]
    colours = class_colours(9)
    assert len(data_of(show(frames_of(), labels, colours=colours))["classes"]) == 9
    named = data_of(show(frames_of(), labels, class_names=list("abcdefg"), colours=colours[:7]))["classes"]
    assert named[1] == {"name": "b", "colour": "#{:02x}{:02x}{:02x}".format(*colours[1])}


def test_a_long_video_stays_small_and_says_that_it_is_sampled() -> None:
    noise = torch.randint(0, 256, (200, 3, 90, 160), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    look = show(noise, noise[:, 0] % 5, max_bytes=400_000)
    assert len(data_of(look)["videos"][0]["positions"]) == 60
    assert data_of(look)["videos"][0]["total"] == 200
    shell = len(show(frames_of(1), labels_of(1)).html)
    assert len(look.html) < 400_000 + shell + 3000
    # the frame's text is the page with its quotes and brackets spelled out
    assert len(look._repr_html_()) < 1.4 * len(look.html)
    assert unescape(look._repr_html_()).count("<!doctype html>") == 1


def test_flow_shows_what_flickers() -> None:
    def still(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(source), 2, *source.shape[2:])

    assert show(frames_of(), labels_of(), flow=still).html != show(frames_of(), labels_of()).html


@pytest.mark.parametrize(
    ("video", "labels", "error", "message"),
    [
        (frames_of().float() / 255, labels_of(), DTypeError, "video: expected uint8 in 0..255, got torch.float32; "),
        (list(frames_of()), labels_of(), DTypeError, "video: expected a tensor, .* got list; np.stack"),
        (3, labels_of(), DTypeError, "video: expected a tensor, an array or a path, got int"),
        (frames_of(), labels_of().float(), DTypeError, "prediction.*: expected an integer tensor of class ids"),
        (frames_of(), torch.zeros(T, 4, H, W), ShapeError, r"prediction.*: expected \(t h w\), got .*; logits become"),
        (frames_of(), labels_of()[:, :, 1:], ShapeError, r"video: expected \(t 3 h w\) or \(t h w 3\) for labels"),
        (frames_of()[:, :2], labels_of(), ShapeError, "video: expected"),
        (frames_of(), labels_of()[1:], ShapeError, "prediction: expected 5 label maps, one a frame, got 4"),
        (frames_of(), {}, ConfigError, "labels: expected at least one label map"),
        (frames_of(), {"a": None}, DTypeError, "labels.'a'.: expected a tensor, an array or a path, got NoneType"),
        (frames_of(0), labels_of(0), ConfigError, "expected at least one frame, got none"),
        (frames_of(), labels_of() - 1, ConfigError, "prediction: expected class ids 0.. or 255, got -1|got -1"),
        ("no/such/file.mp4", labels_of(), DataError, "no/such/file.mp4"),
        (frames_of(), "no/such/folder", DataError, "no/such/folder"),
    ],
)
def test_what_cannot_be_shown_is_refused_by_name(video: Any, labels: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        show(video, labels)


def test_names_and_colours_that_differ_in_number_are_refused() -> None:
    with pytest.raises(ConfigError, match="colours: expected"):
        show(frames_of(), labels_of(), class_names=["a", "b", "c"], colours=class_colours(4))


def test_a_missing_label_map_of_a_folder_is_named(tmp_path: Path) -> None:
    for index in range(2):
        write_label_map(tmp_path / "masks" / f"{index:08d}.png", labels_of()[0], colours=class_colours(3))
        (tmp_path / "frames").mkdir(exist_ok=True)
        Image.new("RGB", (W, H)).save(tmp_path / "frames" / f"{index:08d}.png")
    (tmp_path / "masks" / "00000001.png").unlink()
    with pytest.raises(DataError, match="1 of 2 label maps are missing, first 00000001"):
        show(tmp_path / "frames", tmp_path / "masks")


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        ("max_frames", 0),
        ("max_frames", 2.5),
        ("max_side", 0),
        ("max_side", 16384),
        ("max_bytes", -1),
        ("height", 0),
        ("fps", 0),
        ("fps", -15.0),
        ("fps", math.nan),
    ],
)
def test_limits_that_nothing_fits_into_are_refused_by_name(argument: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=rf"^{argument}: expected"):
        show(frames_of(), labels_of(), **{argument: value})
