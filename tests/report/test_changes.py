"""The list of changes: largest first, the rest folded away, bounded."""

from __future__ import annotations

from typing import Any

import pytest

from mvcseg.errors import ConfigError
from mvcseg.report.changes import IN_SIGHT, MOST, change_list

NAMES = ("sky", "sea", "lake")
COLOURS = ("#000001", "#000002", "#000003")


def row(pixels: int, status: str = "changed", **other: object) -> dict[str, object]:
    return {"frames": [2, 5], "from": "sea", "to": "lake", "status": status, "pixels": pixels} | other


def listed(*videos: tuple[str, list[dict[str, object]]]) -> dict[str, Any]:
    return change_list(videos, class_names=NAMES, colours=COLOURS)


def test_the_largest_changes_come_first_and_the_rest_is_folded() -> None:
    rows = [row(pixels) for pixels in range(1, 11)]
    first, more, kept = listed(("clip", [*rows, row(99, "unclear")]))["groups"]
    assert [each["pixels"] for each in first["rows"]] == [10, 9, 8, 7, 6, 5]
    assert (more["heading"], len(more["rows"])) == ("4 smaller regions given another class", 10 - IN_SIGHT)
    assert (kept["heading"], kept["rows"][0]["outcome"]) == ("1 region that kept its class", "unclear, kept")


def test_the_summary_counts_every_outcome() -> None:
    rows = [row(1), row(2, "confirmed"), row(3, "failed"), row(4, "skipped"), row(5, "confirmed")]
    summary = listed(("clip", rows))["summary"]
    assert summary == "5 regions: 1 given another class; 2 confirmed; 1 not asked, kept; 1 no answer, kept."


def test_a_region_is_called_by_its_video_where_there_are_several() -> None:
    several = listed(("one", [row(1)]), ("two", [row(2, frames=(0, 0))]))["groups"][0]["rows"]
    assert [each["where"] for each in several] == ["two, frame 1", "one, frames 3–6"]
    assert [each["video"] for each in several] == [1, 0]
    assert listed(("one", [row(1)]))["groups"][0]["rows"][0]["where"] == "Frames 3–6"


def test_classes_are_found_by_name_and_by_id() -> None:
    by_name = listed(("clip", [row(1)]))["groups"][0]["rows"][0]
    by_id = listed(("clip", [row(1, **{"from": 1, "to": 2})]))["groups"][0]["rows"][0]
    assert by_name == by_id
    assert (by_id["from_colour"], by_id["to_name"]) == ("#000002", "lake")


def test_a_class_that_the_page_does_not_know_is_shown_without_colour() -> None:
    change = listed(("clip", [row(1, to="swamp")]))["groups"][0]["rows"][0]
    assert (change["to_name"], change["to_colour"]) == ("swamp", "transparent")


def test_very_many_regions_are_counted_and_not_all_listed() -> None:
    more = listed(("clip", [row(i) for i in range(MOST + IN_SIGHT + 7)]))["groups"][1]
    assert (len(more["rows"]), more["left_out"]) == (MOST, 7)


def test_no_changes_give_no_list() -> None:
    assert listed(("clip", []))["summary"] == ""


@pytest.mark.parametrize("frames", [None, [1], "ab", [1, "2"]])
def test_a_row_without_frames_is_refused(frames: object) -> None:
    with pytest.raises(ConfigError, match="changes: expected frames"):
        listed(("clip", [row(1, frames=frames)]))
