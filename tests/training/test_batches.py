"""Reading the clips of a run: what fails is told as what it is."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from filmed import position_video

from mvcseg.data.clip import PackedClip
from mvcseg.data.clips import ClipDataset
from mvcseg.errors import DataError, TrainingError
from mvcseg.training import TrainConfig
from mvcseg.training.batches import clip_dataset, iter_steps, read_by_thread


def read(workers: int) -> list[list[PackedClip]]:
    config = TrainConfig(steps=2, clip_length=2, crop_size=(32, 32), batch_size=2, num_workers=workers)
    clips = clip_dataset(config, [position_video()], processes=1)
    return list(iter_steps(config, clips, first_step=0, process=0, processes=1, pin_memory=False))


def fail_with(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def packed(self: ClipDataset, index: int) -> PackedClip:
        raise error

    monkeypatch.setattr(ClipDataset, "packed", packed)


def test_a_step_holds_its_samples() -> None:
    assert [[batch.sample.tolist() for batch in step] for step in read(0)] == [[[0, 1]], [[2, 3]]]  # type: ignore[attr-defined]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_mistake_in_the_program_is_no_dead_worker(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(RuntimeError("a mistake"), monkeypatch)
    with pytest.raises(RuntimeError, match="a mistake") as error:
        read(workers)
    assert not isinstance(error.value, TrainingError)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_disk_that_refuses_is_told_with_the_frames(workers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fail_with(OSError(24, "Too many open files"), monkeypatch)
    with pytest.raises(DataError, match=r"^video a, frames \d+, \d+: cannot be read \(Too many open files\)$"):
        read(workers)


def test_one_item_is_read_ahead_by_another_thread() -> None:
    has_begun, makers = [threading.Event() for _ in range(3)], set()

    def items() -> Iterator[int]:
        for number, event in enumerate(has_begun):
            makers.add(threading.get_ident())
            event.set()
            yield number

    read = read_by_thread(items())
    assert not has_begun[0].is_set()
    assert next(read) == 0
    assert has_begun[1].wait(timeout=60)  # made although nobody asked
    assert not has_begun[2].is_set()
    assert list(read) == [1, 2]
    assert threading.get_ident() not in makers


def test_what_fails_in_advance_is_raised_where_it_is_asked_for() -> None:
    def items() -> Iterator[int]:
        yield 0
        raise DataError("frame 7: gone")

    read = read_by_thread(items())
    assert next(read) == 0
    with pytest.raises(DataError, match="frame 7"):
        next(read)


def test_a_reader_that_is_left_ends() -> None:
    read = read_by_thread(iter(range(1000)))
    before = threading.active_count()
    next(read)
    read.close()
    assert threading.active_count() == before
