"""Tables and curves of a page: cells by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mvcseg.errors import ConfigError
from mvcseg.report.tables import curve_figure, iou_table, score_table

ROWS: list[dict[str, object]] = [
    {"step": "plain", "mIoU": 0.5, "VC8": 0.9, "note": "as is", "questions": 0},
    {"step": "MVC", "mIoU": 0.6125, "VC8": math.nan, "note": "", "questions": 1200},
    {"step": "+ TTA", "mIoU": 0.49, "VC8": None, "note": "", "questions": 3},
]


def cells(table: dict[str, Any], row: int) -> list[tuple[str, str, bool]]:
    return [(cell["text"], cell["gain"], cell["best"]) for cell in table["rows"][row]["cells"]]


def test_fractions_show_as_percent_with_their_gain_over_the_first_row() -> None:
    table = score_table(ROWS)
    assert cells(table, 0)[0] == ("50.00", "", False)
    assert cells(table, 1)[0] == ("61.25", "+11.25", True)
    assert cells(table, 2)[0] == ("49.00", "−1.00", False)


def test_missing_scores_show_as_a_dash() -> None:
    table = score_table(ROWS)
    assert [cells(table, row)[1][0] for row in range(3)] == ["90.00", "–", "–"]


def test_texts_and_counts_show_as_they_are() -> None:
    table = score_table(ROWS)
    assert cells(table, 1)[3] == ("1,200", "", False)
    assert cells(table, 0)[2][0] == "as is"


def test_where_lower_is_better_the_smallest_is_the_best() -> None:
    rows = [{"p": "a", "changed": 0.02}, {"p": "b", "changed": 0.01}]
    table: dict[str, Any] = score_table(rows, lower_is_better=("changed",))
    assert [cells(table, row)[0][2] for row in range(2)] == [False, True]
    assert table["rows"][1]["cells"][0]["direction"] == "better"


def test_a_single_row_has_no_best_and_no_gain() -> None:
    table = score_table(ROWS[:1])
    assert not table["has_best"]
    assert not table["has_gain"]


def test_equal_scores_are_marked_alike() -> None:
    table = score_table([{"p": "a", "mIoU": 0.5}, {"p": "b", "mIoU": 0.5}])
    assert cells(table, 1)[0] == ("50.00", "±0.00", True)


def test_no_rows_give_no_table() -> None:
    assert score_table([]) == {"rows": []}


def test_known_scores_are_explained() -> None:
    names = [name for name, _ in score_table(ROWS)["meaning"]]  # type: ignore[attr-defined]
    assert names == ["mIoU", "VC8"]


def test_rows_of_other_columns_are_refused() -> None:
    with pytest.raises(ConfigError, match="scores: expected the columns"):
        score_table([{"p": "a", "mIoU": 0.5}, {"p": "b"}])


def test_per_class_rows_leave_out_classes_that_nothing_scores() -> None:
    table: dict[str, Any] = iou_table(
        {"a": [0.25, math.nan, 0.5], "b": [0.75, math.nan, math.nan]},
        class_names=("sky", "sea", "sand"),
        colours=("#010203", "#040506", "#070809"),
    )
    assert table["names"] == ["a", "b"]
    assert [row["name"] for row in table["rows"]] == ["sky", "sand"]
    assert [cell["text"] for cell in table["rows"][0]["cells"]] == ["25.0", "75.0"]
    assert [cell["best"] for cell in table["rows"][0]["cells"]] == [False, True]
    assert [cell["text"] for cell in table["rows"][1]["cells"]] == ["50.0", "–"]


def test_per_class_values_of_another_number_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"class_iou\['a'\]: expected 2 values, got 1"):
        iou_table({"a": [0.5]}, class_names=("x", "y"), colours=("#000000", "#ffffff"))


def test_a_curve_runs_from_corner_to_corner() -> None:
    curve = curve_figure("loss", [(0, 2.0), (5, 1.0), (10, 0.0)])
    assert curve["path"] == "M0.0 5.0L160.0 55.0L320.0 105.0"
    assert curve["last"] == "0"
    assert "loss: 2 at step 0, 0 at step 10" in str(curve["description"])


def test_a_long_curve_is_thinned_to_means_and_smoothed() -> None:
    curve = curve_figure("loss", [(i, float(i % 2)) for i in range(10_000)])
    assert str(curve["path"]).count("L") < 400
    assert curve["smooth"]


def test_steps_of_a_thinned_curve_are_those_of_the_run() -> None:
    curve = curve_figure("loss", [(i, 1.0) for i in range(1, 2001)])
    assert (curve["start"], curve["end"]) == ("step 1", "2000")


def test_few_points_are_dots_and_many_a_smooth_line() -> None:
    few, many = (curve_figure("mIoU", [(i, 0.1 * i) for i in range(count)]) for count in (3, 20))
    assert few["dots"] == "M0.0 105.0h0M160.0 55.0h0M320.0 5.0h0"
    assert (few["smooth"], many["dots"]) == ("", "")
    assert many["smooth"]


def test_a_loss_over_orders_of_magnitude_has_a_logarithmic_axis() -> None:
    curve = curve_figure("mask loss", [(0, 100.0), (5, 10.0), (10, 1.0)])
    assert curve["path"] == "M0.0 5.0L160.0 55.0L320.0 105.0"
    assert curve["range"] == "1 to 100, log scale"
    for name, points in (("learning rate", [(0, 100.0), (10, 1.0)]), ("loss", [(0, 100.0), (10, 0.0)])):
        assert "log" not in str(curve_figure(name, points)["range"])


def test_one_value_far_beyond_the_others_does_not_flatten_them() -> None:
    curve = curve_figure("loss", [(i, 3.0 - i / 100 if i != 150 else 50.0) for i in range(200)])
    assert str(curve["range"]).endswith(", once 50")
    heights = [float(spot.split()[1]) for spot in str(curve["path"]).lstrip("M").split("L")]
    assert heights[150] == 5.0
    assert min(heights[:100]) < 70 < heights[199]


@pytest.mark.parametrize("points", [[(1, math.nan)], [(1, math.inf), (2, math.nan)], []])
def test_a_curve_without_a_number_is_empty(points: list[tuple[float, float]]) -> None:
    assert curve_figure("loss", points)["path"] == ""


def test_a_flat_curve_and_a_single_point_can_be_drawn() -> None:
    assert curve_figure("lr", [(1, 3.0), (2, 3.0)])["path"] == "M0.0 105.0L320.0 105.0"
    single = curve_figure("lr", [(1, 3.0)])
    assert single["path"] == "M0.0 105.0"
    assert (single["start"], single["end"], single["range"]) == ("step 1", "", "3")
