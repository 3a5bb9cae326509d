from __future__ import annotations

import threading
import time
from email.utils import formatdate

import pytest

from mvcseg.vlm import pace
from mvcseg.vlm.pace import Pace, asked_wait, done_within, pause_after

NOW = 1_700_000_000.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": " 0.25 "}, 0.25),
        ({"retry-after": "0"}, 0.0),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "inf"}, float("inf")),
        ({"retry-after": "1e999"}, float("inf")),
        ({"retry-after-ms": "1500", "retry-after": "2"}, 1.5),
        ({"retry-after-ms": "soon", "retry-after": "2"}, 2.0),
        ({"retry-after": formatdate(NOW + 30, usegmt=True)}, 30.0),
        ({"retry-after": formatdate(NOW - 30, usegmt=True)}, 0.0),
        ({"retry-after": "Tue, 14 Nov 2023 23:13:50 +0100"}, 30.0),
        ({"retry-after": "Tue Nov 14 22:13:50 2023"}, 30.0),
        ({}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Mon, 99 Nov 2023 22:13:50 GMT"}, None),
        ({"retry-after": "Tue, 14 Nov 99999999 22:13:50 GMT"}, None),
    ],
)
def test_header_is_read_as_seconds_or_as_a_date(headers: dict[str, str], seconds: float | None) -> None:
    assert asked_wait(headers, now=NOW) == seconds


def test_date_without_a_zone_is_greenwich_time_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert asked_wait({"retry-after": "Tue Nov 14 22:13:50 2023"}, now=NOW) == 30.0
    finally:
        monkeypatch.undo()
        time.tzset()


def test_pauses_double_up_to_eight_seconds() -> None:
    assert [pause_after(tries) for tries in (1, 2, 3, 4, 5, 6, 10**6)] == [0.5, 1, 2, 4, 8, 8, 8]


def test_pause_of_one_is_a_pause_of_all() -> None:
    clock = Pace()
    passed: list[float] = []
    start = time.monotonic()
    clock.hold(0.3)
    clock.hold(0.1)  # a shorter one ends no longer one

    def pass_by() -> None:
        clock.wait()
        passed.append(time.monotonic() - start)

    threads = [threading.Thread(target=pass_by) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(passed) == 4
    assert all(0.3 <= seconds < 1.5 for seconds in passed)


def test_nobody_waits_where_no_pause_is_due() -> None:
    clock = Pace()
    clock.hold(0.0)
    start = time.monotonic()
    clock.wait()
    assert time.monotonic() - start < 0.1


def test_pause_that_is_renewed_for_ever_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "LONGEST_WAIT", 0.3)
    clock = Pace()
    clock.hold(1e9)
    start = time.monotonic()
    clock.wait()
    assert 0.3 <= time.monotonic() - start < 1.5


def test_result_and_errors_come_through() -> None:
    assert done_within(lambda: "done", seconds=5) == "done"
    assert done_within(lambda: None, seconds=5) is None
    with pytest.raises(ZeroDivisionError):
        done_within(lambda: 1 // 0, seconds=5)
    with pytest.raises(SystemExit):
        done_within(lambda: exit(3), seconds=5)


def test_work_that_does_not_end_is_left_to_itself() -> None:
    released = threading.Event()
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"not done within 0\.2 s"):
        done_within(lambda: released.wait(20), seconds=0.2)
    assert 0.2 <= time.monotonic() - start < 2
    released.set()
