"""Image files: every kind to RGB, every damage to one named error."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mvcseg.data.images import image_size, list_images, natural_order, read_frame
from mvcseg.errors import DataError

RGB = np.random.default_rng(0).integers(0, 256, (6, 10, 3), dtype=np.uint8)


def test_frame_is_channels_first_rgb(tmp_path: Path) -> None:
    Image.fromarray(RGB).save(tmp_path / "a.png")
    frame = read_frame(tmp_path / "a.png")
    assert frame.dtype == torch.uint8
    assert torch.equal(frame, torch.from_numpy(RGB).permute(2, 0, 1))


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "bmp", "webp", "PNG"])
def test_every_format_is_read(tmp_path: Path, suffix: str) -> None:
    Image.new("RGB", (10, 6), (200, 30, 90)).save(tmp_path / f"a.{suffix}")
    frame = read_frame(tmp_path / f"a.{suffix}")
    assert frame.shape == (3, 6, 10)
    assert (frame[:, 0, 0].int() - torch.tensor([200, 30, 90])).abs().max() <= 4


def test_other_modes_become_rgb(tmp_path: Path) -> None:
    grey = RGB[..., 0]
    cases = {
        "grey": (Image.fromarray(grey), grey),
        "alpha": (Image.fromarray(np.dstack([RGB, np.zeros((6, 10), np.uint8)])), RGB),
        "grey-alpha": (Image.fromarray(np.dstack([grey, grey])), grey),
        "palette": (Image.fromarray(RGB[:1, :1].repeat(6, 0).repeat(10, 1)).quantize(2), RGB[:1, :1]),
        "one-bit": (Image.fromarray(grey > 127), (grey > 127) * np.uint8(255)),
        "sixteen": (Image.fromarray(grey.astype(np.uint16) * 256 + 77), grey),
    }
    for name, (image, expected) in cases.items():
        image.save(tmp_path / f"{name}.png")
        expected = expected if expected.ndim == 3 else expected[..., None]
        got = read_frame(tmp_path / f"{name}.png").permute(1, 2, 0).numpy()
        assert np.array_equal(got, np.broadcast_to(expected, got.shape)), name


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to see it upright
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    expected = torch.from_numpy(np.rot90(RGB, -1).copy()).permute(2, 0, 1)
    assert torch.equal(read_frame(tmp_path / "a.png"), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png", "jpg", "webp"])
def test_the_size_is_that_of_the_upright_frame(tmp_path: Path, orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"a.{kind}"
    Image.fromarray(RGB).save(path, exif=exif)
    expected = (6, 10) if orientation < 5 else (10, 6)
    assert image_size(path) == expected
    assert tuple(read_frame(path).shape[1:]) == expected


def test_frames_can_be_written_to_whatever_their_size(tmp_path: Path) -> None:
    for height, width in ((1, 1), (1, 5), (5, 1), (6, 10)):
        Image.fromarray(RGB[:height, :width]).save(tmp_path / "a.png")
        frame = read_frame(tmp_path / "a.png")
        assert frame.is_contiguous()
        frame += 1
        assert torch.equal(frame, torch.from_numpy(RGB[:height, :width] + 1).permute(2, 0, 1))


def test_names_sort_by_their_numbers(tmp_path: Path) -> None:
    for name in ("10.png", "9.png", "a2.png", "a10.png", "1.png", "01.png", ".hidden.png", "notes.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in list_images(tmp_path)] == ["01.png", "1.png", "9.png", "10.png", "a2.png", "a10.png"]
    assert natural_order("a") < natural_order("b1")


def test_two_files_of_one_stem_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    (tmp_path / "a.png").touch()
    with pytest.raises(DataError, match=r"a\.png: a frame of this name exists twice, also as a\.jpg"):
        list_images(tmp_path)


def test_what_is_no_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "folder.png").mkdir()
    Image.fromarray(RGB).save(tmp_path / "format.png", format="GIF")
    for name in ("none.png", "empty.png", "text.jpg", "folder.png", "format.png"):
        with pytest.raises(DataError, match=name):
            read_frame(tmp_path / name)
        with pytest.raises(DataError, match=name):
            image_size(tmp_path / name)
    with pytest.raises(DataError, match=r"none: cannot be read: No such file"):
        list_images(tmp_path / "none")


def test_a_claim_of_too_many_pixels_is_refused_unread(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("L", (1, 1)).save(buffer, format="PNG")
    head = bytearray(buffer.getvalue())
    for side in (20_000, 60_000):
        head[16:24] = side.to_bytes(4, "big") * 2
        head[29:33] = _crc(bytes(head[12:29]))
        (tmp_path / "bomb.png").write_bytes(head)
        with pytest.raises(DataError, match=r"bomb\.png: expected at most 134217728 pixels"):
            read_frame(tmp_path / "bomb.png")


def _crc(data: bytes) -> bytes:
    import zlib

    return zlib.crc32(data).to_bytes(4, "big")


def _encoded(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, format=kind)
    return buffer.getvalue()


ENCODED = {kind: _encoded(kind) for kind in ("PNG", "JPEG", "BMP", "WEBP")}


@pytest.mark.parametrize("kind", list(ENCODED))
def test_cut_or_damaged_bytes_give_a_named_error_or_an_image(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.png"
    data = ENCODED[kind]

    @settings(max_examples=60, deadline=None, database=None)
    @given(st.integers(0, len(data)), st.integers(0, len(data) - 1), st.integers(0, 255))
    def check(length: int, place: int, value: int) -> None:
        damaged = bytearray(data)
        damaged[place] = value
        for content in (data[:length], bytes(damaged)):
            path.write_bytes(content)
            try:
                frame = read_frame(path)
            except DataError as error:
                assert "a.png" in str(error)  # noqa: PT017 - either outcome is right
            else:
                assert frame.dtype == torch.uint8
                assert frame.ndim == 3

    check()
