"""The share of training that waits for clips."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from mvcseg.data.toy import write_toy_set


@pytest.fixture
def wait(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("training_wait")


def test_only_the_time_inside_next_is_noted(wait: ModuleType) -> None:
    now = [0.0]

    def batches() -> Iterator[int]:
        for number in range(3):
            now[0] += 2
            yield number

    times: list[tuple[float, float]] = []
    found = []
    for batch in wait.noted(batches(), times, clock=lambda: now[0]):
        found.append(batch)
        now[0] += 10
    assert found == [0, 1, 2]
    assert times == [(0, 2), (12, 14), (24, 26)]


def test_shares_by_hand(wait: ModuleType) -> None:
    times = [(0, 9), (10, 19), (20, 21), (30, 33), (50, 50.0)]  # two to warm up, the last is not counted
    row = wait.shares(times)
    assert row["steps"] == 2
    assert row["step_seconds_median"] == 15
    assert row["wait_seconds_median"] == 2
    assert row["wait_share"] == round(4 / 30, 4)
    assert row["first_wait_seconds"] == 9


@pytest.mark.parametrize("workers", [0, 1])
def test_a_run_is_measured_and_the_loop_left_as_it_was(wait: ModuleType, tmp_path: Path, workers: int) -> None:
    root = write_toy_set(tmp_path / "toy", videos={"train": 1}, frames=3, size=(48, 64))
    numbers = {"steps": 5, "clip_length": 2, "crop_size": [32, 32], "batch_size": 1, "gradient_accumulation": 2}
    before = wait.loop.iter_steps
    row = wait.measured(numbers, root=root, workers=workers)
    assert wait.loop.iter_steps is before
    assert (row["steps"], row["frames_a_step"], row["workers"]) == (2, 4, workers)
    assert len(row["seconds"]["wait"]) == 2
    assert 0 < row["wait_share"] < 1
    assert row["environment"]["cores"] >= 1


def test_every_run_is_a_configuration(wait: ModuleType) -> None:
    for numbers in wait.RUNS.values():
        assert wait.TrainConfig.from_dict(numbers).steps > wait.UNCOUNTED + 1
