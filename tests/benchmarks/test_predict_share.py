"""The share of the model in `mvcseg predict`: what counts as the model's time."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import Tensor

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("predict_share")


class Clock:
    """Time that passes when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class ByRed(torch.nn.Module):
    """Labels by the first channel, in three seconds a call."""

    num_classes = 2

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def forward(self, frames: Tensor, /) -> Tensor:
        self.clock.now += 3
        red = frames[:, :, :1]
        return torch.cat([red - 0.5, 0.5 - red], dim=2)


class Streaming(ByRed):
    """One that asks for the frames itself, twice two of them."""

    def stream_labels(self, video: Tensor, *, clip_length: int, output_size: tuple[int, int]) -> Iterator[Tensor]:
        for start in range(0, len(video), clip_length):
            self.clock.now += 2
            yield video[start : start + clip_length][:, 0]

    def stream(self, video: Tensor, *, clip_length: int) -> Iterator[Tensor]:
        for start in range(0, len(video), clip_length):
            yield self(video[start : start + clip_length].unsqueeze(0).float())


class Labelling(ByRed):
    """One that gives class ids itself, in seven seconds."""

    def clip_labels(self, frames: Tensor, /, *, output_size: tuple[int, int]) -> Tensor:
        self.clock.now += 7
        return torch.zeros(frames[:, :, 0].shape, dtype=torch.uint8)


class Slow:
    """A video that takes five seconds to read."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: slice, /) -> Tensor:
        self.clock.now += 5
        return torch.zeros(4, 3, 2, 2, dtype=torch.uint8)[index]


def test_reading_and_what_the_caller_does_are_not_the_models(
    bench: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    monkeypatch.setattr(bench, "time", SimpleNamespace(perf_counter=clock.perf_counter))
    watched = bench.watch(Streaming(clock))
    for _ in watched.stream_labels(Slow(clock), clip_length=2, output_size=(2, 2)):
        clock.now += 100
    assert watched.seconds == 2 * 2
    for _ in watched.stream(Slow(clock), clip_length=2):
        clock.now += 100
    assert watched.seconds == 2 * 2 + 2 * 3
    assert clock.now == 400 + 4 * 5 + 4 + 6


def test_a_model_of_clips_is_watched_at_its_calls(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(bench, "time", SimpleNamespace(perf_counter=clock.perf_counter))
    watched = bench.watch(ByRed(clock))
    assert not hasattr(watched, "stream")
    watched(torch.rand(1, 2, 3, 4, 4))
    assert watched.seconds == 3


def test_class_ids_of_its_own_are_the_models(bench: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr(bench, "time", SimpleNamespace(perf_counter=clock.perf_counter))
    watched = bench.watch(Labelling(clock))
    labels = list(bench.iter_labels(watched, Slow(clock), clip_length=2))
    assert [len(clip) for clip in labels] == [2, 2]
    assert watched.seconds == 2 * 7


@pytest.mark.parametrize("kind", [ByRed, Streaming, Labelling])
def test_a_video_goes_from_its_file_to_label_maps(bench: ModuleType, kind: type[ByRed]) -> None:
    row = bench.row(kind(Clock()), frames=5, size=(48, 64), turns=1)
    assert 0 < row["share_in_the_model"] <= 1
    assert row["frames"] == 5
    assert row["command_to_model_alone"]["turns"] == 1
