"""Majority vote: hand cases, a NumPy loop from the definition, laws and errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mvcseg.errors import ConfigError, DTypeError, ShapeError
from mvcseg.ops import vote as vote_module
from mvcseg.ops.vote import _vote_on_device, majority, majority_among_tied

INTEGERS = [torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64]


def loop(maps: Tensor, *, among_tied: bool) -> Tensor:
    """The definition, pixel by pixel."""
    stack = maps.cpu().numpy().reshape(len(maps), -1)
    out = np.empty_like(stack[0])
    for pixel, votes in enumerate(stack.T):
        counts = Counter(votes.tolist())
        most = max(counts.values())
        tied = [label for label in votes.tolist() if counts[label] == most]
        out[pixel] = tied[0] if among_tied or len(set(tied)) == 1 else votes[0]
    return torch.from_numpy(out).view(maps.shape[1:]).to(maps.device)


def by_class(maps: Tensor, *, among_tied: bool) -> Tensor:
    """The definition on whole maps, one class after another."""
    values, index = maps.unique(return_inverse=True)
    counts = torch.stack([(maps == value).sum(dim=0) for value in values])
    most = counts.amax(dim=0)
    if among_tied:
        first = (counts.gather(0, index) == most).byte().argmax(dim=0)
        return maps.gather(0, first[None])[0]
    unique = (counts == most).sum(dim=0) == 1
    return torch.where(unique, values[counts.argmax(dim=0)], maps[0])


@st.composite
def label_stacks(draw: st.DrawFn) -> Tensor:
    views = draw(st.integers(1, 11))
    shape = draw(st.lists(st.integers(1, 5), max_size=3))
    dtype = draw(st.sampled_from(INTEGERS))
    info = torch.iinfo(dtype)
    low = draw(st.sampled_from([0, 3, 100] if info.min == 0 else [0, -2, 100]))
    number = draw(st.integers(1, 6))
    values = [low + i for i in range(number)] + [255 if info.max >= 255 else info.max]
    seed = draw(st.integers(0, 2**20))
    index = torch.randint(0, len(values), (views, *shape), generator=torch.Generator().manual_seed(seed))
    return torch.tensor(values)[index].to(dtype)


def test_hand_cases_follow_equation_8_read_literally(device: torch.device) -> None:
    maps = torch.tensor([[7, 7, 7, 1], [3, 3, 3, 1], [3, 5, 3, 2], [5, 4, 5, 2], [6, 6, 5, 1]], device=device)
    assert majority(maps, num_classes=8).tolist() == [3, 7, 7, 1]


def test_tied_rule_takes_the_tied_label_of_the_earliest_view(device: torch.device) -> None:
    maps = torch.tensor([[7, 7], [3, 3], [3, 5], [5, 4], [5, 6]], device=device)
    assert majority_among_tied(maps, num_classes=8).tolist() == [3, 7]
    assert majority(maps, num_classes=8).tolist() == [7, 7]


@settings(max_examples=80, deadline=None)
@given(label_stacks())
def test_majority_equals_the_definition(maps: Tensor) -> None:
    got = majority(maps, num_classes=4)
    assert got.dtype == maps.dtype
    assert torch.equal(got, loop(maps, among_tied=False))


@settings(max_examples=80, deadline=None)
@given(label_stacks())
def test_tied_rule_equals_the_definition(maps: Tensor) -> None:
    got = majority_among_tied(maps, num_classes=4)
    assert got.dtype == maps.dtype
    assert torch.equal(got, loop(maps, among_tied=True))


@pytest.mark.parametrize("views", [7, 8])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_maps_larger_than_a_chunk_equal_the_definition(device: torch.device, views: int, dtype: torch.dtype) -> None:
    gen = torch.Generator().manual_seed(views)
    maps = torch.randint(0, 9, (views, 3, 150, 211), generator=gen)
    calm = torch.rand(3, 150, 211, generator=gen) < 0.8
    maps = torch.where(calm & (torch.rand(maps.shape, generator=gen) < 0.9), 255, maps).to(device, dtype)
    assert torch.equal(majority(maps, num_classes=9), by_class(maps, among_tied=False))
    assert torch.equal(majority_among_tied(maps, num_classes=9), by_class(maps, among_tied=True))


@settings(max_examples=60, deadline=None)
@given(label_stacks(), st.booleans())
def test_the_accelerators_form_equals_the_definition(maps: Tensor, among_tied: bool) -> None:
    flat = maps.flatten(1).long() if maps.ndim > 1 else maps[:, None].long()
    assert torch.equal(_vote_on_device(flat, among_tied), loop(flat, among_tied=among_tied))


@pytest.mark.parametrize("among_tied", [False, True])
def test_the_accelerators_form_votes_block_by_block(
    among_tied: bool, monkeypatch: pytest.MonkeyPatch, generator: torch.Generator
) -> None:
    monkeypatch.setattr(vote_module, "_DEVICE_BLOCK", 30)
    maps = torch.randint(0, 4, (6, 23), generator=generator)
    assert torch.equal(_vote_on_device(maps, among_tied), loop(maps, among_tied=among_tied))


@pytest.mark.parametrize("vote", [majority, majority_among_tied])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_votes_off_the_cpu_never_wait_for_the_device(vote: Callable[..., Tensor], dtype: torch.dtype) -> None:
    """Tensors without values refuse whatever has to look at one, or to bring it to the host."""
    maps = torch.empty(8, 5, 7, dtype=dtype, device="meta")
    labels = vote(maps, num_classes=4)
    assert (labels.device.type, labels.shape, labels.dtype) == ("meta", (5, 7), dtype)


@pytest.fixture(params=["as it comes", "threads", "small blocks"])
def forced(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ways that only large maps take, each forced on small ones."""
    if request.param == "threads":
        monkeypatch.setattr(vote_module, "_THREADED", 0)
    elif request.param == "small blocks":
        monkeypatch.setattr(vote_module, "_CHUNK", 37)
        monkeypatch.setattr(vote_module, "_BLOCK", 8 * 90)


