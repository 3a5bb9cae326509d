"""Ctrl-C that waits for the end of a training step, so that a checkpoint can be written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def interrupted_after_a_step(*, alone: bool) -> Iterator[Callable[[], bool]]:
    """A function that says whether Ctrl-C was pressed within the block; pressed again, it stops at once.

    Args:
        alone: whether one process trains. Several would each stop after another step, so there, and outside the
            main thread, which alone hears signals, Ctrl-C keeps its usual meaning and the function says False.
    """
    if not alone or threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.getsignal(signal.SIGINT)
    pressed: list[int] = []

    def press(number: int, frame: FrameType | None) -> None:
        pressed.append(number)
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, press)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, before)
