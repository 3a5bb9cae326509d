"""The pace of a run against a clock that a test turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from mvcseg.errors import ConfigError
from mvcseg.training.pace import MEMORY, Pace, clock_time


def ticking(seconds: Sequence[float]) -> Callable[[], float]:
    """A clock that starts at 100 and moves on by these."""
    now = [100.0]
    for span in seconds:
        now.append(now[-1] + span)
    return iter(now).__next__


def test_equal_steps_have_one_speed_and_the_rest_of_the_run_is_their_multiple() -> None:
    pace = Pace(10, clock=ticking([0.5] * 4))
    speeds = [pace.step(6) for _ in range(4)]
    assert [speed.images_per_second for speed in speeds] == pytest.approx([12] * 4)
    assert [speed.seconds_left for speed in speeds] == pytest.approx([4.5, 4.0, 3.5, 3.0])


def test_recent_steps_count_more() -> None:
    pace = Pace(1000, clock=ticking([1.0] * 100 + [3.0] * 100))
    for _ in range(100):
        before = pace.step(2)
    speeds = [pace.step(2).images_per_second for _ in range(100)]
    assert before.images_per_second == pytest.approx(2)
    assert speeds == sorted(speeds, reverse=True)
    assert speeds[0] > 1.5
    assert speeds[-1] == pytest.approx(2 / 3, rel=0.02)


def test_two_steps_are_weighted_by_their_age() -> None:
    pace = Pace(4, clock=ticking([1.0, 2.0]))
    pace.step(8)
    speed = pace.step(4)
    assert speed.images_per_second == pytest.approx((MEMORY * 8 + 4) / (MEMORY * 1 + 2))
    assert speed.seconds_left == pytest.approx(2 * (MEMORY * 1 + 2) / (MEMORY + 1))


def test_a_resumed_run_has_only_what_is_left_before_it() -> None:
    pace = Pace(10, done=8, clock=ticking([2.0] * 3))
    assert [pace.step(1).seconds_left for _ in range(3)] == [2.0, 0.0, 0.0]


def test_what_lies_between_steps_counts_for_the_time_left_alone() -> None:
    pace = Pace(10, clock=ticking([2.0] * 3))
    for _ in range(3):
        speed = pace.step(6, seconds=0.5)
    assert (speed.images_per_second, speed.seconds_left) == (pytest.approx(12), pytest.approx(14))


def test_no_time_passing_gives_no_speed() -> None:
    speed = Pace(3, clock=ticking([0.0])).step(4)
    assert (speed.images_per_second, speed.seconds_left) == (0.0, 0.0)


@pytest.mark.parametrize("done", [-1, 4])
def test_more_steps_done_than_there_are_is_refused(done: int) -> None:
    with pytest.raises(ConfigError, match="done: expected 0 to 3 steps"):
        Pace(3, done=done)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3600, "1:00:00"), (86_399, "23:59:59"), (90_061, "1 d 1:01")],
)
def test_spans_read_as_clocks_do(seconds: float, text: str) -> None:
    assert clock_time(seconds) == text
