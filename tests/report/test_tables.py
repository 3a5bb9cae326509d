"""Tables of a page: cells by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mvcseg.errors import ConfigError
from mvcseg.report.tables import class_table, score_table

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


def test_equal_scores_are_marked_alike_and_not_at_all_where_none_is_worse() -> None:
    rows = [{"p": "a", "mIoU": 0.5}, {"p": "b", "mIoU": 0.5}]
    assert [cell[2] for cell in cells(score_table(rows), 0) + cells(score_table(rows), 1)] == [False, False]
    worse = score_table([*rows, {"p": "c", "mIoU": 0.4}])
    assert [cells(worse, i)[0][2] for i in range(3)] == [True, True, False]


def test_only_figures_that_look_better_are_the_best() -> None:
    table = score_table([{"p": "a", "mIoU": 0.500011}, {"p": "b", "mIoU": 0.500012}])
    assert [cells(table, i)[0][2] for i in range(2)] == [False, False]
    shares = {"a": [0.9112, 0.5], "b": [0.9114, 0.4]}
    by_class = class_table(shares, argument="iou", class_names=["x", "y"], colours=["#000000"] * 2)
    assert [[cell["best"] for cell in row["cells"]] for row in by_class["rows"]] == [[False, False], [True, False]]  # type: ignore[attr-defined]


def test_no_rows_give_no_table() -> None:
    assert score_table([]) == {"rows": []}


def test_known_scores_are_explained() -> None:
    names = [name for name, _ in score_table(ROWS)["meaning"]]  # type: ignore[attr-defined]
    assert names == ["mIoU", "VC8"]


def test_rows_of_other_columns_are_refused() -> None:
    with pytest.raises(ConfigError, match="scores: expected the columns"):
        score_table([{"p": "a", "mIoU": 0.5}, {"p": "b"}])


def test_per_class_rows_leave_out_classes_that_nothing_scores() -> None:
    table: dict[str, Any] = class_table(
        {"a": [0.25, math.nan, 0.5], "b": [0.75, math.nan, math.nan]},
        argument="class_iou",
        class_names=("sky", "sea", "sand"),
        colours=("#010203", "#040506", "#070809"),
    )
    assert table["names"] == ["a", "b"]
    assert [row["name"] for row in table["rows"]] == ["sky", "sand"]
    assert [cell["text"] for cell in table["rows"][0]["cells"]] == ["25.0", "75.0"]
    assert [cell["best"] for cell in table["rows"][0]["cells"]] == [False, True]
    assert [cell["text"] for cell in table["rows"][1]["cells"]] == ["50.0", "–"]


def test_per_class_values_of_another_number_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"class_steadiness\['a'\]: expected 2 values, got 1"):
        class_table({"a": [0.5]}, argument="class_steadiness", class_names=("x", "y"), colours=("#000000", "#ffffff"))
