"""Flicker without ground truth: shares by hand, clips sampled in long videos, one flow for all predictions."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch

from mvcseg.report.flicker import flicker
from mvcseg.reporting.motion import MOST_PAIRS, FlickerScores, measure_flicker, measured_runs


def still(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return torch.zeros(len(source), 2, *source.shape[2:])


def frames_of(length: int, height: int = 12, width: int = 20) -> torch.Tensor:
    return torch.zeros(length, 3, height, width, dtype=torch.uint8)


def maps_of(length: int, seed: int = 0, height: int = 12, width: int = 20) -> torch.Tensor:
    """Coarse blocks that change anew every third frame."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, 3, (-(-length // 3), 1, 3, 5), generator=generator).repeat_interleave(3, 0)[:length]
    return torch.nn.functional.interpolate(coarse.float(), size=(height, width))[:, 0].to(torch.uint8)


def measured(frames: torch.Tensor, **maps: torch.Tensor) -> dict[str, FlickerScores]:
    return measure_flicker(frames, maps, flow=still, progress=lambda done, total: None)


@pytest.mark.parametrize("length", [2, 8, 17, 40])
def test_shares_and_clips_are_those_of_the_flicker_map(length: int) -> None:
    labels = maps_of(length)
    scores = measured(frames_of(length), a=labels)["a"]
    each = flicker(frames_of(length), labels, flow=still).double().mean(dim=(1, 2))
    assert scores.share == pytest.approx(float(each[1:].mean()), abs=1e-12)
    expected = {i: 1 - float(each[i + 1 : i + 8].mean()) for i in range(max(0, length - 7))}
    assert dict(scores.clips) == pytest.approx(expected, abs=1e-12)


def test_the_class_that_flickers_most_is_found_and_255_is_none() -> None:
    labels = torch.zeros(3, 12, 20, dtype=torch.uint8)
    labels[1, 2:8, 2:8] = 2
    labels[:, :, 10:] = 1
    labels[1, :, 15:] = 255
    scores = measured(frames_of(3), a=labels)["a"]
    # class 2 is there in one frame, and all of it flickers; in the next, where it was, class 0 lies beside 2 only
    # at the border of the block, so its 4 x 4 inner pixels flicker too
    assert scores.pixels[2].tolist() == [36, 36]
    assert scores.pixels[0, 1] == 16
    assert scores.worst_class() == (2, 1.0)
    assert measured(frames_of(3), a=torch.zeros_like(labels))["a"].worst_class() is None


def test_a_class_of_few_pixels_is_not_named() -> None:
    pixels = torch.zeros(256, 2, dtype=torch.int64)
    pixels[0], pixels[1] = torch.tensor([100_000, 10]), torch.tensor([50, 50])
    pixels[255, 0] = 10**9  # pixels without a class are not counted among them
    assert FlickerScores(0.0, {}, pixels).worst_class() == (0, 1e-4)


def test_a_single_frame_has_no_flicker() -> None:
    scores = measured(frames_of(1), a=maps_of(1))["a"]
    assert math.isnan(scores.share)
    assert (dict(scores.clips), scores.worst_class()) == ({}, None)


def test_a_long_video_is_sampled_in_whole_clips_and_read_a_few_frames_at_a_time() -> None:
    assert measured_runs(MOST_PAIRS + 1) == [range(MOST_PAIRS + 1)]
    runs = measured_runs(10_000)
    assert {len(run) for run in runs} == {8}
    assert (runs[0].start, runs[-1].stop, len(runs)) == (0, 10_000, 42)
    steps = [b.start - a.start for a, b in pairwise(runs)]
    assert max(steps) - min(steps) <= 1
    read: list[int] = []

    class Long:
        def __init__(self, clip: torch.Tensor) -> None:
            self.clip = clip

        def __len__(self) -> int:
            return 10_000

        def __getitem__(self, index: slice, /) -> torch.Tensor:
            length = len(range(*index.indices(10_000)))
            read.append(length)
            return self.clip[:length]

    told: list[tuple[int, int]] = []
    scores = measure_flicker(
        Long(frames_of(16)), {"a": Long(maps_of(16))}, flow=still, progress=lambda *each: told.append(each)
    )["a"]
    assert max(read) <= 8
    assert sum(read) == 2 * 42 * 8
    assert told[-1] == (42 * 7, 42 * 7)
    assert list(scores.clips) == [run.start for run in runs]


def test_one_flow_serves_all_predictions() -> None:
    pairs = []

    def counted(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        pairs.append(len(source))
        return still(source, target)

    maps = {"a": maps_of(40), "b": maps_of(40, seed=1)}
    scores = measure_flicker(frames_of(40), maps, flow=counted, progress=lambda done, total: None)
    assert sum(pairs) == 39
    assert scores["b"].share == measured(frames_of(40), b=maps["b"])["b"].share != scores["a"].share


def test_large_frames_are_scaled_down_together_with_their_labels() -> None:
    sizes = []

    def seen(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        sizes.append(tuple(source.shape[2:]))
        return still(source, target)

    frames = frames_of(4, 600, 960)
    labels = torch.randint(0, 9, (4, 600, 960), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    scores = measure_flicker(frames, {"a": labels}, flow=seen, progress=lambda done, total: None)["a"]
    assert sizes == [(300, 480)]
    small = labels[:, 1::2, 1::2]
    assert scores.share == measured(frames_of(4, 300, 480), a=small)["a"].share > 0


def test_the_motion_that_flow_explains_is_no_flicker() -> None:
    labels = (torch.arange(40)[None] - torch.arange(5)[:, None] * 3 >= 12)[:, None].expand(5, 12, 40).to(torch.uint8)

    def moving(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        flow = still(source, target)
        flow[:, 0] = -3  # where a pixel was one frame before
        return flow

    frames = frames_of(5, 12, 40)
    assert measure_flicker(frames, {"a": labels}, flow=moving, progress=lambda d, t: None)["a"].share == 0
    assert measured(frames, a=labels)["a"].share > 0
