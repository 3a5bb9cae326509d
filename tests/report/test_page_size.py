"""How large a page gets, how long it takes and what it holds in memory: a clip of five seconds, and 10,000 frames."""

from __future__ import annotations

import re
import tracemalloc
from pathlib import Path

import pytest
import torch
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
