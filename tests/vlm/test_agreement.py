from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvcseg.vlm.agreement import agreement_between


def of(answers: list[tuple[int | None, int | None]], groups: list[str] | None = None) -> tuple[int, int, float | None]:
    found = agreement_between("a", "b", answers=answers, groups=groups or ["water"] * len(answers))
    return found.both, found.equal, found.kappa


def test_hand_case() -> None:
    # 35 of 50 equal; by chance 25/50 * 30/50 + 25/50 * 20/50 = 1/2
    answers = [(1, 1)] * 20 + [(1, 2)] * 5 + [(2, 1)] * 10 + [(2, 2)] * 15
    assert of(answers) == (50, 35, pytest.approx((0.7 - 0.5) / 0.5))


def test_questions_that_one_did_not_answer_do_not_count() -> None:
    answers = [(1, 1), (None, 1), (2, None), (None, None), (2, 1)]
    assert of(answers)[:2] == (2, 1)
    found = agreement_between("a", "b", answers=[(None, 1)], groups=["water"])
    assert (found.share, found.kappa) == (None, None)


def test_chance_is_taken_within_a_group() -> None:
    # each names its own class of each group always: equal by chance alone, whatever a pooled kappa says
    answers = [(1, 1)] * 5 + [(8, 8)] * 5
    assert of(answers, ["water"] * 5 + ["animal"] * 5) == (10, 10, None)
    # within water they disagree as often as coins, within animals likewise
    answers = [(1, 1), (1, 2), (2, 1), (2, 2), (8, 8), (8, 9), (9, 8), (9, 9)]
    assert of(answers, ["water"] * 4 + ["animal"] * 4)[2] == 0


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40))
def test_with_one_group_it_is_cohens_kappa(answers: list[tuple[int, int]]) -> None:
    table = np.zeros((4, 4))
    for one, other in answers:
        table[one, other] += 1
    observed = table.trace() / table.sum()
    expected = float(table.sum(1) @ table.sum(0)) / table.sum() ** 2
    _, _, kappa = of(list(answers))
    if math.isclose(expected, 1):
        assert kappa is None
    else:
        assert kappa == pytest.approx((observed - expected) / (1 - expected))


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([None, 1, 2]), st.sampled_from([None, 1, 2])), max_size=30))
def test_order_of_the_two_does_not_matter(answers: list[tuple[int | None, int | None]]) -> None:
    there, back = of(answers), of([(other, one) for one, other in answers])
    assert there[:2] == back[:2]
    assert there[2] == (None if back[2] is None else pytest.approx(back[2]))
