"""Consistency frame by frame: the metric's own clips, and a count by class written from the definition."""

from __future__ import annotations

import math

import pytest
import torch

from mvcseg.data.vspw import class_ids
from mvcseg.metrics import clip_consistency
from mvcseg.reporting.steadiness import FrameByFrameConsistency

K = 3


def steady_maps(length: int, *, seed: int, highest: int, change: float = 0.05) -> torch.Tensor:
    """Label maps of which a share of pixels changes from frame to frame, ``(T, 5, 7)`` uint8."""
    generator = torch.Generator().manual_seed(seed)
    maps = torch.randint(0, highest + 1, (length, 5, 7), generator=generator, dtype=torch.uint8)
    for frame in range(1, length):
        stays = torch.rand(5, 7, generator=generator) >= change
        maps[frame] = torch.where(stays, maps[frame - 1], maps[frame])
    return maps


def streamed(
    pred: torch.Tensor, raw: torch.Tensor, lengths: tuple[int, ...] = (4, 6), class_clip: int = 4
) -> FrameByFrameConsistency:
    stream = FrameByFrameConsistency(lengths, num_classes=K, class_clip=class_clip)
    for frame in zip(pred, raw, class_ids(raw), strict=True):
        stream.update(*frame)
    return stream


@pytest.mark.parametrize("length", [1, 3, 4, 5, 6, 7, 30])
def test_clips_are_those_of_the_metric_to_the_last_bit(length: int) -> None:
    raw, pred = steady_maps(length, seed=1, highest=K), steady_maps(length, seed=2, highest=K - 1)
    raw[: length // 2][raw[: length // 2] == 0] = 255
    stream = streamed(pred, raw)
    for n, expected in zip((4, 6), clip_consistency(pred, raw, clip_lengths=(4, 6)), strict=True):
        assert torch.equal(stream.clips(n).nan_to_num(-1), expected.nan_to_num(-1))


def test_a_label_that_stays_for_longer_than_a_byte_counts() -> None:
    still = torch.ones(300, 2, 3, dtype=torch.uint8)
    stream = streamed(still - 1, still)
    assert stream.clips(6).tolist() == [1.0] * 294
    assert stream.by_class().nan_to_num(-1).tolist() == [1.0, -1.0, -1.0]


def reference_by_class(pred: torch.Tensor, raw: torch.Tensor, n: int) -> list[float]:
    """Pixel by pixel from the definition: clips start at every frame of ``range(T - n)``."""
    labelled, both = [0] * K, [0] * K
    for start in range(len(pred) - n):
        for y in range(pred.shape[1]):
            for x in range(pred.shape[2]):
                true = set(raw[start : start + n, y, x].tolist())
                if len(true) == 1 and (value := true.pop()) in range(1, K + 1):
                    labelled[value - 1] += 1
                    both[value - 1] += len(set(pred[start : start + n, y, x].tolist())) == 1
    return [b / count if count else math.nan for b, count in zip(both, labelled, strict=True)]


@pytest.mark.parametrize("seed", [3, 4])
def test_the_steadiness_of_a_class_agrees_with_loops(seed: int) -> None:
    raw, pred = steady_maps(14, seed=seed, highest=K - 1), steady_maps(14, seed=seed + 9, highest=K - 1)
    raw[raw == 0] = 255 if seed == 3 else 0
    expected = reference_by_class(pred, raw, 4)
    assert streamed(pred, raw).by_class().tolist() == pytest.approx(expected, nan_ok=True, abs=1e-12)
    assert math.isnan(expected[2])  # class 2 is nowhere
    assert 0 < expected[0] < 1


def test_a_prediction_that_is_wrong_but_steady_is_steady() -> None:
    raw = torch.full((6, 5, 7), 2, dtype=torch.uint8)
    assert streamed(torch.full_like(raw, 77), raw).by_class()[1] == 1.0


def test_the_last_possible_clip_is_left_out() -> None:
    raw = torch.ones(5, 1, 1, dtype=torch.uint8)
    pred = torch.tensor([0, 0, 0, 0, 1], dtype=torch.uint8).view(5, 1, 1)  # only the clip that ends last changes
    stream = streamed(pred, raw)
    assert (stream.clips(4).tolist(), stream.by_class()[0].item()) == ([1.0], 1.0)


def test_one_class_alone_can_be_unsteady() -> None:
    raw = torch.ones(6, 1, 2, dtype=torch.uint8)
    pred = torch.tensor([[0, 0], [1, 0]] * 3, dtype=torch.uint8).view(6, 1, 2)
    stream = FrameByFrameConsistency((4,), num_classes=1, class_clip=4)
    for frame in zip(pred, raw, class_ids(raw), strict=True):
        stream.update(*frame)
    assert stream.by_class().tolist() == [0.5]
