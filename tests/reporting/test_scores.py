"""Scores in one pass: the metrics' own digits, few label maps in memory."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch

from mvcseg.data.vspw import class_ids
from mvcseg.errors import DataError
from mvcseg.metrics import MeanIoU, VideoConsistency
from mvcseg.reporting.scores import VideoScores, score_predictions

K = 3


class Reading:
    """Label maps that know how many of them were asked for at once, and how often each."""

    def __init__(self, maps: torch.Tensor) -> None:
        self.maps, self.most, self.asked = maps, 0, torch.zeros(len(maps), dtype=torch.int64)

    def __len__(self) -> int:
        return len(self.maps)

    def __getitem__(self, index: slice, /) -> torch.Tensor:
        clip = self.maps[index]
        self.most = max(self.most, len(clip))
        self.asked[index] += 1
        return clip


def maps_of(seed: int, *, highest: int, length: int = 50) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randint(0, highest + 1, (length // 5, 4, 6), generator=generator, dtype=torch.uint8)
    return coarse.repeat_interleave(5, dim=0)


def scores_of(maps: Mapping[str, Reading], raw: Reading) -> dict[str, VideoScores]:
    return score_predictions(maps, raw, to_class_ids=class_ids, num_classes=K, progress=lambda done, total: None)


def test_scores_are_those_of_the_metrics_to_the_last_bit() -> None:
    raw = maps_of(0, highest=K)
    preds = {"one": maps_of(1, highest=K - 1), "two": maps_of(2, highest=K)}  # 3 is no class
    scores = scores_of({name: Reading(pred) for name, pred in preds.items()}, Reading(raw))
    for name, pred in preds.items():
        miou = MeanIoU(K)
        miou.update(pred, class_ids(raw))
        expected = {"mIoU": miou.compute()}
        for n in (8, 16):
            consistency = VideoConsistency(n)
            consistency.update(pred, raw)
            expected[f"VC{n}"] = consistency.compute()
        assert scores[name].row() == expected
        assert torch.equal(scores[name].miou.state, miou.state)
        assert len(scores[name].clips) == 50 - 8
    assert scores["two"].miou.predicted_outside > 0


def test_every_map_is_read_once_and_few_at_a_time() -> None:
    raw, one, two = (Reading(maps_of(seed, highest=2)) for seed in range(3))
    scores_of({"one": one, "two": two}, raw)
    for reading in (raw, one, two):
        assert reading.asked.tolist() == [1] * 50
        assert reading.most <= 16


def test_progress_ends_with_all_frames() -> None:
    told: list[tuple[int, int]] = []
    raw = maps_of(0, highest=2)
    score_predictions(
        {"one": raw}, raw, to_class_ids=class_ids, num_classes=K, progress=lambda *each: told.append(each)
    )
    assert told == [(16, 50), (32, 50), (48, 50), (50, 50)]


def test_ground_truth_outside_the_classes_is_refused() -> None:
    raw = maps_of(0, highest=2)
    raw[30] = 9
    with pytest.raises(DataError, match="expected class ids"):
        scores_of({"one": Reading(raw)}, Reading(raw))
