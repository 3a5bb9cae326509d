"""Batches of clips of different sizes."""

from __future__ import annotations

import pytest
import torch
from filmed import position_video
from torch.utils.data import DataLoader, default_collate

from mvcseg import IMAGENET_MEAN
from mvcseg.data.clips import Clip, ClipDataset
from mvcseg.data.collate import PackedClips, packed_batch, padded_batch


def clip(height: int, width: int, sample: int) -> Clip:
    generator = torch.Generator().manual_seed(sample)
    frames = torch.rand(2, 3, height, width, generator=generator)
    return Clip(frames, torch.randint(0, 9, (2, height, width), generator=generator), sample)


def test_smaller_clips_are_filled_up_with_what_no_loss_counts() -> None:
    clips = [clip(33, 50, 0), clip(40, 35, 1), clip(40, 50, 2)]
    batch = padded_batch(clips)
    assert batch.frames.shape == (3, 2, 3, 40, 50)
    assert batch.labels.shape == (3, 2, 40, 50)
    assert batch.sample.tolist() == [0, 1, 2]
    for row, one in enumerate(clips):
        height, width = one.labels.shape[-2:]
        assert torch.equal(batch.frames[row, ..., :height, :width], one.frames)
        assert torch.equal(batch.labels[row, ..., :height, :width], one.labels)
        assert (batch.labels[row] != 255).sum() == one.labels.numel()
    torch.testing.assert_close(batch.frames[0, 1, :, 39, 49], torch.tensor(IMAGENET_MEAN))
    assert clips[0].frames.shape[-2:] == (33, 50)


def test_clips_of_one_size_are_batched_as_pytorch_does() -> None:
    clips = [clip(33, 50, sample) for sample in range(3)]
    for mine, theirs in zip(padded_batch(clips), default_collate(clips), strict=True):
        assert torch.equal(mine, theirs)


def test_workers_pad_too() -> None:
    data = ClipDataset([position_video(6)], clip_length=2, crop_range=(32, 50), num_samples=4)
    near, far = (
        list(DataLoader(data, batch_size=2, num_workers=workers, collate_fn=padded_batch)) for workers in (0, 1)
    )
    for here, there in zip(near, far, strict=True):
        assert torch.equal(here.frames, there.frames)
        assert torch.equal(here.labels, there.labels)


@pytest.mark.parametrize(
    "numbers",
    [
        {"crop_range": (32, 50)},
        {"short_sides": [32, 36], "crop_size": (34, 44)},
        {"scales": (0.5, 2.0), "crop_size": (34, 44)},
        {"short_sides": [32, 36], "crop_size": (34, 44), "colour": 0.3},
    ],
)
def test_packed_clips_are_the_same_clips(numbers: dict[str, object]) -> None:
    videos = [position_video(6), position_video(6, height=70, width=33)]
    clips = ClipDataset(videos, clip_length=2, num_samples=8, **numbers)  # type: ignore[arg-type]
    plain = DataLoader(clips, batch_size=4, collate_fn=padded_batch)
    packed = DataLoader(PackedClips(clips), batch_size=4, collate_fn=packed_batch, num_workers=1)
    for batch, packed_one in zip(plain, packed, strict=True):
        is_bytes = ("short_sides" in numbers and "colour" not in numbers) or "crop_range" in numbers
        assert packed_one.frames.dtype == (torch.uint8 if is_bytes else torch.float32)
        assert packed_one.labels.dtype == torch.uint8
        unpacked = packed_one.unpacked()
        assert (unpacked.frames.dtype, unpacked.labels.dtype) == (torch.float32, torch.int64)
        for mine, theirs in zip(unpacked, batch, strict=True):
            assert torch.equal(mine, theirs)


def test_unpacking_works_on_every_device(device: torch.device) -> None:
    data = ClipDataset([position_video(6)], clip_length=2, crop_size=(64, 64))
    one, batch = data.packed(3), packed_batch([data.packed(3), data.packed(4)])
    for packed in (one, batch):
        here, there = packed.unpacked(), packed.unpacked(device)
        assert there.frames.device.type == device.type
        assert torch.equal(there.labels.cpu(), here.labels)
        torch.testing.assert_close(there.frames.cpu(), here.frames)
    assert torch.equal(batch.unpacked().frames[0], one.unpacked().frames)
    assert len(PackedClips(data)) == 1
