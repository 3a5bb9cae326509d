"""Training clips: keyed draws, frames and labels moved as one."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from filmed import Filmed, position_video
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader

from mvcseg import IGNORE_INDEX, IMAGENET_MEAN
from mvcseg.data.clips import ClipDataset
from mvcseg.data.collate import padded_batch
from mvcseg.data.toy import write_toy_set
from mvcseg.data.vspw import VSPW
from mvcseg.errors import ConfigError, DataError


def clips(*videos: Filmed, **numbers: object) -> ClipDataset:
    given_numbers = {"clip_length": 3, "crop_size": (32, 48), "seed": 7, **numbers}
    return ClipDataset(videos or (position_video(),), **given_numbers)  # type: ignore[arg-type]


def assert_mean_colour(*parts: Tensor) -> None:
    for part in parts:
        torch.testing.assert_close(part, torch.tensor(IMAGENET_MEAN)[:, None, None].expand_as(part))


def test_a_sample_depends_on_seed_and_number_only() -> None:
    augment = {"scales": (0.5, 2.0), "colour": 0.3, "strides": (1, 2)}
    first, again, other = clips(**augment), clips(**augment), clips(**augment, seed=8)
    backwards = [again[i] for i in reversed(range(6))][::-1]
    for i in range(6):
        assert torch.equal(first[i].frames, backwards[i].frames)
        assert torch.equal(first[i].labels, backwards[i].labels)
        assert first[i].sample == i
    assert any(not torch.equal(first[i].frames, other[i].frames) for i in range(6))
    assert len({first[i].frames.sum().item() for i in range(6)}) == 6


def test_workers_give_the_same_samples() -> None:
    data = clips(num_samples=4)
    near, far = (list(DataLoader(data, batch_size=2, num_workers=workers)) for workers in (0, 1))
    for here, there in zip(near, far, strict=True):
        assert torch.equal(here.frames, there.frames)
        assert here.sample.tolist() == there.sample.tolist()


@settings(max_examples=40, deadline=None)
@given(sample=st.integers(0, 10**6), flip=st.booleans())
def test_frames_and_labels_are_cut_and_mirrored_as_one(sample: int, flip: bool) -> None:
    clip = clips(flip=flip)[sample]
    columns, rows, times = (clip.frames * 255).round().long().unbind(dim=1)
    assert torch.equal(clip.labels, rows + columns)
    assert (columns == columns[0]).all()  # one draw for all frames
    steps = columns[0, 0].diff()
    assert (steps == steps[0]).all()
    assert int(steps[0]) in ((1, -1) if flip else (1,))
    assert times[:, 0, 0].diff().tolist() == [1, 1]


def test_both_directions_and_every_place_are_drawn() -> None:
    data = clips()
    first = [
        (int(255 * data[i].frames[0, 0, 0, 0] + 0.5), int(255 * data[i].frames[0, 1, 0, 0] + 0.5)) for i in range(200)
    ]
    assert {left for left, _ in first} == {*range(9), *range(47, 56)}
    assert {top for _, top in first} == set(range(9))


@pytest.mark.parametrize("scale", [0.7, 1.37, 2.0])
def test_zooming_keeps_labels_on_their_pixels(scale: float) -> None:
    clip = clips(scales=(scale, scale), flip=False)[3]
    columns, rows = (255 * clip.frames[:, :2]).unbind(dim=1)
    known = clip.labels != IGNORE_INDEX
    # A label lies at most half an old pixel a side from the new pixel's centre, and smoothing moves the edges a little.
    assert ((clip.labels - rows - columns).abs()[known] <= 2.0).all()
    inner = columns[0, 5:20, 5:20].diff(dim=1)
    torch.testing.assert_close(inner, torch.full_like(inner, 1 / scale), rtol=0.05, atol=0.01)
    assert float(inner.mean()) == pytest.approx(1 / scale, rel=0.01)


def test_what_a_small_frame_leaves_is_mean_and_ignored() -> None:
    clip = clips(scales=(0.5, 0.5), flip=False)[0]
    assert (clip.labels[:, :20, :28] != IGNORE_INDEX).all()
    assert (clip.labels[:, 20:] == IGNORE_INDEX).all()
    assert (clip.labels[:, :, 28:] == IGNORE_INDEX).all()
    assert_mean_colour(clip.frames[..., 20:, :], clip.frames[..., 28:])
    assert clip.frames.shape == (3, 3, 32, 48)


@settings(max_examples=40, deadline=None)
@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    crop=st.tuples(st.integers(32, 64), st.integers(32, 64)),
    scale=st.floats(0.3, 3.0),
    sample=st.integers(0, 100),
)
def test_any_size_and_zoom_gives_the_crop(
    size: tuple[int, int], crop: tuple[int, int], scale: float, sample: int
) -> None:
    video = Filmed("a", torch.full((2, 3, *size), 200, dtype=torch.uint8), torch.zeros(2, *size, dtype=torch.uint8))
    clip = clips(video, clip_length=2, crop_size=crop, scales=(scale, scale))[sample]
    assert clip.frames.shape == (2, 3, *crop)
    assert clip.labels.shape == (2, *crop)
    assert clip.labels.dtype == torch.int64
    known = (clip.labels != IGNORE_INDEX)[:, None].expand_as(clip.frames)
    torch.testing.assert_close(clip.frames[known], torch.full_like(clip.frames[known], 200 / 255))
    if round(size[0] * scale) >= crop[0] and round(size[1] * scale) >= crop[1]:
        assert known.all()


def test_strides_are_all_drawn_and_shortened_where_a_video_ends() -> None:
    long = clips(position_video(30), strides=(1, 4))
    assert {long.source(i).frames[1] - long.source(i).frames[0] for i in range(40)} == {1, 4}
    short = clips(position_video(6), strides=(4,))
    assert {short.source(i).frames[2] - short.source(i).frames[0] for i in range(20)} == {4}
    shorter = clips(position_video(2), strides=(4,))
    assert shorter.source(0).frames == (0, 1, 1)
    assert shorter[0].frames.shape[0] == 3


def test_videos_are_drawn_by_their_length() -> None:
    data = clips(position_video(30, name="long"), position_video(10, name="short"))
    names = [data.source(i).name for i in range(400)]
    assert 0.65 < names.count("long") / 400 < 0.85
    short = clips(position_video(1, name="first"), position_video(1, name="second"))
    assert 60 < sum(short.source(i).name == "first" for i in range(200)) < 140
    assert str(data.source(0)).startswith(f"video {names[0]}, frames ")


def test_colour_changes_whole_clips_alike_and_leaves_labels() -> None:
    still = Filmed("a", position_video(1).frames.repeat(6, 1, 1, 1) * 4, position_video(6).labels)
    plain, coloured = clips(still, flip=False), clips(still, flip=False, colour=0.4)
    changed = 0
    for i in range(5):
        assert torch.equal(coloured[i].labels, plain[i].labels)
        assert torch.equal(coloured[i].frames[0], coloured[i].frames[2])
        assert coloured[i].frames.min() >= 0
        assert coloured[i].frames.max() <= 1
        changed += not torch.equal(coloured[i].frames, plain[i].frames)
    assert changed == 5


def test_what_is_filled_up_is_not_recoloured_and_does_not_change_the_picture() -> None:
    small, large = (clips(crop_size=size, flip=False, colour=0.4) for size in ((48, 64), (96, 128)))
    for i in range(4):
        picture = small[i].frames[..., :40, :56]
        assert torch.equal(large[i].frames[..., :40, :56], picture)
        assert not torch.equal(clips(crop_size=(48, 64), flip=False)[i].frames[..., :40, :56], picture)
        assert_mean_colour(small[i].frames[..., 40:, :], small[i].frames[..., 56:], large[i].frames[..., 40:, :])
        assert small.packed(i).size.tolist() == [40, 56]


def test_clips_come_from_a_data_set_on_disk(tmp_path: Path) -> None:
    root = write_toy_set(tmp_path / "toy", videos={"train": 1}, frames=5, size=(32, 48))
    video = VSPW(root, split="train")[0]
    data = ClipDataset([video], clip_length=2, crop_size=(32, 48), strides=(2,), flip=False)
    clip, source = data[4], data.source(4)
    first, second = source.frames
    assert second == first + 2
    assert torch.equal(clip.frames, video.frames[first : second + 1 : 2].float() / 255)
    assert torch.equal(clip.labels, video.labels[first : second + 1 : 2].long())


@pytest.mark.parametrize("sampling", ["stride", "window", "consecutive"])
def test_any_sampling_gives_the_same_samples_from_workers_in_any_order(sampling: str) -> None:
    videos = (position_video(30, name="long"), position_video(9, name="short", height=33, width=70))
    data = clips(
        *videos,
        crop_size=None,
        sampling=sampling,
        reverse=0.5,
        window=3,
        short_sides=[33, 48, 60],
        long_side=90,
        crop_range=(32, 60),
        colour=0.2,
        num_samples=6,
    )
    alone = [data[index] for index in (5, 3, 1, 0, 2, 4)]
    batches = list(DataLoader(data, batch_size=2, num_workers=2, collate_fn=padded_batch))
    for clip in alone:
        batch, row = batches[clip.sample // 2], clip.sample % 2
        height, width = clip.labels.shape[-2:]
        assert int(batch.sample[row]) == clip.sample
        assert torch.equal(batch.frames[row, ..., :height, :width], clip.frames)
        assert torch.equal(batch.labels[row, ..., :height, :width], clip.labels)


def test_a_fixed_crop_of_a_smaller_frame_is_filled_up_after_resizing_too() -> None:
    clip = clips(position_video(3, height=40, width=60), short_sides=[32], crop_size=(50, 40))[0]
    assert clip.frames.shape == (3, 3, 50, 40)
    assert (clip.labels[:, :32] != IGNORE_INDEX).all()
    assert (clip.labels[:, 32:] == IGNORE_INDEX).all()
    assert_mean_colour(clip.frames[..., 32:, :])


@settings(max_examples=40, deadline=None)
@given(
    sample=st.integers(0, 10**6),
    sampling=st.sampled_from(["window", "consecutive"]),
    reverse=st.sampled_from([0.0, 0.5, 1.0]),
    crop=st.sampled_from([{"crop_size": None}, {"crop_size": None, "crop_range": (32, 38)}, {"crop_size": (36, 60)}]),
)
def test_frames_and_labels_come_from_the_frames_that_are_told(
    sample: int, sampling: str, reverse: float, crop: dict[str, object]
) -> None:
    video = position_video(12)
    video.labels = video.frames[:, 2] * 3  # a label tells its frame
    data = clips(video, sampling=sampling, reverse=reverse, window=2, **crop)
    clip, source = data[sample], data.source(sample)
    times = (clip.frames[:, 2, 0, 0] * 255).round().long()
    assert times.tolist() == list(source.frames)
    assert torch.equal(clip.labels[:, 0, 0], 3 * times)
    falling, rising = sorted(source.frames, reverse=True), sorted(source.frames)
    assert list(source.frames) in {0.0: [rising], 0.5: [rising, falling], 1.0: [falling]}[reverse]


def test_half_of_the_clips_run_backwards_where_asked_for() -> None:
    data = clips(position_video(30), sampling="consecutive", reverse=0.5)
    backwards = sum(data.source(i).frames[0] > data.source(i).frames[1] for i in range(600))
    assert 240 < backwards < 360
    starts = {min(data.source(i).frames) for i in range(600)}
    assert starts == set(range(28))


def test_neighbours_and_windows_take_every_video_equally_often() -> None:
    videos = [position_video(length, name=str(length)) for length in (4, 30, 7)]
    for sampling in ("window", "consecutive"):
        data = clips(*videos, sampling=sampling)
        names = [data.source(i).name for i in range(12)]
        assert all(sorted(names[start : start + 3]) == ["30", "4", "7"] for start in (0, 3, 6, 9))
        assert len({tuple(names[start : start + 3]) for start in (0, 3, 6, 9)}) > 1


def test_short_videos_are_refused_by_name_where_clips_are_neighbours() -> None:
    short = [position_video(2, name=f"short{index}") for index in range(25)]
    for sampling in ("window", "consecutive"):
        with pytest.raises(DataError, match="at least 3 frames, got 25 of 26 that are shorter") as raised:
            clips(position_video(3), *short, sampling=sampling)
        assert "  short0 (2 frames)" in str(raised.value)
        assert len(str(raised.value).splitlines()) == 22
        assert clips(position_video(3), sampling=sampling)[0].frames.shape[0] == 3
    with pytest.raises(DataError, match=r"at least 3 frames(.|\n)*short0"):
        clips(*short[:1], short_videos="refuse")
    repeated = clips(*short[:1], sampling="consecutive", short_videos="repeat")
    assert repeated.source(0).frames == (0, 1, 1)
    assert repeated[0].frames.shape[0] == 3


def test_whole_frames_are_the_videos_own_bytes_over_255() -> None:
    video = position_video(6)
    video.frames[:, :, 0, 0] = 255
    data = clips(video, crop_size=None, flip=False)
    clip, source = data[2], data.source(2)
    assert torch.equal(clip.frames, video.frames[list(source.frames)].float() / 255)
    assert clip.frames.max() == 1


def test_videos_may_differ_in_size() -> None:
    data = clips(
        position_video(4, name="a"), position_video(4, name="b", height=64, width=33), crop_size=None, sampling="window"
    )
    assert {tuple(data[i].frames.shape[-2:]) for i in range(4)} == {(40, 56), (64, 33)}


def test_an_error_of_a_worker_still_names_the_file(tmp_path: Path) -> None:
    root = write_toy_set(tmp_path / "toy", videos={"train": 1}, frames=5, size=(32, 48))
    data = ClipDataset(VSPW(root, split="train"), clip_length=5, num_samples=2)
    next(root.glob("data/*/mask/*2.png")).unlink()
    with pytest.raises(DataError, match=r"mask/\S*2\.png: cannot be read") as raised:
        data[0]
    assert "\n" not in str(raised.value)
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)
    with pytest.raises(DataError, match=r"mask/\S*2\.png: cannot be read"):
        list(DataLoader(data, num_workers=1))


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"clip_length": 0}, "clip_length: expected an integer of at least 1"),
        ({"crop_size": (31, 48)}, "crop_size: expected .* at least 32"),
        ({"crop_size": None, "crop_range": (31, 48)}, "crop_range: expected .* at least 32"),
        ({"crop_size": None, "crop_range": (48, 32)}, "crop_range: expected"),
        ({"crop_range": (32, 48)}, "crop_range: expected only one of crop_size and crop_range"),
        ({"short_sides": []}, "short_sides: expected one or more"),
        ({"short_sides": [480, 31]}, "short_sides: expected one or more lengths of at least 32"),
        ({"short_sides": [480, 512], "long_side": 500}, "long_side: expected at least 512"),
        ({"sampling": "random"}, "sampling: expected one of stride, window, consecutive, got 'random'"),
        ({"short_videos": "skip"}, "short_videos: expected one of refuse, repeat, got 'skip'"),
        ({"window": 0}, "window: expected an integer of at least 1"),
        ({"reverse": 1.5}, "reverse: expected a probability"),
        ({"strides": ()}, "strides: expected one or more"),
        ({"strides": (0,)}, "strides: expected one or more"),
        ({"scales": (1.0, 0.5)}, "scales: expected"),
        ({"scales": (0.0, 0.5)}, "scales: expected"),
        ({"colour": 1.0}, "colour: expected a share"),
        ({"seed": -1}, "seed: expected at least 0"),
    ],
)
def test_wrong_numbers_are_refused(numbers: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        clips(**numbers)


def test_wrong_videos_are_refused() -> None:
    with pytest.raises(DataError, match="expected at least one video"):
        ClipDataset([], clip_length=2, crop_size=(32, 32))
    video = position_video(name="bare")
    with pytest.raises(DataError, match="bare has no labels"):
        clips(Filmed("bare", video.frames, None))
    with pytest.raises(DataError, match="empty has no frames"):
        clips(Filmed("empty", video.frames[:0], video.labels))
    with pytest.raises(
        DataError, match=r"video a, frames .* frames are \(40, 56\) pixels, their label maps \(40, 50\)"
    ):
        clips(Filmed("a", video.frames, video.labels[..., :50]))[0]