@pytest.mark.usefixtures("forced")
@pytest.mark.parametrize("views", [1, 2, 3, 4, 5, 8, 16])
@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.int32])
def test_every_way_equals_the_definition(
    views: int, noise: float, dtype: torch.dtype, generator: torch.Generator
) -> None:
    """Borders that move from view to view, with noise: pixels that the first map tells, the last one, and neither."""
    borders = torch.arange(views).view(-1, 1, 1) + torch.tensor([3, 9, 30, 31]).view(-1, 1)
    calm = (torch.arange(60).view(1, 1, -1) >= borders[:, :, :1]).long() * 3 - 2
    maps = torch.where(torch.rand(views, 4, 60, generator=generator) < noise, 100 + calm.flip(0), calm).to(dtype)
    assert torch.equal(majority(maps, num_classes=9), loop(maps, among_tied=False))
    assert torch.equal(majority_among_tied(maps, num_classes=9), loop(maps, among_tied=True))


def test_a_label_with_half_the_votes_wins_though_the_first_map_has_another() -> None:
    maps = torch.tensor([[7], [7], [5], [3], [3], [3], [7], [3]])
    assert majority(maps, num_classes=8).tolist() == [3]
    assert majority_among_tied(maps, num_classes=8).tolist() == [3]


def test_long_values_that_share_their_low_byte_stay_apart() -> None:
    maps = torch.tensor([[1], [257], [257], [1], [513], [257]])
    assert majority(maps, num_classes=2).tolist() == [257]


def test_many_maps_do_not_overflow_the_count() -> None:
    maps = torch.cat([torch.full((256,), 4), torch.full((300,), 9), torch.full((20,), 1)])[:, None].to(torch.uint8)
    assert majority(maps, num_classes=10).tolist() == [9]
    assert majority_among_tied(maps, num_classes=10).tolist() == [9]


@settings(max_examples=60, deadline=None)
@given(label_stacks(), st.randoms(use_true_random=False))
def test_only_the_first_place_matters_to_majority(maps: Tensor, random: object) -> None:
    order = list(range(1, len(maps)))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert torch.equal(majority(maps[[0, *order]], num_classes=4), majority(maps, num_classes=4))


def test_unanimous_maps_win_and_one_map_is_returned() -> None:
    one = torch.randint(0, 255, (1, 5, 7), dtype=torch.uint8)
    assert torch.equal(majority(one, num_classes=3), one[0])
    assert torch.equal(majority(one.expand(6, -1, -1), num_classes=3), one[0])


def test_arguments_are_left_alone_and_layout_does_not_matter() -> None:
    maps = torch.randint(0, 3, (6, 9, 5), dtype=torch.uint8)
    before = maps.clone()
    expected = majority(maps, num_classes=3)
    transposed = maps.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    assert torch.equal(majority(transposed, num_classes=3), expected)
    assert torch.equal(maps, before)


def test_empty_pixels_give_an_empty_map() -> None:
    assert majority(torch.zeros(4, 0, 3, dtype=torch.int64), num_classes=2).shape == (0, 3)


@pytest.mark.parametrize("vote", [majority, majority_among_tied])
def test_errors_name_the_argument(vote: object) -> None:
    assert callable(vote)
    with pytest.raises(ShapeError, match=r"label_maps: expected \(v ...\).*\(0, 4\)"):
        vote(torch.zeros(0, 4, dtype=torch.uint8), num_classes=3)
    with pytest.raises(ShapeError, match="label_maps"):
        vote(torch.tensor(3), num_classes=3)
    with pytest.raises(DTypeError, match="label_maps: expected an integer tensor"):
        vote(torch.zeros(2, 4), num_classes=3)
    with pytest.raises(DTypeError, match="label_maps: expected a torch"):
        vote([[1, 2]], num_classes=3)
    with pytest.raises(ConfigError, match="num_classes"):
        vote(torch.zeros(2, 4, dtype=torch.uint8), num_classes=256)
