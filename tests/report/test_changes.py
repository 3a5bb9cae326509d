"""The list of changes: largest first, the rest folded away, bounded."""

from __future__ import annotations

from typing import Any

import pytest

from mvcseg.errors import ConfigError
from mvcseg.report.changes import FEW_VIEWS, IN_SIGHT, LONGEST, MANY, MOST, MOST_VIEWS, SHORT, change_list
from mvcseg.report.rendering import render

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
    assert (more["heading"], len(more["rows"])) == ("4 more regions changed, in fewer pixels", 10 - IN_SIGHT)
    assert (kept["heading"], kept["rows"][0]["outcome"]) == ("1 region that kept its class", "unclear, kept")


def test_the_summary_counts_every_outcome() -> None:
    rows = [row(1), row(2, "confirmed"), row(3, "failed"), row(4, "skipped"), row(5, "confirmed")]
    summary = listed(("clip", rows))["summary"]
    assert summary == "1 region changed: 1 pixel; 2 confirmed; 1 not asked, kept; 1 no answer, kept."


def test_what_changed_is_said_and_not_how_large_the_region_is() -> None:
    shares = {"from": "lake, sea", "to_class": 2, "shares": [[2, 1_758_796], [1, 134]]}
    large, small = row(1_758_930, **shares), row(500, shares=[[1, 300], [0, 200]], to_class=2)
    found = listed(("clip", [large, small, row(70, "confirmed", to="sea", to_class=1, shares=[[1, 70]])]))
    first, second = found["groups"][0]["rows"]
    assert (first["size"], second["size"]) == ("500 of 500 pixels changed", "134 of 1,758,930 pixels changed")
    assert second["before"] == [("lake", "#000003"), ("sea", "#000002")]
    assert found["groups"][2]["rows"][0]["size"] == "70 pixels"
    assert found["summary"] == "2 regions changed: 634 pixels; 1 confirmed."


def test_what_a_change_did_is_said_where_it_is_known() -> None:
    known, unknown = row(9, fixed=1200, broken=30), row(8, fixed=3)
    found = listed(("clip", [known, unknown]))["groups"][0]["rows"]
    assert [each["effect"] for each in found] == ["1,200 pixels from wrong to right, 30 from right to wrong", ""]


def test_shares_that_are_none_count_the_whole_region() -> None:
    for shares in (None, "ab", [[1]], [["x", 2]]):
        found = listed(("clip", [row(40, shares=shares, to_class=2)]))["groups"][0]["rows"][0]
        assert (found["size"], found["before"]) == ("40 of 40 pixels changed", [("sea", "#000002")])


def test_a_region_is_called_by_its_video_where_there_are_several() -> None:
    several = listed(("one", [row(1)]), ("two", [row(2, frames=(0, 0))]))["groups"][0]["rows"]
    assert [each["where"] for each in several] == ["two, frame 1", "one, frames 3–6"]
    assert [each["video"] for each in several] == [1, 0]
    assert listed(("one", [row(1)]))["groups"][0]["rows"][0]["where"] == "Frames 3–6"


def test_classes_are_found_by_name_and_by_id() -> None:
    by_name = listed(("clip", [row(1)]))["groups"][0]["rows"][0]
    by_id = listed(("clip", [row(1, **{"from": 1, "to": 2})]))["groups"][0]["rows"][0]
    assert by_name == by_id
    assert (by_id["before"], by_id["to_name"]) == ([("sea", "#000002")], "lake")


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


def answers(*views: object, **other: object) -> list[dict[str, Any]]:
    region = listed(("clip", [row(1, answers=list(views), **other)]))["groups"][0]["rows"][0]
    found: list[dict[str, Any]] = region["answers"]
    return found


