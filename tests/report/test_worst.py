"""The list of worst clips: what a row says and where it leads."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mvcseg.errors import ConfigError
from mvcseg.report.worst import MOST, worst_list

VIDEOS = [("one", ["plain", "MVC"]), ("two", ["MVC"])]


def row(**other: object) -> dict[str, object]:
    return {"video": "two", "prediction": "MVC", "frames": (4, 11), "measure": "VC8", "score": 0.8125} | other


def listed(*rows: dict[str, object]) -> dict[str, Any]:
    return worst_list(VIDEOS, rows)


def test_a_row_leads_to_the_frames_of_its_video_and_prediction() -> None:
    only = listed(row())["rows"][0]
    assert (only["video"], only["first"], only["last"], only["prediction"]) == (1, 4, 11, "MVC")
    assert (only["where"], only["score"], only["value"]) == ("Frames 5–12", "81.2", "0.8125")
    assert only["text"] == "Frames 5–12 of MVC: VC8 81.2"


def test_rows_stay_in_the_order_given() -> None:
    assert [each["score"] for each in listed(row(score=0.9), row(score=0.1))["rows"]] == ["90.0", "10.0"]


@pytest.mark.parametrize("score", [None, math.nan, math.inf, "x"])
def test_a_row_without_a_score_shows_a_dash(score: object) -> None:
    only = listed(row(score=score))["rows"][0]
    assert (only["score"], only["value"]) == ("–", "")


def test_measures_are_a_column_only_where_they_differ() -> None:
    assert (listed(row())["has_measures"], listed(row())["measure"]) == (False, "VC8")
    assert listed(row(), row(measure="IoU"))["has_measures"]
    assert listed(row())["has_videos"]
    assert not worst_list(VIDEOS[:1], [row(video="one")])["has_videos"]


def test_very_many_rows_are_counted_and_not_all_listed() -> None:
    many = listed(*[row()] * (MOST + 3))
    assert (len(many["rows"]), many["left_out"]) == (MOST, 3)
    assert listed()["rows"] == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"video": "three"}, "worst: expected a video of the page"),
        ({"prediction": "plain"}, "worst: expected a prediction of the video 'two'"),
        ({"frames": [3]}, r"worst: expected frames \(first, last\), got \[3\]"),
    ],
)
def test_a_row_that_leads_nowhere_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        listed(row(**change))
