from __future__ import annotations

import pytest
import torch

from mvcseg.data.vspw_classes import VSPW_CLASSES
from mvcseg.errors import ConfigError
from mvcseg.vlm import VSPW_GROUPS, Group
from mvcseg.vlm.groups import asked_by, check_ids_fit

NAMES = ["sky", "river", "lake", "water", "River"]


def test_answers_are_offered_in_the_order_given() -> None:
    assert list(Group("water", (2, 1)).answers(NAMES).items()) == [(2, "lake"), (1, "river")]


def test_class_called_like_the_noun_is_not_offered() -> None:
    assert Group("Water", (1, 2, 3)).answers(NAMES) == {1: "river", 2: "lake"}


def test_ids_may_come_as_a_list() -> None:
    assert Group("water", [1, 2]).class_ids == (1, 2)  # type: ignore[arg-type]


@pytest.mark.parametrize("noun", ["", " ", "_", 3])
def test_noun_without_a_word_is_refused(noun: object) -> None:
    with pytest.raises(ConfigError, match="noun: expected a word"):
        Group(noun, (1, 2))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ((1,), "at least two"),
        ((), "at least two"),
        ((1, 1), "different"),
        ((-1, 2), "at least 0"),
        ((True, 2), "integers"),
    ],
)
def test_ids_that_are_no_choice_are_refused(ids: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Group("water", ids)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ((1, 5), "ids from 0 to 4 .there are 5 class_names., got 5"),
        ((1, 4), "expected different names"),
        ((2, 3), "at least two classes to choose from"),
    ],
)
def test_group_that_does_not_fit_the_names_is_refused(ids: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Group("water", ids).answers(NAMES)


@pytest.mark.parametrize(
    ("dtype", "index", "message"),
    [
        (torch.uint8, 260, "group 'water': labels of torch.uint8 hold at most 255, got 260"),
        (torch.int8, 200, "group 'water': labels of torch.int8 hold at most 127, got 200"),
        (torch.int64, 255, "group 'water': 255 stands for pixels without a class"),
    ],
)
def test_ids_that_labels_cannot_hold_are_refused(dtype: torch.dtype, index: int, message: str) -> None:
    check_ids_fit([Group("ground", (1, 127))], dtype=dtype)
    with pytest.raises(ConfigError, match=message):
        check_ids_fit([Group("ground", (1, 2)), Group("water", (1, index))], dtype=dtype)


def test_vspw_groups_offer_real_classes_and_not_their_noun() -> None:
    for group in VSPW_GROUPS:
        offered = group.answers(VSPW_CLASSES)
        assert len(offered) >= 2
        assert group.noun not in [half for name in offered.values() for half in name.split(" or ")]
    water = VSPW_GROUPS[0].answers(VSPW_CLASSES)
    assert water == {35: "sea", 36: "river", 37: "lake", 38: "waterfall"}


def test_class_of_two_groups_is_asked_about_by_the_first() -> None:
    assert asked_by([Group("a", (1, 2)), Group("b", (2, 3))]) == {1: 0, 2: 0, 3: 1}
    assert asked_by(VSPW_GROUPS)[VSPW_CLASSES.index("grass")] == [group.noun for group in VSPW_GROUPS].index("ground")
