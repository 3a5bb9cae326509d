"""How large a page gets, how long it takes and what it holds in memory: a clip of five seconds, and 10,000 frames."""

from __future__ import annotations

import re
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from mvcseg.flow import FarnebackFlow
from mvcseg.report import PageVideo, write_page

NAMES = [f"class {i}" for i in range(20)]
COLOURS = torch.arange(60, dtype=torch.uint8).view(20, 3) * 4
H, W = 480, 853


def scene(length: int) -> tuple[Tensor, Tensor]:
    """Frames of detailed ground that the camera moves over by two pixels a frame, and areas that move with it."""
    generator = torch.Generator().manual_seed(0)
    wide = W + 2 * length
    coarse = torch.rand(1, 3, 60, wide // 8, generator=generator)
    ground = torch.nn.functional.interpolate(coarse, size=(H, wide), mode="bicubic").clamp(0, 1)[0]
    ground = (ground * 235).to(torch.uint8) + torch.randint(0, 6, ground.shape, generator=generator, dtype=torch.uint8)
    waves = torch.nn.functional.interpolate(
        torch.rand(1, 20, 5, wide // 120, generator=generator), size=(H, wide), mode="bicubic"
    )
    areas = waves[0].argmax(dim=0).to(torch.uint8)
    starts = range(0, 2 * length, 2)
    return torch.stack([ground[:, :, s : s + W] for s in starts]), torch.stack([areas[:, s : s + W] for s in starts])


def still(source: Tensor, target: Tensor) -> Tensor:
    """A flow that says nothing moves."""
    return torch.zeros(len(source), 2, *source.shape[2:])


def wrong_and_unsteady(labels: Tensor, seed: int) -> Tensor:
    """Edges moved by a few pixels, differently in every frame, and blobs of another class that come and go."""
    generator = torch.Generator().manual_seed(seed)
    out = labels.clone()
    for frame in out:
        frame[:] = frame.roll(tuple(torch.randint(-2, 3, (2,), generator=generator).tolist()), dims=(0, 1))
        for y, x, side, other in torch.randint(0, 10_000, (25, 4), generator=generator).tolist():
            top, left, size = y % (H - 40), x % (W - 40), 4 + side % 30
            frame[top : top + size, left : left + size] = other % 20
    return out


@pytest.mark.slow
def test_a_five_second_clip_with_truth_four_predictions_and_flicker_stays_under_five_megabytes(tmp_path: Path) -> None:
    frames, truth = scene(75)
    predictions = {f"step {i}": wrong_and_unsteady(truth, i) for i in range(4)}
    clip = PageVideo("clip", frames, predictions, truth, flow=FarnebackFlow())
    curves = {name: [(i, 1.0 / i) for i in range(1, 2000)] for name in ("loss", "mask loss", "mIoU", "lr")}
    path = write_page(
        tmp_path / "page.html", title="t", videos=[clip], class_names=NAMES, colours=COLOURS, curves=curves
    )
    assert 3_000_000 < path.stat().st_size < 5_000_000
    width = re.search(r'"width":(\d+)', path.read_text(encoding="utf-8"))
    assert width is not None
    assert int(width[1]) >= 300


def noise(length: int, height: int, width: int, *, block: int = 1) -> tuple[Tensor, Tensor]:
    """Frames and label maps that no compression makes small."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 255, (length, 3, height, width), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 3, (length, height // block, width // block), generator=generator)
    return frames, labels.repeat_interleave(block, 1).repeat_interleave(block, 2)


def wordy_regions() -> list[dict[str, object]]:
    """Three long answers to each of 606 questions."""
    view = {"answer": "a" * 4000, "image": "", "reason": "the answer names none of river, lake, sea", "to": None}
    region = {
        "frames": [0, 3],
        "region": [0, 0, 4, 4],
        "from": "class 1",
        "to": "class 2",
        "question": "q" * 100,
        "answer": "a" * 400,
        "reason": "r" * 300,
        "answers": [view | {"frame": index} for index in range(3)],
    }
    return [region | {"status": status, "pixels": 5} for status in ["unclear"] * 300 + ["changed"] * 306]


def size_and_width(folder: Path, *videos: PageVideo, **other: Any) -> tuple[int, int]:
    """Bytes of a page and how wide its pictures are."""
    path = write_page(folder / "page.html", title="t", videos=videos, class_names=NAMES, colours=COLOURS, **other)
    width = re.search(r'"width":(\d+)', path.read_text(encoding="utf-8"))
    assert width is not None
    return path.stat().st_size, int(width[1])


@pytest.mark.slow
def test_hundreds_of_wordy_regions_leave_a_five_second_clip_under_five_megabytes(tmp_path: Path) -> None:
    frames, labels = noise(75, 360, 480, block=6)
    without = size_and_width(tmp_path, PageVideo("clip", frames, {"p": labels}))
    with_regions = size_and_width(tmp_path, PageVideo("clip", frames, {"p": labels}, changes=wordy_regions()))
    assert 3_000_000 < without[0] < 4_900_000
    assert 3_000_000 < with_regions[0] < 4_900_000
    assert 200 < with_regions[1] < without[1]


@pytest.mark.parametrize("number", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_lists_pictures_and_curves_count_for_the_bound_on_the_page(tmp_path: Path, number: int) -> None:
    frames, labels = noise(8, 240, 480)
    grain = noise(1, 300, 300)[0][0].permute(1, 2, 0).numpy()
    Image.fromarray(grain).save(tmp_path / "grain.png")
    clips = [PageVideo(str(i), frames, {"p": labels}, frame_names=["name" * 50] * 8) for i in range(number)]
    full = [replace(clip, changes=wordy_regions(), flow=still) for clip in clips]
    curves = {f"loss {i}": [(step, 1 / 3 + step / 7) for step in range(400)] for i in range(4)}
    bound = 700_000
    plain = size_and_width(tmp_path, *clips, max_bytes=bound)
    told = size_and_width(tmp_path, *full, max_bytes=bound, curves=curves, pictures={"grain": tmp_path / "grain.png"})
    assert 0.5 * bound * number < plain[0] < bound * number
    assert 0.5 * bound * number < told[0] < bound * number
    assert 64 < told[1] < plain[1]


def test_a_page_of_many_words_keeps_its_pictures_at_their_smallest(tmp_path: Path) -> None:
    frames, labels = noise(2, 100, 200)
    assert size_and_width(tmp_path, PageVideo("clip", frames, {"p": labels}), max_bytes=1)[1] == 64


class Endless:
    """A long video, made as it is read."""

    def __init__(self, length: int, *shape: int) -> None:
        self.length, self.shape = length, shape
        self.longest = self.count = 0

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: slice) -> Tensor:
        start, stop, _ = index.indices(self.length)
        self.longest, self.count = max(self.longest, stop - start), self.count + stop - start
        numbers = torch.arange(start, stop).view(-1, *[1] * len(self.shape))
        return (numbers % 20).to(torch.uint8).expand(stop - start, *self.shape)


def test_ten_thousand_frames_are_sampled_a_few_at_a_time_and_the_page_says_so(tmp_path: Path) -> None:
    frames, labels = Endless(10_000, 3, 90, 160), Endless(10_000, 90, 160)
    clip = PageVideo("long", frames, {"a": labels}, labels, flow=FarnebackFlow())
    tracemalloc.start()
    try:
        path = write_page(tmp_path / "page.html", title="t", videos=[clip], class_names=NAMES, colours=COLOURS)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (frames.longest, labels.longest) == (2, 2)
    assert frames.count <= 3 * 150 + 2  # of ten thousand: each frame shown, and again with the one before it
    assert peak < 64_000_000
    assert path.stat().st_size < 5_000_000
    html = path.read_text(encoding="utf-8")
    assert "1 video · 10,000 frames" in html
    assert '"total":10000' in html
