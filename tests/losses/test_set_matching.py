"""Which query meets which target."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from mvcseg.errors import ConfigError, DataError, ShapeError
from mvcseg.losses.queries import DenseMasks, LayerPrediction
from mvcseg.losses.set_matching import ClipTargets, Match, PairCosts, count_targets, match_clip
from mvcseg.losses.set_terms import class_cost, mask_costs
from mvcseg.losses.targets import Targets, targets_of_labels, targets_of_masks
from mvcseg.ops.points import draw_from

T, Q, K, H, W = 3, 5, 4, 6, 8


def prediction(*, frames: int = T, classes: int = T, seed: int = 0) -> LayerPrediction:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(1, classes, Q, K + 1, generator=generator)
    return LayerPrediction(logits, DenseMasks(3 * torch.randn(1, frames, Q, H, W, generator=generator)))


def labelled() -> Tensor:
    """Class 0 in all frames, 2 from frame 1 on, 3 from frame 2 on, 1 in frame 0 alone."""
    labels = torch.zeros(T, H, W, dtype=torch.int64)
    labels[0, :, 4:], labels[1:, :, 4:], labels[2, 3:, 4:] = 1, 2, 3
    return labels


def match(
    layer: LayerPrediction, targets: Targets, matching: Any, *, weight: Tensor | None = None, **changes: Any
) -> list[Match]:
    draw = draw_from(torch.Generator().manual_seed(5), device=torch.device("cpu"))
    options: dict[str, Any] = {"costs": PairCosts(), "num_points": 40, "draw": draw} | changes
    return match_clip(layer, ClipTargets(targets, weight=weight), video=0, matching=matching, **options)


def pairs(found: Match) -> dict[int, int]:
    """Query of each target."""
    return dict(zip(found.targets.tolist(), found.queries.tolist(), strict=True))


def best(cost: Tensor, free: list[int]) -> tuple[int, ...]:
    """The query of each column, by trying all."""
    return min(
        itertools.permutations(free, cost.shape[1]),
        key=lambda queries: sum(cost[query, column].item() for column, query in enumerate(queries)),
    )


def frame_costs(layer: LayerPrediction, targets: Targets, frame: int, rows: list[int], points: Tensor) -> Tensor:
    classes = class_cost(layer.class_logits[0, frame], targets.class_ids[rows])
    entropy, dice = mask_costs(layer.masks.at(0, frame, points), targets.at(frame, torch.tensor(rows), points))
    return 2 * classes + 5 * entropy + 5 * dice


def test_each_frame_alone_matches_its_own_targets_at_least_cost() -> None:
    layer, targets = prediction(), targets_of_labels(labelled())
    found = match(layer, targets, "frame")
    draw = draw_from(torch.Generator().manual_seed(5), device=torch.device("cpu"))
    for frame, rows in enumerate([[0, 1], [0, 2], [0, 2, 3]]):
        cost = frame_costs(layer, targets, frame, rows, draw((1, 40, 2))[0])
        expected = best(cost, list(range(Q)))
        assert pairs(found[frame]) == dict(zip(rows, expected, strict=True))


def test_targets_that_a_frame_does_not_show_can_be_kept() -> None:
    found = match(prediction(), targets_of_labels(labelled()), "frame", keep_absent=True)
    assert [sorted(each.targets.tolist()) for each in found] == [[0, 1, 2, 3]] * T


def test_a_target_is_matched_where_it_first_appears_among_queries_not_taken() -> None:
    layer, targets = prediction(), targets_of_labels(labelled())
    found = match(layer, targets, "first")
    assert len(found) == T
    assert all(each is found[0] for each in found)
    draw = draw_from(torch.Generator().manual_seed(5), device=torch.device("cpu"))
    free, expected = list(range(Q)), {}
    for frame, rows in enumerate([[0, 1], [2], [3]]):
        queries = best(frame_costs(layer, targets, frame, rows, draw((1, 40, 2))[0]), free)
        expected |= dict(zip(rows, queries, strict=True))
        free = [query for query in free if query not in queries]
    assert pairs(found[0]) == expected
    assert len(set(expected.values())) == 4


def test_a_query_that_suits_two_targets_best_stays_with_the_earlier_one() -> None:
    labels = torch.zeros(2, H, W, dtype=torch.int64)
    labels[1] = 2  # class 0 in frame 0 only, class 2 in frame 1 only
    logits = torch.zeros(1, 2, Q, K + 1)
    logits[0, :, 3] = 20.0 * torch.tensor([1.0, 0, 1, 0, 0])  # query 3 is best at both classes
    masks = torch.full((1, 2, Q, H, W), -5.0)
    masks[:, :, 3] = 5.0
    layer, targets = LayerPrediction(logits, DenseMasks(masks)), targets_of_labels(labels)
    assert pairs(match(layer, targets, "first")[0])[0] == 3
    assert pairs(match(layer, targets, "first")[0])[1] != 3
    assert [pairs(each) for each in match(layer, targets, "frame")] == [{0: 3}, {1: 3}]


def test_stacked_frames_are_matched_as_one_tall_mask() -> None:
    layer, targets = prediction(classes=1), targets_of_labels(labelled())
    (found,) = match(layer, targets, "video")
    points = draw_from(torch.Generator().manual_seed(5), device=torch.device("cpu"))((1, 40 * T, 2))[0]
    tall = LayerPrediction(layer.class_logits, DenseMasks(layer.masks.chosen(0, None, torch.arange(Q))[None, None]))
    stacked = targets_of_labels(labelled().view(1, T * H, W))
    assert pairs(found) == dict(enumerate(best(frame_costs(tall, stacked, 0, [0, 1, 2, 3], points), list(range(Q)))))


@pytest.mark.parametrize("matching", ["frame", "first", "video"])
def test_with_more_targets_than_queries_the_cheapest_pairs_are_matched(matching: str) -> None:
    labels = (torch.arange(T * H * W) % 9).view(T, H, W)
    generator = torch.Generator().manual_seed(0)
    layer = LayerPrediction(
        torch.randn(1, 1 if matching == "video" else T, Q, 10, generator=generator),
        DenseMasks(torch.randn(1, T, Q, H, W, generator=generator)),
    )
    for found in match(layer, targets_of_labels(labels), matching):
        assert sorted(found.queries.tolist()) == list(range(Q))
        assert len(set(found.targets.tolist())) == Q


@pytest.mark.parametrize("matching", ["frame", "first", "video"])
def test_a_void_clip_matches_nothing_and_draws_nothing(matching: str) -> None:
    def never(shape: tuple[int, ...]) -> Tensor:
        raise AssertionError(shape)

    targets = targets_of_labels(torch.full((T, H, W), 255))
    found = match(prediction(classes=1 if matching == "video" else T), targets, matching, draw=never)
    assert len(found) == (1 if matching == "video" else T)
    assert all(len(each.queries) == len(each.targets) == 0 for each in found)


@pytest.mark.parametrize("where", ["classes", "masks"])
@pytest.mark.parametrize("matching", ["frame", "first", "video"])
def test_a_query_that_predicts_nan_is_matched_so_that_the_loss_tells(matching: str, where: str) -> None:
    layer = prediction(classes=1 if matching == "video" else T)
    if where == "classes":
        layer.class_logits[:, :, 4] = torch.nan
    else:
        layer.masks.logits[:, :, 4] = torch.inf  # type: ignore[attr-defined]
        layer.masks.logits[:, :, 4, ::2] = -torch.inf  # type: ignore[attr-defined]
    found = match(layer, targets_of_labels(labelled()), matching)
    assert 4 in found[0].queries.tolist()


def test_no_gradient_flows_and_matches_lie_on_the_host() -> None:
    layer = prediction()
    layer.class_logits.requires_grad_()
    for found in match(layer, targets_of_labels(labelled()), "frame"):
        assert found.queries.dtype == found.targets.dtype == torch.int64
        assert found.queries.device.type == "cpu"
        assert not found.queries.requires_grad


def test_weights_of_costs_decide_what_counts() -> None:
    layer, targets = prediction(), targets_of_labels(labelled()[:, :, :])
    by_class = match(layer, targets, "frame", costs=PairCosts(1.0, 0.0, 0.0))
    cost = class_cost(layer.class_logits[0, 2], targets.class_ids[[0, 2, 3]])
    assert pairs(by_class[2]) == dict(zip([0, 2, 3], best(cost, list(range(Q))), strict=True))


@pytest.mark.parametrize("matching", ["frame", "first", "video"])
def test_pixels_without_weight_do_not_decide(matching: str) -> None:
    masks = torch.full((1, T, 2, H, W), -5.0)
    masks[:, :, 0, :, 2:] = masks[:, :, 1, :, :2] = 5.0  # query 0 has most of the frame, query 1 the rest
    layer = LayerPrediction(torch.zeros(1, 1 if matching == "video" else T, 2, K + 1), DenseMasks(masks))
    targets = targets_of_labels(torch.zeros(T, H, W, dtype=torch.int64))
    counted = torch.zeros(T, H, W)
    counted[:, :, :2] = 1.0
    assert all(pairs(each) == {0: 0} for each in match(layer, targets, matching))
    assert all(pairs(each) == {0: 1} for each in match(layer, targets, matching, weight=counted))


@pytest.mark.parametrize("frame", [None, 1])
def test_weights_at_points_are_interpolated_and_go_on_beyond_the_edge(frame: int | None) -> None:
    weight = torch.rand(T, H, W)
    clip = ClipTargets(targets_of_labels(labelled()), covered=(8, 8), weight=weight)
    centre = torch.tensor([[[2.5 / 8, 3.5 / 8], [0.0, 3.5 / 8], [2.5 / 8, 7.5 / 8]]])
    if frame is None:
        centre[..., 1] = (centre[..., 1] + 1) / T
    got = clip.weight_at(frame, centre)
    assert got is not None
    assert torch.allclose(got[0], torch.stack([weight[1, 3, 2], weight[1, 3, 0], weight[1, 5, 2]]), atol=1e-5)
    ones = ClipTargets(clip.targets, covered=(8, 8), weight=torch.ones(T, H, W)).weight_at(frame, torch.rand(2, 9, 2))
    assert ones is not None
    assert torch.allclose(ones, torch.ones(2, 9))


def test_the_number_of_target_masks_depends_on_the_matching() -> None:
    targets = targets_of_labels(labelled())
    assert count_targets(targets, matching="frame") == 7
    assert count_targets(targets, matching="frame", keep_absent=True) == 12
    assert count_targets(targets, matching="first") == 12
    assert count_targets(targets, matching="video") == 4
    never = targets_of_masks(torch.zeros(2, T, H, W, dtype=torch.bool), torch.tensor([0, 1]))
    assert count_targets(never, matching="video") == count_targets(never, matching="first") == 0


def test_bad_arguments_are_refused() -> None:
    targets = targets_of_labels(labelled())
    with pytest.raises(ConfigError, match="matching: expected one of frame, first, video, got 'clip'"):
        match(prediction(), targets, "clip")
    with pytest.raises(ShapeError, match="class_logits: expected"):
        match(prediction(classes=1), targets, "frame")
    with pytest.raises(ShapeError, match="class_logits: expected"):
        match(prediction(), targets, "video")
    with pytest.raises(ShapeError, match="masks: expected 3 frames from labels, got 2"):
        match(prediction(frames=2, classes=2), targets, "frame")
    with pytest.raises(DataError, match=r"labels: expected classes 0..3 or 255, got 4"):
        match(prediction(), targets_of_labels(labelled() + 1), "frame")
    with pytest.raises(ConfigError, match="mask_weight: expected"):
        PairCosts(mask_weight=-1.0)
