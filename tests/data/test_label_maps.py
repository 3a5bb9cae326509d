"""Label maps on disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mvcseg.data import LabelFolder, class_colours, read_classes, read_label_map, write_classes, write_label_map
from mvcseg.data.label_maps import png_size
from mvcseg.errors import ConfigError, DataError, DTypeError, ShapeError

COLOURS = class_colours(5)
LABELS = torch.randint(0, 5, (6, 10), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
LABELS[2, 3] = 255


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_labels_come_back(tmp_path: Path) -> None:
    for dtype in (torch.uint8, torch.int64, torch.int16):
        write_label_map(tmp_path / "a.png", LABELS.to(dtype), colours=COLOURS)
        got = read_label_map(tmp_path / "a.png")
        assert got.dtype == torch.uint8
        assert torch.equal(got, LABELS)


def test_the_file_is_an_8_bit_palette_png_in_the_classes_colours(tmp_path: Path) -> None:
    write_label_map(tmp_path / "a.png", LABELS, colours=COLOURS)
    assert (tmp_path / "a.png").read_bytes()[24:26] == bytes([8, 3])  # bit depth, colour type
    image = Image.open(tmp_path / "a.png")
    assert np.array_equal(np.array(image), LABELS.numpy())
    shown = np.array(image.convert("RGB"))
    table = np.zeros((256, 3), np.uint8)
    table[:5] = COLOURS
    assert np.array_equal(shown, table[LABELS.numpy()])


def test_equal_labels_give_equal_bytes(tmp_path: Path) -> None:
    write_label_map(tmp_path / "a.png", LABELS, colours=COLOURS)
    write_label_map(tmp_path / "b.png", LABELS.long(), colours=COLOURS)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def test_grey_and_narrow_palettes_and_small_16_bit_values_are_labels(tmp_path: Path) -> None:
    Image.fromarray(LABELS.numpy()).save(tmp_path / "grey.png")
    Image.fromarray(LABELS.numpy().astype(np.uint16)).save(tmp_path / "wide.png")
    for name in ("grey", "wide"):
        assert torch.equal(read_label_map(tmp_path / f"{name}.png"), LABELS)
    few = (LABELS % 3).numpy()
    for bits in (2, 4):
        image = Image.fromarray(few)
        image.putpalette(COLOURS.tobytes())
        image.save(tmp_path / "few.png", bits=bits)
        assert (tmp_path / "few.png").read_bytes()[24] == bits
        assert np.array_equal(read_label_map(tmp_path / "few.png").numpy(), few)


def test_images_that_hold_no_labels_are_named(tmp_path: Path) -> None:
    values = np.arange(60, dtype=np.uint16).reshape(6, 10) * 7
    cases = {
        "rgb.png": (Image.new("RGB", (4, 4)), "got 8-bit RGB"),
        "alpha.png": (Image.new("LA", (4, 4)), "got 8-bit grey with alpha"),
        "bits.png": (Image.new("1", (4, 4)), "got 1-bit grey"),
        "wide.png": (Image.fromarray(values), "expected labels up to 255, got 413"),
        "photo.jpg": (Image.new("L", (4, 4)), "expected a PNG label map"),
    }
    for name, (image, match) in cases.items():
        image.save(tmp_path / name)
        with pytest.raises(DataError, match=f"{name}: .*{match}"):
            read_label_map(tmp_path / name)
    (tmp_path / "text.png").write_text("labels")
    for name in ("text.png", "none.png"):
        with pytest.raises(DataError, match=name):
            read_label_map(tmp_path / name)


def test_what_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    with pytest.raises(ShapeError, match=r"labels: expected \(h w\), got \(1, 6, 10\)"):
        write_label_map(path, LABELS[None], colours=COLOURS)
    with pytest.raises(DTypeError, match="labels: expected an integer tensor"):
        write_label_map(path, LABELS.float(), colours=COLOURS)
    for value in (-1, 256):
        with pytest.raises(ConfigError, match="labels: expected values 0 to 255"):
            write_label_map(path, torch.full((2, 2), value), colours=COLOURS)
    for colours in (COLOURS[:, :2], COLOURS.astype(np.int64), np.zeros((257, 3), np.uint8)):
        with pytest.raises(ConfigError, match="colours: expected"):
            write_label_map(path, LABELS, colours=colours)
    with pytest.raises(ShapeError, match="at least one pixel"):
        write_label_map(path, LABELS[:0], colours=COLOURS)
    assert names(tmp_path) == []


def test_cut_or_damaged_bytes_give_a_named_error_or_labels(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    write_label_map(path, LABELS, colours=COLOURS)
    data = path.read_bytes()

    @settings(max_examples=100, deadline=None, database=None)
    @given(st.integers(0, len(data) - 1), st.integers(0, len(data) - 1), st.integers(0, 255))
    def check(length: int, place: int, value: int) -> None:
        damaged = bytearray(data)
        damaged[place] = value
        for content, is_cut in ((data[:length], True), (bytes(damaged), False)):
            path.write_bytes(content)
            try:
                labels = read_label_map(path)
            except DataError as error:
                assert "a.png" in str(error)  # noqa: PT017 - either outcome is right
            else:
                assert labels.dtype == torch.uint8
                assert not is_cut or torch.equal(labels, LABELS)

    check()


@settings(max_examples=30, deadline=None, database=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**32 - 1))
def test_any_label_map_comes_back(tmp_path_factory: pytest.TempPathFactory, height: int, width: int, seed: int) -> None:
    labels = torch.randint(0, 256, (height, width), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    path = tmp_path_factory.mktemp("maps") / "a.png"
    write_label_map(path, labels, colours=COLOURS)
    assert torch.equal(read_label_map(path), labels)


def write_folder(folder: Path) -> torch.Tensor:
    maps = torch.stack([(LABELS.int() + index).to(torch.uint8) for index in range(4)])
    for index, label_map in enumerate(maps):
        write_label_map(folder / f"{index + 8}.png", label_map, colours=COLOURS)
    return maps


def test_a_folder_of_label_maps_is_sliced_like_a_tensor(tmp_path: Path) -> None:
    maps = write_folder(tmp_path)
    labels = LabelFolder(tmp_path)
    assert (len(labels), labels.size, labels.frame_names) == (4, (6, 10), ["8", "9", "10", "11"])
    assert torch.equal(labels[:], maps)
    assert torch.equal(labels[-3:-1], maps[-3:-1])
    assert torch.equal(labels[::-2], maps[[3, 1]])
    assert labels[2:2].shape == (0, 6, 10)


def test_png_size_is_height_and_width(tmp_path: Path) -> None:
    write_label_map(tmp_path / "a.png", LABELS, colours=COLOURS)
    assert png_size(tmp_path / "a.png") == (6, 10)
    with pytest.raises(DataError, match=r"none\.png: cannot be read"):
        png_size(tmp_path / "none.png")
    (tmp_path / "b.png").write_bytes(b"GIF89a")
    with pytest.raises(DataError, match=r"b\.png: expected a PNG label map"):
        png_size(tmp_path / "b.png")


def test_a_folder_follows_the_frames_asked_for(tmp_path: Path) -> None:
    maps = write_folder(tmp_path / "mask")
    labels = LabelFolder(tmp_path, frame_names=["10", "8"])
    assert torch.equal(labels[:], maps[[2, 0]])
    with pytest.raises(DataError, match=r"1 of 2 label maps are missing, first 7\.png"):
        LabelFolder(tmp_path, frame_names=["8", "7"])


def test_what_a_folder_cannot_give_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"expected label maps \(\.png\), got none"):
        LabelFolder(tmp_path)
    write_folder(tmp_path)
    with pytest.raises(DTypeError, match="index: expected a slice, got int"):
        LabelFolder(tmp_path)[0]  # type: ignore[index]
    write_label_map(tmp_path / "9.png", LABELS[:3], colours=COLOURS)
    with pytest.raises(DataError, match=r"9\.png: expected 6 x 10 like 8\.png, got 3 x 10"):
        LabelFolder(tmp_path)[:]


def test_class_list_comes_back(tmp_path: Path) -> None:
    names = ["road", "caf\u00e9", "sky"]
    write_classes(tmp_path, names, COLOURS[:3])
    assert read_classes(tmp_path) == names
    assert read_classes(tmp_path / "classes.json") == names
    entry = json.loads((tmp_path / "classes.json").read_text())["classes"][1]
    assert entry == {"id": 1, "name": "caf\u00e9", "colour": COLOURS[1].tolist()}


def test_class_list_of_raw_ids_is_not_taken_for_class_ids(tmp_path: Path) -> None:
    write_classes(tmp_path, ["road", "sky"], COLOURS[:2], raw_ids=True)
    assert [entry["id"] for entry in json.loads((tmp_path / "classes.json").read_text())["classes"]] == [1, 2]
    with pytest.raises(DataError, match=r"hold raw ids \(1 to 2\), expected class ids"):
        read_classes(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        "nonsense",
        '{"classes": 3}',
        '{"classes": []}',
        '{"classes": [1]}',
        '{"classes": [{"id": 0}]}',
        '{"classes": [{"id": 3, "name": "a"}]}',
        '{"classes": [{"id": 0, "name": 7}]}',
        '{"classes": [{"id": [], "name": "a"}]}',
        '{"classes": [{"id": 0, "name": "a"}, {"id": 0, "name": "b"}]}',
    ],
)
def test_another_file_is_no_class_list(tmp_path: Path, text: str) -> None:
    (tmp_path / "classes.json").write_text(text)
    with pytest.raises(DataError, match=r"classes\.json: expected"):
        read_classes(tmp_path)


def test_a_class_list_has_a_colour_a_class(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="class_names: expected 1 to 255 names, got 0"):
        write_classes(tmp_path, [], COLOURS)
    with pytest.raises(ConfigError, match="colours: expected one for each of 2 classes, got 5"):
        write_classes(tmp_path, ["a", "b"], COLOURS)
