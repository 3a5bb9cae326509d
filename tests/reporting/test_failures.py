"""Where a prediction fails, from a confusion matrix small enough to read."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from mvcseg.metrics import MeanIoU
from mvcseg.reporting.failures import failures
from mvcseg.reporting.scores import VideoScores

NAMES = ("sky", "sea", "lake")


def said_of(confusion: Sequence[Sequence[int]], *, steadiness: Sequence[float] = (1.0, 1.0, 1.0)) -> str:
    """Rows are true classes; the last column holds predictions that are no class."""
    miou = MeanIoU(3)
    miou.state = torch.tensor(confusion)
    return failures("net", VideoScores(miou, {}, torch.empty(0), torch.tensor(steadiness)), NAMES)


def test_a_class_that_is_missed_says_what_it_is_taken_for() -> None:
    # IoU: sky 1000/1020, sea 60/100, lake 80/120
    assert said_of([[1000, 0, 0, 0], [10, 60, 30, 0], [10, 0, 90, 0]]) == (
        "net fails most on sea (IoU 60.0%): 40.0% of it is taken for something else, mostly lake."
    )


def test_a_class_seen_where_it_is_not_says_what_is_taken_for_it() -> None:
    # lake has no misses and 60 false pixels of 160, IoU 100/160
    assert said_of([[950, 0, 50, 0], [0, 490, 10, 0], [0, 0, 100, 0]]) == (
        "net fails most on lake (IoU 62.5%): 37.5% of what it takes for lake is something else, mostly sky."
    )


def test_mostly_is_more_than_half_of_the_misses() -> None:
    assert "is taken for something else, most often sky." in said_of([[900, 0, 0, 0], [20, 60, 10, 10], [0, 0, 900, 0]])


def test_the_most_frequent_error_is_told_where_it_is_another() -> None:
    said = said_of([[900, 100, 0, 0], [0, 5000, 0, 0], [0, 15, 5, 0]])
    assert said.startswith("net fails most on lake (IoU 25.0%): 75.0% of it is taken for something else, mostly sea.")
    assert said.endswith("Its most frequent error is sky taken for sea: 87.0% of all its wrong pixels.")


def test_predictions_that_are_no_class_are_called_so() -> None:
    assert "mostly no class." in said_of([[90, 0, 0, 10], [0, 50, 0, 0], [0, 0, 50, 0]])


def test_a_class_of_few_pixels_is_not_the_one_it_fails_on() -> None:
    said = said_of([[9000, 1000, 0, 0], [500, 9500, 0, 0], [9, 0, 0, 0]], steadiness=(0.9, 0.95, 0.0))
    assert said.startswith("net fails most on sky (IoU 85.6%)")
    assert "least steady on sky, where 90.0% of the pixels keep one class for 8 frames." in said


def test_the_least_steady_class_is_named_unless_all_are_steady() -> None:
    confusion = [[90, 10, 0, 0], [0, 50, 0, 0], [0, 0, 50, 0]]
    assert "It is least steady on lake, where 12.5% of" in said_of(confusion, steadiness=(0.9, math.nan, 0.125))
    assert "steady" not in said_of(confusion, steadiness=(1.0, math.nan, 1.0))
    assert "steady" not in said_of(confusion, steadiness=(math.nan,) * 3)


def test_a_prediction_without_a_mistake_is_said_to_have_none() -> None:
    assert said_of([[90, 0, 0, 0], [0, 50, 0, 0], [0, 0, 0, 0]]) == "net is right on every labelled pixel."


def test_without_a_labelled_pixel_nothing_is_said() -> None:
    assert said_of([[0, 0, 0, 0]] * 3) == ""
