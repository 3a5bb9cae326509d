"""Bars on standard error: drawn for a terminal, silent elsewhere, and harmless either way."""

from __future__ import annotations

import io

import pytest
import tqdm
from torch import Tensor, zeros

from mvcseg.progress import frame_progress, progress_bar, watched_frames


class Terminal(io.StringIO):
    """Something to write to that says it is a terminal, or is none."""

    def __init__(self, *, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        return self._is_terminal


def drawn(monkeypatch: pytest.MonkeyPatch, *, is_terminal: bool) -> str:
    """What all three bars write to standard error where they do not wait."""
    stream = Terminal(is_terminal=is_terminal)
    monkeypatch.setattr("sys.stderr", stream)

    class Hasty(tqdm.tqdm):  # type: ignore[type-arg]
        def __init__(self, **options: object) -> None:
            super().__init__(**options | {"delay": 0, "mininterval": 0, "miniters": 1})

    monkeypatch.setattr(tqdm, "tqdm", Hasty)
    video = zeros(5, 3, 2, 2)
    with watched_frames(video) as watched:
        assert len(watched) == 5
        clip: Tensor = watched[1:4]
        assert len(clip) == 3
    with progress_bar("regions") as done:
        for count in range(1, 4):
            done(count, 3)
    with frame_progress() as advance:
        for name, step in (("a", 1), ("a", 2), ("b", 1), ("b", 2)):
            advance(name, step, 2)
    return stream.getvalue()


def test_terminal_sees_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    text = drawn(monkeypatch, is_terminal=True)
    assert "3 frames read" in text
    assert "3/3" in text
    assert "regions/s" in text
    assert "4/4" in text  # two videos of two frames


def test_file_holds_no_drawings(monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawn(monkeypatch, is_terminal=False) == ""
