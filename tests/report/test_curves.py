"""Training curves of a page: points and words by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mvcseg.report.curves import CURVE_POINTS, curve_figure


def figure(name: str, points: list[tuple[float, Any]]) -> dict[str, Any]:
    return curve_figure(name, points)


def test_points_are_drawn_as_they_are() -> None:
    curve = figure("loss", [(0, 2.0), (5, 1.0), (10, 0.0)])
    assert (curve["steps"], curve["values"]) == ([0, 5, 10], [2, 1, 0])
    assert (curve["low"], curve["high"], curve["is_log"]) == (0, 2, False)
    assert curve["last"] == "0"
    assert curve["description"] == "loss: 2 at step 0, 0 at step 10"
    assert curve["range"] == "0 to 2"


def test_a_long_curve_is_thinned_to_means_and_smoothed() -> None:
    curve = figure("loss", [(i, float(i % 2)) for i in range(10_000)])
    assert len(curve["steps"]) == len(curve["values"]) == len(curve["smooth"]) == CURVE_POINTS
    assert set(curve["values"]) == {0.48, 0.52}  # of 25 in turn
    assert curve["steps"][0] == 12


def test_the_smooth_line_is_a_running_mean() -> None:
    values = [float(i * i % 7) for i in range(40)]
    smooth = figure("x", list(enumerate(values)))["smooth"]
    assert smooth[20] == pytest.approx(sum(values[18:23]) / 5, rel=1e-5)
    assert smooth[0] == pytest.approx(sum(values[:3]) / 3, rel=1e-5)


def test_few_points_are_dots_and_many_a_smooth_line() -> None:
    few, many = (figure("mIoU", [(i, 0.1 * i) for i in range(count)]) for count in (19, 20))
    assert few["smooth"] == []
    assert len(many["smooth"]) == 20


def test_a_loss_over_orders_of_magnitude_has_a_logarithmic_axis() -> None:
    curve = figure("mask loss", [(0, 100.0), (5, 10.0), (10, 1.0)])
    assert curve["is_log"]
    assert curve["range"] == "1 to 100, log scale"
    for name, points in (("learning rate", [(0, 100.0), (10, 1.0)]), ("loss", [(0, 100.0), (10, 0.0)])):
        assert not figure(name, points)["is_log"]


def test_a_smooth_line_on_a_logarithmic_axis_is_a_geometric_mean() -> None:
    curve = figure("loss", [(i, 10.0 ** (i % 2 * 2)) for i in range(100)])
    assert curve["is_log"]
    assert curve["smooth"][50] == pytest.approx(10 ** (2 * 6 / 11), rel=1e-5)  # six of eleven are 100


def test_one_value_far_beyond_the_others_does_not_flatten_them() -> None:
    curve = figure("loss", [(i, 3.0 - i / 100 if i != 150 else 50.0) for i in range(200)])
    assert curve["range"].endswith(", once 50")
    assert curve["high"] < 5
    assert max(curve["values"]) == 50


@pytest.mark.parametrize("points", [[(1, math.nan)], [(1, math.inf), (2, math.nan)], [(1, None)], []])
def test_a_curve_without_a_number_is_empty(points: list[tuple[float, Any]]) -> None:
    curve = figure("loss", points)
    assert (curve["steps"], curve["last"], curve["description"]) == ([], "–", "loss: no finite value")


def test_what_is_not_finite_is_left_out() -> None:
    assert figure("lr", [(1, 3.0), (2, None), (3, math.nan), (4, 2.0)])["steps"] == [1, 4]


@pytest.mark.parametrize("step", [math.nan, math.inf])
def test_a_point_of_no_finite_step_is_left_out(step: float) -> None:
    assert figure("lr", [(1, 3.0), (step, 2.0)])["steps"] == [1]


def test_a_flat_curve_and_a_single_point_can_be_drawn() -> None:
    assert figure("lr", [(1, 3.0), (2, 3.0)])["range"] == "3"
    single = figure("lr", [(1, 3.0)])
    assert (single["steps"], single["values"], single["low"], single["high"]) == ([1], [3], 3, 3)


def test_numbers_too_large_to_add_do_not_overflow() -> None:
    curve = figure("loss", [(i, 1e308) for i in range(10_000)])
    assert all(math.isfinite(value) for value in [*curve["values"], *curve["smooth"]])
