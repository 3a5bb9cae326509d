"""What is told before a run begins."""

from __future__ import annotations

import pytest
from filmed import position_video

from mvcseg.training.foresight import note_short_videos


def test_short_videos_are_named_by_what_is_true_of_every_sampling(capsys: pytest.CaptureFixture[str]) -> None:
    note_short_videos([position_video(3, name="long"), position_video(2, name="short")], clip_length=3)
    assert capsys.readouterr().err == (
        "note: 1 of 2 videos are shorter than clip_length = 3; their clips hold some frames more than once: short\n"
    )


def test_six_short_videos_are_five_names_and_more(capsys: pytest.CaptureFixture[str]) -> None:
    note_short_videos([position_video(1, name=f"v{index}") for index in range(6)], clip_length=2)
    assert capsys.readouterr().err.endswith("v0, v1, v2, v3, v4, ...\n")


def test_nothing_is_told_of_long_videos(capsys: pytest.CaptureFixture[str]) -> None:
    note_short_videos([position_video(3)], clip_length=3)
    assert capsys.readouterr().err == ""
