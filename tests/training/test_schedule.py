"""Learning rates rise, then fall; vectors do not decay."""

from __future__ import annotations

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from mvcseg.training.schedule import learning_rate_factor, parameter_groups


def test_poly_by_hand() -> None:
    factors = [learning_rate_factor(step, steps=5, warm_up=1) for step in range(5)]
    assert factors == pytest.approx([1, 1, 0.75**0.9, 0.5**0.9, 0.25**0.9])


def test_constant_stays() -> None:
    assert [learning_rate_factor(step, steps=4, warm_up=2, schedule="constant") for step in range(4)] == [0.5, 1, 1, 1]


@given(steps=st.integers(1, 50), warm_up=st.integers(0, 50), schedule=st.sampled_from(["poly", "cosine", "constant"]))
def test_it_rises_to_one_and_never_again(
    steps: int, warm_up: int, schedule: Literal["poly", "cosine", "constant"]
) -> None:
    warm_up = min(warm_up, steps)
    factors = [learning_rate_factor(step, steps=steps, warm_up=warm_up, schedule=schedule) for step in range(steps)]
    rising, falling = factors[:warm_up], factors[warm_up:]
    assert all(0 < factor <= 1 for factor in factors)
    assert rising == sorted(rising)
    assert falling == sorted(falling, reverse=True)
    assert max(factors) == 1


def test_only_trained_weights_of_two_axes_decay() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4), nn.Linear(4, 5))
    model[2].weight.requires_grad_(False)
    decaying, still = parameter_groups(model, weight_decay=0.1)
    assert [id(p) for p in decaying["params"]] == [id(model[0].weight)]
    assert {id(p) for p in still["params"]} == {id(p) for p in (model[0].bias, *model[1].parameters(), model[2].bias)}
    assert (decaying["weight_decay"], still["weight_decay"]) == (0.1, 0.0)


def test_steps_drop_when_so_many_are_done() -> None:
    factors = [
        learning_rate_factor(step, steps=6, warm_up=1, schedule="steps", drops=(2, 4), drop_factor=0.5)
        for step in range(6)
    ]
    assert factors == [1, 1, 0.5, 0.5, 0.25, 0.25]
