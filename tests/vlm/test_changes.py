from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mvcseg.errors import DataError
from mvcseg.vlm import Change, ReplayVLM, ViewAnswer, read_changes, write_changes
from mvcseg.vlm.changes import add_changes, changes_of

CHANGED = Change(
    status="changed",
    reason="",
    frames=(2, 5),
    region=(1, 2, 30, 40),
    pixels=900,
    key_frame=3,
    group="water",
    from_class=36,
    from_name="river",
    shares=((36, 800), (37, 100)),
    to_class=37,
    to_name="lake",
    question="Is the water ...?",
    answer="a lake é",
    image="ab12",
    answers=(
        ViewAnswer(frame=3, image="ab12", answer="a lake é", to_class=37, to_name="lake"),
        ViewAnswer(frame=5, image="cd34", answer=None, reason="HTTP 500"),
    ),
)
FAILED = replace(CHANGED, status="failed", reason="HTTP 500", to_class=None, to_name=None, answer=None, answers=())


def test_log_reads_back_as_written(tmp_path: Path) -> None:
    write_changes(tmp_path / "changes.json", [CHANGED, FAILED])
    assert read_changes(tmp_path / "changes.json") == (CHANGED, FAILED)


def test_row_is_what_a_report_shows() -> None:
    row = CHANGED.row()
    assert json.loads(json.dumps(row)) == row
    assert (row["frames"], row["region"], row["from"], row["to"]) == ([2, 5], [1, 2, 30, 40], "river", "lake")
    assert (row["question"], row["answer"], row["reason"]) == ("Is the water ...?", "a lake é", "")
    assert FAILED.row()["to"] is None
    assert row["answers"] == [
        {"frame": 3, "answer": "a lake é", "to": "lake", "to_class": 37, "reason": "", "image": "ab12"},
        {"frame": 5, "answer": None, "to": None, "to_class": None, "reason": "HTTP 500", "image": "cd34"},
    ]


def test_log_of_one_question_a_region_still_reads(tmp_path: Path) -> None:
    old = {key: value for key, value in CHANGED.row().items() if key != "answers"}
    (tmp_path / "changes.json").write_text(json.dumps([old]))
    assert read_changes(tmp_path / "changes.json") == (replace(CHANGED, answers=()),)


def test_log_without_videos_still_reads(tmp_path: Path) -> None:
    old = {key: value for key, value in CHANGED.row().items() if key != "video"}
    (tmp_path / "changes.json").write_text(json.dumps([old]))
    assert read_changes(tmp_path / "changes.json") == (CHANGED,)


def test_each_video_has_its_own_records_in_one_log(tmp_path: Path) -> None:
    log = tmp_path / "new" / "changes.json"
    pan, tilt = replace(CHANGED, video="pan"), replace(FAILED, video="tilt")
    add_changes(log, [CHANGED], video="pan")
    add_changes(log, [FAILED, FAILED], video="tilt")
    assert read_changes(log) == (pan, tilt, tilt)
    assert changes_of(read_changes(log), video="pan") == (pan,)
    add_changes(log, [FAILED], video="pan")
    assert read_changes(log) == (tilt, tilt, replace(FAILED, video="pan"))
    add_changes(log, [], video="tilt")
    assert read_changes(log) == (replace(FAILED, video="pan"),)


def test_records_without_a_name_are_the_videos_that_is_asked_about(tmp_path: Path) -> None:
    log = tmp_path / "changes.json"
    write_changes(log, [CHANGED, replace(CHANGED, video="tilt")])
    assert changes_of(read_changes(log), video="pan") == (CHANGED,)
    add_changes(log, [FAILED], video="pan")
    assert [change.video for change in read_changes(log)] == ["tilt", "pan"]


def test_file_that_is_no_log_is_not_replaced(tmp_path: Path) -> None:
    log = tmp_path / "changes.json"
    log.write_text('{"mine": 1}')
    with pytest.raises(DataError, match="expected a JSON list of changes"):
        add_changes(log, [CHANGED], video="pan")
    assert log.read_text() == '{"mine": 1}'


def test_log_can_be_replayed(tmp_path: Path) -> None:
    changes = [replace(CHANGED, image="", answers=()), replace(FAILED, question="other?")]
    write_changes(tmp_path / "changes.json", changes)
    assert ReplayVLM(tmp_path / "changes.json")([], "Is the water ...?") == "a lake é"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"status": "applied"}, "row 1: status: expected one of changed, confirmed, unclear, failed, skipped"),
        ({"video": 3}, "row 1: video: expected a text"),
        ({"status": []}, "row 1: status"),
        ({"frames": [1]}, "row 1: frames: expected 2 integers"),
        ({"frames": "12"}, "row 1: frames"),
        ({"region": [1, 2, 3, 4.5]}, "row 1: region: expected 4 integers"),
        ({"pixels": True}, "row 1: pixels: expected an integer"),
        ({"shares": None}, "row 1: shares"),
        ({"shares": [[1]]}, "row 1: shares"),
        ({"question": None}, "row 1: question: expected a text"),
        ({"to_class": "lake"}, "row 1: to_class"),
        ({"answer": 3}, "row 1: answer"),
        ({"answers": {}}, "row 1: answers: expected a list"),
        ({"answers": [3]}, "row 1: answer 0: expected an object"),
        ({"answers": [{"frame": 3}]}, "row 1: answer 0: image: expected a text"),
        ({"answers": [{"frame": 3.5, "image": "", "reason": ""}]}, "row 1: answer 0: frame: expected an integer"),
    ],
)
def test_row_of_another_form_is_named(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "changes.json"
    path.write_text(json.dumps([FAILED.row(), {**CHANGED.row(), **change}]))
    with pytest.raises(DataError, match=message):
        read_changes(path)


@pytest.mark.parametrize("text", ["{}", "[3]", "[", "3"])
def test_other_files_are_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "changes.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"changes\.json: .*expected"):
        read_changes(path)
