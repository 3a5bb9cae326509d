"""When to ask a server again: what it says about that, one clock for all calls of a client, and an end to waiting."""

from __future__ import annotations

import email.utils
import math
import threading
import time
from collections.abc import Callable, Mapping
from datetime import timezone
from typing import TypeVar

LONGEST_WAIT = 120.0
"""Seconds that a server may have a call wait; one that asks for more is not waited for."""
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 8.0

Result = TypeVar("Result")


def asked_wait(headers: Mapping[str, str], *, now: float) -> float | None:
    """Seconds that ``Retry-After`` asks for, which holds seconds or an HTTP date; None where it holds neither.

    ``Retry-After-Ms``, which some servers send besides, is more exact and goes before it. A date in the past is 0.

    Args:
        headers: of the answer, names in lower case.
        now: the time in seconds since the epoch.

    Example:
        >>> asked_wait({"retry-after": "7"}, now=0.0)
        7.0
        >>> asked_wait({"retry-after": "Thu, 01 Jan 1970 00:01:00 GMT"}, now=45.0)
        15.0
    """
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "")) / unit
        except ValueError:
            continue
        return max(seconds, 0.0) if not math.isnan(seconds) else None
    try:
        date = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
        # A date of HTTP is in Greenwich's time; one that does not say so has none in Python, which takes it for local.
        date = date if date.tzinfo is not None else date.replace(tzinfo=timezone.utc)
        return max(date.timestamp() - now, 0.0)
    # Python before 3.11 raises TypeError for a text that is no date, and years out of range overflow.
    except (TypeError, ValueError, OverflowError, OSError):
        return None


def pause_after(tries: int) -> float:
    """Seconds to wait after so many failed tries where the server asks for none: 0.5 and doubling, 8 at most."""
    return min(_FIRST_PAUSE * 2.0 ** min(tries - 1, 10), _LONGEST_PAUSE)


class Pace:
    """A pause that one call was told to make, made by all calls of a client: a limit on rates is on all of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._until = 0.0

    def hold(self, seconds: float) -> None:
        """Let no call pass for so long, or as long as an earlier pause lasts."""
        with self._lock:
            self._until = max(self._until, time.monotonic() + seconds)

    def wait(self) -> None:
        """Return when the pause is over; also after `LONGEST_WAIT` seconds of pauses that follow each other."""
        end = time.monotonic() + LONGEST_WAIT
        while (pause := min(self._until, end) - time.monotonic()) > 0:
            time.sleep(pause)


def done_within(work: Callable[[], Result], *, seconds: float) -> Result:
    """The result of ``work``, or what it raises.

    Time limits of connections count from one byte to the next, and looking up a host's name has none at all. Work
    that is not done in time is left to itself, in a thread that keeps no program from ending.

    Raises:
        TimeoutError: it was not done in so many seconds.
    """
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        # Handed over whatever it is: the thread that called shall see what it would have seen.
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if errors:
        raise errors[0]
    if not results:
        raise TimeoutError(f"not done within {seconds:g} s")
    return results[0]
