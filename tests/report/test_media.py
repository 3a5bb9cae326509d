"""What is embedded: WebP frames, label maps as zlib streams, both bounded."""

from __future__ import annotations

import base64
import io
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mvcseg.errors import ConfigError, DataError, DTypeError, ShapeError
from mvcseg.flow import FlowEstimator
from mvcseg.report.flicker import flicker
from mvcseg.report.media import EmbeddedVideo, embed_picture, embed_video, sample_positions
from mvcseg.segmenter import Video


def frames_of(t: int, h: int, w: int) -> torch.Tensor:
    return torch.randint(0, 256, (t, 3, h, w), generator=torch.Generator().manual_seed(t), dtype=torch.uint8)


def labels_of(t: int, h: int, w: int) -> torch.Tensor:
    return torch.arange(t * h * w).view(t, h, w) % 5


def embed(frames: Video, maps: dict[str, Video], *, flow: FlowEstimator | None = None, **limits: int) -> EmbeddedVideo:
    values = {"num_classes": 5, "max_side": 480, "max_frames": 150, "max_bytes": 10**9} | limits
    return embed_video(frames, maps, progress=lambda done, total: None, flow=flow, **values)


def still(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return torch.zeros(len(source), 2, *source.shape[2:])


def unpacked(embedded: EmbeddedVideo, name: str) -> np.ndarray:
    width, height = embedded.size
    data = zlib.decompress(base64.b64decode(embedded.maps[name]))
    return np.frombuffer(data, np.uint8).reshape(-1, height, width)


def test_label_maps_come_back_whole() -> None:
    labels = labels_of(3, 4, 6)
    labels[0, 0, 0] = 255
    embedded = embed(frames_of(3, 4, 6), {"a": labels, "b": labels.to(torch.uint8)})
    assert (unpacked(embedded, "a") == labels.numpy()).all()
    assert embedded.maps["a"] == embedded.maps["b"]
    assert embedded.present == [0, 1, 2, 3, 4]


def test_only_classes_that_occur_are_present() -> None:
    embedded = embed(frames_of(1, 2, 2), {"a": torch.full((1, 2, 2), 255), "b": torch.tensor([[[3, 3], [1, 255]]])})
    assert embedded.present == [1, 3]


def test_frames_are_webp_of_the_bounded_size() -> None:
    embedded = embed(frames_of(2, 30, 60), {}, max_side=20)
    image = Image.open(io.BytesIO(base64.b64decode(embedded.images[1])))
    assert (image.format, image.size, embedded.size, embedded.full_size) == ("WEBP", (20, 10), (20, 10), (60, 30))


def test_a_frame_is_shown_in_its_own_colours() -> None:
    frames = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    frames[:, 0] = 200
    image = Image.open(io.BytesIO(base64.b64decode(embed(frames, {}).images[0]))).convert("RGB")
    assert np.abs(np.array(image).mean((0, 1)) - [200, 0, 0]).max() < 6


def test_labels_are_scaled_by_the_class_at_each_centre() -> None:
    labels = torch.tensor([[[0, 0, 0, 1, 1, 1], [0, 0, 0, 1, 1, 1], [2, 2, 2, 3, 3, 3], [2, 2, 2, 3, 3, 3]]])
    embedded = embed(frames_of(1, 4, 6), {"a": labels}, max_side=3)
    assert embedded.size == (3, 2)
    assert unpacked(embedded, "a").tolist() == [[[0, 1, 1], [2, 3, 3]]]


def test_small_videos_are_not_scaled_up() -> None:
    assert embed(frames_of(1, 10, 20), {}).size == (20, 10)


def test_too_many_bytes_make_the_pictures_smaller() -> None:
    frames = frames_of(2, 200, 300)
    whole = embed(frames, {})
    smaller = embed(frames, {}, max_bytes=whole.num_bytes // 3)
    assert smaller.num_bytes <= whole.num_bytes // 3
    assert smaller.size[0] < 300


def test_a_bound_that_cannot_be_kept_ends_at_the_smallest_size() -> None:
    assert embed(frames_of(1, 100, 200), {}, max_bytes=1).size == (64, 32)


@pytest.mark.parametrize(("length", "most"), [(10, 3), (1000, 7), (5, 5), (4, 9), (1, 1), (9, 2)])
def test_sampled_positions_rise_from_first_to_last(length: int, most: int) -> None:
    positions = sample_positions(length, most)
    assert positions[0] == 0
    assert positions[-1] == length - 1
    assert len(positions) == min(length, most)
    assert positions == sorted(set(positions))


@pytest.mark.parametrize(("length", "most"), [(1000, 20), (1000, 3), (100, 2), (100, 1), (40, 39)])
def test_frames_to_keep_take_up_to_half_of_the_places_the_first_ones_first(length: int, most: int) -> None:
    keep = [*range(30, 36), *range(32, 40), *range(11, 17)]
    positions = sample_positions(length, most, keep=keep)
    wanted = list(dict.fromkeys(keep))[: max(0, min(most // 2, most - 2))]
    assert set(wanted) <= set(positions)
    assert (positions[0], positions[-1]) == (0, length - 1 if most > 1 else 0)
    assert positions == sorted(set(positions))
    assert most - len(wanted) <= len(positions) <= most
    assert sample_positions(length, most, keep=keep[:0]) == sample_positions(length, most)


def test_a_long_video_is_read_a_few_frames_at_a_time() -> None:
    read: list[int] = []

    class Long:
        def __len__(self) -> int:
            return 10_000

        def __getitem__(self, index: slice) -> torch.Tensor:
            read.append(index.stop - index.start)
            return frames_of(index.stop - index.start, 4, 6)

    embedded = embed(Long(), {}, max_frames=20)
    assert (len(embedded.images), embedded.positions[-1]) == (20, 9999)
    assert max(read) == 1


class Lazy:
    """A video that remembers how it was read."""

    def __init__(self, length: int, values: torch.Tensor) -> None:
        self.length, self.values = length, values
        self.read: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: slice) -> torch.Tensor:
        self.read.append((index.start, index.stop))
        return self.values.expand(index.stop - index.start, *self.values.shape[1:])


def bits_of(embedded: EmbeddedVideo, name: str) -> np.ndarray:
    width, height = embedded.size
    rows = np.frombuffer(zlib.decompress(base64.b64decode(embedded.flicker[name])), np.uint8)
    bits = np.unpackbits(rows.reshape(len(embedded.positions), -1), axis=1)[:, : width * height]
    return bits.reshape(-1, height, width).astype(bool)


def test_flicker_comes_back_whole_for_every_map() -> None:
    frames, random = frames_of(40, 5, 7), torch.randint(0, 5, (40, 5, 7), generator=torch.Generator().manual_seed(0))
    maps = {"a": random, "b": random.flip(0)}
    embedded = embed(frames, maps, flow=still)
    for name, labels in maps.items():
        assert (bits_of(embedded, name) == flicker(frames, labels, flow=still).numpy()).all()
        assert bits_of(embedded, name)[1:].any()


def test_flicker_of_a_sampled_video_is_against_the_frame_before_shown_or_not() -> None:
    frames, labels = frames_of(41, 5, 7), torch.randint(0, 5, (41, 5, 7), generator=torch.Generator().manual_seed(0))
    embedded = embed(frames, {"a": labels}, flow=still, max_frames=6)
    assert embedded.positions == [0, 8, 16, 24, 32, 40]
    expected = flicker(frames, labels, flow=still).numpy()[embedded.positions]
    assert (bits_of(embedded, "a") == expected).all()
    assert expected[1:].any()


def test_the_first_frame_of_a_video_never_flickers() -> None:
    def anywhere(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return still(source, target) + 3

    random = torch.randint(0, 5, (2, 9, 9), generator=torch.Generator().manual_seed(0))
    embedded = embed(frames_of(2, 9, 9), {"a": random}, flow=anywhere)
    assert not bits_of(embedded, "a")[0].any()
    assert bits_of(embedded, "a")[1].any()


def test_flicker_is_found_at_the_size_embedded() -> None:
    seen = []

    def remember(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(source.shape[2:]))
        return still(source, target)

    embedded = embed(frames_of(3, 30, 60), {"a": labels_of(3, 30, 60)}, flow=remember, max_side=20)
    assert set(seen) == {(10, 20)}
    assert bits_of(embedded, "a").shape == (3, 10, 20)


def test_flicker_counts_for_the_bound_on_bytes() -> None:
    frames, labels = frames_of(9, 90, 160), torch.randint(0, 5, (9, 90, 160))
    whole = embed(frames, {"a": labels}, flow=still)
    without = embed(frames, {"a": labels})
    assert whole.num_bytes == without.num_bytes + len(whole.flicker["a"])
    smaller = embed(frames, {"a": labels}, flow=still, max_bytes=(whole.num_bytes + without.num_bytes) // 2)
    assert smaller.num_bytes <= (whole.num_bytes + without.num_bytes) // 2
    assert smaller.size[0] < whole.size[0]


def test_without_a_flow_there_is_no_flicker() -> None:
    assert embed(frames_of(2, 4, 6), {"a": labels_of(2, 4, 6)}).flicker == {}


@pytest.mark.parametrize("most", [20, 10_000])
def test_no_slice_is_longer_than_sixteen_frames(most: int) -> None:
    length = 10_000 if most == 20 else 50
    frames = Lazy(length, torch.zeros(1, 3, 4, 6, dtype=torch.uint8))
    labels = Lazy(length, torch.zeros(1, 4, 6, dtype=torch.uint8))
    embedded = embed(frames, {"a": labels}, flow=still, max_frames=most)
    assert embedded.positions[-1] == length - 1
    lengths = {stop - start for start, stop in frames.read + labels.read}
    assert max(lengths) == (2 if most == 20 else 16)
    assert all(start >= 0 for start, _ in frames.read)


def test_progress_ends_with_all_frames() -> None:
    told: list[tuple[int, int]] = []
    embed_video(
        frames_of(3, 4, 4),
        {},
        num_classes=5,
        max_side=4,
        max_frames=9,
        max_bytes=10**9,
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_progress_counts_every_frame_twice_where_flicker_is_found() -> None:
    told: list[tuple[int, int]] = []
    embed_video(
        frames_of(2, 4, 4),
        {"a": labels_of(2, 4, 4)},
        num_classes=5,
        max_side=4,
        max_frames=9,
        max_bytes=10**9,
        progress=lambda done, total: told.append((done, total)),
        flow=still,
    )
    assert told == [(1, 4), (2, 4), (4, 4)]


@pytest.mark.parametrize(
    ("frames", "maps", "error", "message"),
    [
        (frames_of(0, 4, 4), {}, ConfigError, "empty video"),
        (frames_of(2, 4, 4).float(), {}, DTypeError, "frames: expected uint8"),
        (frames_of(2, 4, 4)[:, :2], {}, ShapeError, "frames: expected"),
        (frames_of(2, 4, 4), {"x": labels_of(3, 4, 4)}, ShapeError, "x: expected 2 label maps, one a frame, got 3"),
        (frames_of(2, 4, 4), {"x": labels_of(2, 4, 5)}, ShapeError, "x: expected maps of 4 x 4"),
        (frames_of(2, 4, 4), {"x": labels_of(2, 4, 4).float()}, DTypeError, "x: expected integer"),
        (frames_of(2, 4, 4), {"x": labels_of(2, 4, 4) + 1}, ConfigError, r"x: expected class ids 0\.\.4 or 255, got 5"),
        (frames_of(2, 4, 4), {"x": labels_of(2, 4, 4) - 1}, ConfigError, "got -1"),
    ],
)
def test_what_does_not_fit_is_refused(
    frames: torch.Tensor, maps: dict[str, Video], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        embed(frames, maps)


def test_a_picture_is_embedded_and_shrunk_to_the_longer_side(tmp_path: Path) -> None:
    Image.new("RGBA", (400, 100), (200, 10, 10, 255)).save(tmp_path / "strip.png")
    data, width, height = embed_picture(tmp_path / "strip.png", max_side=200)
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert (image.format, image.size) == ("WEBP", (width, height)) == ("WEBP", (200, 50))
        assert np.abs(np.asarray(image).astype(int) - (200, 10, 10)).max() < 8
    assert embed_picture(tmp_path / "strip.png")[1:] == (400, 100)


@pytest.mark.parametrize("content", [None, b"no picture"])
def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "strip.png").write_bytes(content)
    with pytest.raises(DataError, match=r"strip\.png: (cannot be read|no readable)"):
        embed_picture(tmp_path / "strip.png")


def test_a_picture_of_far_too_many_pixels_is_named(tmp_path: Path) -> None:
    Image.new("1", (20_000, 20_000)).save(tmp_path / "strip.png")  # 50 kB
    with pytest.raises(DataError, match=r"strip\.png: expected at most \d+ pixels"):
        embed_picture(tmp_path / "strip.png")
