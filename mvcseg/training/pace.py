"""How fast a run goes and when it will be done."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from mvcseg.errors import ConfigError

MEMORY = 0.95
"""Share of its weight that a step keeps with each later one: the last 20 steps or so decide."""


@dataclass(frozen=True)
class Speed:
    """What a run's pace is.

    Attributes:
        images_per_second: frames that all processes together learn from.
        seconds_left: until the last step; 0 after it.
    """

    images_per_second: float
    seconds_left: float


class Pace:
    """A running mean of the time that steps take, recent ones counting more.

    Args:
        total_steps: of the run.
        done: steps that were taken before, as on resuming.
        clock: tells the time in seconds; replaced in tests.

    Raises:
        ConfigError: the steps done are not between 0 and all.

    Example:
        >>> times = iter([0.0, 2.0, 4.0])
        >>> pace = Pace(5, clock=lambda: next(times))
        >>> pace.step(8)
        Speed(images_per_second=4.0, seconds_left=8.0)
        >>> pace.step(8)
        Speed(images_per_second=4.0, seconds_left=6.0)
    """

    def __init__(self, total_steps: int, *, done: int = 0, clock: Callable[[], float] = time.perf_counter) -> None:
        if not 0 <= done <= total_steps:
            raise ConfigError(f"done: expected 0 to {total_steps} steps, got {done!r}")
        self._left = total_steps - done
        self._clock = clock
        self._since = clock()
        self._steps = self._images = self._seconds = self._at_work = 0.0

    def step(self, images: int, *, seconds: float | None = None) -> Speed:
        """The pace after one more step.

        Args:
            images: frames that all processes together learned from in it.
            seconds: what the step itself took; None counts all that passed since the step before, scoring and
                checkpoints too, as the time left does in any case.
        """
        now = self._clock()
        self._left = max(self._left - 1, 0)
        self._steps = MEMORY * self._steps + 1
        self._images = MEMORY * self._images + images
        passed, self._since = now - self._since, now
        self._seconds = MEMORY * self._seconds + passed
        self._at_work = MEMORY * self._at_work + (passed if seconds is None else seconds)
        # a clock may be too coarse for so short a step
        rate = self._images / self._at_work if self._at_work > 0 else 0.0
        return Speed(rate, self._left * self._seconds / self._steps)


def clock_time(seconds: float) -> str:
    """A span of time as a progress line shows it.

    Example:
        >>> clock_time(75), clock_time(7265.4), clock_time(200_000)
        ('1:15', '2:01:05', '2 d 7:33')
    """
    whole = round(seconds)
    days, hours, minutes = whole // 86400, whole // 3600 % 24, whole // 60 % 60
    if days:
        return f"{days} d {hours}:{minutes:02}"
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"
