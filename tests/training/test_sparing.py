"""What is computed again to make room for gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from mvcseg.models.dvis.refiner import TemporalRefiner
from mvcseg.models.dvis.tracker import ReferringTracker
from mvcseg.models.mask2former import Mask2FormerHead
from mvcseg.training.sparing import (
    SPARED,
    bytes_to_spare,
    count_spared,
    spared_of_refiner,
    spared_of_segmenter,
    spared_of_tracker,
)


def kept_by(forward: Callable[[], object]) -> int:
    """Bytes that a graph keeps for the backward pass."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = forward()
    del result
    return sum(kept.values())


def least_that_spares(spared: Callable[[float], int], count: int) -> float:
    """About the bytes that ``count`` layers are taken to keep."""
    low, high = 0.0, 1e12
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (low, middle) if spared(middle) > count else (middle, high)
    return low


def test_only_gradients_that_are_there_ask_for_room() -> None:
    layer = torch.nn.Linear(3, 4)
    assert bytes_to_spare(layer.parameters()) == 0
    layer(torch.ones(3)).sum().backward()
    assert bytes_to_spare(layer.parameters()) == SPARED * 16 * 4
    layer.bias.grad = None
    assert bytes_to_spare(layer.parameters()) == SPARED * 12 * 4


def test_layers_are_spared_until_they_make_up_for_it() -> None:
    assert [count_spared([3.0, 3.0, 4.0], wanted) for wanted in (0.0, 2.0, 3.0, 3.5, 6.5, 99.0)] == [0, 1, 1, 2, 3, 3]


def test_a_trackers_frame_keeps_about_what_is_counted() -> None:
    tracker = ReferringTracker(5, width=64, hidden=256, layers=3, mask_width=16)
    embeds = torch.rand(2, 4, 30, 64)
    counted = least_that_spares(lambda wanted: spared_of_tracker(tracker, embeds, wanted), 2)
    whole, less = (kept_by(lambda n=n: tracker.forward_layers(embeds, embeds, recomputes=n)) for n in (0, 2))  # type: ignore[misc]
    assert 0.7 < (whole - less) / counted < 1.5


def test_a_refiners_layer_keeps_about_what_is_counted() -> None:
    refiner = TemporalRefiner(5, width=64, hidden=256, layers=3, mask_width=16)
    embeds = torch.rand(2, 4, 30, 64)
    counted = least_that_spares(lambda wanted: spared_of_refiner(refiner, embeds, wanted), 2)
    whole, less = (kept_by(lambda n=n: refiner.forward_layers(embeds, embeds, recomputes=n)) for n in (0, 2))  # type: ignore[misc]
    assert 0.7 < (whole - less) / counted < 1.5


def test_a_segmenters_layers_keep_about_what_is_counted() -> None:
    torch.manual_seed(0)
    head = Mask2FormerHead(
        (8, 8, 8, 8), num_classes=5, num_queries=30, has_reid=False, width=64, encoder_layers=3, decoder_layers=3
    )
    maps = tuple(torch.rand(2, 8, side, 2 * side) for side in (32, 16, 8, 4))
    most = least_that_spares(lambda wanted: sum(spared_of_segmenter(head, maps, wanted)), 5)
    assert spared_of_segmenter(head, maps, most) == (3, 2)
    whole, less = (
        kept_by(
            lambda n=n: head.predictor.layer_predictions(head.pixel_decoder(maps, recomputes=n[0]), recomputes=n[1])  # type: ignore[misc]
        )
        for n in ((0, 0), (3, 2))
    )
    assert 0.7 < (whole - less) / most < 1.5


@pytest.mark.parametrize("recomputes", [1, 3])
def test_what_is_computed_again_is_the_same_to_the_bit(recomputes: int) -> None:
    torch.manual_seed(0)
    head = Mask2FormerHead(
        (8, 8, 8, 8), num_classes=5, num_queries=6, has_reid=False, width=32, encoder_layers=3, decoder_layers=3
    )
    maps = tuple(torch.rand(1, 8, side, 2 * side) for side in (16, 8, 4, 2))
    found = []
    for again in (0, recomputes):
        head.zero_grad(set_to_none=True)
        layers = head.predictor.layer_predictions(head.pixel_decoder(maps, recomputes=again), recomputes=again)
        sum(layer.class_logits.square().sum() + layer.mask_embeds.square().sum() for layer in layers).backward()
        found.append([p.grad for p in head.parameters() if p.grad is not None])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))
