"""Peak memory of fresh processes."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
linux = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")


@pytest.fixture
def peak_memory(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("peak_memory")


@linux
def test_the_peak_tells_memory_that_is_given_back(peak_memory: ModuleType) -> None:
    before = peak_memory.resident("VmHWM")
    row = peak_memory.measured(lambda: None, lambda _: torch.ones(1 << 28), frames=1)  # a gibibyte, soon freed
    assert row["peak_gib"] > before / 2**30
    assert row["peak_gib"] > row["model_loaded_gib"] + 0.5


@linux
def test_an_entry_that_is_not_there_is_an_error(peak_memory: ModuleType) -> None:
    with pytest.raises(OSError, match="no VmNone"):
        peak_memory.resident("VmNone")


def test_a_video_is_the_same_whatever_its_length_and_clips(peak_memory: ModuleType) -> None:
    short, long = (peak_memory.Drifting(length, (32, 48)) for length in (5, 9))
    assert short[:].shape == (5, 3, 32, 48)
    assert torch.equal(torch.cat([long[:2], long[2:5]]), short[:])
    assert not torch.equal(short[:1], short[1:2])


def test_an_answer_serves_for_as_many_frames_as_asked(peak_memory: ModuleType) -> None:
    asked: list[int] = []
    call = peak_memory.repeating(lambda frame: asked.append(frame) or frame, 3)  # type: ignore[func-returns-value]
    assert [call(frame) for frame in range(7)] == [0, 0, 0, 3, 3, 3, 6]
    assert asked == [0, 3, 6]


def test_the_last_line_of_a_command_is_its_answer(peak_memory: ModuleType) -> None:
    assert peak_memory.answer_of([sys.executable, "-c", "print('a word'); print('{\"frames\": 6}')"]) == {"frames": 6}
