"""The list of worst clips: different places, worst first, every prediction with its share."""

from __future__ import annotations

import math

from mvcseg.reporting.worst import worst_clips


def starts(clips: list, name: str) -> list[int]:  # type: ignore[type-arg]
    return [clip.frames[0] for clip in clips if clip.prediction == name]


def test_a_clip_that_shares_frames_with_a_worse_one_is_left_out() -> None:
    scores = {0: 0.9, 4: 0.5, 5: 0.4, 11: 0.6, 12: 0.6, 13: 0.55, 30: 0.8}
    clips = worst_clips({"a": scores})
    # 5 hides 4, 11 and 12 by their frames; 13 is the first that lies behind it
    assert [(clip.frames, clip.score) for clip in clips] == [((5, 12), 0.4), ((13, 20), 0.55), ((30, 37), 0.8)]
    assert clips[0].row(video="pan", measure="VC8") == {
        "video": "pan",
        "prediction": "a",
        "frames": (5, 12),
        "measure": "VC8",
        "score": 0.4,
    }


def test_of_equal_clips_the_first_is_taken() -> None:
    assert starts(worst_clips({"a": dict.fromkeys(range(20), 0.5)}), "a") == [0, 8, 16]


def test_every_prediction_has_its_share_of_the_ten_and_the_worst_comes_first() -> None:
    bad, good = ({start: base + start / 1000 for start in range(0, 400, 8)} for base in (0.1, 0.8))
    clips = worst_clips({"good": good, "bad": bad})
    assert starts(clips, "bad") == starts(clips, "good") == [0, 8, 16, 24, 32]
    assert [clip.prediction for clip in clips] == ["bad"] * 5 + ["good"] * 5
    assert len(worst_clips({"bad": bad})) == 10
    assert len(worst_clips({f"model {i}": bad for i in range(12)})) == 10


def test_clips_without_a_fault_or_without_a_score_are_no_failures() -> None:
    assert worst_clips({"a": {0: 1.0, 8: math.nan, 16: 0.99}, "b": {}}) == worst_clips({"a": {16: 0.99}})
    assert worst_clips({}) == []


def test_clips_that_look_better_than_the_mean_are_not_listed_but_for_three() -> None:
    scores = {0: 0.1, 8: 0.2, 16: 0.3, 24: 0.4, 32: 0.9, 40: 0.9, 48: 0.9}  # mean 52.9
    assert starts(worst_clips({"a": scores}), "a") == [0, 8, 16, 24]
    assert starts(worst_clips({"a": {0: 0.1, 8: 0.9, 16: 0.95, 24: 0.97, 32: math.nan}}), "a") == [0, 8, 16]
    even = {8 * i: 0.5 + i / 100_000 for i in range(6)}  # all print as their mean
    assert len(worst_clips({"a": even})) == 6
