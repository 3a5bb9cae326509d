from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from golden_files import Golden, GoldenFolders
from torch import Tensor
from torch.nn import functional

from mvcseg.errors import ConfigError, DTypeError, ShapeError
from mvcseg.ops.matching import assign, assign_inverse, assign_pairs, cosine_cost, match_frames, take_order


def test_assignment_costs_least_of_all(generator: torch.Generator) -> None:
    for rows, columns in ((1, 1), (3, 3), (3, 5), (4, 4)):
        cost = torch.rand(rows, columns, generator=generator).numpy()
        best = min(permutations(range(columns), rows), key=lambda chosen: cost[range(rows), chosen].sum())
        assert assign(cost).tolist() == list(best)


def test_forbidden_pairs_are_avoided() -> None:
    assert assign(np.array([[0.0, np.inf], [0.0, 9.0]])).tolist() == [0, 1]
    assert assign(np.array([[np.inf, 5.0], [0.0, 9.0]])).tolist() == [1, 0]


def test_the_inverse_undoes_the_assignment(generator: torch.Generator) -> None:
    cost = torch.rand(7, 7, generator=generator).numpy()
    assert assign(cost)[assign_inverse(cost)].tolist() == list(range(7))


def test_costs_without_an_assignment_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"n at most m.*\(3, 2\)"):
        assign(np.zeros((3, 2)))
    with pytest.raises(ShapeError, match=r"\(3,\)"):
        assign(np.zeros(3))
    with pytest.raises(ConfigError, match="cost"):
        assign(np.full((2, 2), np.nan))
    with pytest.raises(ConfigError, match="cost"):
        assign(np.full((2, 2), np.inf))


def test_cost_is_one_minus_the_cosine(generator: torch.Generator) -> None:
    a, b = torch.randn(2, 3, 8, generator=generator), torch.randn(2, 5, 8, generator=generator)
    expected = 1 - functional.cosine_similarity(a.unsqueeze(2), b.unsqueeze(1), dim=-1)
    torch.testing.assert_close(cosine_cost(a, b), expected, rtol=0, atol=2e-6)


def test_cost_of_zero_is_one_and_of_nan_is_zero() -> None:
    embeds = torch.tensor([[0.0, 0.0], [1.0, float("nan")], [1.0, 1.0]])
    cost = cosine_cost(embeds, embeds)
    assert cost[:2].tolist() == [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
    assert cost[2].tolist() == pytest.approx([1.0, 0.0, 0.0], abs=2e-6)


def test_cost_of_half_precision_is_computed_in_float32(generator: torch.Generator) -> None:
    a = torch.randn(4, 64, generator=generator)
    for dtype in (torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            cost = cosine_cost(a.to(dtype), a.to(dtype))
        assert cost.dtype == torch.float32
        torch.testing.assert_close(cost, cosine_cost(a.to(dtype).float(), a.to(dtype).float()))


def shuffled_clip(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Steady queries in a new order every frame, and those orders."""
    steady = torch.randn(2, 1, 6, 8, generator=generator).expand(2, 5, 6, 8)
    orders = torch.stack([torch.stack([torch.randperm(6, generator=generator) for _ in range(5)]) for _ in range(2)])
    return take_order(steady, orders), orders


def test_the_first_frames_order_lasts(generator: torch.Generator) -> None:
    clip, _ = shuffled_clip(generator)
    order = match_frames(clip)
    assert order[:, 0].tolist() == [list(range(6))] * 2
    assert torch.equal(take_order(clip, order), clip[:, :1].expand_as(clip))


def test_matching_goes_on_from_the_frame_before(generator: torch.Generator) -> None:
    clip, _ = shuffled_clip(generator)
    clip = clip + 0.5 * torch.randn(clip.shape, generator=generator)
    whole = match_frames(clip)
    for cut in range(1, 5):
        head = match_frames(clip[:, :cut])
        previous = take_order(clip[:, cut - 1], head[:, -1])
        assert torch.equal(torch.cat([head, match_frames(clip[:, cut:], previous=previous)], dim=1), whole)


def test_given_orders_are_reported_and_followed(generator: torch.Generator) -> None:
    clip, _ = shuffled_clip(generator)
    twice = torch.tensor([1, 1, 3, 0, 5, 4])
    order = match_frames(clip, given={(1, 2): twice})
    assert torch.equal(order[0], match_frames(clip)[0])
    assert torch.equal(order[1, 2], twice)
    followed = match_frames(clip[1:, 3:], previous=clip[1:, 2, twice])
    assert torch.equal(order[1:, 3:], followed)


def test_inverse_orders_chain_through_the_inverse(generator: torch.Generator) -> None:
    clip, _ = shuffled_clip(generator)
    order = match_frames(clip[:1], solve=assign_inverse)
    previous = clip[0, 0]
    for t in range(5):
        expected = assign(cosine_cost(previous, clip[0, t]).numpy()).argsort()
        assert order[0, t].tolist() == expected.tolist()
        previous = clip[0, t, order[0, t]]


def test_no_frames_give_no_order() -> None:
    assert match_frames(torch.zeros(2, 0, 5, 3)).shape == (2, 0, 5)


@pytest.mark.golden
def test_plain_segmenters_are_associated_as_by_the_reference(golden: GoldenFolders) -> None:
    stored = Golden(golden / "ops/minvis_association.npz")
    order = match_frames(stored.tensor("pred_embds").permute(0, 2, 3, 1))
    logits = take_order(stored.tensor("pred_logits"), order)
    stored.check("out_logits", logits.mean(dim=1), rtol=2e-6)
    masks = stored.tensor("pred_masks").transpose(1, 2)
    ordered = take_order(masks.flatten(3), order).unflatten(-1, masks.shape[-2:])
    assert torch.equal(ordered.transpose(1, 2), stored.tensor("out_masks"))


def test_what_cannot_be_matched_is_refused() -> None:
    with pytest.raises(ShapeError, match="embeds"):
        match_frames(torch.zeros(2, 5, 3))
    with pytest.raises(ShapeError, match="previous"):
        match_frames(torch.zeros(2, 4, 5, 3), previous=torch.zeros(2, 6, 3))
    with pytest.raises(DTypeError, match="embeds"):
        match_frames(torch.zeros(2, 4, 5, 3, dtype=torch.int64))


def test_pairs_of_a_wide_cost_are_those_of_the_narrow_one_turned() -> None:
    cost = np.random.default_rng(0).random((7, 4))
    rows, columns = assign_pairs(cost)
    turned_columns, turned_rows = assign_pairs(cost.T)
    assert sorted(zip(rows, columns, strict=True)) == sorted(zip(turned_rows, turned_columns, strict=True))
    assert (np.diff(rows) > 0).all()
    least = min(sum(cost[q, m] for m, q in enumerate(queries)) for queries in permutations(range(7), 4))
    assert cost[rows, columns].sum() == pytest.approx(least)
    assert [len(part) for part in assign_pairs(np.empty((5, 0)))] == [0, 0]
    assert [len(part) for part in assign_pairs(np.empty((0, 5)))] == [0, 0]
    with pytest.raises(ShapeError, match="cost: expected"):
        assign_pairs(np.empty(3))
    with pytest.raises(ConfigError, match="cost:"):
        assign_pairs(np.full((3, 2), np.nan))
