"""A run's log as curves and its pictures by step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mvcseg.errors import DataError
from mvcseg.report.runs import run_curves, run_pictures
from mvcseg.reporting import report_run
from mvcseg.training.run_folder import LOG_FILE


def write_log(folder: Path, *rows: dict[str, object], end: str = "") -> Path:
    (folder / LOG_FILE).write_text("".join(json.dumps(row) + "\n" for row in rows) + end)
    return folder


def test_losses_come_first_then_scores_then_rate_and_speed(tmp_path: Path) -> None:
    row = {"images_per_second": 9.0, "lr": 0.1, "loss_dice": 0.5, "loss_masked": 2.0, "loss_clean": 1.0, "loss": 3.0}
    curves = run_curves(write_log(tmp_path, {"step": 1, **row}, {"step": 1, "mIoU": 0.5, "VC8": 0.9}))
    assert list(curves) == [
        "loss", "loss of clean clips", "loss of masked clips", "dice loss", "mIoU", "VC8", "learning rate",
        "images per second",
    ]  # fmt: skip
    assert curves["dice loss"] == [(1.0, 0.5)]


def test_without_masked_clips_the_clean_loss_is_not_shown_twice(tmp_path: Path) -> None:
    row = {"loss": 1.0, "loss_clean": 1.0, "loss_masked": None}
    assert list(run_curves(write_log(tmp_path, {"step": 1, **row}, {"step": 2, **row}))) == ["loss"]


def test_times_words_switches_and_broken_numbers_are_no_curves(tmp_path: Path) -> None:
    row = {"seconds": 1.0, "seconds_left": 9.0, "name": "a", "done": True, "loss": float("nan")}
    assert run_curves(write_log(tmp_path, {"step": 1, **row}, {"step": 2, "loss": 1})) == {"loss": [(2.0, 1.0)]}


def test_a_line_that_is_still_being_written_is_left_out(tmp_path: Path) -> None:
    assert run_curves(write_log(tmp_path, {"step": 1, "loss": 1.0}, end='{"step": 2, "lo')) == {"loss": [(1.0, 1.0)]}
    assert run_curves(write_log(tmp_path)) == {}


BROKEN = {
    "no JSON": "{broken",
    "no row": "[1]",
    "no step": '{"loss": 1.0}',
    "step null": '{"step": null}',
    "endless step": '{"step": 1e999}',
    "step NaN": '{"step": NaN}',
    "step of 400 digits": f'{{"step": {"9" * 400}}}',
    "loss of 400 digits": f'{{"step": 1, "loss": {"9" * 400}}}',
    "loss of 5,000 digits": f'{{"step": 1, "loss": {"9" * 5000}}}',
    "nested too deep": "[" * 100_000 + "]" * 100_000,
}


@pytest.mark.parametrize("line", BROKEN.values(), ids=BROKEN)
def test_a_broken_line_is_named(tmp_path: Path, line: str) -> None:
    with pytest.raises(DataError, match=rf'{LOG_FILE}: line 2: expected {{"step": ..., "loss": ...}}, got'):
        run_curves(write_log(tmp_path, {"step": 1, "loss": 1.0}, end=line + "\n"))


def test_a_broken_line_makes_no_page_of_the_run(tmp_path: Path) -> None:
    write_log(tmp_path, {"step": 1, "loss": 1.0}, end='{"step": 1e999, "loss": 1}\n')
    with pytest.raises(DataError, match=rf"{LOG_FILE}: line 2"):
        report_run(tmp_path, out=tmp_path / "page.html")


def test_a_folder_without_a_log_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=rf"{LOG_FILE}: cannot be read"):
        run_curves(tmp_path)


def test_pictures_are_sorted_by_step_and_other_files_left_alone(tmp_path: Path) -> None:
    assert run_pictures(tmp_path) == {}
    (tmp_path / "pictures").mkdir()
    for name in ("step_90.png", "step_100.png", "step_x.png", "step_5.txt", ".part-a-1-2.png"):
        (tmp_path / "pictures" / name).touch()
    assert [(step, file.name) for step, file in run_pictures(tmp_path).items()] == [
        (90, "step_90.png"),
        (100, "step_100.png"),
    ]
