"""Contrastive terms of hand cases, against loops written from the definition, at extremes."""

from __future__ import annotations

import math

import pytest
import torch
from contrast_loops import error_one_by_one, one_by_one
from torch import Tensor
from torch.nn import functional

from mvcseg.errors import DTypeError, ShapeError
from mvcseg.losses.contrast_terms import Scores, contrastive_loss, refiner_scores, similarity_error, tracker_scores
from mvcseg.losses.set_matching import Match


def vectors(generator: torch.Generator, frames: int = 4, queries: int = 6) -> Tensor:
    return torch.randn(frames, queries, 5, dtype=torch.float64, generator=generator)


def match(queries: list[int], targets: list[int]) -> Match:
    return Match(torch.tensor(queries, dtype=torch.int64), torch.tensor(targets, dtype=torch.int64))


def test_equal_scores_of_two_negatives_and_one_positive_give_log_three() -> None:
    loss = contrastive_loss(Scores(torch.zeros(1, 1), torch.zeros(1, 2)))
    assert loss.item() == pytest.approx(math.log(3))


def test_two_positives_and_two_negatives_make_four_pairs() -> None:
    scores = Scores(torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, -1.0]]))
    pairs = sum(math.exp(n - p) for n in (0.5, -1.0) for p in (1.0, 2.0))
    assert contrastive_loss(scores).item() == pytest.approx(math.log(1 + pairs))


def test_what_is_no_negative_changes_nothing() -> None:
    positive, negative = torch.tensor([[1.0]]), torch.tensor([[0.5, 90.0]])
    masked = Scores(positive, negative, torch.tensor([[True, False]]))
    assert torch.equal(contrastive_loss(masked), contrastive_loss(Scores(positive, negative[:, :1])))
    assert torch.equal(similarity_error(masked), similarity_error(Scores(positive, negative[:, :1])))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_large_scores_stay_finite_with_their_gradient(dtype: torch.dtype) -> None:
    positive = torch.full((2, 1), -3e4, dtype=dtype, requires_grad=True)
    negative = torch.full((2, 3), 3e4, dtype=dtype, requires_grad=True)
    loss = contrastive_loss(Scores(positive, negative))
    loss.sum().backward()
    assert loss.dtype == torch.float32
    assert loss[0].item() == pytest.approx(6e4, rel=1e-2)
    assert torch.allclose(positive.grad.float(), torch.tensor(-1.0))
    assert torch.allclose(negative.grad.float(), torch.tensor(1 / 3), atol=1e-2)


@pytest.mark.parametrize("is_negative", [torch.zeros(1, 2, dtype=torch.bool), None])
def test_an_anchor_without_negatives_has_zero_loss_and_gradient(is_negative: Tensor | None) -> None:
    positive = torch.ones(1, 1, requires_grad=True)
    negative = torch.ones(1, 0 if is_negative is None else 2, requires_grad=True)
    loss = contrastive_loss(Scores(positive, negative, is_negative))
    loss.sum().backward()
    assert loss.item() == 0
    assert positive.grad.item() == 0
    assert not negative.grad.any()


def test_gradients_are_those_of_differences() -> None:
    positive = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    negative = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    counted = torch.rand(3, 4) > 0.4
    torch.autograd.gradcheck(lambda p, n: contrastive_loss(Scores(p, n, counted)), (positive, negative))
    torch.autograd.gradcheck(lambda p, n: similarity_error(Scores(p, n, counted)), (positive, negative))


def test_a_perfect_similarity_has_no_error() -> None:
    assert similarity_error(Scores(torch.ones(2, 1), torch.zeros(2, 3))).tolist() == [0, 0]


def test_tracker_compares_with_the_frames_before_and_after(generator: torch.Generator) -> None:
    embeds = vectors(generator)
    matches = [match([0, 1], [0, 1]), match([4, 2, 5], [0, 2, 1]), match([3], [0]), match([5, 0], [1, 0])]
    before, after = tracker_scores(embeds, matches)
    expected: dict[int, list[Tensor]] = {-1: [], 1: []}
    for t in range(1, 4):
        for q in matches[t].queries.tolist():
            for step in (-1, 1):
                if t + step < 4:
                    others = [embeds[t + step, i] for i in range(6) if i != q]
                    expected[step].append(one_by_one(embeds[t, q], [embeds[t + step, q]], others))
    assert torch.allclose(contrastive_loss(before), torch.stack(expected[-1]), rtol=1e-12)
    assert torch.allclose(contrastive_loss(after), torch.stack(expected[1]), rtol=1e-12)


def test_refiner_compares_with_all_frames_and_the_other_queries(generator: torch.Generator) -> None:
    embeds = vectors(generator)
    scores = refiner_scores(embeds, [match([4, 1], [0, 1])])
    expected = [
        one_by_one(embeds[t, q], list(embeds[:, q]), [embeds[t, i] for i in range(6) if i != q])
        for t in range(4)
        for q in (4, 1)
    ]
    assert torch.allclose(contrastive_loss(scores), torch.stack(expected), rtol=1e-12)


def test_unit_vectors_give_cosines(generator: torch.Generator) -> None:
    embeds = vectors(generator)
    error = similarity_error(refiner_scores(functional.normalize(embeds, dim=-1), [match([2], [0])]))
    expected = [
        error_one_by_one(embeds[t, 2], list(embeds[:, 2]), [embeds[t, i] for i in range(6) if i != 2]) for t in range(4)
    ]
    assert torch.allclose(error, torch.stack(expected), rtol=1e-12)


def test_one_match_holds_for_all_frames(generator: torch.Generator) -> None:
    embeds, one = vectors(generator), match([3, 0], [1, 0])
    for single, repeated in zip(tracker_scores(embeds, [one]), tracker_scores(embeds, [one] * 4), strict=True):
        assert torch.equal(single.positive, repeated.positive)


@pytest.mark.parametrize("frames", [1, 2])
def test_short_clips_have_no_frame_after(generator: torch.Generator, frames: int) -> None:
    before, after = tracker_scores(vectors(generator, frames), [match([3, 0], [1, 0])])
    assert len(before.positive) == 2 * (frames - 1)
    assert len(after.positive) == 0


@pytest.mark.parametrize("function", [contrastive_loss, similarity_error])
def test_scores_of_other_anchors_are_refused(function: type) -> None:
    with pytest.raises(ShapeError, match=r"negative: expected \(n s\) with n=2"):
        function(Scores(torch.zeros(2, 1), torch.zeros(3, 4)))
    with pytest.raises(ShapeError, match=r"is_negative: expected \(n s\) with s=4"):
        function(Scores(torch.zeros(2, 1), torch.zeros(2, 4), torch.ones(2, 5, dtype=torch.bool)))
    with pytest.raises(DTypeError, match="positive: expected a floating-point"):
        function(Scores(torch.zeros(2, 1, dtype=torch.int64), torch.zeros(2, 4)))