def test_every_view_is_told_with_its_frame_class_and_words() -> None:
    first, second, third = answers(
        {"frame": 4, "answer": "Lake.", "to": "lake", "image": "ab"},
        {"frame": 2, "answer": '{"answer": "sea"}', "to": "sea"},
        {"frame": 5, "answer": "Hard to say", "to": None, "reason": "names no class asked about"},
    )
    assert (first["where"], first["frame"], first["name"], first["colour"], first["words"]) == (
        "Frame 5",
        4,
        "lake",
        "#000003",
        "",
    )
    assert (second["name"], second["words"]) == ("sea", '{"answer": "sea"}')
    assert (third["name"], third["words"], third["reason"]) == ("", "Hard to say", "names no class asked about")


def test_a_view_that_was_not_answered_says_so() -> None:
    only = answers({"frame": 3, "answer": None, "to": None, "reason": "timed out"})[0]
    assert (only["words"], only["reason"]) == ("no answer", "timed out")


def test_logs_without_views_and_views_that_are_no_rows_are_left_out() -> None:
    assert listed(("clip", [row(1)]))["groups"][0]["rows"][0]["answers"] == []
    assert answers("text", None, 3) == []
    assert answers({"answer": "lake"})[0]["frame"] == 2  # of no frame: the first of the region
    assert len(answers(*[{"frame": 2, "answer": "x"}] * 40)) == MOST_VIEWS


def test_an_answer_of_a_megabyte_is_cut() -> None:
    long = "lake " * 200_000
    said = {"answer": long, "reason": long}
    region = listed(("clip", [row(1, **said, answers=[{"frame": 2} | said])]))["groups"][0]["rows"][0]
    for text in (region["answer"], region["reason"], region["answers"][0]["words"], region["answers"][0]["reason"]):
        assert len(text) == LONGEST + 2
        assert text.endswith(" …")


def test_a_jump_says_what_it_leads_to() -> None:
    rows = listed(("clip", [row(1), row(2, "unclear")]))["groups"]
    assert rows[0]["rows"][0]["text"] == "Frames 3–6: sea became lake"
    assert rows[2]["rows"][0]["text"] == "Frames 3–6: sea, unclear, kept"


def wordy(pixels: int, *, text: str, status: str = "changed") -> dict[str, object]:
    view = {"frame": 2, "answer": text, "reason": text, "to": None}
    return row(pixels, status, question=text, answer=text, reason=text, answers=[view] * 20)


@pytest.mark.parametrize("text", ["a" * 5000, "\"'<&>" * 200, "\u202e\x1b" * 60, "🌊" * 500], ids=lambda text: text[:2])
def test_what_very_many_wordy_regions_take_of_a_page_is_bounded(text: str) -> None:
    statuses = ["changed", "unclear"] * 303
    rows = [wordy(pixels, text=text, status=status) for pixels, status in enumerate(statuses)]
    changes = change_list([("clip", rows)], class_names=NAMES, colours=COLOURS, max_bytes=400_000)
    page = [render(data={}, changes=each, scores={}, worst={}, class_tables=[]) for each in (changes, {})]
    assert 150_000 < len(page[0].encode()) - len(page[1].encode()) < 400_000
    groups: Any = changes["groups"]
    assert all(group["rows"] for group in groups)
    assert sum(len(group["rows"]) + group["left_out"] for group in groups) == 606
    assert len(groups[0]["rows"][0]["answers"]) == MOST_VIEWS  # those in sight are told in full
    assert len(groups[1]["rows"][0]["answers"]) == FEW_VIEWS
    assert len(groups[1]["rows"][0]["reason"]) == SHORT + 2


def test_a_few_wordy_regions_are_told_in_full() -> None:
    rows = [wordy(pixels, text="b" * LONGEST, status="unclear") for pixels in range(MANY)]
    kept = listed(("clip", rows))["groups"][2]
    assert (len(kept["rows"]), kept["left_out"]) == (MANY, 0)
    assert len(kept["rows"][-1]["answers"]) == MOST_VIEWS


def test_a_class_of_an_endless_name_is_cut() -> None:
    region = listed(("clip", [row(1, to="swamp" * 1000)]))["groups"][0]["rows"][0]
    assert len(region["to_name"]) == LONGEST + 2
